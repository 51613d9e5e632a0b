//! Single objects of a store: deletion, digests.

use std::time::Duration;

use agent_protocol::agent::PlainAnswer;
use agent_protocol::storage::{ComputeChecksumCommand, DataStoreTO, DataTO, DeleteCommand};
use management_link::CommandContext;
use role::Host;

use super::access::StoreAccess;
use super::{Handled, HandlerError};
use crate::ingest::Downloads;
use crate::ingest::digest::{Checksum, Digester, Expectation};
use crate::links::Links;
use crate::moving::{MoveError, Moves};
use crate::objects::delete;
use crate::sharing::Sharing;
use crate::stores::{InstallPath, ObjectKind, Store, Work};
use crate::uploads::Uploads;

/// The server waits half an hour by default.
const CHECKSUM_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Read at once for a digest.
const BLOCK: u64 = 1024 * 1024;

/// Handlers of commands about one object.
#[derive(Debug)]
pub struct ObjectCommands {
    pub access: StoreAccess,
    pub downloads: Downloads,
    pub uploads: Uploads,
    pub links: Links,
    pub sharing: Sharing,
    pub moves: Moves,
    pub host: Host,
}

impl ObjectCommands {
    pub async fn checksum(
        &self,
        command: ComputeChecksumCommand,
        cx: &CommandContext,
    ) -> Handled<PlainAnswer> {
        if !matches!(command.store, None | Some(DataStoreTO::Nfs(_))) {
            // The original's words.
            return Err(HandlerError::NotSupported("can't handle non nfs data store"));
        }
        let (fallback, version) = (command.sec_url.as_deref(), command.nfs_version.as_deref());
        let store = self.access.open(command.store.as_ref(), fallback, version).await?;
        let path: InstallPath = command.template_path.as_deref().unwrap_or_default().parse()?;
        let expectation = Expectation::compute(command.algorithm.as_deref().unwrap_or("MD5"))
            .map_err(|error| HandlerError::Invalid(error.to_string()))?;
        let limit = cx.wait.unwrap_or(CHECKSUM_LIMIT);
        let checksum = tokio::time::timeout(limit, digest(&store, path, &expectation)).await;
        let checksum = checksum.map_err(|_elapsed| {
            HandlerError::Invalid(format!("the digest was not computed within {limit:?}"))
        })??;
        Ok(PlainAnswer::success_with(checksum.to_string()))
    }

    /// Deletes what a command names, whatever it is.
    pub async fn delete(&self, command: &DeleteCommand) -> Handled<PlainAnswer> {
        let data = command
            .data
            .as_ref()
            .ok_or_else(|| HandlerError::Invalid("there is nothing to delete".to_owned()))?;
        let kind = match data {
            DataTO::Template(_) => ObjectKind::Template,
            DataTO::Volume(_) => ObjectKind::Volume,
            DataTO::Snapshot(snapshot) => return self.delete_snapshot(snapshot).await,
            DataTO::BackupDelta(delta) => return self.delete_backup(delta).await,
            DataTO::Diagnostics(_) | DataTO::BackupScreenshot(_) | DataTO::Unknown { .. } => {
                return Err(HandlerError::NotSupported("objects of this kind cannot be deleted"));
            }
        };
        let Some(path) = data.path().filter(|path| !path.is_empty()) else {
            // It never had a place on the store. The original's words.
            let text =
                "Object with null install path does not exist on image store , no need to delete";
            return Ok(PlainAnswer::success_with(text));
        };
        let path: InstallPath = path.parse()?;
        let directory = kind.directory(&path).ok_or_else(|| {
            HandlerError::Invalid(format!("{path} is not the place of a template or volume"))
        })?;
        let store = self.access.open(data.store(), None, None).await?;
        self.vacate(&store, &directory).await?;
        let is_in_bucket = matches!(data.store(), Some(DataStoreTO::S3(_)));
        let (name, bucket) = (kind.name(), store.name());
        let found = match delete::remove_object(&store, kind, &directory).await {
            Ok(found) => found,
            // The original's words.
            Err(error) if is_in_bucket => {
                return Err(HandlerError::Invalid(format!(
                    "Failed to delete {name} {path} from bucket {bucket} due to the following error: {}",
                    bedrock::chain(&error)
                )));
            }
            Err(error) => return Err(error.into()),
        };
        tracing::info!(store = %store.url(), path = %directory, found, "deleted");
        self.drop_links(&store, directory.clone()).await?;
        if is_in_bucket {
            let text = format!("Deleted {name} {path} from bucket {bucket}.");
            return Ok(PlainAnswer::success_with(text));
        }
        if found {
            return Ok(PlainAnswer::success());
        }
        let id = directory.parts().last().map(ToString::to_string).unwrap_or_default();
        Ok(PlainAnswer::success_with(format!("{name} parent directory {id} doesn't exist")))
    }

    /// Ends whatever still writes into a directory.
    pub(super) async fn vacate(&self, store: &Store, directory: &InstallPath) -> Handled<()> {
        self.downloads.release(store.url(), directory).await?;
        if !self.moves.release(store.url(), directory).await {
            return Err(MoveError::Busy(directory.clone()).into());
        }
        if !self.uploads.release(store.url(), directory).await {
            return Err(crate::ingest::IngestError::StillEnding.into());
        }
        self.sharing.clear(store, directory).await.map_err(crate::ingest::IngestError::from)?;
        Ok(())
    }

    /// The server sends nothing for the links of what it deletes.
    pub(super) async fn drop_links(&self, store: &Store, directory: InstallPath) -> Handled<()> {
        let now = self.host.clock.unix_ms();
        let dropped = self.links.remove_below(store, &directory, now).await?;
        if dropped > 0 {
            tracing::info!(store = %store.url(), path = %directory, dropped, "links dropped");
        }
        Ok(())
    }
}

async fn digest(store: &Store, path: InstallPath, expectation: &Expectation) -> Handled<Checksum> {
    const NAME: &str = "compute a digest";
    let work = Work::new();
    let shown = path.to_string();
    let file = store.run(NAME, store.engine().open(&work, path)).await?;
    let file = file.ok_or_else(|| HandlerError::Invalid(format!("{shown} is not there")))?;
    let failed = || HandlerError::Invalid("the digest could not be computed".to_owned());
    let digester = Digester::start(expectation).map_err(|_error| failed())?;
    let queue = digester.queue();
    let mut at = 0;
    while at < file.length() {
        let end = at.saturating_add(BLOCK).min(file.length());
        let block = store.run(NAME, file.read(at..end)).await?;
        queue.send(block).await.map_err(|_dead| failed())?;
        at = end;
    }
    drop(queue);
    digester.finish().await.ok_or_else(failed)
}
