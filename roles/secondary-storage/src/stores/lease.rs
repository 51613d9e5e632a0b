//! Which host of the zone does a piece of work on a store.
//!
//! Several storage hosts share a store. When one dies, another is to go on with its work, and two
//! must never write the same. File systems between them promise little: locks may be missing or
//! local to a host, clocks disagree, and a host that was taken for dead may wake up in the middle
//! of a write. What is left, and what all of this rests on:
//!
//! 1. **Of several who create a name, one succeeds** ([`Engine::claim`]), and the file has its content
//!    from the first moment on. A lease is such a name, with a number (the *epoch*) that only grows:
//!    `.quickcloud/leases/<work>/<epoch>`. Whoever made the highest one has the work. Nothing is ever
//!    taken over by changing what another host has made, so there is no moment between a look and a
//!    change at which two could decide differently.
//! 2. **A host proves by a counter that it lives**, in a file that it replaces every few seconds:
//!    `.quickcloud/hosts/<instance>/beat`. Others compare what they read with what they read before, by
//!    their own steady clock; a counter that stood still for [`LIFE`] is that of a dead host, and so is a
//!    missing one, because it is written before the first lease and removed at a stop. No two clocks
//!    are ever compared.
//! 3. **A host looks whether the lease still is its own** before it makes anything visible, and now and
//!    then meanwhile ([`Leases::is_held`]); what it has lost it gives up.
//! 4. **What is late does no harm.** A host that hung, or a write that did in a kernel or a network, may
//!    come back between such a look and what follows; no clock excludes that. So whoever takes work over
//!    writes into files of new names, and gets what was there by copying, never by renaming a file that
//!    somebody may have open; and what is made visible at the end is whole and verified, by a rename. A
//!    late write thus changes a file that nobody uses any more, and a late rename shows an object that
//!    is right.
//!
//! A store that cannot do the first has no leases: each host does its own work there, as one host does.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::facts::{self, FactError};
use super::marker::takes_nothing;
use super::path::PathError;
use super::{FileName, InstallPath, Store, StoreError, Work};
use crate::state_file::{self, StateError};

/// How often a host that has work renews its counter.
pub const BEAT: Duration = Duration::from_secs(5);
/// A counter that stood still so long is that of a dead host: longer than a store hangs that comes back.
pub const LIFE: Duration = Duration::from_secs(45);

/// Whoever claims to be silent for longer is not waited for.
const MAX_LIFE: Duration = Duration::from_hours(1);

const LEASES: &str = ".quickcloud/leases";
const HOSTS: &str = ".quickcloud/hosts";
const BEAT_FILE: &str = "beat";
/// The name of the first epoch; by it a lease is found in a listing.
const FIRST: &str = "1";
/// Work that was taken over so often does not get better.
const MAX_EPOCH: u64 = 1_000;

/// Why it cannot be said whose a piece of work is.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error(transparent)]
    Fact(#[from] FactError),
    #[error("{0} was taken over {MAX_EPOCH} times")]
    TooOften(FileName),
}

impl From<StoreError> for LeaseError {
    fn from(error: StoreError) -> Self {
        Self::Fact(error.into())
    }
}

impl From<PathError> for LeaseError {
    fn from(error: PathError) -> Self {
        Self::Fact(error.into())
    }
}

impl LeaseError {
    /// The store has no way to decide between hosts, or takes no files at all: each host does its own
    /// work there, as one host does.
    pub fn is_unsupported(&self) -> bool {
        let Self::Fact(error) = self else { return false };
        error.io().is_some_and(|error| {
            error.kind() == std::io::ErrorKind::Unsupported || takes_nothing(error)
        })
    }
}

/// A name that nobody else makes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RandomId(Uuid);

impl RandomId {
    fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for RandomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for RandomId {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl From<RandomId> for String {
    fn from(id: RandomId) -> Self {
        id.to_string()
    }
}

/// One run of one host.
pub type Instance = RandomId;

/// What stands in a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    instance: Instance,
    /// Makes each claim unlike every other: one of the same number, made after the lease was given
    /// back, is another one.
    nonce: RandomId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Beat {
    count: u64,
    /// How long this host may be silent: others do not take it for dead sooner.
    #[serde(default)]
    life_ms: u64,
}

/// The right to do a piece of work on a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    work: FileName,
    epoch: u64,
    nonce: RandomId,
}

impl Lease {
    /// Part of the names of files that belong to this lease only.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub const fn work(&self) -> &FileName {
        &self.work
    }
}

/// What became of an attempt to get a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    Lease(Lease),
    /// Another host has it and lives, or may.
    Held {
        by: Instance,
    },
}

/// The leases of one run of one host. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Leases {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    instance: Instance,
    /// The run before this one, which has ended: the state directory belongs to one process.
    former: Option<Instance>,
    life: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Own renewals, by store.
    pulses: HashMap<String, u64>,
    /// What was seen of others, by store and instance: the counter, and since when.
    seen: HashMap<(String, Instance), (u64, Instant)>,
}

/// What is in `instance.json` of the state directory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    instance: Option<Instance>,
}

impl Leases {
    /// A new instance, which knows the one before it in this state directory. Others are dead after
    /// `life` without a sign. Blocks.
    pub fn open(state_directory: &Path, life: Duration) -> Result<Self, StateError> {
        let path = state_directory.join("instance.json");
        let former = state_file::load::<Saved>(&path)?.instance;
        let instance = RandomId::new();
        state_file::save(&path, &Saved { instance: Some(instance) })?;
        let shared = Shared { instance, former, life, state: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub fn instance(&self) -> Instance {
        self.shared.instance
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews this host's counter on a store.
    pub async fn beat(&self, store: &Store) -> Result<(), LeaseError> {
        let key = store.url().key();
        let count = self.state().pulses.get(&key).copied().unwrap_or_default() + 1;
        let directory = host_directory(self.shared.instance)?;
        let life_ms = u64::try_from(self.shared.life.as_millis()).unwrap_or(u64::MAX);
        let beat = Beat { count, life_ms };
        facts::write(store, "renew a lease", &directory, BEAT_FILE.parse()?, &beat).await?;
        let is_first = self.state().pulses.insert(key, count).is_none();
        if let (true, Some(former)) = (is_first, self.shared.former) {
            forget(store, former).await?;
        }
        Ok(())
    }

    /// Gets the lease of a piece of work, if nobody has it or whoever has it is dead. Ask again to
    /// find that out. A lease of this host's own is replaced: whoever asks has ended what it did.
    pub async fn acquire(
        &self,
        store: &Store,
        work: &FileName,
        now: Instant,
    ) -> Result<Acquired, LeaseError> {
        let last = last_claim(store, work).await?;
        if let Some((_, claim)) = last
            && self.is_waited_for(store, claim, now).await?
        {
            return Ok(Acquired::Held { by: claim.instance });
        }
        // Whoever has nothing to do gives no sign of life: others may know an old one.
        self.beat(store).await?;
        let epoch = last.map_or(0, |(epoch, _)| epoch) + 1;
        if let Some(lease) = self.claim(store, work, epoch).await? {
            return Ok(Acquired::Lease(lease));
        }
        // Somebody was faster.
        match last_claim(store, work).await? {
            Some((_, claim)) => Ok(Acquired::Held { by: claim.instance }),
            // And has done the work already.
            None => Ok(Acquired::Held { by: self.shared.instance }),
        }
    }

    /// Whether another host that lives, or may, has a piece of work.
    pub async fn is_elsewhere(
        &self,
        store: &Store,
        work: &FileName,
        now: Instant,
    ) -> Result<bool, LeaseError> {
        match last_claim(store, work).await? {
            Some((_, claim)) => self.is_waited_for(store, claim, now).await,
            None => Ok(false),
        }
    }

    async fn is_waited_for(
        &self,
        store: &Store,
        claim: Claim,
        now: Instant,
    ) -> Result<bool, LeaseError> {
        let is_ours = claim.instance == self.shared.instance;
        Ok(!is_ours && !self.is_dead(store, claim.instance, now).await?)
    }

    /// Takes a piece of work away from whoever has it, dead or not: it is not to be done any more. The
    /// one who had it sees that at its next look. `None` when nobody has it.
    pub async fn seize(&self, store: &Store, work: &FileName) -> Result<Option<Lease>, LeaseError> {
        loop {
            let Some((epoch, _)) = last_claim(store, work).await? else { return Ok(None) };
            if let Some(lease) = self.claim(store, work, epoch + 1).await? {
                return Ok(Some(lease));
            }
        }
    }

    /// Makes a lease of this number, unless somebody else has.
    async fn claim(
        &self,
        store: &Store,
        work: &FileName,
        epoch: u64,
    ) -> Result<Option<Lease>, LeaseError> {
        if epoch > MAX_EPOCH {
            return Err(LeaseError::TooOften(work.clone()));
        }
        let claim = Claim { instance: self.shared.instance, nonce: RandomId::new() };
        let path = lease_directory(work)?.join(epoch.to_string().parse()?);
        let aside: FileName = format!(".claim.{}", claim.nonce).parse()?;
        let content =
            serde_json::to_vec(&claim).map_err(|error| FactError::Content(path.clone(), error))?;
        let owner = Work::new();
        let claiming = store.engine().claim(&owner, path, aside, Bytes::from(content));
        let claimed = store.run("claim work", claiming).await?;
        let work = work.clone();
        Ok(claimed.then_some(Lease { work, epoch, nonce: claim.nonce }))
    }

    /// Whether the lease still is the last one: looked at before something is made visible.
    pub async fn is_held(&self, store: &Store, lease: &Lease) -> Result<bool, LeaseError> {
        let last = last_claim(store, &lease.work).await?;
        Ok(last.is_some_and(|(epoch, claim)| epoch == lease.epoch && claim.nonce == lease.nonce))
    }

    /// The work is done: nobody needs to do it again. Nothing happens when the lease is another's.
    pub async fn release(&self, store: &Store, lease: &Lease) -> Result<(), LeaseError> {
        if self.is_held(store, lease).await? {
            let directory = lease_directory(&lease.work)?;
            // The first epoch is the one by which the others are found: with it the lease is gone.
            facts::remove(store, "give a lease back", directory, FIRST.parse()?).await?;
        }
        Ok(())
    }

    /// Says that this host ends: others need not wait to go on.
    pub async fn leave(&self, store: &Store) -> Result<(), LeaseError> {
        self.state().pulses.remove(&store.url().key());
        forget(store, self.shared.instance).await
    }

    /// Whether an instance does nothing any more.
    async fn is_dead(
        &self,
        store: &Store,
        instance: Instance,
        now: Instant,
    ) -> Result<bool, LeaseError> {
        if instance == self.shared.instance {
            return Ok(false);
        }
        if Some(instance) == self.shared.former {
            return Ok(true);
        }
        let path = host_directory(instance)?.join(BEAT_FILE.parse()?);
        let beat = facts::read(store, "look at a lease", path).await?;
        let Some(Beat { count, life_ms }) = beat else { return Ok(true) };
        let life = self.shared.life.max(Duration::from_millis(life_ms).min(MAX_LIFE));
        let mut state = self.state();
        let seen = state.seen.entry((store.url().key(), instance)).or_insert((count, now));
        if seen.0 != count {
            *seen = (count, now);
        }
        let dead = now.saturating_duration_since(seen.1) >= life;
        if dead {
            state.seen.remove(&(store.url().key(), instance));
        }
        Ok(dead)
    }
}

fn lease_directory(work: &FileName) -> Result<InstallPath, PathError> {
    Ok(LEASES.parse::<InstallPath>()?.join(work.clone()))
}

fn host_directory(instance: Instance) -> Result<InstallPath, PathError> {
    Ok(HOSTS.parse::<InstallPath>()?.join(instance.to_string().parse()?))
}

/// The highest epoch of a piece of work.
async fn last_claim(store: &Store, work: &FileName) -> Result<Option<(u64, Claim)>, LeaseError> {
    let directory = lease_directory(work)?;
    let work = Work::new();
    let listing = store.engine().list(&work, directory.clone(), FIRST.parse()?);
    let found = store.run("look at a lease", listing).await?;
    let names = found.iter().filter(|found| found.directory == directory);
    let epochs = names.flat_map(|found| &found.names).filter_map(|name| name.parse::<u64>().ok());
    let Some(epoch) = epochs.max() else { return Ok(None) };
    let path = directory.join(epoch.to_string().parse()?);
    // Given back between the two looks, it is nobody's.
    let claim = facts::read(store, "look at a lease", path).await?;
    Ok(claim.map(|claim| (epoch, claim)))
}

/// Every piece of work that some host has or had a lease for.
pub async fn leased(store: &Store) -> Result<Vec<FileName>, LeaseError> {
    let work = Work::new();
    let listing = store.engine().list(&work, LEASES.parse()?, FIRST.parse()?);
    let found = store.run("look at the leases", listing).await?;
    let names =
        found.iter().filter_map(|found| found.directory.split().map(|(_, name)| name.clone()));
    Ok(names.collect())
}

async fn forget(store: &Store, instance: Instance) -> Result<(), LeaseError> {
    let directory = host_directory(instance)?;
    Ok(facts::remove(store, "leave a store", directory, BEAT_FILE.parse()?).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::registry::tests::{Setup, URL, setup};

    struct Zone {
        made: Setup,
        store: Arc<Store>,
        begin: Instant,
    }

    impl Zone {
        async fn new() -> Self {
            let made = setup(&[URL]);
            let store = made.stores.open(&URL.parse().unwrap(), None).await.unwrap();
            Self { made, store, begin: Instant::now() }
        }

        fn host(&self, name: &str) -> Leases {
            Leases::open(&self.made.temp.path().join(name), LIFE).unwrap()
        }

        fn at(&self, seconds: u64) -> Instant {
            self.begin + Duration::from_secs(seconds)
        }

        async fn acquire(&self, host: &Leases, seconds: u64) -> Option<Lease> {
            let work = "job".parse().unwrap();
            match host.acquire(&self.store, &work, self.at(seconds)).await.unwrap() {
                Acquired::Lease(lease) => Some(lease),
                Acquired::Held { .. } => None,
            }
        }
    }

    #[tokio::test]
    async fn a_host_that_lives_keeps_its_lease_and_a_dead_one_loses_it_to_one_other() {
        let zone = Zone::new().await;
        let [one, two, three] = ["one", "two", "three"].map(|name| zone.host(name));
        let first = zone.acquire(&one, 0).await.unwrap();
        assert_eq!(first.epoch(), 1);
        assert_eq!(zone.acquire(&two, 1).await, None);
        // It lives for as long as its counter moves.
        one.beat(&zone.store).await.unwrap();
        assert_eq!(zone.acquire(&two, 46).await, None);
        assert_eq!(zone.acquire(&two, 46 + LIFE.as_secs() - 1).await, None);
        assert!(one.is_held(&zone.store, &first).await.unwrap());
        let second = zone.acquire(&two, 46 + LIFE.as_secs()).await.unwrap();
        assert_eq!(second.epoch(), 2);
        // The one before is told at its next look.
        assert!(!one.is_held(&zone.store, &first).await.unwrap());
        one.release(&zone.store, &first).await.unwrap();
        assert!(two.is_held(&zone.store, &second).await.unwrap(), "not its to give back");
        assert_eq!(zone.acquire(&three, 100).await, None);
        two.release(&zone.store, &second).await.unwrap();
        let third = zone.acquire(&three, 101).await.unwrap();
        assert_eq!(third.epoch(), 1, "numbers begin anew, and yet");
        assert!(!one.is_held(&zone.store, &first).await.unwrap(), "it is another lease");
    }

    #[tokio::test]
    async fn a_host_that_leaves_or_starts_again_is_not_waited_for() {
        let zone = Zone::new().await;
        let (one, two) = (zone.host("one"), zone.host("two"));
        zone.acquire(&one, 0).await.unwrap();
        one.leave(&zone.store).await.unwrap();
        let second = zone.acquire(&two, 0).await.unwrap();
        assert_eq!(second.epoch(), 2);
        let again = zone.host("two");
        assert_ne!(again.instance(), two.instance());
        assert_eq!(zone.acquire(&again, 1).await.unwrap().epoch(), 3);
        assert_eq!(leased(&zone.store).await.unwrap(), ["job".parse().unwrap()]);
    }

    /// Nobody renews a counter while there is nothing to do.
    #[tokio::test]
    async fn a_host_that_was_idle_is_not_dead_when_it_begins_again() {
        let zone = Zone::new().await;
        let (one, two) = (zone.host("one"), zone.host("two"));
        let first = zone.acquire(&one, 0).await.unwrap();
        assert_eq!(zone.acquire(&two, 0).await, None);
        one.release(&zone.store, &first).await.unwrap();
        assert!(zone.acquire(&one, 10 * LIFE.as_secs()).await.is_some());
        assert_eq!(zone.acquire(&two, 10 * LIFE.as_secs()).await, None);
    }

    #[tokio::test]
    async fn work_that_is_not_to_be_done_is_taken_from_a_host_that_lives() {
        let zone = Zone::new().await;
        let (one, two) = (zone.host("one"), zone.host("two"));
        let work = "job".parse().unwrap();
        assert_eq!(two.seize(&zone.store, &work).await.unwrap(), None);
        let first = zone.acquire(&one, 0).await.unwrap();
        let seized = two.seize(&zone.store, &work).await.unwrap().unwrap();
        assert!(!one.is_held(&zone.store, &first).await.unwrap());
        two.release(&zone.store, &seized).await.unwrap();
        assert!(!one.is_held(&zone.store, &first).await.unwrap());
    }

    /// Hosts of one zone may be configured differently: the more patient one is not taken for dead.
    #[tokio::test]
    async fn a_host_says_how_long_it_may_be_silent() {
        let zone = Zone::new().await;
        let patient = Leases::open(&zone.made.temp.path().join("one"), 3 * LIFE).unwrap();
        let hasty = Leases::open(&zone.made.temp.path().join("two"), LIFE / 9).unwrap();
        zone.acquire(&patient, 0).await.unwrap();
        assert_eq!(zone.acquire(&hasty, 0).await, None);
        assert_eq!(zone.acquire(&hasty, 2 * LIFE.as_secs()).await, None);
        assert!(zone.acquire(&hasty, 3 * LIFE.as_secs()).await.is_some());
    }

    #[tokio::test]
    async fn of_many_that_take_over_at_once_one_succeeds() {
        let zone = Zone::new().await;
        let dead = zone.host("dead");
        zone.acquire(&dead, 0).await.unwrap();
        dead.leave(&zone.store).await.unwrap();
        let hosts: Vec<Leases> = (0..8).map(|n| zone.host(&n.to_string())).collect();
        let attempts = hosts.iter().map(|host| zone.acquire(host, 1));
        let got = futures_util::future::join_all(attempts).await;
        let got: Vec<Lease> = got.into_iter().flatten().collect();
        assert_eq!(got.len(), 1, "{got:?}");
        assert_eq!(got[0].epoch(), 2);
    }
}
