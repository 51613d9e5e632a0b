//! Several storage hosts of a zone on one store: who does what, how far it is, and what another host
//! needs to go on when one dies.
//!
//! ```text
//! .quickcloud/leases/<work>/<epoch>     whose it is (see `stores::lease`)
//! .quickcloud/jobs/<work>/job.json      what it has created, how far it is; renewed every few seconds
//! ```
//!
//! A piece of work is the place of the object that is being made, a directory or a file: no two hosts make the same
//! object, whether they were asked to download it or a browser sends it. A host that is asked for
//! what another one is doing waits for it and says how far it is; it goes on itself when the other
//! one dies. [`takeover`] looks for work of dead hosts that nobody here was asked for.
//!
//! Whoever goes on writes files of new names and copies what was there (why: `stores::lease`, 4). A
//! command with anything secret in it stays in the state directory of its host, because hypervisor
//! hosts can read the store: such a download begins again when the server asks again, and only what
//! it left is removed.

pub mod takeover;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::ingest::journal::{Note, remove_leftovers};
use crate::ingest::records::Record;
use crate::state_file::StateError;
use crate::stores::facts::{self, FactError};
use crate::stores::lease::{self, Acquired, Lease, LeaseError, Leases};
use crate::stores::path::PathError;
use crate::stores::{FileName, InstallPath, Store, StoreError};

const TREE: &str = ".quickcloud/jobs";
const FILE: &str = "job.json";
/// Renewals within the time after which a silent host is dead.
const BEATS: u32 = 9;

/// Why it is not known who does a piece of work.
#[derive(Debug, thiserror::Error)]
pub enum SharingError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Fact(#[from] FactError),
    #[error(transparent)]
    Store(Box<StoreError>),
}

impl From<StoreError> for SharingError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<PathError> for SharingError {
    fn from(error: PathError) -> Self {
        Self::Fact(error.into())
    }
}

/// The name of the work of making what is at a place.
pub fn work_of(place: &InstallPath) -> Result<FileName, PathError> {
    place.to_string().replace('/', "+").parse()
}

/// What a piece of work makes.
fn place_of(work: &FileName) -> Option<InstallPath> {
    work.as_str().replace('+', "/").parse().ok()
}

/// What a host has created on a store for a piece of work, under the name by which it knows it: the
/// id of a job, the attempt of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub owner: String,
    pub note: Note,
}

/// How far a piece of work is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Doing {
    pub received: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Of a download, unless it holds secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// What is downloaded, without secrets: another host goes on only with the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Of an upload: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
}

/// A piece of work as it lies on the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// Of the hosts that did it before, and of the one that does it now.
    pub left: Vec<Left>,
    #[serde(flatten)]
    pub doing: Doing,
}

/// Who does a piece of work on this host.
pub trait Worker: fmt::Debug + Send + Sync {
    fn doing(&self) -> Doing;

    /// It is over, and nothing is to be done again.
    fn is_over(&self) -> bool;

    /// Another host does it now.
    fn lose(&self);
}

/// What became of the wish to do a piece of work.
#[derive(Debug)]
pub enum Begun {
    /// It is this host's; with what the one before showed, if it did not come to its end.
    Ours(Option<Box<Shown>>),
    /// The store cannot decide between hosts.
    Unshared,
    /// Another host does it.
    Elsewhere,
}

/// The work of this host, and the looks at that of others. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Sharing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    leases: Leases,
    beat: Duration,
    held: Mutex<HashMap<Key, Held>>,
}

/// A store's key and the work.
type Key = (String, FileName);

#[derive(Debug, Clone)]
struct Held {
    lease: Lease,
    owner: String,
    /// `None` while it is kept for one that begins in a moment.
    worker: Option<Arc<dyn Worker>>,
    former: Option<Shown>,
    /// Of those before.
    left: Vec<Left>,
    note: Option<Note>,
    /// Another host has it.
    lost: bool,
    /// Held while its file on the store is written or removed: a sign of life that was under way must not
    /// bring back what its end has removed.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl Held {
    fn left(&self) -> Vec<Left> {
        let own = self.note.clone().map(|note| Left { owner: self.owner.clone(), note });
        self.left.iter().cloned().chain(own).collect()
    }
}

impl Sharing {
    /// A host that is dead after `takeover_after` without a sign. Blocks.
    pub fn open(state_directory: &Path, takeover_after: Duration) -> Result<Self, StateError> {
        let leases = Leases::open(state_directory, takeover_after)?;
        let beat = lease::BEAT.min(takeover_after / BEATS);
        Ok(Self { shared: Arc::new(Shared { leases, beat, held: Mutex::default() }) })
    }

    /// Between two signs of this host.
    pub fn beat(&self) -> Duration {
        self.shared.beat
    }

    fn leases(&self) -> &Leases {
        &self.shared.leases
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(store: &Store, work: &FileName) -> Key {
        (store.url().key(), work.clone())
    }

    /// What `owner` has here, with its work.
    fn of(&self, store: &Store, owner: &str) -> Option<(FileName, Held)> {
        let (held, key) = (self.held(), store.url().key());
        let mut all = held.iter().filter(|((of, _), held)| *of == key && held.owner == owner);
        all.next().map(|((_, work), held)| (work.clone(), held.clone()))
    }

    /// Gets a piece of work for `owner`, or says who does it. Ask again to find out that the other
    /// one died.
    pub async fn begin(
        &self,
        store: &Store,
        work: &FileName,
        owner: &str,
        worker: Arc<dyn Worker>,
    ) -> Result<Begun, SharingError> {
        if !store.engine().can_claim() {
            return Ok(Begun::Unshared);
        }
        match self.held().get_mut(&Self::key(store, work)) {
            Some(kept) if kept.owner == owner && kept.worker.is_none() => {
                kept.worker = Some(worker);
                return Ok(Begun::Ours(kept.former.take().map(Box::new)));
            }
            // Something else of this host makes the same: a download and an upload.
            Some(held) if held.worker.as_ref().is_none_or(|worker| !worker.is_over()) => {
                return Ok(Begun::Elsewhere);
            }
            Some(_) | None => {}
        }
        let lease = match self.leases().acquire(store, work, Instant::now()).await {
            Ok(Acquired::Lease(lease)) => lease,
            Ok(Acquired::Held { .. }) => return Ok(Begun::Elsewhere),
            Err(error) if error.is_unsupported() => {
                tracing::debug!(store = %store.url(), error = bedrock::chain(&error), "work on this store is not shared");
                return Ok(Begun::Unshared);
            }
            Err(error) => return Err(error.into()),
        };
        let former = self.look(store, work).await;
        self.keep(store, work, owner, lease, former.clone(), Some(worker));
        Ok(Begun::Ours(former.map(Box::new)))
    }

    /// Whether another host does a piece of work, as far as the store can say.
    pub async fn is_elsewhere(&self, store: &Store, work: &FileName) -> Result<bool, SharingError> {
        if !store.engine().can_claim() {
            return Ok(false);
        }
        Ok(self.leases().is_elsewhere(store, work, Instant::now()).await?)
    }

    fn keep(
        &self,
        store: &Store,
        work: &FileName,
        owner: &str,
        lease: Lease,
        former: Option<Shown>,
        worker: Option<Arc<dyn Worker>>,
    ) {
        let all = former.as_ref().map(|former| former.left.clone()).unwrap_or_default();
        let (own, left): (Vec<Left>, _) = all.into_iter().partition(|left| left.owner == owner);
        let note = own.into_iter().next_back().map(|left| left.note);
        let owner = owner.to_owned();
        let writing = Arc::default();
        let held = Held { lease, owner, worker, former, left, note, lost: false, writing };
        self.held().insert(Self::key(store, work), held);
    }

    /// What is shown of a piece of work; what cannot be read is told and taken for nothing.
    pub async fn look(&self, store: &Store, work: &FileName) -> Option<Shown> {
        let path = place(work).map(|(directory, file)| directory.join(file)).ok()?;
        match facts::read(store, "look at a shared job", path).await {
            Ok(shown) => shown,
            Err(error) => {
                let error = bedrock::chain(&error);
                tracing::warn!(store = %store.url(), %work, error, "cannot look at a shared job");
                None
            }
        }
    }

    /// Shows what `owner` is about to create. Nothing happens when its work is not shared.
    pub async fn note(&self, store: &Store, owner: &str, note: &Note) -> Result<(), SharingError> {
        let Some((work, _)) = self.of(store, owner) else { return Ok(()) };
        if let Some(held) = self.held().get_mut(&Self::key(store, &work)) {
            held.note = Some(note.clone());
        }
        self.show(store, &work).await
    }

    /// What hosts before had left is gone.
    pub async fn reclaimed(&self, store: &Store, work: &FileName) -> Result<(), SharingError> {
        if let Some(held) = self.held().get_mut(&Self::key(store, work)) {
            held.left.clear();
        }
        self.show(store, work).await
    }

    async fn show(&self, store: &Store, work: &FileName) -> Result<(), SharingError> {
        let key = Self::key(store, work);
        let writing = self.held().get(&key).map(|held| Arc::clone(&held.writing));
        let Some(writing) = writing else { return Ok(()) };
        let _writing = writing.lock().await;
        let held = self.held().get(&key).cloned();
        let is_same = |held: &Held| Arc::ptr_eq(&held.writing, &writing) && !held.lost;
        let Some(held) = held.filter(is_same) else { return Ok(()) };
        let Some(worker) = &held.worker else { return Ok(()) };
        let shown = Shown { left: held.left(), doing: worker.doing() };
        let (directory, file) = place(work)?;
        Ok(facts::write(store, "share a job", &directory, file, &shown).await?)
    }

    /// Whether nobody else does the work of `owner`: looked at before something is made visible. What
    /// cannot be looked at is ours: it is whole and verified.
    pub async fn is_ours(&self, store: &Store, owner: &str) -> bool {
        let Some((work, held)) = self.of(store, owner) else { return true };
        if held.lost {
            return false;
        }
        match self.leases().is_held(store, &held.lease).await {
            Ok(false) => {
                self.lose(store, &work);
                false
            }
            Ok(true) => true,
            Err(error) => {
                let error = bedrock::chain(&error);
                tracing::warn!(owner, error, "cannot look whose work it is, it goes on");
                true
            }
        }
    }

    fn lose(&self, store: &Store, work: &FileName) {
        let worker = self.held().get_mut(&Self::key(store, work)).and_then(|held| {
            let is_new = !std::mem::replace(&mut held.lost, true);
            held.worker.clone().filter(|_worker| is_new)
        });
        if let Some(worker) = worker {
            tracing::warn!(store = %store.url(), %work, "another storage host does this work now");
            worker.lose();
        }
    }

    /// The work of `owner` is over, well or not. What cannot be given back now is in the next round.
    pub async fn end(&self, store: &Store, owner: &str) {
        let Some((work, held)) = self.of(store, owner) else { return };
        if let Err(error) = self.give_back(store, &work, &held).await {
            let error = bedrock::chain(&error);
            tracing::warn!(store = %store.url(), %work, error, "cannot give work back, will retry");
        }
    }

    async fn give_back(
        &self,
        store: &Store,
        work: &FileName,
        held: &Held,
    ) -> Result<(), SharingError> {
        let _writing = held.writing.lock().await;
        if !held.lost && self.leases().is_held(store, &held.lease).await? {
            self.hide(store, work).await?;
            self.leases().release(store, &held.lease).await?;
        }
        let mut all = self.held();
        // Unless it was begun again meanwhile.
        if all.get(&Self::key(store, work)).is_some_and(|now| now.lease == held.lease) {
            all.remove(&Self::key(store, work));
        }
        Ok(())
    }

    async fn hide(&self, store: &Store, work: &FileName) -> Result<(), SharingError> {
        let (directory, file) = place(work)?;
        Ok(facts::remove(store, "share a job", directory, file).await?)
    }

    /// Ends the work of another host on an object that is about to be removed. This host's own has ended.
    pub async fn clear(&self, store: &Store, directory: &InstallPath) -> Result<(), SharingError> {
        if !store.engine().can_claim() {
            return Ok(());
        }
        let work = work_of(directory)?;
        match self.leases().seize(store, &work).await {
            Ok(Some(lease)) => {
                tracing::info!(store = %store.url(), %work, "work of another storage host is ended");
                self.hide(store, &work).await?;
                Ok(self.leases().release(store, &lease).await?)
            }
            Ok(None) => Ok(()),
            Err(error) if error.is_unsupported() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A sign of life, how far this host's work is, and whether it still is its own.
    async fn renew(&self, store: &Store) -> Result<(), SharingError> {
        let key = store.url().key();
        let ours: Vec<(FileName, Held)> = {
            let held = self.held();
            let ours = held.iter().filter(|((of, _), _)| *of == key);
            ours.map(|((_, work), held)| (work.clone(), held.clone())).collect()
        };
        if ours.is_empty() {
            return Ok(());
        }
        self.leases().beat(store).await?;
        for (work, held) in ours {
            let Some(worker) = &held.worker else { continue };
            if worker.is_over() {
                self.give_back(store, &work, &held).await?;
            } else if held.lost || !self.leases().is_held(store, &held.lease).await? {
                self.lose(store, &work);
            } else {
                self.show(store, &work).await?;
            }
        }
        Ok(())
    }

    /// Work whose host is dead, which is this host's from now on.
    async fn orphans(
        &self,
        store: &Store,
        is_begun: impl Fn(&FileName) -> bool,
    ) -> Result<Vec<(FileName, Lease)>, SharingError> {
        let mut orphans = Vec::new();
        for work in lease::leased(store).await? {
            if self.held().contains_key(&Self::key(store, &work)) || is_begun(&work) {
                continue;
            }
            let acquired = self.leases().acquire(store, &work, Instant::now()).await?;
            if let Acquired::Lease(lease) = acquired {
                orphans.push((work, lease));
            }
        }
        Ok(orphans)
    }

    /// Where any host, dead or not, makes something, with the directories of these places; `None` when
    /// that cannot be said.
    pub async fn busy(&self, store: &Store) -> Option<BTreeSet<InstallPath>> {
        if !store.engine().can_claim() {
            return Some(BTreeSet::new());
        }
        match lease::leased(store).await {
            Ok(all) => {
                let places = all.iter().filter_map(place_of);
                let with_parents = places.flat_map(|place| {
                    let parent = place.split().map(|(parent, _name)| parent);
                    std::iter::once(place).chain(parent)
                });
                Some(with_parents.collect())
            }
            Err(error) => {
                let error = bedrock::chain(&error);
                tracing::warn!(store = %store.url(), error, "cannot look at the work of other hosts");
                None
            }
        }
    }

    /// Says that this host ends, unless it goes on with something at its next start.
    async fn leave(&self, store: &Store) -> Result<(), SharingError> {
        let key = store.url().key();
        let goes_on = self.held().keys().any(|(of, _)| *of == key);
        if goes_on { Ok(()) } else { Ok(self.leases().leave(store).await?) }
    }
}

/// Removes what hosts before have left of a piece of work.
pub async fn reclaim(store: &Store, left: &[Left]) -> Result<(), StoreError> {
    for Left { owner, note } in left {
        remove_leftovers(store, owner, note).await?;
    }
    Ok(())
}

fn place(work: &FileName) -> Result<(InstallPath, FileName), PathError> {
    Ok((TREE.parse::<InstallPath>()?.join(work.clone()), FILE.parse()?))
}
