//! What moves between stores, and what is made of files that lie on one.
//!
//! ```text
//! command → Places (one work for each place, the newest wins)
//!             └ Staging (note on disk) ─▶ files of new names ─▶ checked ─▶ renamed, properties last
//!                                            any failure, any crash ─────▶ removed
//! ```
//!
//! Nothing is written under a name that somebody reads: files get hidden names of their own beside
//! their place, are complete and durable before the rename, and what makes an object listed comes
//! last. The source is looked at again at the end: one that changed meanwhile is an error.

pub mod buckets;
pub mod config_drive;
pub mod copy;
pub mod data_disks;
pub mod error;
pub mod flatten;
pub mod image;
pub mod migrate;
pub mod pack;
pub mod places;
pub mod snapshot;
pub mod staging;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use role::{Host, TaskScope};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::ingest::DownloadContext;
use crate::stores::{InstallPath, Store, StoreUrl, Stores};
pub use error::MoveError;
use places::{Place, Places};
use staging::Journal;

/// Copies at a time, all stores together: more would only share the same disks and network.
const AT_A_TIME: usize = 4;
/// How long an overtaken copy may take to let go of its place.
const LET_GO_LIMIT: Duration = Duration::from_secs(120);
/// Between two attempts to remove what a former run left.
const RECOVERY_RETRY: Duration = Duration::from_secs(60);

/// Everything that moves data. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Moves {
    stores: Stores,
    tasks: TaskScope,
    host: Host,
    journal: Journal,
    places: Places,
    turns: Arc<Semaphore>,
}

impl Moves {
    pub fn new(context: &DownloadContext, state_directory: &Path) -> Self {
        let DownloadContext { stores, tasks, host, .. } = context.clone();
        let journal = Journal::new(state_directory.join("moves"));
        let (places, turns) = (Places::default(), Arc::new(Semaphore::new(AT_A_TIME)));
        Self { stores, tasks, host, journal, places, turns }
    }

    /// The right to write at a place, for some time; whoever had it ends first.
    async fn enter(
        &self,
        store: &Store,
        path: &InstallPath,
        limit: Option<Duration>,
    ) -> Result<Permit, MoveError> {
        let until = limit.map(|limit| (Instant::now() + limit, limit));
        let entering = self.places.enter(store.url(), path);
        let entered = tokio::time::timeout(LET_GO_LIMIT, entering).await;
        let place = entered.map_err(|_elapsed| MoveError::Busy(path.clone()))?;
        Ok(Permit { place: Arc::new(place), until })
    }

    /// Waits for a turn to copy.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, MoveError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        turn.map_err(|_closed| MoveError::Refused("no more copies are made".to_owned()))
    }

    /// Ends whatever writes at, above or below a place; `false` when it does not end in time.
    pub async fn release(&self, store: &StoreUrl, path: &InstallPath) -> bool {
        tokio::time::timeout(LET_GO_LIMIT, self.places.vacate(store, path)).await.is_ok()
    }

    /// What is under way, for `/status`.
    pub fn status(&self) -> Vec<status_api::CopyStatus> {
        self.places.status()
    }

    /// Ends one that is under way, as an operator asks; `None` when there is none of this id.
    pub fn cancel(&self, id: &str) -> Option<status_api::CopyStatus> {
        self.places.cancel(id)
    }

    /// Whether something is being written at, above or below a place.
    pub fn is_busy(&self, store: &StoreUrl, path: &InstallPath) -> bool {
        self.places.is_busy(store, path)
    }

    /// Removes what former runs of this process left on stores, however long those take to be there.
    pub async fn recover(&self, shutdown: CancellationToken) {
        let journal = self.journal.clone();
        let mut notes = match self.tasks.blocking("read notes", move || journal.all()).await {
            Ok(Ok(notes)) => notes,
            Ok(Err(error)) => {
                let error = bedrock::chain(&error);
                tracing::warn!(error, "cannot read the notes of former copies");
                return;
            }
            Err(_stopped) => return,
        };
        loop {
            let mut left = Vec::new();
            for (id, note) in notes {
                match staging::remove_leftovers(self, &id, &note).await {
                    Ok(()) => {
                        tracing::info!(id, store = %note.store, "removed what a former copy left")
                    }
                    Err(error) => {
                        let error = bedrock::chain(&error);
                        tracing::warn!(
                            id,
                            error,
                            "cannot remove what a former copy left, will retry"
                        );
                        left.push((id, note));
                    }
                }
            }
            if left.is_empty() {
                return;
            }
            notes = left;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RECOVERY_RETRY) => {}
            }
        }
    }
}

/// The right to write at a place, until somebody else wants it or its time is over.
#[derive(Debug)]
struct Permit {
    place: Arc<Place>,
    until: Option<(Instant, Duration)>,
}

impl Permit {
    fn progress(&self) -> &copy::Progress {
        self.place.progress()
    }

    /// Does some of the work; what it began is not cleaned up here.
    async fn during<T>(
        &self,
        work: impl Future<Output = Result<T, MoveError>>,
    ) -> Result<T, MoveError> {
        let over = async {
            match self.until {
                Some((at, limit)) => {
                    tokio::time::sleep_until(at.into()).await;
                    limit
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = work => done,
            () = self.place.wanted() => Err(if self.place.is_cancelled() {
                MoveError::Cancelled(self.place.path().clone())
            } else {
                MoveError::Overtaken(self.place.path().clone())
            }),
            limit = over => Err(MoveError::TimeOut(limit)),
        }
    }
}
