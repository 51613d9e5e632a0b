//! The root of an export: found once, found again when the server does not know it any more.

use std::sync::{Arc, PoisonError};

use nfs3::mount::{self, Mount};
use nfs3::procedures::{FileSystemInfo, FileSystemSpace, GetAttributes};
use nfs3::rpc::AUTH_SYS;
use nfs3::{FileType, Handle};
use role::BoxFuture;
use tokio::time::Duration;

use super::client::Session;
use super::connection::{Lane, MAX_CONTENT};
use super::dial::ask;
use super::error::NfsError;
use crate::stores::engine::Space;
use crate::stores::{SMALL_STORE, StoreUrl, marker};

/// Content of a message when the server says nothing useful.
const USUAL_CONTENT: u32 = 64 << 10;
/// Content of one write, whatever the server would take: a file keeps two of them.
const MAX_WRITE: u32 = 512 << 10;
/// A part of a directory.
const DIRECTORY: std::ops::RangeInclusive<u32> = 8 << 10..=64 << 10;
/// How often an operation begins again because a handle went stale under it.
const STALE_ROUNDS: u8 = 3;
const ROOT: &str = "the root of the export";
const PAUSE: Duration = Duration::from_millis(500);

/// The root, with what the server wants of calls.
#[derive(Debug)]
pub struct Root {
    pub(super) handle: Handle,
    /// File system and number of the root.
    pub(super) identity: (u64, u64),
    pub(super) read_size: u32,
    pub(super) write_size: u32,
    pub(super) directory_size: u32,
    pub(super) largest_file: u64,
}

/// What the root must be.
#[derive(Debug, Clone)]
pub(super) struct Pinned {
    pub(super) marker: Option<String>,
    /// All there is to tell an unmarked store by.
    pub(super) identity: (u64, u64),
}

/// The path of the export that a store's URL names.
pub fn export_of(url: &StoreUrl) -> String {
    match url.path().trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    }
}

impl Session {
    /// The root, mounting the export if need be.
    pub async fn root(&self) -> Result<Arc<Root>, NfsError> {
        let known = self.client.root.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(root) = known {
            return Ok(root);
        }
        let root = Arc::new(self.mount().await?);
        self.verify(&root).await?;
        tracing::debug!(
            export = self.client.place(),
            read = root.read_size,
            write = root.write_size,
            "export opened"
        );
        let mut known = self.client.root.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Arc::clone(&root));
        Ok(root)
    }

    async fn mount(&self) -> Result<Root, NfsError> {
        let target = &self.client.target;
        let mounted = loop {
            let asked = async {
                let stream = self.client.dial(target.settings.mount_port);
                let stream = stream.connect(mount::PROGRAM).await?;
                ask(stream, self.client.credential(), &Mount(target.export.clone())).await
            };
            match asked.await {
                Ok(Ok(mounted)) => break mounted,
                Ok(Err(source)) => {
                    return Err(NfsError::Mount { export: target.export.clone(), source });
                }
                Err(error @ (NfsError::Connect { .. } | NfsError::Broken(_)))
                    if self.waits(PAUSE) =>
                {
                    tracing::debug!(error = bedrock::chain(&error), "asking again for an export");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        if !mounted.flavours.is_empty() && !mounted.flavours.contains(&AUTH_SYS) {
            return Err(NfsError::Kerberos(target.export.clone()));
        }
        let handle = mounted.root;
        let attributes = self.call(Lane::Quick, &GetAttributes(handle.clone()), ROOT).await?;
        if attributes.file_type != FileType::Directory {
            return Err(NfsError::NotDirectory(target.export.clone()));
        }
        let info = self.call(Lane::Quick, &FileSystemInfo(handle.clone()), ROOT).await?;
        let content = |preferred: u32, most: u32| {
            // A server may have nothing to say, or far more than is worth it.
            let most = if most == 0 { USUAL_CONTENT } else { most.min(MAX_CONTENT) };
            if preferred == 0 { most } else { preferred.clamp(most.min(USUAL_CONTENT), most) }
        };
        Ok(Root {
            handle,
            identity: (attributes.fsid, attributes.fileid),
            read_size: content(info.read_preferred, info.read_max),
            write_size: content(info.write_preferred, info.write_max).min(MAX_WRITE),
            directory_size: info.directory_preferred.clamp(*DIRECTORY.start(), *DIRECTORY.end()),
            largest_file: if info.largest_file == 0 { u64::MAX } else { info.largest_file },
        })
    }

    /// Makes sure that the root is the store that was pinned.
    pub(super) async fn verify(&self, root: &Root) -> Result<(), NfsError> {
        let pinned = self.client.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_store = match pinned {
            None => true,
            Some(Pinned { marker: None, identity }) => root.identity == identity,
            Some(Pinned { marker: expected, .. }) => {
                let found = self.read_small(&root.handle, marker::MARKER_FILE.as_bytes()).await?;
                found.as_deref().and_then(marker::text) == expected
            }
        };
        if is_store { Ok(()) } else { Err(NfsError::Lost) }
    }

    /// Runs `piece` on the root, again when a handle went stale under it: what was done before is
    /// found done.
    pub(super) async fn on_root<T>(
        &self,
        piece: impl Fn(Self, Arc<Root>) -> BoxFuture<'static, Result<T, NfsError>>,
    ) -> Result<T, NfsError> {
        let mut round = 0;
        loop {
            let root = self.root().await?;
            match piece(self.clone(), Arc::clone(&root)).await {
                Err(error) if error.is_stale() && round < STALE_ROUNDS => {
                    round += 1;
                    self.doubt(&root).await?;
                }
                outcome => return outcome,
            }
        }
    }

    /// Asks whether the server still knows the root; if not, the next use asks for it anew.
    pub(super) async fn doubt(&self, root: &Arc<Root>) -> Result<(), NfsError> {
        let asked = self.call(Lane::Quick, &GetAttributes(root.handle.clone()), ROOT).await;
        match asked {
            Ok(_) => Ok(()),
            Err(error) if error.is_stale() => {
                tracing::info!(export = self.client.place(), "the export's root is asked for anew");
                let mut known = self.client.root.lock().unwrap_or_else(PoisonError::into_inner);
                if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, root)) {
                    *known = None;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Capacity and use of the file system, in bytes, as root sees them.
    pub(super) async fn space(&self, root: &Root) -> Result<Space, NfsError> {
        let space = self.call(Lane::Quick, &FileSystemSpace(root.handle.clone()), ROOT).await?;
        Ok(Space { capacity: space.total, used: space.total.saturating_sub(space.free) })
    }

    /// Fails when less than `bytes` are free in the file system, or less than a part of it that is
    /// smaller than that.
    pub(super) async fn keep_free(&self, root: &Root, bytes: u64) -> Result<(), NfsError> {
        if bytes == 0 {
            return Ok(());
        }
        let space = self.call(Lane::Quick, &FileSystemSpace(root.handle.clone()), ROOT).await?;
        let (free, kept) = (space.available, bytes.min(space.total / SMALL_STORE));
        if free < kept { Err(NfsError::Full { free, kept }) } else { Ok(()) }
    }
}
