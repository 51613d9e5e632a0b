//! Templates of snapshots.
//!
//! What hypervisors leave on a store is a file, or the youngest of a chain of files in which each
//! names its parent. A template needs nobody else: a chain is written out as one image.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use disk_image::{Format, Sizes};

use super::copy::{Original, Progress, copy};
use super::image::judge;
use super::staging::Staging;
use super::{MoveError, Moves, Permit, pack};
use crate::objects::inventory::{self, Description};
use crate::stores::{FileName, InstallPath, ObjectKind, Opened, Store, Work};

/// Endings that the file of a snapshot may have beside its path.
pub(super) const ENDINGS: [&str; 4] = [".qcow2", ".vhd", ".ova", ".vmdk"];
/// The end of a snapshot's name that was made only for this.
const ONLY_FOR_THIS: &str = "_temp";

/// A template to be made.
#[derive(Debug)]
pub struct TemplateOrder {
    pub from: Arc<Store>,
    /// The snapshot, perhaps without its ending.
    pub path: InstallPath,
    pub to: Arc<Store>,
    /// The template's directory.
    pub directory: InstallPath,
    pub about: Description,
    pub source: SnapshotKind,
}

/// Whose snapshot it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// QEMU's, in the format of its volume.
    Kvm(Format),
    /// VHD files.
    XenServer,
    /// The description of a machine with its disks beside it, or both packed.
    VMware,
}

/// A template that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeTemplate {
    pub path: InstallPath,
    pub format: Format,
    pub sizes: Sizes,
    /// Its new unique name, when it got one.
    pub name: Option<String>,
}

impl Moves {
    /// Makes a template of a snapshot.
    pub async fn template_of(
        &self,
        order: &TemplateOrder,
        limit: Duration,
    ) -> Result<MadeTemplate, MoveError> {
        let directory = &order.directory;
        if ObjectKind::Template.directory(directory).as_ref() != Some(directory) {
            let text = format!("{directory} is not the directory of a template");
            return Err(MoveError::Refused(text));
        }
        let permit = self.enter(&order.to, directory, Some(limit)).await?;
        let _turn = permit.during(self.turn()).await?;
        let made = self.make_template(order, &permit).await?;
        self.remove_if_only_for_this(order).await;
        Ok(made)
    }

    async fn make_template(
        &self,
        order: &TemplateOrder,
        permit: &Permit,
    ) -> Result<MadeTemplate, MoveError> {
        let original = permit.during(find(&order.from, &order.path, order.source)).await?;
        let (format, name, unique_name) = match order.source {
            SnapshotKind::Kvm(format) => {
                let file = original.path().parts().last().map(ToString::to_string);
                let name = format!("{}.{}", file.unwrap_or_default(), format.extension());
                (format, name, None)
            }
            SnapshotKind::XenServer => {
                let id = uuid::Uuid::new_v4().to_string();
                (Format::Vhd, format!("{id}.{}", Format::Vhd.extension()), Some(id))
            }
            SnapshotKind::VMware => {
                let id = uuid::Uuid::new_v4();
                (Format::Ova, format!("{id}.{}", Format::Ova.extension()), None)
            }
        };
        let image: FileName = name.parse()?;
        let (kind, directory) = (ObjectKind::Template, order.directory.clone());
        let targets =
            vec![(directory.clone(), image.clone()), (directory.clone(), kind.properties_file())];
        let object = Some((kind, directory.clone()));
        let staging = Staging::begin(self, &order.to, object, targets).await?;
        let about = match &unique_name {
            Some(name) => Description { unique_name: name.clone(), ..order.about.clone() },
            None => order.about.clone(),
        };
        let filling = self.fill(&staging, &original, format, &image, &about, permit.progress());
        let filled = permit.during(filling).await;
        let sizes = staging.conclude(filled, permit).await?;
        let path = directory.join(image);
        Ok(MadeTemplate { path, format, sizes, name: unique_name })
    }

    async fn fill(
        &self,
        staging: &Staging,
        original: &Original,
        format: Format,
        image: &FileName,
        about: &Description,
        progress: &Progress,
    ) -> Result<Sizes, MoveError> {
        let file = match self.flatten(staging, original, format, progress).await? {
            Some(file) => file,
            None if pack::is_description(original) => {
                self.pack(staging, original, progress).await?
            }
            None => {
                progress.expect(original.length());
                copy(original, staging, 0, progress).await?
            }
        };
        let sizes = judge(&self.tasks, Arc::from(file), format).await?.sizes;
        let properties = inventory::properties(ObjectKind::Template, about, format, image, sizes);
        let bytes: Bytes = properties.to_bytes(self.host.clock.now()).into();
        write_small(staging, 1, bytes).await?;
        original.verify().await?;
        Ok(sizes)
    }

    /// Only the last part of the path counts: a store's directory may be called anything.
    async fn remove_if_only_for_this(&self, order: &TemplateOrder) {
        let Some((_, name)) = order.path.split() else { return };
        if !name.as_str().ends_with(ONLY_FOR_THIS) || order.path.parts().len() < 4 {
            return;
        }
        let work = Work::new();
        let removing = order.from.engine().remove_file(&work, order.path.clone());
        if let Err(error) = order.from.run("remove a flattened snapshot", removing).await {
            let error = bedrock::chain(&error);
            tracing::warn!(error, path = %order.path, "a flattened snapshot is left");
        }
    }
}

/// Writes a file that is made here.
pub(super) async fn write_small(
    staging: &Staging,
    nth: usize,
    bytes: Bytes,
) -> Result<(), MoveError> {
    const NAME: &str = "write a description";
    let mut part = staging.create(nth).await?;
    let store = staging.store();
    store.run(NAME, part.write(0, bytes)).await?;
    let file: Box<dyn Opened> = store.run(NAME, part.finish()).await?;
    drop(file);
    Ok(())
}

/// The snapshot's file, with the ending that its hypervisor gave it.
async fn find(
    store: &Arc<Store>,
    path: &InstallPath,
    kind: SnapshotKind,
) -> Result<Original, MoveError> {
    let not_there = || MoveError::NotThere { path: path.clone(), store: store.url().to_string() };
    let (directory, name) = path.split().ok_or_else(not_there)?;
    let name = name.as_str();
    let names: Vec<String> = match kind {
        SnapshotKind::Kvm(_) => std::iter::once(name.to_owned())
            .chain(ENDINGS.iter().map(|ending| format!("{name}{ending}")))
            .collect(),
        SnapshotKind::XenServer if name.starts_with("VHD-") || name.ends_with(".vhd") => {
            vec![name.to_owned()]
        }
        SnapshotKind::XenServer => vec![format!("{name}.vhd"), name.to_owned()],
        SnapshotKind::VMware => vec![format!("{name}.ova"), format!("{name}.ovf")],
    };
    for name in names {
        if let Some(found) = Original::find(store, &directory.join(name.parse()?)).await? {
            return Ok(found);
        }
    }
    Err(not_there())
}
