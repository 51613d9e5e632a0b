//! What a store holds: lists, figures, digests, deletion.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_protocol::agent::{AnswerBase, PlainAnswer};
use agent_protocol::storage::{
    ComputeChecksumCommand, DataTO, DeleteCommand, GetStorageStatsAnswer, GetStorageStatsCommand,
    ListTemplateAnswer, ListTemplateCommand, ListVolumeAnswer, ListVolumeCommand, TemplateProp,
};
use management_link::CommandContext;

use super::{Commands, Handled, HandlerError};
use crate::ingest::digest::Expectation;
use crate::ingest::write;
use crate::objects::delete;
use crate::objects::inventory::{self, Item};
use crate::stores::{Dir, InstallPath, Lane, ObjectKind, Store, StoreError};

/// The server waits half an hour by default.
const CHECKSUM_LIMIT: Duration = Duration::from_secs(30 * 60);

impl Commands {
    pub(super) async fn list_templates(
        &self,
        command: ListTemplateCommand,
    ) -> Handled<ListTemplateAnswer> {
        let store =
            self.store(command.store.as_ref(), None, command.nfs_version.as_deref()).await?;
        let items = inventory::by_name(self.list(&store, ObjectKind::Template).await?);
        let url = command.store.as_ref().and_then(|store| store.as_nfs()?.url.clone());
        Ok(ListTemplateAnswer {
            sec_url: url.or_else(|| Some(store.url().to_string().into())),
            template_infos: Some(
                items.into_iter().map(|(name, item)| (name, prop(item))).collect(),
            ),
            base: AnswerBase::success_with("success"),
        })
    }

    pub(super) async fn list_volumes(
        &self,
        command: ListVolumeCommand,
    ) -> Handled<ListVolumeAnswer> {
        let fallback = command.sec_url.as_deref();
        let store =
            self.store(command.store.as_ref(), fallback, command.nfs_version.as_deref()).await?;
        let items = inventory::by_id(self.list(&store, ObjectKind::Volume).await?);
        Ok(ListVolumeAnswer {
            sec_url: command.sec_url,
            template_infos: Some(
                items.into_iter().map(|(id, item)| (id.to_string(), prop(item))).collect(),
            ),
            base: AnswerBase::success_with("success"),
        })
    }

    /// All or nothing: any fault fails the list, so that nothing is taken for deleted.
    async fn list(&self, store: &Arc<Store>, kind: ObjectKind) -> Result<Vec<Item>, StoreError> {
        let holder = Arc::clone(store);
        store
            .run("list", Lane::Quick, move |root| {
                let items = inventory::list(root, kind)?;
                if !items.is_empty() {
                    holder.remember_held().map_err(std::io::Error::other)?;
                }
                Ok(items)
            })
            .await
    }

    pub(super) async fn statistics(
        &self,
        command: GetStorageStatsCommand,
    ) -> Handled<GetStorageStatsAnswer> {
        let fallback = command.sec_url.as_deref();
        let store =
            self.store(command.store.as_ref(), fallback, command.nfs_version.as_deref()).await?;
        let space = store.run("measure", Lane::Quick, Dir::space).await?;
        store.remember_space(space);
        self.metrics.store(&store.url().to_string(), space.capacity, space.used);
        Ok(GetStorageStatsAnswer {
            used_bytes: i64::try_from(space.used).unwrap_or(i64::MAX),
            capacity_bytes: i64::try_from(space.capacity).unwrap_or(i64::MAX),
            ..GetStorageStatsAnswer::default()
        })
    }

    pub(super) async fn checksum(
        &self,
        command: ComputeChecksumCommand,
        cx: &CommandContext,
    ) -> Handled<PlainAnswer> {
        let fallback = command.sec_url.as_deref();
        let store =
            self.store(command.store.as_ref(), fallback, command.nfs_version.as_deref()).await?;
        let path: InstallPath = command.template_path.as_deref().unwrap_or_default().parse()?;
        let expectation = Expectation::compute(command.algorithm.as_deref().unwrap_or("MD5"))
            .map_err(|error| HandlerError::Invalid(error.to_string()))?;
        let given_up = Arc::new(AtomicBool::new(false));
        let _guard = GivenUp(Arc::clone(&given_up));
        let limit = cx.wait.unwrap_or(CHECKSUM_LIMIT);
        let checksum = store
            .run_within("compute a digest", Lane::Long, limit, move |root| {
                let (dir, name) = root.parent_of(&path)?;
                let stop = || given_up.load(Ordering::Relaxed);
                write::digest(dir.open_file(name)?, &expectation, &stop)
            })
            .await?;
        Ok(PlainAnswer::success_with(checksum.to_string()))
    }

    pub(super) async fn delete(&self, command: DeleteCommand) -> Handled<PlainAnswer> {
        let data = command
            .data
            .ok_or_else(|| HandlerError::Invalid("there is nothing to delete".to_owned()))?;
        let kind = match &data {
            DataTO::Template(_) => ObjectKind::Template,
            DataTO::Volume(_) => ObjectKind::Volume,
            DataTO::Snapshot(_) => {
                return Err(HandlerError::NotSupported("deleting snapshots is not supported yet"));
            }
            DataTO::Diagnostics(_)
            | DataTO::BackupDelta(_)
            | DataTO::BackupScreenshot(_)
            | DataTO::Unknown { .. } => {
                return Err(HandlerError::NotSupported("objects of this kind cannot be deleted"));
            }
        };
        let Some(path) = data.path().filter(|path| !path.is_empty()) else {
            // It never had a place on the store.
            return Ok(PlainAnswer::success());
        };
        let path: InstallPath = path.parse()?;
        let directory = kind.directory(&path).ok_or_else(|| {
            HandlerError::Invalid(format!("{path} is not the place of a template or volume"))
        })?;
        let store = self.store(data.store(), None, None).await?;
        self.downloads.release(store.url(), &directory).await;
        tracing::info!(store = %store.url(), path = %directory, "deleting");
        store
            .run("delete", Lane::Quick, move |root| delete::remove_object(root, kind, &directory))
            .await?;
        Ok(PlainAnswer::success())
    }
}

/// Stops work on a thread when its command is dropped or late.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn prop(item: Item) -> TemplateProp {
    TemplateProp {
        template_name: Some(item.unique_name),
        install_path: Some(item.install_path),
        size: item.virtual_size,
        physical_size: item.physical_size,
        id: item.id,
        is_public: item.is_public,
        is_corrupted: item.is_corrupted,
    }
}
