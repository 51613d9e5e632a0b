//! Every command of the management server, to its handler and back to its answer.
//!
//! A handler returns the answer of its command or a [`HandlerError`], which becomes a failed
//! answer of the same class. Nothing here touches a store itself.

mod downloads;
mod links;
mod objects;
mod setup;

use std::sync::Arc;

use agent_protocol::storage::{DataStoreTO, DataTO, StorageCommand};
use agent_protocol::{Answer, Envelope, failed_answer, unsupported};
use management_link::CommandContext;
use role::{Host, TaskScope};

use crate::config::DownloadSettings;
use crate::ingest::Downloads;
use crate::links::{LinkError, Links};
use crate::metrics::Metrics;
use crate::setup::ServerSettings;
use crate::sources::http::trust::Trust;
use crate::stores::path::PathError;
use crate::stores::{Store, StoreError, StoreUrl, Stores};

/// What the handlers work with.
#[derive(Debug)]
pub struct Commands {
    pub stores: Stores,
    pub downloads: Downloads,
    pub download_settings: DownloadSettings,
    pub links: Links,
    pub settings: ServerSettings,
    pub trust: Trust,
    pub metrics: Arc<Metrics>,
    pub tasks: TaskScope,
    pub host: Host,
}

/// Why a command failed; its text goes into the answer.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The command itself cannot be carried out by anybody.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{0}")]
    NotSupported(&'static str),
    #[error("the storage host is stopping")]
    Stopping(#[from] role::tasks::BlockingError),
}

type Handled<A> = Result<A, HandlerError>;

fn reply<A: Answer>(command: &'static str, handled: Handled<A>) -> Envelope {
    let answer = handled.unwrap_or_else(|error| {
        let text = bedrock::chain(&error);
        tracing::warn!(command, error = text, "command failed");
        A::failed(text)
    });
    Envelope::of(&answer)
}

impl Commands {
    /// Runs one command. Always answers.
    pub async fn handle(&self, envelope: Envelope, cx: &CommandContext) -> Envelope {
        let known = StorageCommand::CLASSES.contains(&envelope.class.as_str());
        let class = if known { envelope.simple_name().to_owned() } else { "unknown".to_owned() };
        let started = std::time::Instant::now();
        let answer = match StorageCommand::open(&envelope) {
            Ok(Some(command)) => {
                // A config drive may be large: one copy is enough.
                drop(envelope);
                Box::pin(self.dispatch(command, cx)).await
            }
            Ok(None) => unsupported_by_name(&envelope),
            Err(error) => {
                let text = bedrock::chain(&error);
                tracing::warn!(class, error = text, "cannot read a command");
                failed_answer(&envelope, &text)
            }
        };
        let result = answer.answer_base().is_ok_and(|base| base.result);
        self.metrics.answered(&class, result);
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(class, elapsed_ms, result, "answered");
        answer
    }

    async fn dispatch(&self, command: StorageCommand, cx: &CommandContext) -> Envelope {
        use StorageCommand as C;
        match command {
            C::SecStorageSetup(c) => reply("SecStorageSetup", self.set_up(*c).await),
            C::SecStorageVMSetup(c) => reply("SecStorageVMSetup", self.set_up_host(&c)),
            C::SecStorageFirewallCfg(c) => reply("SecStorageFirewallCfg", self.set_up_peers(&c)),
            C::Download(c) => reply("Download", Ok(self.download(*c).await)),
            C::DownloadProgress(c) => reply("DownloadProgress", Ok(self.progress(*c).await)),
            C::ListTemplate(c) => reply("ListTemplate", self.list_templates(*c).await),
            C::ListVolume(c) => reply("ListVolume", self.list_volumes(*c).await),
            C::GetStorageStats(c) => reply("GetStorageStats", self.statistics(*c).await),
            C::ComputeChecksum(c) => reply("ComputeChecksum", self.checksum(*c, cx).await),
            C::Delete(c) if matches!(c.data, Some(DataTO::BackupDelta(_))) => {
                not_supported(&C::Delete(c), "deleting backups")
            }
            C::Delete(c) => reply("Delete", self.delete(*c).await),
            C::CreateEntityDownloadURL(c) => {
                reply("CreateEntityDownloadURL", self.create_link(*c).await)
            }
            C::DeleteEntityDownloadURL(c) => {
                reply("DeleteEntityDownloadURL", self.delete_link(*c).await)
            }
            c @ C::ListDataStoreObjects(_) => not_supported(&c, "browsing a store"),
            c @ C::MoveVolume(_) => not_supported(&c, "moving a volume to another account"),
            c @ C::DeleteSnapshotsDir(_) => not_supported(&c, "deleting snapshots"),
            c @ C::Copy(_) => not_supported(&c, "copying between stores or from a snapshot"),
            c @ C::QuerySnapshotZoneCopy(_) => not_supported(&c, "copying snapshots between zones"),
            c @ C::HandleConfigDriveIso(_) => {
                not_supported(&c, "keeping config drives on secondary storage")
            }
            c @ (C::GetDatadisks(_) | C::CreateDatadiskTemplate(_)) => {
                not_supported(&c, "splitting the disks of an OVA")
            }
            c @ C::UploadStatus(_) => not_supported(&c, "uploading by browser"),
            c @ (C::Upload(_) | C::UploadProgress(_)) => {
                not_supported(&c, "uploading to another server")
            }
            C::Unknown(envelope) => unsupported_by_name(&envelope),
        }
    }

    /// The store that a command names, opened.
    async fn store(
        &self,
        store: Option<&DataStoreTO>,
        fallback: Option<&str>,
        version: Option<&str>,
    ) -> Result<Arc<Store>, HandlerError> {
        let url = self.store_url(store, fallback)?;
        let own = store.and_then(DataStoreTO::as_nfs).and_then(|nfs| nfs.nfs_version.as_deref());
        Ok(self.stores.open(&url, version.or(own)).await?)
    }

    /// From the store itself, else from the URL beside it, else the only one configured.
    fn store_url(
        &self,
        store: Option<&DataStoreTO>,
        fallback: Option<&str>,
    ) -> Result<StoreUrl, HandlerError> {
        let url = match store {
            Some(DataStoreTO::Nfs(nfs)) => nfs.url.as_deref(),
            Some(_) => return Err(HandlerError::NotSupported("only NFS stores are supported")),
            None => None,
        };
        match url.or(fallback) {
            Some(url) => Ok(url.parse::<StoreUrl>().map_err(StoreError::from)?),
            None => self.stores.only_configured().ok_or_else(|| StoreError::NoStore.into()),
        }
    }
}

/// A failed answer of the command's own class: the server hangs on any other, or takes it for a yes.
fn not_supported(command: &StorageCommand, what: &str) -> Envelope {
    let text = format!("{what} is not supported by this storage host yet");
    tracing::warn!(class = command.class(), "command is not supported");
    command.failed_answer(&text)
}

fn unsupported_by_name(envelope: &Envelope) -> Envelope {
    tracing::warn!(class = envelope.simple_name(), "command is not supported");
    unsupported(envelope)
}
