//! Copies: between stores, and from a snapshot to a template.
//!
//! The class of the answer matters as much as its result: the server takes any other class than
//! [`CopyCmdAnswer`] for a template that is ready without a file.

use std::time::Duration;

use agent_protocol::agent::AnswerBase;
use agent_protocol::storage::{
    CopyCmdAnswer, CopyCommand, DataStoreTO, DataTO, ImageFormat, SnapshotObjectTO,
    TemplateObjectTO, VolumeObjectTO,
};
use disk_image::{Format, Sizes};
use management_link::CommandContext;

use super::objects::ObjectCommands;
use super::{Handled, HandlerError};
use crate::moving::buckets::{Carried, Pull, Push};
use crate::moving::migrate::{Migrated, Migration};
use crate::moving::snapshot::{MadeTemplate, SnapshotKind, TemplateOrder};
use crate::objects::delete;
use crate::objects::inventory::Description;
use crate::stores::{InstallPath, ObjectKind};

/// The server waits half an hour by default.
const LIMIT: Duration = Duration::from_secs(30 * 60);

impl ObjectCommands {
    /// Copies, within the time that the server waits for it.
    pub async fn copy(&self, command: CopyCommand, cx: &CommandContext) -> Handled<CopyCmdAnswer> {
        let missing =
            || HandlerError::Invalid("the copy has no source or no destination".to_owned());
        let (from, to) =
            (command.src_to.ok_or_else(missing)?, command.dest_to.ok_or_else(missing)?);
        let limit = cx.wait.unwrap_or(LIMIT);
        let new_data = self.copy_data(&from, &to, limit).await?;
        Ok(CopyCmdAnswer { new_data: Some(new_data), base: AnswerBase::success() })
    }

    async fn copy_data(&self, from: &DataTO, to: &DataTO, limit: Duration) -> Handled<DataTO> {
        match (from, to) {
            (DataTO::Snapshot(snapshot), DataTO::Template(template)) => {
                self.template_of_snapshot(snapshot, template, limit).await
            }
            (from, to) if is_bucket(to) => self.push(from, to, limit).await,
            (from, to) if is_bucket(from) => self.pull(from, to, limit).await,
            (DataTO::Template(_), DataTO::Template(_)) => {
                let moved = self.migrate(ObjectKind::Template, from, to, limit).await?;
                Ok(template(moved.path, moved.format, moved.sizes, None).into())
            }
            (DataTO::Volume(_), DataTO::Volume(_)) => {
                let Migrated { path, sizes, .. } =
                    self.migrate(ObjectKind::Volume, from, to, limit).await?;
                Ok(VolumeObjectTO {
                    size: sizes.map(|sizes| bytes(sizes.virtual_size)),
                    path: Some(path.to_string()),
                    ..VolumeObjectTO::default()
                }
                .into())
            }
            (DataTO::Snapshot(_), DataTO::Snapshot(_)) => {
                let moved = self.migrate(ObjectKind::Snapshot, from, to, limit).await?;
                let path = Some(moved.path.to_string());
                Ok(SnapshotObjectTO { path, ..SnapshotObjectTO::default() }.into())
            }
            (from, to) => Err(no_copy(from, to)),
        }
    }

    async fn migrate(
        &self,
        kind: ObjectKind,
        from: &DataTO,
        to: &DataTO,
        limit: Duration,
    ) -> Handled<Migrated> {
        let (path, directory) = (path_of(from)?, path_of(to)?);
        let source = self.access.open(from.store(), None, None).await?;
        let target = self.access.open(to.store(), None, None).await?;
        if kind != ObjectKind::Snapshot {
            self.vacate(&target, &directory).await?;
        }
        let migration = Migration { kind, from: source, path, to: target, directory };
        let started = self.host.clock.now();
        let moved = self.moves.migrate(&migration, limit).await?;
        let took = self.host.clock.now().duration_since(started).unwrap_or_default();
        let Migration { from, path, to, .. } = migration;
        let (kind, from, to) = (kind.name(), from.url(), to.url());
        tracing::info!(kind, %from, %to, %path, to_path = %moved.path, ?took, "copied");
        Ok(moved)
    }

    async fn template_of_snapshot(
        &self,
        snapshot: &SnapshotObjectTO,
        destination: &TemplateObjectTO,
        limit: Duration,
    ) -> Handled<DataTO> {
        let source = source_of(snapshot)?;
        let path: InstallPath = snapshot.path.as_deref().unwrap_or_default().parse()?;
        let directory: InstallPath = destination.path.as_deref().unwrap_or_default().parse()?;
        let from = self.access.open(snapshot.data_store.as_ref(), None, None).await?;
        if let Some(DataStoreTO::S3(_)) = &destination.image_data_store {
            return self.template_in_bucket(snapshot, destination, limit).await;
        }
        let to = self.access.open(destination.image_data_store.as_ref(), None, None).await?;
        self.vacate(&to, &directory).await?;
        let about = Description {
            id: destination.id,
            unique_name: destination.name.clone().unwrap_or_default(),
            description: None,
            hvm: destination.hvm,
        };
        let order = TemplateOrder { from, path, to, directory, about, source };
        let MadeTemplate { path, format, sizes, name } =
            self.moves.template_of(&order, limit).await?;
        tracing::info!(store = %order.to.url(), snapshot = %order.path, %path, "template made of a snapshot");
        Ok(template(path, Some(format), Some(sizes), name).into())
    }
}

impl ObjectCommands {
    async fn push(&self, from: &DataTO, to: &DataTO, limit: Duration) -> Handled<DataTO> {
        let (path, directory) = (path_of(from)?, path_of(to)?);
        let source = self.access.open(from.store(), None, None).await?;
        let target = self.access.open(to.store(), None, None).await?;
        let push = Push { from: source, path, to: target, directory };
        let Carried { path, sizes, format } = self.moves.push(&push, limit).await?;
        tracing::info!(from = %push.from.url(), to = push.to.place(), key = %path, "copied to S3");
        carried(to, path, sizes, format, Toward::Bucket)
    }

    async fn pull(&self, from: &DataTO, to: &DataTO, limit: Duration) -> Handled<DataTO> {
        let (path, directory) = (path_of(from)?, path_of(to)?);
        let (kind, format, name, id) = match (from, to) {
            (DataTO::Template(from), DataTO::Template(to)) => {
                (ObjectKind::Template, from.format.clone(), to.name.clone(), to.id)
            }
            (DataTO::Volume(from), DataTO::Volume(to)) => {
                (ObjectKind::Volume, from.format.clone(), to.uuid.clone(), to.id)
            }
            (DataTO::Snapshot(_), DataTO::Snapshot(to)) => {
                (ObjectKind::Snapshot, None, None, to.id)
            }
            (from, to) => return Err(no_copy(from, to)),
        };
        let source = self.access.open(from.store(), None, None).await?;
        let target = self.access.open(to.store(), None, None).await?;
        if kind != ObjectKind::Snapshot {
            self.vacate(&target, &directory).await?;
        }
        let about = Description {
            id,
            unique_name: name.unwrap_or_default(),
            description: None,
            hvm: false,
        };
        let format = format.and_then(|format| Format::from_name(format.as_str()).ok());
        let pull = Pull { kind, from: source, path, to: target, directory, format, about };
        let Carried { path, sizes, format } = self.moves.pull(&pull, limit).await?;
        tracing::info!(from = pull.from.place(), to = %pull.to.url(), %path, "copied from S3");
        carried(to, path, sizes, format, Toward::Store)
    }

    /// Made on the store of the snapshot, then brought into the bucket.
    async fn template_in_bucket(
        &self,
        snapshot: &SnapshotObjectTO,
        destination: &TemplateObjectTO,
        limit: Duration,
    ) -> Handled<DataTO> {
        let to = DataTO::from(destination.clone());
        let wanted = path_of(&to)?;
        let wrong = || HandlerError::Invalid(format!("{wanted} is not the place of a template"));
        let staged = ObjectKind::Template.directory(&wanted).ok_or_else(wrong)?;
        let made = TemplateObjectTO {
            path: Some(staged.to_string()),
            image_data_store: snapshot.data_store.clone(),
            ..destination.clone()
        };
        let made = Box::pin(self.template_of_snapshot(snapshot, &made, limit)).await?;
        let DataTO::Template(mut made) = made else { return Ok(made) };
        made.image_data_store = snapshot.data_store.clone();
        let name = made.name.clone();
        let pushed = self.push(&DataTO::Template(made), &to, limit).await;
        // What came of the push is the answer; what is left on the store is found by `ss verify`.
        if let Err(error) = self.unstage(snapshot.data_store.as_ref(), &staged).await {
            let error = bedrock::chain(&error);
            tracing::warn!(path = %staged, error, "a template on its way to a bucket is left");
        }
        let mut pushed = pushed?;
        if let DataTO::Template(template) = &mut pushed {
            template.name = name;
        }
        Ok(pushed)
    }

    async fn unstage(&self, store: Option<&DataStoreTO>, staged: &InstallPath) -> Handled<()> {
        let store = self.access.open(store, None, None).await?;
        delete::remove_object(&store, ObjectKind::Template, staged).await?;
        Ok(())
    }
}

/// Which way an object went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toward {
    Bucket,
    Store,
}

fn is_bucket(data: &DataTO) -> bool {
    matches!(data.store(), Some(DataStoreTO::S3(_)))
}

fn no_copy(from: &DataTO, to: &DataTO) -> HandlerError {
    let (from, to) = (short(from.class()), short(to.class()));
    HandlerError::Invalid(format!("a copy from {from} to {to} is not for a storage host"))
}

/// The object as the original answers it: of a volume the size is the file's length.
fn carried(
    to: &DataTO,
    path: InstallPath,
    sizes: Sizes,
    format: Option<Format>,
    toward: Toward,
) -> Handled<DataTO> {
    let file = path.parts().last().map(ToString::to_string);
    let name = file.filter(|_file| toward == Toward::Store);
    Ok(match to {
        DataTO::Template(_) => {
            let format = format.filter(|_format| toward == Toward::Bucket);
            template(path, format, Some(sizes), name).into()
        }
        DataTO::Volume(_) => VolumeObjectTO {
            name,
            size: Some(bytes(sizes.physical_size)),
            path: Some(path.to_string()),
            ..VolumeObjectTO::default()
        }
        .into(),
        DataTO::Snapshot(_) => {
            let path = Some(path.to_string());
            SnapshotObjectTO { path, ..SnapshotObjectTO::default() }.into()
        }
        other => return Err(no_copy(other, other)),
    })
}

/// The hypervisor of the snapshot decides what its files are.
fn source_of(snapshot: &SnapshotObjectTO) -> Handled<SnapshotKind> {
    match snapshot.hypervisor_type.as_deref().unwrap_or_default() {
        "KVM" => {
            let format = snapshot.volume.as_ref().and_then(|volume| volume.format.clone());
            match format.unwrap_or(ImageFormat::Qcow2) {
                ImageFormat::Qcow2 => Ok(SnapshotKind::Kvm(Format::Qcow2)),
                ImageFormat::Raw => Ok(SnapshotKind::Kvm(Format::Raw)),
                // The original's words.
                other => Err(HandlerError::Invalid(format!(
                    "javax.naming.ConfigurationException: Unknown image format {other}"
                ))),
            }
        }
        "XenServer" => Ok(SnapshotKind::XenServer),
        "VMware" => Ok(SnapshotKind::VMware),
        other => Err(HandlerError::Invalid(format!(
            "no template can be made here of a snapshot of hypervisor {other:?}: only of KVM's, \
             XenServer's and VMware's"
        ))),
    }
}

fn path_of(data: &DataTO) -> Handled<InstallPath> {
    Ok(data.path().unwrap_or_default().parse()?)
}

fn short(class: &str) -> &str {
    class.rsplit('.').next().unwrap_or(class)
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// With the name left out the template keeps its own.
fn template(
    path: InstallPath,
    format: Option<Format>,
    sizes: Option<Sizes>,
    name: Option<String>,
) -> TemplateObjectTO {
    TemplateObjectTO {
        path: Some(path.to_string()),
        format: format.map(|format| ImageFormat::from(format.name())),
        size: sizes.map(|sizes| bytes(sizes.virtual_size)),
        physical_size: sizes.map(|sizes| bytes(sizes.physical_size)),
        name,
        ..TemplateObjectTO::default()
    }
}
