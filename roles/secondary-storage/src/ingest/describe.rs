//! The machine that an OVA describes: read from the archive that was received, or from the files of
//! an object that is on its store since an earlier run of this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use role::TaskScope;

use super::error::IngestError;
use crate::objects::inventory::Item;
use crate::objects::ovf;
use crate::stores::{EntryKind, InstallPath, Opened, Store, Work};
use agent_protocol::storage::OVFInformationTO;
use disk_image::ova::{OvaError, Package};
use disk_image::ovf::{MAX_LENGTH, OvfError};

/// What the description in an archive says. `directory` is where its files are unpacked.
pub(super) async fn of_archive(
    tasks: &TaskScope,
    store: &Store,
    directory: &InstallPath,
    package: Package,
    archive: &Arc<dyn Opened>,
) -> Result<OVFInformationTO, IngestError> {
    let found = package.files.iter().find(|file| file.name == package.ovf);
    let range = found.map_or(0..0, |file| file.offset..file.offset + file.length);
    let bytes = store.run("read a description", archive.read(range)).await?;
    let lengths = package.files.into_iter().map(|file| (file.name, file.length)).collect();
    let place = place(store, directory);
    read(tasks, bytes, place, lengths, package.ovf).await
}

/// What the description beside an OVA that is on its store says; `None` of any other object.
pub async fn of_object(
    tasks: &TaskScope,
    store: &Store,
    item: &Item,
    directory: &InstallPath,
) -> Result<Option<Arc<OVFInformationTO>>, IngestError> {
    if !item.install_path.ends_with(".ova") {
        return Ok(None);
    }
    const NAME: &str = "read a description";
    let work = Work::new();
    let listing = store.engine().entries(&work, Some(directory.clone()));
    let entries = store.run(NAME, listing).await?.unwrap_or_default();
    let files = entries.into_iter().filter(|entry| entry.kind == EntryKind::File);
    let lengths: BTreeMap<String, u64> = files.map(|file| (file.name, file.size)).collect();
    let is_description = |name: &&String| name.to_ascii_lowercase().ends_with(".ovf");
    let Some(name) = lengths.keys().find(is_description).cloned() else { return Ok(None) };
    let path = name.parse().map_err(|_odd| IngestError::Name(name.clone()))?;
    let opening = store.engine().open(&work, directory.join(path));
    let Some(file) = store.run(NAME, opening).await? else { return Ok(None) };
    if file.length() > MAX_LENGTH {
        return Err(unreadable(name, OvfError::Length(file.length())));
    }
    let bytes = store.run(NAME, file.read(0..file.length())).await?;
    let found = read(tasks, bytes, place(store, directory), lengths, name).await?;
    Ok(Some(Arc::new(found)))
}

/// As the server has the path of a disk.
fn place(store: &Store, directory: &InstallPath) -> String {
    format!("{}/{directory}", store.place())
}

async fn read(
    tasks: &TaskScope,
    bytes: bytes::Bytes,
    place: String,
    lengths: BTreeMap<String, u64>,
    name: String,
) -> Result<OVFInformationTO, IngestError> {
    let read = move || ovf::information(&bytes, &place, &lengths);
    let read = tasks.blocking("read a description", read).await?;
    read.map_err(|source| unreadable(name, source))
}

fn unreadable(name: String, source: OvfError) -> IngestError {
    IngestError::Image(OvaError::Ovf { name, source }.into())
}
