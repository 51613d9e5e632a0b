//! Every command of the management server, to its handler and back to its answer.
//!
//! A handler returns the answer of its command or a [`HandlerError`], which becomes a failed
//! answer of the same class. Each family of commands has what it works with, and nothing else;
//! nothing here touches a store itself.

pub mod access;
pub mod browse;
pub mod copies;
pub mod data_disks;
pub mod deletions;
pub mod downloads;
pub mod drives;
pub mod inventory;
pub mod links;
pub mod objects;
pub mod setup;
mod snapshot_files;
pub mod snapshots;
pub mod uploads;
pub mod volumes;

use std::sync::Arc;

use agent_protocol::storage::StorageCommand;
use agent_protocol::{Answer, Envelope, failed_answer, unsupported};
use management_link::CommandContext;

use crate::ingest::IngestError;
use crate::links::LinkError;
use crate::metrics::Metrics;
use crate::moving::MoveError;
use crate::setup::PeersError;
use crate::stores::StoreError;
use crate::stores::path::PathError;

/// The families, by what their commands are about.
#[derive(Debug)]
pub struct Commands {
    pub setup: setup::SetupCommands,
    pub downloads: downloads::DownloadCommands,
    pub inventory: inventory::InventoryCommands,
    pub objects: objects::ObjectCommands,
    pub drives: drives::DriveCommands,
    pub links: links::LinkCommands,
    pub uploads: uploads::UploadCommands,
    pub metrics: Arc<Metrics>,
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
    Store(Box<StoreError>),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{0}")]
    NotSupported(&'static str),
    #[error(transparent)]
    Download(#[from] IngestError),
    #[error(transparent)]
    Move(#[from] MoveError),
    #[error(transparent)]
    Peers(#[from] PeersError),
    #[error("cannot remember what the server sent")]
    State(#[from] crate::state_file::StateError),
    /// The role stops, or work of it panicked; the text says which.
    #[error(transparent)]
    Task(#[from] role::tasks::BlockingError),
}

impl From<StoreError> for HandlerError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

type Handled<A> = Result<A, HandlerError>;

fn reply<A: Answer>(handled: Handled<A>) -> Envelope {
    Envelope::of(&handled.unwrap_or_else(|error| A::failed(bedrock::chain(&error))))
}

impl Commands {
    /// Runs one command. Always answers.
    pub async fn handle(&self, envelope: Envelope, cx: &CommandContext) -> Envelope {
        let opened = StorageCommand::open(&envelope);
        let class = match &opened {
            Ok(Some(StorageCommand::Unknown(_)) | None) => "unknown".to_owned(),
            Ok(Some(_)) | Err(_) => envelope.simple_name().to_owned(),
        };
        let answer = match opened {
            Ok(Some(command)) => {
                // A config drive may be large: one copy is enough.
                drop(envelope);
                Box::pin(self.dispatch(command, cx)).await
            }
            Ok(None) => unsupported(&envelope),
            Err(error) => failed_answer(&envelope, &bedrock::chain(&error)),
        };
        // The link logs that there was an answer; here it is said why there was no other one.
        let result = match answer.answer_base() {
            Ok(base) => {
                if !base.result {
                    let error = base.details.unwrap_or_default();
                    tracing::warn!(class, error, "command failed");
                }
                base.result
            }
            Err(_) => false,
        };
        self.metrics.answered(&class, result);
        answer
    }

    async fn dispatch(&self, command: StorageCommand, cx: &CommandContext) -> Envelope {
        use StorageCommand as C;
        match command {
            C::SecStorageSetup(c) => reply(self.setup.store(*c).await),
            C::SecStorageVMSetup(c) => reply(self.setup.host(&c)),
            C::SecStorageFirewallCfg(c) => reply(self.setup.peers(*c).await),
            C::Download(c) => reply(Ok(self.downloads.start(*c, &cx.answer_now).await)),
            C::DownloadProgress(c) => reply(Ok(self.downloads.progress(*c, &cx.answer_now).await)),
            C::ListTemplate(c) => reply(self.inventory.templates(*c).await),
            C::ListVolume(c) => reply(self.inventory.volumes(*c).await),
            C::GetStorageStats(c) => reply(self.inventory.figures(*c).await),
            C::ComputeChecksum(c) => reply(self.objects.checksum(*c, cx).await),
            C::Delete(c) => match self.objects.delete(&c).await {
                Ok(answer) => Envelope::of(&answer),
                // The class of a failure follows from what was to be deleted.
                Err(error) => C::Delete(c).failed_answer(&bedrock::chain(&error)),
            },
            C::CreateEntityDownloadURL(c) => reply(self.links.create(*c).await),
            C::DeleteEntityDownloadURL(c) => reply(self.links.delete(*c).await),
            C::ListDataStoreObjects(c) => reply(self.inventory.browse(*c).await),
            C::MoveVolume(c) => reply(self.objects.move_volume(*c).await),
            C::DeleteSnapshotsDir(c) => reply(self.objects.delete_snapshots(*c).await),
            C::Copy(c) => reply(self.objects.copy(*c, cx).await),
            C::QuerySnapshotZoneCopy(c) => reply(self.objects.snapshot_files(*c).await),
            C::HandleConfigDriveIso(c) => reply(self.drives.handle(*c).await),
            C::GetDatadisks(c) => reply(self.objects.data_disks(*c).await),
            C::CreateDatadiskTemplate(c) => reply(self.objects.disk_template(*c).await),
            C::UploadStatus(c) => reply(Ok(self.uploads.status(*c).await)),
            // No server sends them any more, and the original cannot even read them.
            c @ (C::Upload(_) | C::UploadProgress(_)) => unsupported(&c.envelope()),
            C::Unknown(envelope) => unsupported(&envelope),
        }
    }
}
