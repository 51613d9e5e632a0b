//! What a store holds: lists and figures.

use agent_protocol::agent::AnswerBase;
use agent_protocol::storage::{
    DataStoreTO, GetStorageStatsAnswer, GetStorageStatsCommand, ListTemplateAnswer,
    ListTemplateCommand, ListVolumeAnswer, ListVolumeCommand, TemplateProp,
};
use std::sync::Arc;

use super::Handled;
use super::access::StoreAccess;
use crate::metrics::Metrics;
use crate::objects::inventory::{self, Item};
use crate::stores::{ObjectKind, Store, StoreError};

/// Handlers of the lists and figures.
#[derive(Debug)]
pub struct InventoryCommands {
    pub access: StoreAccess,
    pub metrics: Arc<Metrics>,
}

impl InventoryCommands {
    pub async fn templates(&self, command: ListTemplateCommand) -> Handled<ListTemplateAnswer> {
        let version = command.nfs_version.as_deref();
        let store = self.access.open(command.store.as_ref(), None, version).await?;
        let items = inventory::by_name(self.list(&store, ObjectKind::Template).await?);
        let url = match &command.store {
            Some(DataStoreTO::Nfs(nfs)) => nfs.url.clone(),
            // The original tells the bucket.
            Some(DataStoreTO::S3(s3)) => s3.bucket_name.clone().map(Into::into),
            _ => None,
        };
        Ok(ListTemplateAnswer {
            sec_url: url.or_else(|| Some(store.url().to_string().into())),
            template_infos: Some(
                items.into_iter().map(|(name, item)| (name, prop(item))).collect(),
            ),
            base: AnswerBase::success_with("success"),
        })
    }

    pub async fn volumes(&self, command: ListVolumeCommand) -> Handled<ListVolumeAnswer> {
        let (fallback, version) = (command.sec_url.as_deref(), command.nfs_version.as_deref());
        let store = self.access.open(command.store.as_ref(), fallback, version).await?;
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
    async fn list(&self, store: &Store, kind: ObjectKind) -> Result<Vec<Item>, StoreError> {
        let items = inventory::list(store, kind).await?;
        if !items.is_empty() {
            self.access.stores.remember_held(store).await?;
        }
        Ok(items)
    }

    pub async fn figures(&self, command: GetStorageStatsCommand) -> Handled<GetStorageStatsAnswer> {
        let (fallback, version) = (command.sec_url.as_deref(), command.nfs_version.as_deref());
        let store = self.access.open(command.store.as_ref(), fallback, version).await?;
        let space = store.probe().await?;
        self.metrics.store(&store.url().to_string(), space.capacity, space.used);
        Ok(GetStorageStatsAnswer {
            used_bytes: i64::try_from(space.used).unwrap_or(i64::MAX),
            capacity_bytes: i64::try_from(space.capacity).unwrap_or(i64::MAX),
            ..GetStorageStatsAnswer::default()
        })
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
