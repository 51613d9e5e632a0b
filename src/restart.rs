//! When a role that ended is started again: a pure function of policy, history and outcome.
//!
//! | outcome | counts towards the limit | decision |
//! |---|---|---|
//! | misconfigured | – | fail |
//! | dependency, preflight finding | no | restart after backoff, for ever |
//! | internal error, panic, hang, early return | yes | restart after backoff, fail at the limit |
//!
//! Time and jitter are arguments; nothing here waits.

use std::time::Duration;

/// The numbers of the policy, from `[supervisor]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Delay after the first failure; doubles with each consecutive one.
    pub first_delay: Duration,
    /// The delay never exceeds this (before jitter).
    pub max_delay: Duration,
    /// That many counted failures within `window` and the role is given up.
    pub limit: usize,
    pub window: Duration,
    /// A run of this length starts the backoff afresh.
    pub reset_after: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_secs(1),
            max_delay: Duration::from_mins(1),
            limit: 5,
            window: Duration::from_mins(10),
            reset_after: Duration::from_mins(10),
        }
    }
}

/// What a role's failures were so far. Times are measured from any fixed point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    counted: Vec<Duration>,
    consecutive: u32,
}

impl History {
    /// Failures since the last long run.
    pub const fn consecutive(&self) -> u32 {
        self.consecutive
    }
}

/// What happened, as far as restarting is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Will not heal by itself.
    Misconfigured,
    /// Outside trouble; heals without us.
    Outside,
    /// Our trouble.
    Counted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Restart { delay: Duration },
    GiveUp,
}

/// Decides after a failure at `now` that ended a run of `ran_for`. `jitter` in -1.0..=1.0 moves
/// the delay by up to a fifth, so that roles of many hosts do not return in step.
pub fn decide(
    policy: &RestartPolicy,
    history: &mut History,
    now: Duration,
    ran_for: Duration,
    failure: Failure,
    jitter: f64,
) -> Decision {
    if failure == Failure::Misconfigured {
        return Decision::GiveUp;
    }
    if ran_for >= policy.reset_after {
        *history = History::default();
    }
    history.consecutive = history.consecutive.saturating_add(1);
    if failure == Failure::Counted {
        history.counted.retain(|at| now.saturating_sub(*at) < policy.window);
        history.counted.push(now);
        if history.counted.len() >= policy.limit {
            return Decision::GiveUp;
        }
    }
    let doublings = history.consecutive.saturating_sub(1).min(20);
    let delay = policy.first_delay.saturating_mul(1 << doublings).min(policy.max_delay);
    Decision::Restart { delay: delay.mul_f64(jitter.clamp(-1.0, 1.0).mul_add(0.2, 1.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: u64 = 1;

    /// Feeds failures `(at, ran_for, failure)` in seconds and returns the delays in milliseconds;
    /// `None` is giving up.
    fn delays(steps: &[(u64, u64, Failure)], jitter: f64) -> Vec<Option<u128>> {
        let mut history = History::default();
        let policy = RestartPolicy::default();
        let seconds = Duration::from_secs;
        steps
            .iter()
            .map(|(at, ran, failure)| {
                match decide(&policy, &mut history, seconds(*at), seconds(*ran), *failure, jitter) {
                    Decision::Restart { delay } => Some(delay.as_millis()),
                    Decision::GiveUp => None,
                }
            })
            .collect()
    }

    #[test]
    fn delays_double_up_to_the_maximum_and_outside_trouble_is_retried_for_ever() {
        let steps: Vec<_> = (0..10).map(|n| (n, SHORT, Failure::Outside)).collect();
        let expected = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60].map(|s| Some(s * 1000));
        assert_eq!(delays(&steps, 0.0), expected);
    }

    #[test]
    fn the_fifth_counted_failure_within_the_window_is_the_last() {
        let steps: Vec<_> = (0..5).map(|n| (n * 10, SHORT, Failure::Counted)).collect();
        let expected = [Some(1000), Some(2000), Some(4000), Some(8000), None];
        assert_eq!(delays(&steps, 0.0), expected);
    }

    #[test]
    fn counted_failures_outside_the_window_do_not_add_up() {
        let steps: Vec<_> = (0..9).map(|n| (n * 200, SHORT, Failure::Counted)).collect();
        assert!(delays(&steps, 0.0).iter().all(Option::is_some));
    }

    #[test]
    fn outside_failures_do_not_count_between_counted_ones() {
        use Failure::{Counted, Outside};
        let steps: Vec<_> =
            [Counted, Outside, Counted, Outside, Counted, Outside, Counted, Outside]
                .iter()
                .map(|failure| (0, SHORT, *failure))
                .collect();
        assert!(delays(&steps, 0.0).iter().all(Option::is_some));
    }

    #[test]
    fn a_long_run_starts_the_backoff_afresh() {
        let steps = [
            (0, SHORT, Failure::Counted),
            (1, SHORT, Failure::Counted),
            (700, 600, Failure::Counted),
            (701, SHORT, Failure::Counted),
        ];
        assert_eq!(delays(&steps, 0.0), [1000, 2000, 1000, 2000].map(Some));
    }

    #[test]
    fn misconfiguration_is_never_retried() {
        assert_eq!(delays(&[(0, SHORT, Failure::Misconfigured)], 0.0), [None]);
    }

    #[test]
    fn jitter_moves_the_delay_by_a_fifth_at_most() {
        let step = [(0, SHORT, Failure::Outside)];
        assert_eq!(delays(&step, 1.0), [Some(1200)]);
        assert_eq!(delays(&step, -1.0), [Some(800)]);
        assert_eq!(delays(&step, 7.0), [Some(1200)]);
    }
}
