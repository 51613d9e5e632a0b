//! How loud an outage is in the log: the first failure softly, a lasting one clearly, then now
//! and then.

use std::time::{Duration, Instant};

/// An outage of this length is worth a warning.
const WORTH_A_WARNING: Duration = Duration::from_secs(30);
const REPEAT: Duration = Duration::from_secs(300);

/// What to do with one more failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogLevel {
    Info,
    /// With the failures not logged since the last line.
    Warn {
        suppressed: u32,
    },
    Silent,
}

/// The failures since the link was attached last.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    warned: Option<Instant>,
    suppressed: u32,
    /// Somebody has to act, so the next failure is worth a warning however young.
    hopeless: bool,
}

impl Outage {
    /// Waiting will not help: a certificate is not trusted, by us or by the server.
    pub(super) fn does_not_heal(&mut self) {
        self.hopeless = true;
    }

    pub(super) fn failed(&mut self, now: Instant) -> LogLevel {
        let first = self.since.is_none();
        let since = *self.since.get_or_insert(now);
        if first && !self.hopeless {
            return LogLevel::Info;
        }
        let due = match self.warned {
            None if self.hopeless => true,
            None => now.saturating_duration_since(since) >= WORTH_A_WARNING,
            Some(warned) => now.saturating_duration_since(warned) >= REPEAT,
        };
        if !due {
            self.suppressed += 1;
            return LogLevel::Silent;
        }
        self.warned = Some(now);
        LogLevel::Warn { suppressed: std::mem::take(&mut self.suppressed) }
    }

    /// Attached again: how long it took, when there was an outage.
    pub(super) fn ended(&mut self, now: Instant) -> Option<Duration> {
        let since = std::mem::take(self).since?;
        Some(now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_then_after_half_a_minute_then_every_five() {
        let start = Instant::now();
        let mut outage = Outage::default();
        let mut at = |seconds| outage.failed(start + Duration::from_secs(seconds));
        assert_eq!(at(0), LogLevel::Info);
        assert_eq!(at(5), LogLevel::Silent);
        assert_eq!(at(10), LogLevel::Silent);
        assert_eq!(at(30), LogLevel::Warn { suppressed: 2 });
        assert_eq!(at(300), LogLevel::Silent);
        assert_eq!(at(330), LogLevel::Warn { suppressed: 1 });
        let end = start + Duration::from_secs(400);
        assert_eq!(outage.ended(end), Some(Duration::from_secs(400)));
        assert_eq!(outage.ended(end), None);
        assert_eq!(outage.failed(end), LogLevel::Info);
    }

    #[test]
    fn an_outage_that_does_not_heal_is_a_warning_from_the_first_failure_on() {
        let start = Instant::now();
        let mut outage = Outage::default();
        outage.does_not_heal();
        assert_eq!(outage.failed(start), LogLevel::Warn { suppressed: 0 });
        outage.does_not_heal();
        assert_eq!(outage.failed(start + Duration::from_secs(5)), LogLevel::Silent);
        assert_eq!(outage.failed(start + REPEAT), LogLevel::Warn { suppressed: 1 });
    }
}
