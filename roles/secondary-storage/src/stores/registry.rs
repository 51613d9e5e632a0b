//! All stores of this host: opened once, opened again when lost, never twice at a time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use role::TaskScope;
use status_api::{StoreState, StoreStatus};
use tokio::sync::watch;

use super::config::{StoreSettings, is_unset};
use super::engine::{Connected, Engine, EngineError, Engines, Space};
use super::marker::{Known, MarkerCheck, Memory, takes_nothing, verify_or_mark};
use super::{InstallPath, ObjectKind, Store, StoreError, StoreUrl, Work};

/// One image store of a zone each; a bound against a server that names ever new ones.
const MAX_STORES: usize = 32;
/// The management server asks for the figures of each store once a minute.
const FAILURE_MEMORY: Duration = Duration::from_secs(600);
/// For the first look at a store that can be reached.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// How often, and after which pauses, a store is looked for that is not there after a start.
const PATIENT_ATTEMPTS: u32 = 30;
const PATIENT_PAUSE: Duration = Duration::from_secs(10);

type Outcome = Option<Result<Arc<Store>, String>>;

#[derive(Debug)]
enum Slot {
    /// With the reason why it is opened again, if it failed or was lost before.
    Opening {
        attempt: watch::Receiver<Outcome>,
        former: Option<String>,
    },
    Ready(Arc<Store>),
    Failed {
        reason: String,
        at: Instant,
        wanted: Wanted,
    },
}

/// How and when a command asked for a store last.
#[derive(Debug, Clone)]
struct Wanted {
    version: Option<String>,
    at: Instant,
}

/// Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Stores {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engines: Arc<dyn Engines>,
    tasks: TaskScope,
    memory: Arc<Memory>,
    slots: Mutex<HashMap<String, (StoreUrl, Slot)>>,
    /// Stores that come ready made with commands, by their keys.
    adopted: Mutex<HashMap<String, Arc<Store>>>,
    /// Counts the configurations that were taken over.
    generation: AtomicU64,
    /// Counts openings that ended and stores that were lost.
    changes: watch::Sender<u64>,
}

impl Stores {
    pub fn new(engines: Arc<dyn Engines>, tasks: TaskScope, memory: Memory) -> Self {
        let (memory, slots) = (Arc::new(memory), Mutex::default());
        let (changes, generation) = (watch::Sender::new(0), AtomicU64::new(0));
        let adopted = Mutex::default();
        let shared = Shared { engines, tasks, memory, slots, adopted, generation, changes };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a store that needs no opening, in place of one of its URL. Whoever makes them bounds their
    /// number.
    pub fn adopt(&self, store: &Arc<Store>) {
        self.adopted().insert(store.url().key(), Arc::clone(store));
    }

    fn adopted(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Store>>> {
        self.shared.adopted.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(store) = self.adopted().get(&url.key()) {
            return Ok(Arc::clone(store));
        }
        let version = wire_version(version).map(str::to_owned);
        self.open_wanted(url, Wanted { version, at: Instant::now() }).await
    }

    /// As [`Stores::open`], for what goes on after a start of the process: the network may not be
    /// there yet, so it is tried again for some minutes. `told` hears why, before each pause.
    pub async fn open_patiently(
        &self,
        url: &StoreUrl,
        version: Option<&str>,
        told: impl Fn(&str),
    ) -> Result<Arc<Store>, StoreError> {
        for _attempt in 0..PATIENT_ATTEMPTS {
            match self.open(url, version).await {
                Ok(store) => return Ok(store),
                Err(error) => told(&bedrock::chain(&error)),
            }
            tokio::time::sleep(PATIENT_PAUSE).await;
        }
        self.open(url, version).await
    }

    async fn open_wanted(&self, url: &StoreUrl, wanted: Wanted) -> Result<Arc<Store>, StoreError> {
        let mut attempt = {
            let mut slots = self.slots();
            match slots.get(&url.key()) {
                Some((_, Slot::Ready(store))) if !store.is_lost() => return Ok(Arc::clone(store)),
                Some((_, Slot::Opening { attempt, .. })) => attempt.clone(),
                None if slots.len() >= MAX_STORES => return Err(StoreError::TooMany(MAX_STORES)),
                before => {
                    let former = before.and_then(|(_, slot)| slot.trouble());
                    let (tx, rx) = watch::channel(None);
                    let opening = Slot::Opening { attempt: rx.clone(), former };
                    slots.insert(url.key(), (url.clone(), opening));
                    let (stores, url) = (self.clone(), url.clone());
                    self.shared.tasks.spawn("open store", async move {
                        stores.attempt(url, wanted, tx).await;
                    });
                    rx
                }
            }
        };
        let limit = self.shared.engines.connect_limit() + LOOK_LIMIT;
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

    async fn attempt(&self, url: StoreUrl, wanted: Wanted, tx: watch::Sender<Outcome>) {
        // If this task is killed half way, the guard turns the slot into a failed one.
        let mut guard = Unfinished { stores: self, url: &url, wanted: &wanted, done: false };
        let outcome = loop {
            let generation = self.shared.generation.load(Ordering::SeqCst);
            let outcome = self.open_now(&url, wanted.version.clone()).await;
            // Another configuration came meanwhile: what was opened may be another place.
            if generation == self.shared.generation.load(Ordering::SeqCst) {
                break outcome;
            }
        };
        guard.done = true;
        let slot = match &outcome {
            Ok(store) => {
                tracing::info!(store = %url, place = store.place(), "store ready");
                Slot::Ready(Arc::clone(store))
            }
            Err(error) => {
                let reason = bedrock::chain(error);
                tracing::warn!(store = %url, error = reason, "cannot open store");
                Slot::Failed { reason, at: Instant::now(), wanted: wanted.clone() }
            }
        };
        self.slots().insert(url.key(), (url.clone(), slot));
        self.shared.changes.send_modify(|count| *count += 1);
        tx.send_replace(Some(outcome.map_err(|error| bedrock::chain(&error))));
    }

    async fn open_now(
        &self,
        url: &StoreUrl,
        version: Option<String>,
    ) -> Result<Arc<Store>, StoreError> {
        let known = self.shared.memory.get(&url.key());
        let name = known.as_ref().map(|known| known.directory_name.clone());
        let Connected { name, engine, notes } =
            self.shared.engines.connect(url.clone(), name, version.clone()).await?;
        let looked = look(&*engine, known.as_ref()).await;
        let Looked { check, space, unwritable } = looked.map_err(|source| StoreError::Place {
            url: url.clone(),
            place: engine.place(),
            source,
        })?;
        let MarkerCheck::Same(marker) = check else {
            let memory = self.shared.memory.path().to_owned();
            return Err(StoreError::Lost { url: url.clone(), place: engine.place(), memory });
        };
        let known_name = name.clone();
        self.remember(url, move |known| {
            known.directory_name = known_name;
            known.marker = marker.or_else(|| known.marker.take());
        })
        .await?;
        let store = Store {
            url: url.clone(),
            name,
            engine,
            version,
            notes,
            unwritable,
            lost: AtomicBool::new(false),
            held: AtomicBool::new(known.is_some_and(|known| known.held)),
            capacity: AtomicU64::default(),
            used: AtomicU64::default(),
            changes: self.shared.changes.clone(),
        };
        store.remember_space(space);
        Ok(Arc::new(store))
    }

    /// Notes that the store holds something, so that an empty place is not taken for it.
    pub async fn remember_held(&self, store: &Store) -> Result<(), StoreError> {
        if store.held.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.remember(store.url(), |known| known.held = true).await?;
        store.held.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn remember(
        &self,
        url: &StoreUrl,
        change: impl FnOnce(&mut Known) + Send + 'static,
    ) -> Result<(), StoreError> {
        let (memory, key) = (Arc::clone(&self.shared.memory), url.key());
        let work = move || memory.change(&key, change);
        let saved = self.shared.tasks.blocking("remember a store", work).await?;
        saved.map_err(|source| StoreError::Memory(url.clone(), source))
    }

    /// The store whose directory has this name in the management server's records.
    pub fn url_of_directory(&self, name: &str) -> Option<StoreUrl> {
        let key = self.shared.memory.key_of_directory(name)?;
        key.parse().ok()
    }

    /// The one configured store, when there is exactly one.
    pub fn only_configured(&self) -> Option<StoreUrl> {
        match self.shared.engines.configured().as_slice() {
            [url] => Some(url.clone()),
            _ => None,
        }
    }

    /// Opens the configured stores that nobody has asked for yet; one that cannot be opened is told
    /// elsewhere.
    pub async fn open_configured(&self) {
        let untried: Vec<StoreUrl> = {
            let slots = self.slots();
            let configured = self.shared.engines.configured();
            configured.into_iter().filter(|url| !slots.contains_key(&url.key())).collect()
        };
        let opening = untried.iter().map(|url| self.open(url, None));
        drop(futures_util::future::join_all(opening).await);
    }

    /// For `/status` and metrics.
    pub fn status(&self) -> Vec<StoreStatus> {
        let mut list: Vec<StoreStatus> =
            self.slots().values().map(|(url, slot)| slot.status(url)).collect();
        let adopted = self.adopted();
        list.extend(
            adopted.values().map(|store| Slot::Ready(Arc::clone(store)).status(store.url())),
        );
        list.sort_by(|a, b| a.url.cmp(&b.url));
        list
    }

    /// Notified when opening a store ended, well or not.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Why stores that were asked for lately cannot be used. Older failures are forgotten.
    pub fn failures(&self) -> Vec<String> {
        let mut slots = self.slots();
        slots.retain(|_, (_, slot)| match slot {
            Slot::Failed { wanted, .. } => wanted.at.elapsed() < FAILURE_MEMORY,
            Slot::Opening { .. } | Slot::Ready(_) => true,
        });
        self.shared.engines.retain(&|key| slots.contains_key(key));
        slots.values().filter_map(|(_, slot)| slot.trouble()).collect()
    }

    /// Opens again, without waiting for it, what was lost, and what failed longer than `pause` ago:
    /// a store that comes back is there before the next command asks.
    pub fn reopen(&self, pause: Duration) {
        let due: Vec<(StoreUrl, Wanted)> = {
            let slots = self.slots();
            let due = slots.values().filter_map(|(url, slot)| match slot {
                Slot::Ready(store) if store.is_lost() => Some((url.clone(), store.wanted())),
                Slot::Failed { at, wanted, .. } if at.elapsed() >= pause => {
                    Some((url.clone(), wanted.clone()))
                }
                Slot::Opening { .. } | Slot::Ready(_) | Slot::Failed { .. } => None,
            });
            due.collect()
        };
        for (url, wanted) in due {
            // The first step starts a task; whoever wants its outcome asks for the store.
            drop(self.open_wanted(&url, wanted).now_or_never());
        }
    }

    /// Takes over another configuration. Stores that it changes are opened again at once, and so are
    /// those that failed and those that are new; whoever works on one now ends where it began.
    pub fn reconfigure(&self, settings: StoreSettings) {
        let changed = self.shared.engines.reconfigure(settings);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        let due: Vec<(StoreUrl, Wanted)> = {
            let mut slots = self.slots();
            let again = slots.values().filter_map(|(url, slot)| match slot {
                Slot::Ready(store) if changed(url) => Some((url.clone(), store.wanted())),
                Slot::Failed { wanted, .. } => Some((url.clone(), wanted.clone())),
                Slot::Opening { .. } | Slot::Ready(_) => None,
            });
            let again: Vec<_> = again.collect();
            for (url, _) in &again {
                slots.remove(&url.key());
            }
            let wanted = Wanted { version: None, at: Instant::now() };
            let new = self.shared.engines.configured().into_iter();
            let new = new.filter(|url| changed(url) && !slots.contains_key(&url.key()));
            let new: Vec<_> = new.map(|url| (url, wanted.clone())).collect();
            again.into_iter().chain(new).collect()
        };
        for (url, wanted) in due {
            tracing::info!(store = %url, "store is opened with another configuration");
            drop(self.open_wanted(&url, wanted).now_or_never());
        }
    }

    /// The stores that are ready now.
    pub fn ready(&self) -> Vec<Arc<Store>> {
        self.slots()
            .values()
            .filter_map(|(_, slot)| match slot {
                Slot::Ready(store) if !store.is_lost() => Some(Arc::clone(store)),
                Slot::Ready(_) | Slot::Opening { .. } | Slot::Failed { .. } => None,
            })
            .collect()
    }
}

impl Slot {
    /// Why the store cannot be used, if it cannot.
    fn trouble(&self) -> Option<String> {
        match self {
            Self::Opening { former, .. } => former.clone(),
            Self::Ready(store) if store.is_lost() => {
                Some(format!("store {} was lost and is opened again", store.url()))
            }
            Self::Ready(_) => None,
            Self::Failed { reason, .. } => Some(reason.clone()),
        }
    }

    fn status(&self, url: &StoreUrl) -> StoreStatus {
        let mut status = StoreStatus {
            url: url.to_string(),
            state: StoreState::Opening,
            reason: None,
            notes: Vec::new(),
            directory: None,
            capacity_bytes: None,
            used_bytes: None,
            orphans: None,
        };
        match self {
            Self::Opening { former, .. } => status.reason.clone_from(former),
            Self::Failed { reason, .. } => {
                status.state = StoreState::Failed;
                status.reason = Some(reason.clone());
            }
            Self::Ready(store) => {
                let space = store.space();
                status.state = if store.is_lost() { StoreState::Lost } else { StoreState::Ready };
                status.reason = store.trouble(space);
                status.notes = store.notes().to_vec();
                status.directory = Some(store.place());
                status.capacity_bytes = Some(space.capacity);
                status.used_bytes = Some(space.used);
            }
        }
        status
    }
}

/// A version as the wire carries it: absent, blank and the text `null` all mean "not set".
fn wire_version(version: Option<&str>) -> Option<&str> {
    version.filter(|version| !is_unset(version)).map(str::trim)
}

impl Store {
    fn wanted(&self) -> Wanted {
        Wanted { version: self.version.clone(), at: Instant::now() }
    }
}

/// What the first look at a store found.
struct Looked {
    check: MarkerCheck,
    space: Space,
    /// Why nothing can be stored.
    unwritable: Option<String>,
}

struct Unfinished<'a> {
    stores: &'a Stores,
    url: &'a StoreUrl,
    wanted: &'a Wanted,
    done: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.done {
            let reason = "opening was interrupted".to_owned();
            let wanted = self.wanted.clone();
            let slot = Slot::Failed { reason, at: Instant::now(), wanted };
            self.stores.slots().insert(self.url.key(), (self.url.clone(), slot));
        }
    }
}

/// Looks at the marker, makes the trees that other parties expect, proves that what is written can
/// be read and removed, takes the figures.
async fn look(engine: &dyn Engine, known: Option<&Known>) -> Result<Looked, EngineError> {
    let work = Work::new();
    let check = verify_or_mark(engine, &work, known).await?;
    let mut unwritable = None;
    if let MarkerCheck::Same(marker) = &check {
        if marker.is_some() {
            unwritable = prove(engine, &work).await?;
        } else {
            unwritable = Some("it is read-only or full".to_owned());
        }
        if unwritable.is_none() {
            for kind in ObjectKind::ALL {
                engine.ensure(&work, kind.tree()).await?;
            }
        }
        engine.pin(&work, marker.clone()).await?;
    }
    Ok(Looked { check, space: engine.probe(&work).await?, unwritable })
}

/// Writes, reads and removes a file; the reason when the store does not take it. One that gives back
/// something else than it took is no store at all.
async fn prove(engine: &dyn Engine, work: &Work) -> Result<Option<String>, EngineError> {
    let id = uuid::Uuid::new_v4();
    let name = format!(".quickcloud-probe-{id}");
    let aside = format!("{name}.new").parse().map_err(std::io::Error::other)?;
    let path = InstallPath::of(&name)?;
    let content = bytes::Bytes::from(id.to_string());
    match engine.put(work, path.clone(), aside, content.clone()).await {
        Ok(()) => {}
        Err(EngineError::Io(error))
            if takes_nothing(&error) || error.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            return Ok(Some(error.to_string()));
        }
        Err(error) => return Err(error),
    }
    let found = engine.get(work, path.clone()).await?;
    let removed = engine.remove_file(work, path).await?;
    if found.as_ref() == Some(&content) && removed {
        return Ok(None);
    }
    Err(std::io::Error::other("what was written there is not what is read").into())
}

#[cfg(test)]
pub(crate) mod tests;
