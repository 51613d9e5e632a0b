//! Links under which users fetch a template, a volume or a snapshot.
//!
//! The management server hands a link out for hours and does not ask again, and it tells any storage
//! host of the zone to take it away. So a link lies on the store that its file lies on, as a small
//! file that every host of the zone reads at each request (see [`shared`]): what one made all serve,
//! what one took away nobody serves. On a store that takes no files (read-only, full) it is in this
//! host's own table (see [`local`]). A link names a file by path, never by an open file or a link in
//! the file system: what is served is looked up, walked and opened for each request.
//!
//! A link that ended is remembered for a while, so that whoever comes late is told so.
//!
//! | module | what |
//! |---|---|
//! | [`shared`], [`local`] | where links are kept |
//! | [`serve`], [`copy`] | requests for links, and for copies between zones |
//! | [`files`], [`range`] | a file as an answer; ranges and conditions |

pub mod copy;
pub mod files;
pub mod local;
pub mod range;
pub mod serve;
pub mod shared;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use role::TaskScope;
use serde::{Deserialize, Serialize};
use status_api::{DownloadLink, DownloadLinksStatus};
use tokio::sync::Semaphore;

use crate::live::Live;
use crate::metrics::Metrics;
use crate::state_file::StateError;
use crate::stores::path::PathError;
use crate::stores::{EngineError, FileName, InstallPath, Store, StoreError, StoreUrl, Stores};
use local::LocalTable;

/// A link's two last path segments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName {
    pub directory: FileName,
    pub file: FileName,
}

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub store: StoreUrl,
    pub path: InstallPath,
}

/// What a look for a link comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Target(Target),
    /// It was taken away, or its time is over.
    Ended {
        at_ms: i64,
    },
    Unknown,
}

/// Why a link cannot be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Name(#[from] PathError),
    #[error("{0} links are in use already")]
    TooMany(usize),
    #[error("cannot remember the links")]
    State(#[from] StateError),
    #[error(transparent)]
    Store(Box<StoreError>),
    #[error("not every store can be read: {0}")]
    Unreadable(String),
    #[error("link {0} is not what this program wrote")]
    Content(LinkName, #[source] serde_json::Error),
    #[error(transparent)]
    Task(#[from] role::tasks::BlockingError),
}

impl From<StoreError> for LinkError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// A day's links of a busy zone many times over; a bound on files and memory.
const MAX_LINKS: usize = 20_000;
/// In `/status`.
const MAX_SHOWN: usize = 100;
/// Looks on stores at the same time, for requests that come from anywhere.
const LOOKS: usize = 8;
/// How long an ended link is remembered.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// A link as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    path: InstallPath,
    created_ms: i64,
    /// When it was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_ms: Option<i64>,
}

/// All links. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    local: LocalTable,
    stores: Stores,
    tasks: TaskScope,
    metrics: Arc<Metrics>,
    lifetime: Live<Duration>,
    looks: Semaphore,
    /// What this host knows of at the moment, for whoever asks without waiting.
    known: Mutex<BTreeMap<LinkName, (StoreUrl, Kept)>>,
}

impl LinkName {
    pub fn new(directory: &str, file: &str) -> Result<Self, PathError> {
        Ok(Self { directory: directory.trim_matches('/').parse()?, file: file.parse()? })
    }

    /// From a link as the server knows it: its two last segments.
    pub fn of_url(url: &str) -> Option<Self> {
        let path = url.split(['?', '#']).next()?;
        let (rest, file) = path.rsplit_once('/')?;
        let (_, directory) = rest.rsplit_once('/')?;
        let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8().ok();
        Self::new(&decode(directory)?, &decode(file)?).ok()
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.directory, self.file)
    }
}

impl Kept {
    /// When it ended, if it has.
    fn ended(&self, lifetime: Duration, now_ms: i64) -> Option<i64> {
        let limit = self.created_ms.saturating_add(millis_i64(lifetime));
        self.ended_ms.into_iter().chain((limit <= now_ms).then_some(limit)).min()
    }

    /// Whether nobody has to be told any more that it ended.
    fn is_forgotten(&self, lifetime: Duration, now_ms: i64) -> bool {
        let ended = self.ended(lifetime, now_ms);
        ended.is_some_and(|at| at.saturating_add(millis_i64(REMEMBERED)) <= now_ms)
    }
}

impl Links {
    pub fn new(
        local: LocalTable,
        stores: Stores,
        tasks: TaskScope,
        metrics: Arc<Metrics>,
        lifetime: Live<Duration>,
    ) -> Self {
        let known = Mutex::new(local.all());
        let looks = Semaphore::new(LOOKS);
        let shared = Shared { local, stores, tasks, metrics, lifetime, looks, known };
        let this = Self { shared: Arc::new(shared) };
        this.count();
        this
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<LinkName, (StoreUrl, Kept)>> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lifetime(&self) -> Duration {
        *self.shared.lifetime.get()
    }

    fn count(&self) {
        let known = self.known();
        let active = known.values().filter(|(_, kept)| kept.ended_ms.is_none()).count();
        self.shared.metrics.links(active);
    }

    /// Runs something with the local table, on a thread.
    async fn local<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalTable) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, LinkError> {
        let shared = Arc::clone(&self.shared);
        Ok(self.shared.tasks.blocking("keep links", move || work(&shared.local)).await??)
    }

    /// Makes a link, or points an existing one to `target`.
    pub async fn add(
        &self,
        name: &LinkName,
        target: &Target,
        now_ms: i64,
    ) -> Result<(), LinkError> {
        if self.known().len() >= MAX_LINKS && !self.known().contains_key(name) {
            return Err(LinkError::TooMany(MAX_LINKS));
        }
        let kept = Kept { path: target.path.clone(), created_ms: now_ms, ended_ms: None };
        let store = self.shared.stores.open(&target.store, None).await?;
        self.keep(&store, name, kept).await
    }

    /// Writes a link to its store, or to the local table when the store takes no files. A bucket holds
    /// nothing but the server's objects.
    async fn keep(&self, store: &Store, name: &LinkName, kept: Kept) -> Result<(), LinkError> {
        let url = store.url().clone();
        let put = match store.engine().is_flat() {
            false => Some(shared::put(store, name, &kept).await),
            true => None,
        };
        match put {
            Some(Ok(())) => {
                // One that was kept here while the store took nothing.
                let other = name.clone();
                self.local(move |table| table.remove(&other)).await?;
            }
            None => {
                let (name, url, kept) = (name.clone(), url.clone(), kept.clone());
                self.local(move |table| table.put(&name, &url, &kept)).await?;
            }
            Some(Err(LinkError::Store(error))) if takes_nothing(&error) => {
                tracing::warn!(store = %url, link = %name, "the store takes no files: only this host serves the link");
                let (name, url, kept) = (name.clone(), url.clone(), kept.clone());
                self.local(move |table| table.put(&name, &url, &kept)).await?;
            }
            Some(Err(error)) => return Err(error),
        }
        self.known().insert(name.clone(), (url, kept));
        self.count();
        Ok(())
    }

    /// Takes a link away, whoever made it; gives what it led to.
    pub async fn remove(&self, name: &LinkName, now_ms: i64) -> Result<Option<Target>, LinkError> {
        let Some((store, kept)) = self.look(name).await? else { return Ok(None) };
        let target = Target { store: store.url().clone(), path: kept.path.clone() };
        if kept.ended(self.lifetime(), now_ms).is_none() {
            self.keep(&store, name, Kept { ended_ms: Some(now_ms), ..kept }).await?;
        }
        Ok(Some(target))
    }

    /// Takes every link away that this host knows of and that leads into a directory; gives their
    /// number. The files of others are gone with the directory.
    pub async fn remove_below(
        &self,
        store: &Store,
        directory: &InstallPath,
        now_ms: i64,
    ) -> Result<usize, LinkError> {
        let (key, lifetime) = (store.url().key(), self.lifetime());
        let below: Vec<(LinkName, Kept)> = {
            let known = self.known();
            let inside = known.iter().filter(|(_, (url, kept))| {
                url.key() == key
                    && kept.path.parts().starts_with(directory.parts())
                    && kept.ended(lifetime, now_ms).is_none()
            });
            inside.map(|(name, (_, kept))| (name.clone(), kept.clone())).collect()
        };
        for (name, kept) in &below {
            let ended = Kept { ended_ms: Some(now_ms), ..kept.clone() };
            self.keep(store, name, ended).await?;
        }
        Ok(below.len())
    }

    /// What a link leads to.
    pub async fn find(&self, name: &LinkName, now_ms: i64) -> Result<Found, LinkError> {
        let Some((store, kept)) = self.look(name).await? else { return Ok(Found::Unknown) };
        Ok(match kept.ended(self.lifetime(), now_ms) {
            Some(at_ms) => Found::Ended { at_ms },
            None => Found::Target(Target { store: store.url().clone(), path: kept.path }),
        })
    }

    /// Looks for a link here, then on all stores at once.
    async fn look(&self, name: &LinkName) -> Result<Option<(Arc<Store>, Kept)>, LinkError> {
        let stores = &self.shared.stores;
        if let Some((url, kept)) = self.shared.local.get(name) {
            return Ok(Some((stores.open(&url, None).await?, kept)));
        }
        // The server makes these names; a store is not asked for anything else.
        if name.directory.as_str().parse::<uuid::Uuid>().is_err() {
            return Ok(None);
        }
        let Ok(_turn) = self.shared.looks.acquire().await else { return Ok(None) };
        stores.open_configured().await;
        let mut looking: FuturesUnordered<_> = stores
            .ready()
            .into_iter()
            .map(|store| async move { (shared::get(&store, name).await, store) })
            .collect();
        let mut failed = None;
        while let Some((found, store)) = looking.next().await {
            match found {
                Ok(Some(kept)) => return Ok(Some((store, kept))),
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let failures = stores.failures();
        if failures.is_empty() { Ok(None) } else { Err(LinkError::Unreadable(failures.join("; "))) }
    }

    /// Reads all links of all stores and drops those that ended long ago; gives the number of these.
    pub async fn sweep(&self, now_ms: i64) -> Result<usize, LinkError> {
        let lifetime = self.lifetime();
        let mut known = self
            .local(move |table| {
                table.retain(|kept| !kept.is_forgotten(lifetime, now_ms))?;
                Ok(table.all())
            })
            .await?;
        let mut dropped = 0;
        for store in self.shared.stores.ready() {
            for (name, kept) in shared::list(&store).await? {
                if kept.is_forgotten(lifetime, now_ms) {
                    shared::remove(&store, &name).await?;
                    dropped += 1;
                } else {
                    known.insert(name, (store.url().clone(), kept));
                }
            }
        }
        *self.known() = known;
        self.count();
        Ok(dropped)
    }

    /// For `/status`: how many, and the newest.
    pub fn status(&self, now_ms: i64) -> DownloadLinksStatus {
        let mut links = self.shown(now_ms);
        let count = links.len();
        links.truncate(MAX_SHOWN);
        DownloadLinksStatus { count, links }
    }

    /// Those that can be used, the newest first.
    pub fn shown(&self, now_ms: i64) -> Vec<DownloadLink> {
        let lifetime = self.lifetime();
        let known = self.known();
        let mut active: Vec<_> =
            known.iter().filter(|(_, (_, kept))| kept.ended(lifetime, now_ms).is_none()).collect();
        active.sort_by_key(|(_, (_, kept))| std::cmp::Reverse(kept.created_ms));
        let links = active.into_iter().map(|(name, (store, kept))| {
            let age = millis(now_ms.saturating_sub(kept.created_ms));
            let left = millis_i64(lifetime).saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));
            DownloadLink {
                link: name.to_string(),
                store: store.to_string(),
                path: kept.path.to_string(),
                created_ago_ms: age,
                expires_in_ms: Some(millis(left)),
            }
        });
        links.collect()
    }
}

fn takes_nothing(error: &StoreError) -> bool {
    matches!(error, StoreError::Operation { source: EngineError::Io(error), .. }
        if crate::stores::marker::takes_nothing(error))
}

fn millis(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

fn millis_i64(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
