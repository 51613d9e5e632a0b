//! Stores: from the URL in a command to a verified directory with threads of its own.
//!
//! Everything that touches a store goes through [`Store::run`]: it opens the root anew, makes sure
//! that the directory still is the store (see [`marker`]), and runs the work on the store's own
//! threads with a deadline. A store that never got a set-up command is opened when the first
//! command for it comes.

pub mod dir;
pub mod marker;
pub mod mount;
pub mod path;
pub mod pool;
pub mod registry;
pub mod url;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub use dir::{Dir, Modes, Space};
pub use path::{FileName, InstallPath, ObjectKind};
pub use pool::{Lane, PoolError};
pub use registry::{StoreSettings, Stores};
pub use url::StoreUrl;

use marker::Memory;
use pool::Pool;

/// Why nothing can be done with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Url(#[from] url::StoreUrlError),
    #[error("the command names no store")]
    NoStore,
    #[error("cannot find the address of store host {host}")]
    Resolve { host: String, source: std::io::Error },
    #[error(transparent)]
    Mount(#[from] mount::MountError),
    #[error("{} is not the store {url} that was there before (no or another {marker}): is it mounted? If the store was replaced on purpose, remove its entry from {}", root.display(), memory.display(), marker = marker::MARKER_FILE)]
    Lost { url: StoreUrl, root: PathBuf, memory: PathBuf },
    #[error("cannot use {} as store {url}", root.display())]
    Root { url: StoreUrl, root: PathBuf, source: std::io::Error },
    #[error("cannot {operation} in store {url}")]
    Io { operation: &'static str, url: StoreUrl, source: std::io::Error },
    #[error("cannot {operation} in store {url}")]
    Pool { operation: &'static str, url: StoreUrl, source: PoolError },
    #[error("cannot remember store {0}")]
    Memory(StoreUrl, #[source] crate::state_file::StateError),
    #[error("cannot start threads for store {0}")]
    Threads(StoreUrl, #[source] std::io::Error),
    #[error("store {0} was not opened in time")]
    Opening(StoreUrl),
    #[error("there are more stores than the {0} this host serves")]
    TooMany(usize),
    /// Somebody else opened it at the same time and failed; their words.
    #[error("{0}")]
    Shared(String),
}

/// An opened store.
#[derive(Debug)]
pub struct Store {
    url: StoreUrl,
    /// Name of its directory in the management server's records.
    name: String,
    root: PathBuf,
    marker: Option<String>,
    /// Of the root when it was opened; all there is to tell an unmarked store by.
    identity: (u64, u64),
    modes: Modes,
    deadline: Duration,
    pool: Arc<Pool>,
    memory: Arc<Memory>,
    /// The directory turned out not to be the store any more; it is opened anew next time.
    lost: AtomicBool,
    held: AtomicBool,
    capacity: AtomicU64,
    used: AtomicU64,
}

impl Store {
    pub const fn url(&self) -> &StoreUrl {
        &self.url
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub const fn modes(&self) -> Modes {
        self.modes
    }

    /// The last known figures of the file system.
    pub fn space(&self) -> Space {
        Space {
            capacity: self.capacity.load(Ordering::Relaxed),
            used: self.used.load(Ordering::Relaxed),
        }
    }

    pub fn remember_space(&self, space: Space) {
        self.capacity.store(space.capacity, Ordering::Relaxed);
        self.used.store(space.used, Ordering::Relaxed);
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Opens the root and makes sure it is the store. Blocks.
    pub fn open_root(&self) -> std::io::Result<Dir> {
        let root = Dir::open_root(&self.root)?;
        let is_store = match &self.marker {
            Some(marker) => marker::read(&root)?.as_ref() == Some(marker),
            None => root.identity()? == self.identity,
        };
        if !is_store {
            self.lost.store(true, Ordering::Relaxed);
            return Err(std::io::Error::other(format!(
                "{} does not hold the store any more: is it mounted?",
                self.root.display()
            )));
        }
        Ok(root)
    }

    /// Notes that the store holds something, so that an empty directory is not taken for it. Blocks.
    pub fn remember_held(&self) -> Result<(), crate::state_file::StateError> {
        if self.held.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.memory.change(&self.url.key(), |known| known.held = true)
    }

    /// Runs `work` on the verified root. `operation` completes "cannot …".
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        lane: Lane,
        work: impl FnOnce(&Dir) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run_within(operation, lane, self.deadline, work).await
    }

    /// As [`Store::run`], with a deadline of its own.
    pub async fn run_within<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        lane: Lane,
        deadline: Duration,
        work: impl FnOnce(&Dir) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(self);
        let outcome = self
            .pool
            .run(lane, deadline, move || store.open_root().and_then(|root| work(&root)))
            .await
            .map_err(|source| StoreError::Pool { operation, url: self.url.clone(), source })?;
        outcome.map_err(|source| StoreError::Io { operation, url: self.url.clone(), source })
    }

    /// Runs `work` on the store's threads without opening the root again: for files held open.
    pub async fn run_on_file<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.pool
            .run(Lane::Serve, self.deadline, work)
            .await
            .map_err(|source| StoreError::Pool { operation, url: self.url.clone(), source })?
            .map_err(|source| StoreError::Io { operation, url: self.url.clone(), source })
    }
}
