//! Tells a warning that repeats an earlier one word for word from a new one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Event;
use tracing::field::{Field, Visit};

/// Distinct warnings remembered; beyond, the oldest window is forgotten.
const REMEMBERED: usize = 512;
/// Fields that differ between repetitions of the same trouble.
const VARYING: [&str; 5] = ["attempt", "retry_in_ms", "elapsed_ms", "restarts", "seconds_left"];

/// Remembers warnings for one window each.
#[derive(Debug)]
pub(super) struct RepeatLimiter {
    window: Duration,
    seen: Mutex<HashMap<u64, Seen>>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    suppressed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write it; before it, that many identical ones were not written.
    Write {
        suppressed: u64,
    },
    Suppress,
}

impl RepeatLimiter {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, seen: Mutex::default() }
    }

    pub(super) fn judge(&self, event: &Event<'_>) -> Verdict {
        if self.window.is_zero() {
            return Verdict::Write { suppressed: 0 };
        }
        let mut hasher = DefaultHasher::new();
        event.metadata().callsite().hash(&mut hasher);
        if let Some(span) = tracing::Span::current().id() {
            span.into_u64().hash(&mut hasher);
        }
        event.record(&mut Fields { hasher: &mut hasher, text: String::new() });
        self.judge_key(hasher.finish(), Instant::now())
    }

    fn judge_key(&self, key: u64, now: Instant) -> Verdict {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = seen.get_mut(&key) {
            if now.saturating_duration_since(entry.since) < self.window {
                entry.suppressed += 1;
                return Verdict::Suppress;
            }
            let suppressed = entry.suppressed;
            *entry = Seen { since: now, suppressed: 0 };
            return Verdict::Write { suppressed };
        }
        if seen.len() >= REMEMBERED {
            let window = self.window;
            seen.retain(|_, entry| now.saturating_duration_since(entry.since) < window);
        }
        if seen.len() >= REMEMBERED
            && let Some(oldest) =
                seen.iter().min_by_key(|(_, entry)| entry.since).map(|(key, _)| *key)
        {
            seen.remove(&oldest);
        }
        seen.insert(key, Seen { since: now, suppressed: 0 });
        Verdict::Write { suppressed: 0 }
    }
}

/// Hashes the fields that make a warning what it is.
struct Fields<'a> {
    hasher: &'a mut DefaultHasher,
    text: String,
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if VARYING.contains(&field.name()) {
            return;
        }
        self.text.clear();
        // Writing to a String cannot fail; a Debug that fails hashes as what it wrote.
        if write!(self.text, "{value:?}").is_ok() {
            field.name().hash(self.hasher);
        }
        self.text.hash(self.hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_within_the_window_are_counted_not_written() {
        let limiter = RepeatLimiter::new(Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limiter.judge_key(1, at(0)), Verdict::Write { suppressed: 0 });
        assert_eq!(limiter.judge_key(1, at(1)), Verdict::Suppress);
        assert_eq!(limiter.judge_key(2, at(2)), Verdict::Write { suppressed: 0 });
        assert_eq!(limiter.judge_key(1, at(59)), Verdict::Suppress);
        assert_eq!(limiter.judge_key(1, at(60)), Verdict::Write { suppressed: 2 });
        assert_eq!(limiter.judge_key(1, at(61)), Verdict::Suppress);
    }

    #[test]
    fn the_memory_is_bounded() {
        let limiter = RepeatLimiter::new(Duration::from_secs(60));
        let start = Instant::now();
        for key in 0..2000 {
            limiter.judge_key(key, start + Duration::from_millis(key));
        }
        assert_eq!(limiter.seen.lock().unwrap().len(), REMEMBERED);
    }
}
