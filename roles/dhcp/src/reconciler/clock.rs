//! Jumps of the wall clock. Nothing here counts time by it; dnsmasq does, for leases that end: after a
//! jump ahead they end early, after one back late. Reservations keep their addresses either way, and
//! an operator should know why clients ask again.

use std::time::{Duration, Instant};

use super::Reconciler;

/// A smaller one ends no lease that matters.
const LEAST: Duration = Duration::from_hours(1);
/// How long it is told.
const TOLD: Duration = Duration::from_hours(1);

/// What the clock said last, and the last jump.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    last: Option<(Instant, i64)>,
    jump: Option<(Instant, String)>,
}

impl WallClock {
    /// Looks at the clock; the last jump in words, for as long as it is news.
    fn look(&mut self, now: Instant, wall_ms: i64) -> Option<&str> {
        if let Some((then, before_ms)) = self.last {
            let passed = i64::try_from(now.duration_since(then).as_millis()).unwrap_or(i64::MAX);
            let ahead = wall_ms.saturating_sub(before_ms).saturating_sub(passed);
            let by = Duration::from_millis(ahead.unsigned_abs());
            if by >= LEAST {
                let (direction, what) = match ahead > 0 {
                    true => ("ahead", "early"),
                    false => ("back", "late"),
                };
                let minutes = (by.as_secs() + 30) / 60;
                let text = format!(
                    "the clock of this machine jumped {direction} by {minutes} minutes: leases that \
                     end may have ended {what}; addresses stay who they were given to"
                );
                tracing::warn!(text, "clock jump");
                self.jump = Some((now, text));
            }
        }
        self.last = Some((now, wall_ms));
        self.jump.take_if(|(at, _)| now.duration_since(*at) >= TOLD);
        self.jump.as_ref().map(|(_, text)| text.as_str())
    }
}

impl Reconciler {
    /// Notes a jump of the wall clock for the status.
    pub(super) fn look_at_clock(&mut self) {
        let wall_ms = self.cx.host.clock.unix_ms();
        let jump = self.wall_clock.look(Instant::now(), wall_ms).map(str::to_owned);
        self.observed.send_if_modified(|observed| {
            let changed = observed.clock_jump != jump;
            observed.clock_jump = jump;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_told_for_an_hour_and_the_passing_of_time_is_none() {
        const HOUR_MS: i64 = 3_600_000;
        let (mut clock, start) = (WallClock::default(), Instant::now());
        let after = |minutes| start + Duration::from_mins(minutes);
        assert_eq!(clock.look(start, 5 * HOUR_MS), None);
        // Two hours pass.
        assert_eq!(clock.look(after(120), 7 * HOUR_MS), None);
        let ahead = clock.look(after(121), 9 * HOUR_MS).unwrap().to_owned();
        assert!(ahead.contains("jumped ahead by 119 minutes"), "{ahead}");
        assert_eq!(clock.look(after(122), 9 * HOUR_MS), Some(ahead.as_str()));
        let back = clock.look(after(123), -HOUR_MS).unwrap();
        assert!(back.contains("jumped back by 601 minutes"), "{back}");
        assert_eq!(clock.look(after(184), 0), None);
    }
}
