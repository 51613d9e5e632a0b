//! Tells a warning that repeats an earlier one from a new one: one line per minute and cause.
//!
//! A cause is the place in the code, the message, the fields that say what it is about, and the
//! role. Counters and times of one repetition are not part of it, nor are the spans in between:
//! each attempt has a span of its own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Event;
use tracing::field::{Field, Visit};

/// Distinct warnings remembered; beyond, the oldest window is forgotten.
const REMEMBERED: usize = 512;
/// Fields that differ between repetitions of the same trouble; so do all times (`…_ms`).
const VARYING: [&str; 9] = [
    "attempt",
    "failures",
    "restarts",
    "seconds_left",
    "seq",
    "sequence",
    "logid",
    "in_flight",
    "left",
];

/// Remembers warnings for one window each. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub(super) struct RepeatLimiter {
    window_ms: Arc<AtomicU64>,
    seen: Arc<Mutex<HashMap<u64, Seen>>>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Write it; since the last one of its cause that many were left out.
    Write {
        left_out: u64,
    },
    LeaveOut,
}

impl RepeatLimiter {
    pub(super) fn new(window: Duration) -> Self {
        let limiter = Self { window_ms: Arc::default(), seen: Arc::default() };
        limiter.set_window(window);
        limiter
    }

    /// Another window from now on; zero writes every line.
    pub(super) fn set_window(&self, window: Duration) {
        let ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        self.window_ms.store(ms, Ordering::Relaxed);
    }

    fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms.load(Ordering::Relaxed))
    }

    /// `context` says whose event it is: the outermost span with its fields.
    pub(super) fn line(&self, event: &Event<'_>, context: impl Hash) -> Line {
        if self.window().is_zero() {
            return Line::Write { left_out: 0 };
        }
        let mut hasher = DefaultHasher::new();
        event.metadata().callsite().hash(&mut hasher);
        context.hash(&mut hasher);
        event.record(&mut Fields { hasher: &mut hasher, text: String::new() });
        self.line_of(hasher.finish(), Instant::now())
    }

    fn line_of(&self, cause: u64, now: Instant) -> Line {
        let window = self.window();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = seen.get_mut(&cause) {
            if now.saturating_duration_since(entry.since) < window {
                entry.left_out += 1;
                return Line::LeaveOut;
            }
            let left_out = entry.left_out;
            *entry = Seen { since: now, left_out: 0 };
            return Line::Write { left_out };
        }
        if seen.len() >= REMEMBERED {
            seen.retain(|_, entry| now.saturating_duration_since(entry.since) < window);
        }
        if seen.len() >= REMEMBERED
            && let Some(oldest) =
                seen.iter().min_by_key(|(_, entry)| entry.since).map(|(key, _)| *key)
        {
            seen.remove(&oldest);
        }
        seen.insert(cause, Seen { since: now, left_out: 0 });
        Line::Write { left_out: 0 }
    }
}

/// Hashes the fields that make a warning what it is.
struct Fields<'a> {
    hasher: &'a mut DefaultHasher,
    text: String,
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let name = field.name();
        if VARYING.contains(&name) || name.ends_with("_ms") {
            return;
        }
        self.text.clear();
        // Writing to a String cannot fail; a Debug that fails hashes as what it wrote.
        if write!(self.text, "{value:?}").is_ok() {
            name.hash(self.hasher);
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
        assert_eq!(limiter.line_of(1, at(0)), Line::Write { left_out: 0 });
        assert_eq!(limiter.line_of(1, at(1)), Line::LeaveOut);
        assert_eq!(limiter.line_of(2, at(2)), Line::Write { left_out: 0 });
        assert_eq!(limiter.line_of(1, at(59)), Line::LeaveOut);
        assert_eq!(limiter.line_of(1, at(60)), Line::Write { left_out: 2 });
        assert_eq!(limiter.line_of(1, at(61)), Line::LeaveOut);
    }

    #[test]
    fn the_memory_is_bounded() {
        let limiter = RepeatLimiter::new(Duration::from_secs(60));
        let start = Instant::now();
        for key in 0..2000 {
            limiter.line_of(key, start + Duration::from_millis(key));
        }
        assert_eq!(limiter.seen.lock().unwrap().len(), REMEMBERED);
    }
}
