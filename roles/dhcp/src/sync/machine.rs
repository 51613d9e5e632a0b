//! PURE: the sync's decisions, `step(event, now) → actions`. Time and answers come in, calls and
//! transactions go out, at most one at a time.
//!
//! A wake-up says *look*, never *what is*: every conclusion is drawn from the server's answers.

mod conclusion;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dhcp_api::answer::AlarmKind;
use dhcp_api::resource::ReservationContent;
use dhcp_api::words::{DomainName, InterfaceName, ResourceId};
use uuid::Uuid;

use super::book::{Catalog, Sighting, look};
use super::deletion::Deletion;
use super::full::Full;
pub(crate) use super::full::{Call, Found};
use super::wanted::{MACHINE, Stored, reservation_id};
use super::{Note, Notes};
use crate::desired::{SyncChange, SyncNote};

/// A full listing may take a twentieth of the server's time.
const SHARE: u32 = 20;
/// A look at starting machines that took longer is made less often.
const SLOW: Duration = Duration::from_millis(500);
const SLOW_INTERVAL: Duration = Duration::from_secs(5);
/// Wake-ups in this time are one.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// After a wake-up that names no machine: between two full listings.
const LEAST_SPACING: Duration = Duration::from_secs(5);
/// A machine that is about to start is looked at this often, this long.
const HOT: Duration = Duration::from_millis(500);
const HOT_TIME: Duration = Duration::from_secs(60);
/// Looks after an event that comes before its change.
const LATER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];
/// Machines and looks that wait.
const MOST_WAITING: usize = 256;
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// What the machine needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) zone: String,
    pub(crate) networks: Vec<String>,
    pub(crate) domain: DomainName,
    pub(crate) interface: InterfaceName,
    pub(crate) full_interval: Duration,
    pub(crate) starting_interval: Duration,
    pub(crate) max_delete_percent: u8,
    /// For the jitter of pauses.
    pub(crate) seed: u64,
}

/// Somebody says: look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A machine is being made or started; its NICs get their addresses soon.
    Starting(Uuid),
    /// Something about a machine changed.
    Changed(Uuid),
    /// Something changes soon.
    Soon(Option<Uuid>),
    /// Something changed.
    Anything,
}

/// Somebody wants a full listing now and waits for what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: u64,
    /// Deletions are confirmed.
    pub(crate) force: bool,
    /// Nothing is stored.
    pub(crate) dry_run: bool,
}

/// What a full listing comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) upsert: Vec<ResourceId>,
    pub(crate) delete: Vec<ResourceId>,
    /// Missing once.
    pub(crate) absent: usize,
    /// Missing, but too many.
    pub(crate) held: usize,
    pub(crate) complete: bool,
    pub(crate) notes: Vec<Note>,
}

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) text: String,
    /// Other calls would fail, too.
    pub(crate) offline: bool,
}

#[derive(Debug)]
pub(crate) enum Event {
    Timer,
    Answered {
        call: Call,
        outcome: Result<Found, Failure>,
        took: Duration,
    },
    /// A transaction ended: what is stored of the sync now, and what was said about it.
    Stored(Result<(Stored, Vec<SyncNote>), String>),
    Woken(Wake),
    Asked(Request),
}

#[derive(Debug)]
pub(crate) enum Action {
    Call(Call),
    Store(Box<SyncChange>),
    Reply(u64, Result<Outcome, String>),
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: Settings,
    catalog: Option<Catalog>,
    sightings: BTreeMap<Uuid, Sighting>,
    /// What is stored of the sync.
    stored: Stored,
    /// What could not be stored; not tried again before it changes.
    refused: Stored,
    deletion: Deletion,
    /// A call or transaction is under way.
    busy: bool,
    /// It is the transaction of a full listing.
    storing_whole: bool,
    pending: Option<Box<SyncChange>>,
    /// Sightings changed and were not stored.
    dirty: bool,
    full: Option<Full>,
    full_at: Instant,
    /// A second full listing after an event that comes before its change.
    full_again: Option<Instant>,
    full_failures: u32,
    full_end: Option<Instant>,
    full_spent: Duration,
    fast_at: Instant,
    fast_failures: u32,
    hot: BTreeMap<Uuid, (Instant, Instant)>,
    looks: BTreeSet<(Instant, Uuid)>,
    offline_until: Option<Instant>,
    offline_failures: u32,
    requests: Vec<Request>,
    /// Of the listing under way, then of its transaction.
    served: Vec<(Request, Outcome)>,
    succeeded: bool,
    error: Option<String>,
    notes: Notes,
    naming: Notes,
    calls: u64,
}

impl Machine {
    pub(crate) fn new(settings: Settings, stored: Stored, now: Instant) -> Self {
        Self {
            settings,
            catalog: None,
            sightings: BTreeMap::new(),
            stored,
            refused: BTreeMap::new(),
            deletion: Deletion::default(),
            busy: false,
            storing_whole: false,
            pending: None,
            dirty: false,
            full: None,
            full_at: now,
            full_again: None,
            full_failures: 0,
            full_end: None,
            full_spent: Duration::ZERO,
            fast_at: now,
            fast_failures: 0,
            hot: BTreeMap::new(),
            looks: BTreeSet::new(),
            offline_until: None,
            offline_failures: 0,
            requests: Vec::new(),
            served: Vec::new(),
            succeeded: false,
            error: None,
            notes: Notes::default(),
            naming: Notes::default(),
            calls: 0,
        }
    }

    /// Takes an event, gives what to do about it.
    pub(crate) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Timer => {}
            Event::Answered { call, outcome, took } => {
                (self.busy, self.calls) = (false, self.calls + 1);
                self.answered(&call, outcome, took, now, &mut actions);
            }
            Event::Stored(outcome) => {
                self.busy = false;
                self.stored(outcome, now, &mut actions);
            }
            Event::Woken(wake) => self.woken(wake, now),
            Event::Asked(request) => {
                self.requests.push(request);
                self.full_at = self.full_at.min(now);
                self.offline_until = None;
            }
        }
        if !self.busy
            && let Some(next) = self.next(now)
        {
            self.busy = true;
            actions.push(next);
        }
        actions
    }

    /// When to send [`Event::Timer`]; `None` while something is under way.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.busy {
            return None;
        }
        let hot = self.hot.values().map(|(at, _)| *at).min();
        let look = self.looks.first().map(|(at, _)| *at);
        let fast = self.is_fast().then_some(self.fast_at);
        // Machines are asked for only once the zone is known.
        let known = [hot, look, fast].into_iter().flatten().filter(|_| self.catalog.is_some());
        let first = known.chain(std::iter::once(self.full_at)).min()?;
        Some(self.offline_until.map_or(first, |until| until.max(first)))
    }

    const fn is_fast(&self) -> bool {
        self.catalog.is_some() && !self.settings.starting_interval.is_zero()
    }

    /// The next thing to do, short questions before long ones.
    fn next(&mut self, now: Instant) -> Option<Action> {
        if let Some(change) = self.pending.take() {
            self.storing_whole = change.is_whole;
            return Some(Action::Store(change));
        }
        if self.offline_until.is_some_and(|until| until > now) {
            return None;
        }
        if let Some(zone) = self.catalog.as_ref().map(|catalog| catalog.zone) {
            if self.is_fast() && self.fast_at <= now {
                return Some(Action::Call(Call::Starting(zone)));
            }
            if let Some((id, _)) = self.hot.iter().find(|(_, (at, _))| *at <= now) {
                return Some(Action::Call(Call::Machine(zone, *id)));
            }
            if let Some((at, id)) = self.looks.first().copied().filter(|(at, _)| *at <= now) {
                self.looks.remove(&(at, id));
                return Some(Action::Call(Call::Machine(zone, id)));
            }
        }
        if self.full.is_none() && self.full_at <= now {
            self.full = Some(Full::default());
            let requests = std::mem::take(&mut self.requests);
            self.served = requests.into_iter().map(|r| (r, Outcome::default())).collect();
        }
        self.full.as_ref().map(|full| Action::Call(full.next_call()))
    }

    fn answered(
        &mut self,
        call: &Call,
        outcome: Result<Found, Failure>,
        took: Duration,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let outcome = outcome.inspect_err(|failure| {
            if failure.offline {
                self.offline_failures += 1;
                let pause = backoff(self.offline_failures);
                let pause = self.jittered(pause);
                self.offline_until = Some(now + pause);
            }
            self.error = Some(failure.text.clone());
        });
        if outcome.is_ok() {
            (self.offline_failures, self.offline_until) = (0, None);
        }
        match call {
            Call::Starting(_) => self.starting(outcome, took, now),
            Call::Machine(_, id) => self.machine(*id, outcome, now),
            Call::Zones
            | Call::Networks(_)
            | Call::Ranges(_)
            | Call::Routers(_)
            | Call::Plain(_)
            | Call::Machines(..) => self.part(outcome, took, now, actions),
        }
    }

    fn starting(&mut self, outcome: Result<Found, Failure>, took: Duration, now: Instant) {
        let interval = self.settings.starting_interval;
        let interval = if took > SLOW { interval.max(SLOW_INTERVAL) } else { interval };
        let Ok(Found::Machines(page)) = outcome else {
            self.fast_failures += 1;
            self.fast_at = now + backoff(self.fast_failures).max(interval);
            return;
        };
        self.fast_failures = 0;
        self.fast_at = now + interval;
        for machine in &page.items {
            self.meet(machine, now);
        }
        self.propose();
    }

    /// One machine was asked for: it is there with these NICs, or it is not.
    fn machine(&mut self, id: Uuid, outcome: Result<Found, Failure>, now: Instant) {
        let Ok(Found::Machines(page)) = outcome else {
            self.wait_for(id, now);
            return;
        };
        let machine = page.items.iter().find(|machine| machine.id == id);
        let mut there = BTreeSet::new();
        if let (Some(machine), Some(catalog)) = (machine, &self.catalog) {
            let seen = look(machine, catalog, &mut Notes::default());
            // All it has, and at least one: nothing is left to wait for.
            if !seen.is_empty() && seen.values().all(Option::is_some) {
                self.hot.remove(&id);
            }
            there = seen.into_keys().filter_map(reservation_id).collect();
            self.meet(machine, now);
        }
        self.wait_for(id, now);
        let of_machine = |content: &ReservationContent| machine_of(content) == Some(id);
        let known = self.stored.iter().filter(|(_, content)| of_machine(content));
        let known: Vec<ResourceId> = known.map(|(id, _)| id.clone()).collect();
        let mut delete = Vec::new();
        for id in known {
            if there.contains(&id) {
                self.deletion.is_there(&id);
            } else if self.deletion.is_gone(&id) {
                delete.push(id);
            }
        }
        self.forget(&delete);
        self.propose_with(delete);
    }

    /// Looks again at a machine that has no address yet, for as long as that may take.
    fn wait_for(&mut self, id: Uuid, now: Instant) {
        if let Some((at, until)) = self.hot.get_mut(&id) {
            *at = now + HOT;
            if *at > *until {
                self.hot.remove(&id);
            }
        }
    }

    /// A part of the full listing.
    fn part(
        &mut self,
        outcome: Result<Found, Failure>,
        took: Duration,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(full) = &mut self.full else { return };
        full.spent += took;
        let (zone, networks) = (&self.settings.zone, &self.settings.networks);
        let outcome = outcome
            .map_err(|failure| failure.text)
            .and_then(|found| full.answered(found, zone, networks));
        match outcome {
            Ok(None) => {}
            Ok(Some(whole)) => {
                self.full_spent = full.spent;
                self.full = None;
                self.conclude(whole);
                self.schedule(now);
                self.reply_to_dry(actions);
            }
            Err(text) => self.full_failed(&text, now, actions),
        }
    }

    fn full_failed(&mut self, text: &str, now: Instant, actions: &mut Vec<Action>) {
        self.full = None;
        self.full_failures += 1;
        let pause = backoff(self.full_failures);
        self.full_at = now + self.jittered(pause);
        self.error = Some(text.to_owned());
        for (request, _) in self.served.drain(..) {
            actions.push(Action::Reply(request.id, Err(text.to_owned())));
        }
    }

    fn schedule(&mut self, now: Instant) {
        self.full_failures = 0;
        self.full_end = Some(now);
        let pause = self.settings.full_interval.max(self.full_spent * SHARE);
        self.full_at = now + self.jittered(pause);
        if let Some(again) = self.full_again.take().filter(|again| *again > now) {
            self.full_at = self.full_at.min(again);
        }
        if !self.requests.is_empty() {
            self.full_at = now;
        }
    }

    fn stored(
        &mut self,
        outcome: Result<(Stored, Vec<SyncNote>), String>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let (stored, said) = match outcome {
            Ok(both) => both,
            Err(text) => {
                (self.dirty, self.fast_at) = (true, now + LEAST_SPACING);
                if self.storing_whole {
                    self.full_failed(&text, now, actions);
                }
                self.error = Some(text);
                return;
            }
        };
        self.stored = stored;
        for note in said {
            if let Some((id, content)) = note.refused {
                self.refused.insert(id, content);
            }
            self.notes.add(AlarmKind::SyncConflict, note.text);
        }
        if !self.storing_whole {
            return;
        }
        (self.succeeded, self.error) = (true, None);
        for (request, outcome) in self.served.drain(..) {
            actions.push(Action::Reply(request.id, Ok(outcome)));
        }
    }

    /// Answers rehearsals, which store nothing.
    fn reply_to_dry(&mut self, actions: &mut Vec<Action>) {
        if self.pending.is_none() {
            for (request, outcome) in self.served.drain(..) {
                actions.push(Action::Reply(request.id, Ok(outcome)));
            }
        }
    }

    fn woken(&mut self, wake: Wake, now: Instant) {
        match wake {
            Wake::Starting(id) if self.hot.len() < MOST_WAITING => {
                self.hot.entry(id).or_insert((now + DEBOUNCE, now + HOT_TIME));
            }
            Wake::Changed(id) => self.look_at(id, now + DEBOUNCE),
            Wake::Soon(Some(id)) => LATER.into_iter().for_each(|wait| self.look_at(id, now + wait)),
            Wake::Soon(None) => {
                let [first, second] = LATER;
                self.full_again = Some(now + second);
                self.full_at = self.full_at.min(now + first);
            }
            Wake::Starting(_) | Wake::Anything => self.ask_for_full(now),
        }
    }

    fn look_at(&mut self, id: Uuid, at: Instant) {
        let is_near = |(known, other): &&(Instant, Uuid)| {
            *other == id && known.max(&at).saturating_duration_since(*known.min(&at)) <= DEBOUNCE
        };
        if self.looks.len() < MOST_WAITING && !self.looks.iter().any(|look| is_near(&look)) {
            self.looks.insert((at, id));
        }
    }

    /// A full listing soon, but not more often than the server bears.
    fn ask_for_full(&mut self, now: Instant) {
        let spacing = LEAST_SPACING.max(self.full_spent * 4);
        let earliest = self.full_end.map_or(now, |end| end + spacing).max(now + DEBOUNCE);
        if self.full_failures == 0 {
            self.full_at = self.full_at.min(earliest);
        }
    }

    /// `base`, a tenth more or less.
    fn jittered(&mut self, base: Duration) -> Duration {
        let seed = &mut self.settings.seed;
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        let thousandths = u32::try_from(*seed % 201).unwrap_or(100);
        base * (900 + thousandths) / 1000
    }

    #[cfg(test)]
    pub(super) fn set_networks(&mut self, networks: Vec<String>) {
        self.settings.networks = networks;
    }

    /// Whether a listing was taken over since the last call of this.
    pub(crate) const fn take_success(&mut self) -> bool {
        std::mem::replace(&mut self.succeeded, false)
    }

    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.0.iter().chain(&self.naming.0)
    }

    pub(crate) const fn held(&self) -> usize {
        self.deletion.held
    }

    pub(crate) fn reservations(&self) -> usize {
        self.stored.len()
    }

    /// How long the server took for the last full listing.
    pub(crate) fn full_spent(&self) -> Option<Duration> {
        self.full_end.map(|_| self.full_spent)
    }

    pub(crate) const fn calls(&self) -> u64 {
        self.calls
    }
}

/// 1 s, 2 s, 4 s … 60 s.
fn backoff(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(u32::MAX);
    FIRST_BACKOFF.saturating_mul(doubled).min(LONGEST_BACKOFF)
}

/// The machine of a reservation.
fn machine_of(content: &ReservationContent) -> Option<Uuid> {
    let label = content.labels.iter().find(|(key, _)| key.as_str() == MACHINE)?;
    label.1.as_str().parse().ok()
}
