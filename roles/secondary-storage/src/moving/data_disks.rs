//! The disks of an OVA: which there are, and one of them as a template of its own.
//!
//! The files of an OVA lie unpacked beside it. A disk that becomes another template moves to that
//! template's directory, with a description that is cut down to it; the first disk stays where it is.
//! As with the original, the OVA of a template made so is described beside it (`.ova.meta`), for whoever
//! packs it; where the OVA at hand has no other disk, it gets that name as well.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_protocol::storage::DatadiskTO;
use bytes::Bytes;
use disk_image::ovf::{MAX_LENGTH, Ovf, OvfError, with_one_file};
use java_properties::Properties;

use super::copy::{Original, copy};
use super::snapshot::write_small;
use super::staging::Staging;
use super::{MoveError, Moves, Permit};
use crate::objects::ovf;
use crate::stores::{EntryKind, FileName, InstallPath, ObjectKind, Store, Work};

const OVA: &str = ".ova";
const OVF: &str = ".ovf";
/// What the original keeps the whole description as.
const KEPT: &str = ".orig";
const LOOK: &str = "look at the disks of an OVA";

/// A disk that is to be a template.
#[derive(Debug)]
pub struct DiskOrder {
    pub store: Arc<Store>,
    /// Its file, as [`Moves::data_disks`] told it.
    pub path: String,
    /// The new template's directory.
    pub directory: InstallPath,
    pub id: i64,
    pub unique_name: FileName,
    pub virtual_size: u64,
    /// The disk stays where it is.
    pub bootable: bool,
}

/// A description as it lies beside its files.
struct Described {
    name: FileName,
    bytes: Bytes,
    files: BTreeMap<String, u64>,
}

impl Moves {
    /// Every disk that the description beside an OVA tells, for one configuration of the machine.
    pub async fn data_disks(
        &self,
        store: &Arc<Store>,
        path: &InstallPath,
        configuration: Option<&str>,
    ) -> Result<Vec<DatadiskTO>, MoveError> {
        let directory = directory_of(path)?;
        let permit = self.enter(store, &directory, None).await?;
        let described = described(store, &directory).await?;
        self.keep_description(store, &directory, &described, &permit).await?;
        let place = format!("{}/{directory}", store.place());
        let Described { name, bytes, files } = described;
        let read = move || {
            let told = ovf::information(&bytes, &place, &files);
            told.map(|told| (told.disks.unwrap_or_default(), files))
        };
        let told = self.tasks.blocking("read a description", read).await?;
        let (mut disks, files) = told.map_err(|source| unreadable(&name, source))?;
        disks.retain(|disk| {
            let of = disk.configuration.as_deref().unwrap_or_default();
            of.is_empty()
                || configuration.is_none_or(|wanted| of.split_whitespace().any(|one| one == wanted))
        });
        for disk in &disks {
            let file = disk.path.as_deref().and_then(|path| path.rsplit('/').next());
            let file = file.unwrap_or_default();
            if !files.contains_key(file) {
                let text = format!("{name} refers to {file:?}, which is not in {directory}");
                return Err(MoveError::Refused(text));
            }
        }
        Ok(disks)
    }

    async fn keep_description(
        &self,
        store: &Arc<Store>,
        directory: &InstallPath,
        described: &Described,
        permit: &Permit,
    ) -> Result<(), MoveError> {
        let kept: FileName = format!("{}{KEPT}", described.name).parse()?;
        let targets = vec![(directory.clone(), kept)];
        let staging = Staging::begin(self, store, None, targets).await?;
        let written = permit.during(write_small(&staging, 0, described.bytes.clone())).await;
        staging.conclude(written, permit).await
    }

    /// Makes a template of one disk; gives its path and the bytes of its file.
    pub async fn disk_template(&self, order: &DiskOrder) -> Result<(InstallPath, u64), MoveError> {
        let DiskOrder { store, directory, unique_name, .. } = order;
        if ObjectKind::Template.directory(directory).as_ref() != Some(directory) {
            let text = format!("{directory} is not the directory of a template");
            return Err(MoveError::Refused(text));
        }
        let source = place_of(&order.path)?;
        let (from, disk) = source.split().ok_or_else(|| not_a_disk(&order.path))?;
        if order.bootable != (from == *directory) {
            let text = format!("{source} is not a disk for a template in {directory}");
            return Err(MoveError::Refused(text));
        }
        let permit = self.enter(store, directory, None).await?;
        let described = described(store, &from).await?;
        let kept: FileName = format!("{}{KEPT}", described.name).parse()?;
        let whole = match read(store, &from.join(kept.clone())).await? {
            Some(bytes) => bytes,
            None => described.bytes.clone(),
        };
        let one = with_one_file(&whole, disk.as_str());
        let one = one.map_err(|source| unreadable(&described.name, source))?;
        let disks = Ovf::parse(&whole).map_err(|source| unreadable(&kept, source))?.disks.len();
        let original = Original::open(store, &source).await?;
        let length = original.length();
        let kind = ObjectKind::Template;
        let in_directory = |name: &FileName| (directory.clone(), name.clone());
        let meta: FileName = format!("{unique_name}{OVA}.meta").parse()?;
        let mut targets = vec![in_directory(&described.name), in_directory(&meta)];
        if !order.bootable {
            targets.extend([in_directory(disk), in_directory(&kept)]);
        }
        targets.push(in_directory(&kind.properties_file()));
        let last = targets.len() - 1;
        let staging = Staging::begin(self, store, Some((kind, directory.clone())), targets).await?;
        let filling = async {
            write_small(&staging, 0, one.into()).await?;
            let text = meta_of(&described.name, disk, unique_name, length);
            write_small(&staging, 1, text.to_bytes(self.host.clock.now()).into()).await?;
            if !order.bootable {
                let progress = permit.progress();
                drop(copy(&original, &staging, 2, progress).await?);
                write_small(&staging, 3, whole).await?;
            }
            let text = properties(order, length);
            write_small(&staging, last, text.to_bytes(self.host.clock.now()).into()).await
        };
        let filled = permit.during(filling).await;
        staging.conclude(filled, &permit).await?;
        if order.bootable && disks == 1 {
            self.name_whole_ova(order, &described).await;
        }
        if !order.bootable {
            let work = Work::new();
            let removing = store.engine().remove_file(&work, source.clone());
            store.run("remove a disk that was moved", removing).await?;
        }
        let name = match disk.as_str() {
            iso if iso.to_ascii_lowercase().ends_with(".iso") => disk.clone(),
            _ => format!("{unique_name}{OVA}").parse()?,
        };
        Ok((directory.join(name), length))
    }

    /// The OVA that was registered is that of the template as long as there is no other disk in it.
    async fn name_whole_ova(&self, order: &DiskOrder, described: &Described) {
        let DiskOrder { store, directory, unique_name, .. } = order;
        let Ok(second) = format!("{unique_name}{OVA}").parse::<FileName>() else { return };
        let mut whole = described.files.keys().filter(|name| name.ends_with(OVA));
        let (Some(only), None) = (whole.next(), whole.next()) else { return };
        let Ok(name) = only.parse::<FileName>() else { return };
        if name == second {
            return;
        }
        let work = Work::new();
        let keeping = store.engine().keep(&work, directory.clone(), name, second);
        if let Err(error) = store.run("give an OVA its name", keeping).await {
            let error = bedrock::chain(&error);
            tracing::info!(error, path = %directory, "the OVA of the template is to be packed by others");
        }
    }
}

/// Of a template's path: a file in it, or itself.
fn directory_of(path: &InstallPath) -> Result<InstallPath, MoveError> {
    let is_file = path.parts().last().is_some_and(|name| name.as_str().ends_with(OVA));
    let directory = match path.split() {
        Some((directory, _)) if is_file => directory,
        _ => path.clone(),
    };
    let wrong = || MoveError::Refused(format!("{path} is not the place of a template"));
    ObjectKind::Template.directory(&directory).filter(|own| *own == directory).ok_or_else(wrong)
}

fn not_a_disk(text: &str) -> MoveError {
    MoveError::Refused(format!("{text:?} is not a file of a template"))
}

/// The path below the store in one that begins with where the store is.
fn place_of(text: &str) -> Result<InstallPath, MoveError> {
    let tree = ObjectKind::Template.tree().to_string();
    let below = text.rfind(&format!("{tree}/")).and_then(|at| text.get(at..));
    let path: InstallPath = below.ok_or_else(|| not_a_disk(text))?.parse()?;
    let is_file = ObjectKind::Template.directory(&path).is_some_and(|own| own != path);
    if is_file { Ok(path) } else { Err(not_a_disk(text)) }
}

fn unreadable(name: &FileName, source: OvfError) -> MoveError {
    MoveError::Refused(format!("{name} {source}"))
}

async fn read(store: &Arc<Store>, path: &InstallPath) -> Result<Option<Bytes>, MoveError> {
    let Some(file) = Original::find(store, path).await? else { return Ok(None) };
    if file.length() > MAX_LENGTH {
        return Err(MoveError::Refused(format!("{path} is too long to be a description")));
    }
    let reading = file.file().read(0..file.length());
    Ok(Some(store.run(LOOK, reading).await?))
}

/// The one description in a directory.
async fn described(store: &Arc<Store>, directory: &InstallPath) -> Result<Described, MoveError> {
    let work = Work::new();
    let entries = store.engine().entries(&work, Some(directory.clone()));
    let entries = store.run(LOOK, entries).await?.unwrap_or_default();
    let files: BTreeMap<String, u64> = entries
        .into_iter()
        .filter(|entry| entry.kind == EntryKind::File)
        .map(|entry| (entry.name, entry.size))
        .collect();
    let missing = || {
        let text = format!("there is no description ({OVF}) of an OVA in {directory}");
        MoveError::Refused(text)
    };
    let name: FileName =
        files.keys().find(|name| name.ends_with(OVF)).ok_or_else(missing)?.parse()?;
    let bytes = read(store, &directory.join(name.clone())).await?.ok_or_else(missing)?;
    Ok(Described { name, bytes, files })
}

fn meta_of(ovf: &FileName, disk: &FileName, unique_name: &FileName, length: u64) -> Properties {
    let mut meta = Properties::new();
    meta.set("ova.filename", format!("{unique_name}{OVA}"));
    meta.set("version", "1.0");
    meta.set("ovf", ovf.as_str());
    meta.set("numDisks", "1");
    meta.set("disk1.name", disk.as_str());
    meta.set("disk1.size", length.to_string());
    meta
}

fn properties(order: &DiskOrder, length: u64) -> Properties {
    let file = format!("{}{OVA}", order.unique_name);
    let (size, virtual_size) = (length.to_string(), order.virtual_size.to_string());
    let mut properties = Properties::new();
    properties.set("filename", &file);
    properties.set("description", "privateTemplate");
    properties.set("hvm", "false");
    properties.set("size", &size);
    properties.set("ova", "false");
    properties.set("id", order.id.to_string());
    properties.set("ova.filename", &file);
    properties.set("uniquename", order.unique_name.as_str());
    properties.set("ova.virtualsize", &virtual_size);
    properties.set("virtualsize", &virtual_size);
    properties.set("ova.size", &size);
    properties.set("checksum", "");
    properties.set("public", "false");
    properties
}
