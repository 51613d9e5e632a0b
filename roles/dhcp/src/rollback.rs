//! PURE: which generation dnsmasq is given when the wanted one kills it.
//!
//! `dnsmasq --test` does not read reservations, options or names, and a fault of dnsmasq's own
//! shows only when it runs. A generation that dnsmasq does not survive is *poisoned*: the last one
//! that it did survive takes its place, and later ones get one try each, at growing intervals, so
//! that changes that come in all the time do not keep dnsmasq dying.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::render::Rendered;

/// So many deaths within [`WINDOW`] are not bad luck.
const DEATHS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// A generation that dnsmasq served this long may be returned to.
const PROVEN: Duration = Duration::from_secs(10);
/// Before a later generation is tried; doubled with each that fails.
const FIRST_TRIAL: Duration = Duration::from_secs(10);
const LAST_TRIAL: Duration = Duration::from_mins(5);

/// A generation that dnsmasq does not survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Poisoned {
    pub(crate) generation: u64,
    /// Generation that is served instead.
    pub(crate) served: u64,
    /// How dnsmasq ended.
    pub(crate) end: String,
}

#[derive(Debug)]
struct Rollback {
    poisoned: Poisoned,
    good: Arc<Rendered>,
    trial: Duration,
    since: Instant,
    again: Instant,
    /// What is wanted is being tried.
    trying: bool,
}

/// What dnsmasq survived, and what it did not.
#[derive(Debug, Default)]
pub(crate) struct Survival {
    /// What dnsmasq is given now.
    current: Option<Arc<Rendered>>,
    /// The last that it confirmed.
    confirmed: Option<Arc<Rendered>>,
    /// Confirmed then, and not dead since.
    candidate: Option<(Arc<Rendered>, Instant)>,
    proven: Option<Arc<Rendered>>,
    deaths: Vec<Instant>,
    rollback: Option<Rollback>,
}

impl Survival {
    /// With what an earlier run found to be good.
    pub(crate) fn with(proven: Option<Rendered>) -> Self {
        Self { proven: proven.map(Arc::new), ..Self::default() }
    }

    /// What to give dnsmasq when `wanted` is wanted.
    pub(crate) fn choose(&mut self, wanted: Arc<Rendered>, now: Instant) -> Arc<Rendered> {
        let chosen = match &mut self.rollback {
            None => wanted,
            // Whatever was wrong is gone.
            Some(rollback) if rollback.good.is_same_as(&wanted) => {
                self.rollback = None;
                wanted
            }
            Some(rollback) => {
                // The same one, too, but seldom: a better dnsmasq may have been installed.
                let is_later = wanted.generation > rollback.poisoned.generation;
                let due = if is_later { rollback.again } else { rollback.since + LAST_TRIAL };
                rollback.trying |= now >= due;
                if rollback.trying { wanted } else { Arc::clone(&rollback.good) }
            }
        };
        self.current = Some(Arc::clone(&chosen));
        chosen
    }

    /// dnsmasq serves what it was given.
    pub(crate) fn confirmed(&mut self, now: Instant) {
        let Some(current) = &self.current else { return };
        if self.candidate.is_none() {
            self.candidate = Some((Arc::clone(current), now));
        }
        self.confirmed = Some(Arc::clone(current));
    }

    /// dnsmasq is alive; gives what has just proved good.
    pub(crate) fn alive(&mut self, now: Instant) -> Option<Arc<Rendered>> {
        let (candidate, since) = self.candidate.as_ref()?;
        if now.saturating_duration_since(*since) < PROVEN {
            return None;
        }
        let news = self.proven.as_ref().is_none_or(|proven| !proven.is_same_as(candidate));
        self.proven = Some(Arc::clone(candidate));
        self.candidate = self.confirmed.as_ref().map(|confirmed| (Arc::clone(confirmed), now));
        // A later generation that lives is poisoned no more.
        if self.rollback.as_ref().is_some_and(|rollback| rollback.trying) {
            self.rollback = None;
        }
        self.proven.clone().filter(|_| news)
    }

    /// dnsmasq ended by itself, or never became ready. Gives what it is about to return to.
    pub(crate) fn died(&mut self, end: &str, now: Instant) -> Option<Poisoned> {
        self.candidate = None;
        // Ports and interfaces: no generation helps there.
        if end.starts_with("exit status: 2") {
            return None;
        }
        self.deaths.retain(|death| now.saturating_duration_since(*death) < WINDOW);
        self.deaths.push(now);
        let current = self.current.clone()?;
        let is_trial = self.rollback.as_ref().is_some_and(|rollback| rollback.trying);
        if self.deaths.len() < DEATHS && !is_trial {
            return None;
        }
        self.deaths.clear();
        let trial = match &self.rollback {
            // Even that does not live: it is not the generation.
            Some(rollback) if !rollback.trying => {
                self.rollback = None;
                return None;
            }
            Some(rollback) => (rollback.trial * 2).min(LAST_TRIAL),
            None => FIRST_TRIAL,
        };
        let known = self.rollback.take().map(|rollback| rollback.good);
        let mut candidates = [known, self.confirmed.clone(), self.proven.clone()].into_iter();
        let good = candidates.find_map(|one| one.filter(|one| !one.is_same_as(&current)))?;
        let poisoned = Poisoned {
            generation: current.generation,
            served: good.generation,
            end: end.to_owned(),
        };
        let again = now + trial;
        let told = poisoned.clone();
        self.rollback = Some(Rollback { poisoned, good, trial, since: now, again, trying: false });
        Some(told)
    }

    /// What is served instead of what is wanted, if that is so now.
    pub(crate) fn rolled_back(&self) -> Option<&Poisoned> {
        self.rollback.as_ref().filter(|rollback| !rollback.trying).map(|r| &r.poisoned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(generation: u64, main: &str) -> Arc<Rendered> {
        Arc::new(Rendered { generation, main: main.to_owned(), ..Rendered::default() })
    }

    fn kill(survival: &mut Survival, times: usize, now: Instant) -> Option<Poisoned> {
        (0..times).filter_map(|_| survival.died("signal: 11 (SIGSEGV)", now)).last()
    }

    /// Generation 1 confirmed at `now`, then 2, which dies.
    fn poisoned(now: Instant) -> Survival {
        let mut survival = Survival::default();
        survival.choose(rendered(1, "good"), now);
        survival.confirmed(now);
        survival.choose(rendered(2, "poison"), now);
        assert_eq!(kill(&mut survival, 2, now), None);
        let told = kill(&mut survival, 1, now).unwrap();
        assert_eq!((told.generation, told.served), (2, 1));
        survival
    }

    #[test]
    fn three_deaths_return_to_the_last_confirmed_generation() {
        let now = Instant::now();
        let mut survival = poisoned(now);
        assert_eq!(survival.choose(rendered(2, "poison"), now).main, "good");
        assert!(survival.rolled_back().is_some());
    }

    #[test]
    fn deaths_far_apart_and_those_of_ports_poison_nothing() {
        let mut now = Instant::now();
        let mut survival = Survival::default();
        survival.choose(rendered(1, "good"), now);
        survival.confirmed(now);
        survival.choose(rendered(2, "other"), now);
        for _ in 0..9 {
            assert_eq!(survival.died("signal: 9 (SIGKILL)", now), None);
            assert_eq!(survival.died("exit status: 2; Address already in use", now), None);
            now += WINDOW;
        }
    }

    /// dnsmasq confirmed the poisoned one, and died of a client's first packet.
    #[test]
    fn what_was_only_confirmed_is_not_good_if_it_is_what_died() {
        let mut now = Instant::now();
        let mut survival = Survival::default();
        survival.choose(rendered(1, "good"), now);
        survival.confirmed(now);
        now += PROVEN;
        assert_eq!(survival.alive(now).unwrap().generation, 1);
        assert_eq!(survival.alive(now + PROVEN), None, "written once");
        survival.choose(rendered(2, "poison"), now);
        for _ in 0..2 {
            survival.confirmed(now);
            assert_eq!(kill(&mut survival, 1, now), None);
        }
        survival.confirmed(now);
        assert_eq!(kill(&mut survival, 1, now).unwrap().served, 1);
    }

    #[test]
    fn a_later_generation_gets_one_try_at_growing_intervals() {
        let mut now = Instant::now();
        let mut survival = poisoned(now);
        assert_eq!(survival.choose(rendered(3, "still poison"), now).main, "good");
        now += FIRST_TRIAL;
        assert_eq!(survival.choose(rendered(2, "poison"), now).main, "good", "not the same one");
        assert_eq!(survival.choose(rendered(3, "still poison"), now).main, "still poison");
        assert_eq!(kill(&mut survival, 1, now).unwrap().generation, 3);
        now += FIRST_TRIAL;
        assert_eq!(survival.choose(rendered(4, "sound"), now).main, "good");
        now += FIRST_TRIAL;
        assert_eq!(survival.choose(rendered(4, "sound"), now).main, "sound");
        survival.confirmed(now);
        assert!(survival.rolled_back().is_none());
        assert!(survival.alive(now + PROVEN).is_some());
        assert_eq!(kill(&mut survival, 1, now + PROVEN), None, "counted anew");
    }

    #[test]
    fn taking_the_poison_out_ends_it_at_once() {
        let now = Instant::now();
        let mut survival = poisoned(now);
        assert_eq!(survival.choose(rendered(3, "good"), now).generation, 3);
        assert!(survival.rolled_back().is_none());
    }

    #[test]
    fn a_good_generation_that_dies_too_was_not_the_reason() {
        let now = Instant::now();
        let mut survival = poisoned(now);
        survival.choose(rendered(2, "poison"), now);
        assert_eq!(kill(&mut survival, 3, now), None);
        assert_eq!(survival.choose(rendered(2, "poison"), now).main, "poison");
    }

    #[test]
    fn the_poisoned_generation_is_tried_again_after_a_while() {
        let now = Instant::now();
        let mut survival = poisoned(now);
        assert_eq!(survival.choose(rendered(2, "poison"), now).main, "good");
        assert_eq!(survival.choose(rendered(2, "poison"), now + LAST_TRIAL).main, "poison");
        assert!(kill(&mut survival, 1, now + LAST_TRIAL).is_some());
    }

    #[test]
    fn an_earlier_run_knows_what_is_good() {
        let now = Instant::now();
        let mut survival = Survival::with(Some(Rendered::clone(&rendered(7, "good"))));
        survival.choose(rendered(8, "poison"), now);
        assert_eq!(kill(&mut survival, 3, now).unwrap().served, 7);
    }
}
