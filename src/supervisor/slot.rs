//! One role of the process across its runs: the spec that the next run is built from, and what the
//! run of this moment has in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use config_reader::Effective;
use role::{RoleKind, RoleSpec};
use tokio::sync::watch;

/// What holds for each key that a role read.
pub type Keys = BTreeMap<String, Effective>;

/// A role as configured.
#[derive(Debug, Clone)]
pub struct ConfiguredRole {
    pub spec: Arc<dyn RoleSpec>,
    /// Empty for roles that were not read from a configuration: then nothing ever changes.
    pub keys: Keys,
    /// Keys that a reload puts in force.
    pub reloadable: &'static [&'static str],
}

impl ConfiguredRole {
    /// A role that was not read from a configuration.
    pub const fn fixed(spec: Arc<dyn RoleSpec>) -> Self {
        Self { spec, keys: Keys::new(), reloadable: &[] }
    }
}

/// Holds the place of one role. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct RoleSlot {
    pub(crate) kind: RoleKind,
    state: Arc<Mutex<State>>,
    offers: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct State {
    wanted: ConfiguredRole,
    /// What the run of this moment has in force.
    running: Keys,
    /// Counts the runs.
    run: u64,
}

/// What an offered configuration changes for the run of this moment.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) changed: BTreeSet<String>,
    run: u64,
}

impl RoleSlot {
    pub(crate) fn new(role: ConfiguredRole) -> Self {
        let kind = role.spec.kind();
        let running = role.keys.clone();
        let state = Arc::new(Mutex::new(State { wanted: role, running, run: 0 }));
        Self { kind, state, offers: Arc::new(watch::Sender::new(0)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spec for a run that begins now: with it, everything wanted is in force.
    pub(super) fn begin(&self) -> Arc<dyn RoleSpec> {
        let mut state = self.lock();
        state.run += 1;
        state.running = state.wanted.keys.clone();
        Arc::clone(&state.wanted.spec)
    }

    /// Another configuration for this and later runs.
    pub(crate) fn offer(&self, role: ConfiguredRole) -> Offer {
        let mut state = self.lock();
        let changed = config_reader::changes(&state.running, &role.keys);
        state.wanted = role;
        let offer = Offer { changed, run: state.run };
        drop(state);
        self.offers.send_modify(|version| *version += 1);
        offer
    }

    /// The run that `offer` was made to has put everything in force but `waiting`. Of no meaning
    /// when another run began meanwhile: that one has everything.
    pub(crate) fn applied(&self, offer: &Offer, waiting: &BTreeSet<String>) {
        let mut state = self.lock();
        if state.run != offer.run {
            return;
        }
        let whole = |key: &str| waiting.contains(key.split('[').next().unwrap_or(key));
        let mut running = state.wanted.keys.clone();
        running.retain(|key, _| !whole(key));
        let kept = state.running.iter().filter(|(key, _)| whole(key));
        running.extend(kept.map(|(key, entry)| (key.clone(), entry.clone())));
        state.running = running;
    }

    /// Changes with every offer.
    pub(super) fn offers(&self) -> watch::Receiver<u64> {
        self.offers.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use role::{BoxFuture, Host, PreflightError, Resource, Role, RoleContext, RoleError};

    #[derive(Debug)]
    struct Nothing;

    impl RoleSpec for Nothing {
        fn kind(&self) -> RoleKind {
            RoleKind { short: "x", title: "test", section: "x" }
        }

        fn resources(&self) -> Vec<Resource> {
            Vec::new()
        }

        fn preflight<'a>(&'a self, _: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
            Box::pin(async { Vec::new() })
        }

        fn build(&self) -> Box<dyn Role> {
            Box::new(Self)
        }
    }

    impl Role for Nothing {
        fn run(self: Box<Self>, _: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
            Box::pin(async { Ok(()) })
        }
    }

    fn role(keys: &[(&str, &str)]) -> ConfiguredRole {
        let keys = keys
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Effective::Default((*value).to_owned())))
            .collect();
        ConfiguredRole { keys, ..ConfiguredRole::fixed(Arc::new(Nothing)) }
    }

    fn changed(slot: &RoleSlot, keys: &[(&str, &str)]) -> Offer {
        slot.offer(role(keys))
    }

    fn names(offer: &Offer) -> Vec<&str> {
        offer.changed.iter().map(String::as_str).collect()
    }

    #[test]
    fn what_waits_for_a_restart_stays_a_change_until_there_was_one() {
        let slot = RoleSlot::new(role(&[("a", "1"), ("b", "1"), ("l", "1"), ("l[0].x", "1")]));
        slot.begin();
        let new = [("a", "2"), ("b", "2"), ("l", "1"), ("l[0].x", "2")];
        let offer = changed(&slot, &new);
        assert_eq!(names(&offer), ["a", "b", "l"]);
        slot.applied(&offer, &BTreeSet::from(["b".to_owned(), "l".to_owned()]));
        let again = changed(&slot, &new);
        assert_eq!(names(&again), ["b", "l"]);
        slot.begin();
        // The answer of a run that is over says nothing about the new one.
        slot.applied(&again, &BTreeSet::from(["b".to_owned()]));
        assert_eq!(names(&changed(&slot, &new)), [""; 0]);
    }

    #[test]
    fn taking_a_change_back_is_no_change() {
        let slot = RoleSlot::new(role(&[("a", "1")]));
        slot.begin();
        let offer = changed(&slot, &[("a", "2")]);
        slot.applied(&offer, &BTreeSet::from(["a".to_owned()]));
        assert_eq!(names(&changed(&slot, &[("a", "1")])), [""; 0]);
    }
}
