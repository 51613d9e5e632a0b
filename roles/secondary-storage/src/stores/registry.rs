//! All stores of this host: opened once, opened again when lost, never twice at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use role::{Host, TaskScope};
use tokio::sync::watch;

use super::marker::{Known, Memory, Verdict, verify_or_mark};
use super::mount::{self, MountError, MountOptions};
use super::pool::{Lane, Pool};
use super::{Dir, Modes, ObjectKind, Store, StoreError, StoreUrl};

/// What the configuration says about stores.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    pub mount_root: PathBuf,
    /// Directories that already are a store; nothing is mounted for these.
    pub configured: Vec<(StoreUrl, PathBuf)>,
    pub mount: MountOptions,
    /// How long a piece of quick work on a store may take.
    pub deadline: Duration,
    pub modes: Modes,
}

/// One image store of a zone each; a bound against a server that names ever new ones.
const MAX_STORES: usize = 32;
/// The management server asks for the figures of each store once a minute.
const FAILURE_MEMORY: Duration = Duration::from_secs(600);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

type Outcome = Option<Result<Arc<Store>, String>>;

#[derive(Debug)]
enum Slot {
    Opening(watch::Receiver<Outcome>),
    Ready(Arc<Store>),
    Failed { reason: String, at: Instant },
}

/// Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Stores {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: StoreSettings,
    host: Host,
    tasks: TaskScope,
    memory: Arc<Memory>,
    slots: Mutex<HashMap<String, (StoreUrl, Slot)>>,
    /// A store keeps its threads when it is opened again: those that hang on a dead server are not
    /// joined by more at each attempt.
    pools: Mutex<HashMap<String, Arc<Pool>>>,
    /// Counts openings that ended.
    changes: watch::Sender<u64>,
}

/// State of a store for `/status`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StoreStatus {
    pub url: String,
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
}

impl Stores {
    pub fn new(settings: StoreSettings, host: Host, tasks: TaskScope, memory: Memory) -> Self {
        let memory = Arc::new(memory);
        let (slots, pools) = (Mutex::default(), Mutex::default());
        let changes = watch::Sender::new(0);
        Self { shared: Arc::new(Shared { settings, host, tasks, memory, slots, pools, changes }) }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<String, (StoreUrl, Slot)>> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The opened store, opening it if need be. Waiting callers share one attempt.
    pub async fn open(
        &self,
        url: &StoreUrl,
        version: Option<&str>,
    ) -> Result<Arc<Store>, StoreError> {
        let mut attempt = {
            let mut slots = self.slots();
            match slots.get(&url.key()) {
                Some((_, Slot::Ready(store))) if !store.is_lost() => return Ok(Arc::clone(store)),
                Some((_, Slot::Opening(attempt))) => attempt.clone(),
                None if slots.len() >= MAX_STORES => return Err(StoreError::TooMany(MAX_STORES)),
                Some(_) | None => {
                    let (tx, rx) = watch::channel(None);
                    slots.insert(url.key(), (url.clone(), Slot::Opening(rx.clone())));
                    let (stores, url) = (self.clone(), url.clone());
                    let version = mount::wire_version(version).map(str::to_owned);
                    self.shared.tasks.spawn("open store", async move {
                        stores.attempt(url, version, tx).await;
                    });
                    rx
                }
            }
        };
        let limit = self.shared.settings.mount.timeout + self.shared.settings.deadline;
        let outcome = tokio::time::timeout(limit, attempt.wait_for(Option::is_some)).await;
        match outcome {
            Ok(Ok(done)) => match done.as_ref() {
                Some(Ok(store)) => Ok(Arc::clone(store)),
                Some(Err(reason)) => Err(StoreError::Shared(reason.clone())),
                None => Err(StoreError::Opening(url.clone())),
            },
            Ok(Err(_)) | Err(_) => Err(StoreError::Opening(url.clone())),
        }
    }

    async fn attempt(&self, url: StoreUrl, version: Option<String>, tx: watch::Sender<Outcome>) {
        // If this task is killed half way, the guard turns the slot into a failed one.
        let mut guard = Unfinished { stores: self, url: &url, done: false };
        let outcome = self.open_now(&url, version.as_deref()).await;
        guard.done = true;
        let slot = match &outcome {
            Ok(store) => {
                tracing::info!(store = %url, path = %store.root.display(), "store ready");
                Slot::Ready(Arc::clone(store))
            }
            Err(error) => {
                let reason = bedrock::chain(error);
                tracing::warn!(store = %url, error = reason, "cannot open store");
                Slot::Failed { reason, at: Instant::now() }
            }
        };
        self.slots().insert(url.key(), (url.clone(), slot));
        self.shared.changes.send_modify(|count| *count += 1);
        tx.send_replace(Some(outcome.map_err(|error| bedrock::chain(&error))));
    }

    async fn open_now(
        &self,
        url: &StoreUrl,
        version: Option<&str>,
    ) -> Result<Arc<Store>, StoreError> {
        let settings = &self.shared.settings;
        let known = self.shared.memory.get(&url.key());
        let configured = settings.configured.iter().find(|(known, _)| known.key() == url.key());
        let (name, address) = match &known {
            Some(known) => (known.directory_name.clone(), None),
            None => {
                let address = resolve(url).await?;
                (url.directory_name(address), Some(address))
            }
        };
        let root = match configured {
            Some((_, directory)) => directory.clone(),
            None => {
                let root = settings.mount_root.join(&name);
                self.ensure_mounted(url, &root, address, version).await?;
                root
            }
        };
        let pool = self.pool(url)?;
        let (path, modes, held_before) = (root.clone(), settings.modes, known.clone());
        let looked = pool
            .run(Lane::Quick, settings.deadline, move || look(&path, held_before.as_ref(), modes))
            .await
            .map_err(|source| StoreError::Pool { operation: "open", url: url.clone(), source })?;
        let Look { verdict, space, identity } = looked.map_err(|source| StoreError::Root {
            url: url.clone(),
            root: root.clone(),
            source,
        })?;
        let Verdict::Same(marker) = verdict else {
            let memory = self.shared.memory.path().to_owned();
            return Err(StoreError::Lost { url: url.clone(), root, memory });
        };
        self.remember(url, &name, marker.clone()).await?;
        let store = Store {
            url: url.clone(),
            name,
            root,
            marker,
            identity,
            modes,
            deadline: settings.deadline,
            pool,
            memory: Arc::clone(&self.shared.memory),
            lost: AtomicBool::new(false),
            held: AtomicBool::new(known.is_some_and(|known| known.held)),
            capacity: AtomicU64::default(),
            used: AtomicU64::default(),
        };
        store.remember_space(space);
        Ok(Arc::new(store))
    }

    fn pool(&self, url: &StoreUrl) -> Result<Arc<Pool>, StoreError> {
        let mut pools = self.shared.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&url.key()) {
            return Ok(Arc::clone(pool));
        }
        let started = Pool::start().map_err(|source| StoreError::Threads(url.clone(), source))?;
        let pool = Arc::new(started);
        pools.insert(url.key(), Arc::clone(&pool));
        Ok(pool)
    }

    async fn remember(
        &self,
        url: &StoreUrl,
        name: &str,
        marker: Option<String>,
    ) -> Result<(), StoreError> {
        let (memory, key, name) = (Arc::clone(&self.shared.memory), url.key(), name.to_owned());
        let work = move || {
            memory.change(&key, |known| {
                known.directory_name = name;
                known.marker = marker.or_else(|| known.marker.take());
            })
        };
        match self.shared.tasks.blocking("remember store", work).await {
            Ok(saved) => saved.map_err(|source| StoreError::Memory(url.clone(), source)),
            Err(error) => Err(StoreError::Shared(error.to_string())),
        }
    }

    /// Mounted already, or visibly a store, or mounted now.
    async fn ensure_mounted(
        &self,
        url: &StoreUrl,
        root: &Path,
        address: Option<IpAddr>,
        version: Option<&str>,
    ) -> Result<(), StoreError> {
        let path = root.to_owned();
        let prepared = self.shared.tasks.blocking("look at mounts", move || prepare(&path)).await;
        if prepared.map_err(|error| StoreError::Shared(error.to_string()))?? {
            return Ok(());
        }
        let address = match address {
            Some(address) => address,
            None => resolve(url).await?,
        };
        let how = &self.shared.settings.mount;
        tracing::info!(store = %url, path = %root.display(), "mounting store");
        let mounted = mount::mount_nfs(&self.shared.host, url, address, root, version, how).await;
        if mounted.is_err() {
            let path = root.to_owned();
            let removed = self
                .shared
                .tasks
                .blocking("remove mount point", move || std::fs::remove_dir(path))
                .await;
            if let Ok(Err(error)) = removed {
                tracing::debug!(path = %root.display(), %error, "mount point stays");
            }
        }
        Ok(mounted?)
    }

    /// The store whose directory has this name in the management server's records.
    pub fn url_of_directory(&self, name: &str) -> Option<StoreUrl> {
        let key = self.shared.memory.key_of_directory(name)?;
        key.parse().ok()
    }

    /// The one configured store, when there is exactly one.
    pub fn only_configured(&self) -> Option<StoreUrl> {
        match self.shared.settings.configured.as_slice() {
            [(url, _)] => Some(url.clone()),
            _ => None,
        }
    }

    /// For `/status` and metrics.
    pub fn status(&self) -> Vec<StoreStatus> {
        let mut list: Vec<StoreStatus> =
            self.slots().values().map(|(url, slot)| slot.status(url)).collect();
        list.sort_by(|a, b| a.url.cmp(&b.url));
        list
    }

    /// Notified when opening a store ended, well or not.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Why stores that were asked for lately could not be opened. Older failures are forgotten.
    pub fn failures(&self) -> Vec<String> {
        let mut slots = self.slots();
        slots.retain(|_, (_, slot)| match slot {
            Slot::Failed { at, .. } => at.elapsed() < FAILURE_MEMORY,
            Slot::Opening(_) | Slot::Ready(_) => true,
        });
        let mut pools = self.shared.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|key, _| slots.contains_key(key));
        drop(pools);
        let failed = slots.values().filter_map(|(_, slot)| match slot {
            Slot::Failed { reason, .. } => Some(reason.clone()),
            Slot::Opening(_) | Slot::Ready(_) => None,
        });
        failed.collect()
    }

    /// Opened stores whose directory turned out to be another one since.
    pub fn lost(&self) -> Vec<StoreUrl> {
        let slots = self.slots();
        let lost = slots.values().filter_map(|(url, slot)| match slot {
            Slot::Ready(store) if store.is_lost() => Some(url.clone()),
            Slot::Ready(_) | Slot::Opening(_) | Slot::Failed { .. } => None,
        });
        lost.collect()
    }

    /// The stores that are ready now.
    pub fn ready(&self) -> Vec<Arc<Store>> {
        self.slots()
            .values()
            .filter_map(|(_, slot)| match slot {
                Slot::Ready(store) if !store.is_lost() => Some(Arc::clone(store)),
                Slot::Ready(_) | Slot::Opening(_) | Slot::Failed { .. } => None,
            })
            .collect()
    }
}

impl Slot {
    fn status(&self, url: &StoreUrl) -> StoreStatus {
        let mut status = StoreStatus {
            url: url.to_string(),
            state: "opening",
            reason: None,
            directory: None,
            capacity_bytes: None,
            used_bytes: None,
        };
        match self {
            Self::Opening(_) => {}
            Self::Failed { reason, .. } => {
                status.state = "failed";
                status.reason = Some(reason.clone());
            }
            Self::Ready(store) => {
                let space = store.space();
                status.state = if store.is_lost() { "lost" } else { "ready" };
                status.directory = Some(store.root.display().to_string());
                status.capacity_bytes = Some(space.capacity);
                status.used_bytes = Some(space.used);
            }
        }
        status
    }
}

struct Unfinished<'a> {
    stores: &'a Stores,
    url: &'a StoreUrl,
    done: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.done {
            let reason = "opening was interrupted".to_owned();
            let slot = Slot::Failed { reason, at: Instant::now() };
            self.stores.slots().insert(self.url.key(), (self.url.clone(), slot));
        }
    }
}

/// `true`: the directory can be used as it is. Otherwise it exists as an empty mount point.
fn prepare(root: &Path) -> Result<bool, MountError> {
    if mount::is_mounted(root)? {
        return Ok(true);
    }
    let is_store = |name: &str| root.join(name).exists();
    if is_store(super::marker::MARKER_FILE) || is_store("template") || is_store("volumes") {
        return Ok(true);
    }
    std::fs::create_dir_all(root)
        .map_err(|source| MountError::MountPoint { path: root.to_owned(), source })?;
    Ok(false)
}

/// What a first look at a root shows.
struct Look {
    verdict: Verdict,
    space: super::Space,
    identity: (u64, u64),
}

/// Looks at the marker, makes the trees that other parties expect, takes the figures.
fn look(root: &Path, known: Option<&Known>, modes: Modes) -> std::io::Result<Look> {
    let dir = Dir::open_root(root)?;
    let verdict = verify_or_mark(&dir, known, modes)?;
    if let Verdict::Same(Some(_)) = verdict {
        for tree in [ObjectKind::Template.tree(), ObjectKind::Volume.tree()] {
            dir.create_all(&tree, modes)?;
        }
    }
    Ok(Look { verdict, space: dir.space()?, identity: dir.identity()? })
}

async fn resolve(url: &StoreUrl) -> Result<IpAddr, StoreError> {
    if let Ok(address) = url.host().parse() {
        return Ok(address);
    }
    let error = |source| StoreError::Resolve { host: url.host().to_owned(), source };
    let lookup = tokio::net::lookup_host((url.host(), 0));
    let mut found = tokio::time::timeout(RESOLVE_TIMEOUT, lookup)
        .await
        .map_err(|_elapsed| error(std::io::Error::from(std::io::ErrorKind::TimedOut)))?
        .map_err(error)?;
    let first = found.next();
    first
        .map(|address| address.ip())
        .ok_or_else(|| error(std::io::Error::from(std::io::ErrorKind::NotFound)))
}

#[cfg(test)]
mod tests;
