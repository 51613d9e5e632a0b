//! Stores: from the URL in a command to a verified place for objects.
//!
//! What a store is made of is an [`engine`]: a directory today. [`Stores`] opens each store once,
//! makes sure that it is the store it was before (see [`marker`]), and opens it again when it was
//! lost. A store that never got a set-up command is opened when the first command for it comes.

pub mod config;
pub mod directory;
pub mod engine;
pub mod facts;
pub mod lease;
pub mod marker;
#[cfg(feature = "nfs")]
pub mod nfs;
#[cfg(not(feature = "nfs"))]
#[path = "stores/without_nfs.rs"]
pub mod nfs;
pub mod nfs_settings;
pub mod path;
pub mod registry;
pub mod s3;
pub mod survey;
pub mod url;
pub mod watch;
pub mod work;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch as changes;

pub use directory::Modes;
pub use engine::{
    Engine, EngineError, Entry, EntryKind, Listed, LocalFile, Opened, Operation, Part, Space,
};
pub use path::{FileName, InstallPath, ObjectKind};
pub use registry::Stores;
pub use url::StoreUrl;
pub use work::Work;

/// Of a small store no more than this part is kept free.
pub const SMALL_STORE: u64 = 20;
/// Bytes written between two looks at the room that is left.
const ROOM_STEP: u64 = 64 << 20;

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
    Mount(#[from] directory::mount::MountError),
    #[error("store {url} is not mounted: mount it at {}, or add {{ url = \"{url}\", directory = \"ITS DIRECTORY\" }} to roles.secondary_storage.stores and run quickcloud reload", root.display())]
    Unmounted { url: StoreUrl, root: PathBuf, source: Box<directory::mount::MountError> },
    #[error("{place} is not the store {url} that was there before (no or another {marker}): is it mounted? If the store was replaced on purpose, remove its entry from {}", memory.display(), marker = marker::MARKER_FILE)]
    Lost { url: StoreUrl, place: String, memory: PathBuf },
    #[error("cannot use {place} as store {url}")]
    Place { url: StoreUrl, place: String, source: EngineError },
    #[error("cannot {operation} in store {url}")]
    Operation { operation: &'static str, url: StoreUrl, source: EngineError },
    #[error("cannot remember store {0}")]
    Memory(StoreUrl, #[source] crate::state_file::StateError),
    #[error("cannot start threads for store {0}")]
    Threads(StoreUrl, #[source] std::io::Error),
    #[error("store {0} was not opened in time")]
    Opening(StoreUrl),
    #[error("there are more stores than the {0} this host serves")]
    TooMany(usize),
    #[error(transparent)]
    Task(#[from] role::tasks::BlockingError),
    #[error(transparent)]
    Bucket(s3::BucketError),
    /// Somebody else opened it at the same time and failed; their words.
    #[error("{0}")]
    Shared(String),
}

impl StoreError {
    /// The store did not answer in time: it may have died, and nothing else of it is waited for.
    pub const fn is_late(&self) -> bool {
        matches!(
            self,
            Self::Operation { source: EngineError::Stalled(_), .. }
                | Self::Place { source: EngineError::Stalled(_), .. }
                | Self::Opening(_)
        )
    }
}

/// An opened store.
pub struct Store {
    url: StoreUrl,
    /// Name of its directory in the management server's records.
    name: String,
    engine: Arc<dyn Engine>,
    /// NFS version that the server asked for last.
    version: Option<String>,
    /// What an operator should know about how it is mounted.
    notes: Vec<String>,
    /// Why nothing can be stored, found when it was opened.
    unwritable: Option<String>,
    /// The place turned out not to be the store any more; it is opened anew next time.
    lost: AtomicBool,
    held: AtomicBool,
    capacity: AtomicU64,
    used: AtomicU64,
    /// Told when the store is lost.
    changes: changes::Sender<u64>,
}

impl Store {
    /// A store that needs no opening and no memory: everything about it comes with each command.
    pub fn of_engine(url: StoreUrl, name: String, engine: Arc<dyn Engine>) -> Self {
        Self {
            url,
            name,
            engine,
            version: None,
            notes: Vec::new(),
            unwritable: None,
            lost: AtomicBool::new(false),
            held: AtomicBool::new(true),
            capacity: AtomicU64::default(),
            used: AtomicU64::default(),
            changes: changes::Sender::new(0),
        }
    }

    pub const fn url(&self) -> &StoreUrl {
        &self.url
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        self.engine.place()
    }

    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What an operator must do something about, although the store can be read.
    pub fn trouble(&self, space: Space) -> Option<String> {
        if let Some(reason) = &self.unwritable {
            return Some(format!("nothing can be stored in {}: {reason}", self.url));
        }
        let (free, kept) = (space.capacity.saturating_sub(space.used), self.engine.min_free());
        let kept = kept.min(space.capacity / SMALL_STORE);
        (free < kept).then(|| {
            format!(
                "store {} is full: {free} bytes are free, and {kept} stay free (min_free)",
                self.url
            )
        })
    }

    /// The last known figures.
    pub fn space(&self) -> Space {
        Space {
            capacity: self.capacity.load(Ordering::Relaxed),
            used: self.used.load(Ordering::Relaxed),
        }
    }

    fn remember_space(&self, space: Space) {
        self.capacity.store(space.capacity, Ordering::Relaxed);
        self.used.store(space.used, Ordering::Relaxed);
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits for an operation of the engine. `name` completes "cannot …".
    pub async fn run<T>(
        &self,
        name: &'static str,
        operation: Operation<T>,
    ) -> Result<T, StoreError> {
        operation.await.map_err(|source| {
            if matches!(source, EngineError::Lost(_)) && !self.lost.swap(true, Ordering::Relaxed) {
                self.changes.send_modify(|count| *count += 1);
            }
            StoreError::Operation { operation: name, url: self.url.clone(), source }
        })
    }

    /// Makes sure that the store is there, and takes its figures.
    pub async fn probe(&self) -> Result<Space, StoreError> {
        let space = self.run("look around", self.engine.probe(&Work::new())).await?;
        self.remember_space(space);
        Ok(space)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("url", &self.url).finish_non_exhaustive()
    }
}
