//! How fast bytes come, lately: what an operator wants to know of a running download.

use std::time::{Duration, Instant};

/// Bytes are counted in windows of this length.
const WINDOW: Duration = Duration::from_secs(3);

/// The window under way and the one before it.
#[derive(Debug)]
pub(super) struct Speed {
    began: Instant,
    bytes: u64,
    /// Bytes in each second of the window before; `None` in the first one.
    before: Option<u64>,
}

impl Speed {
    pub(super) const fn new(now: Instant) -> Self {
        Self { began: now, bytes: 0, before: None }
    }

    pub(super) fn add(&mut self, bytes: u64, now: Instant) {
        self.go_on(now);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Bytes in each second.
    pub(super) fn at(&mut self, now: Instant) -> u64 {
        self.go_on(now);
        self.before.unwrap_or_else(|| per_second(self.bytes, now.duration_since(self.began)))
    }

    fn go_on(&mut self, now: Instant) {
        let passed = now.duration_since(self.began);
        if passed >= WINDOW {
            *self = Self { began: now, bytes: 0, before: Some(per_second(self.bytes, passed)) };
        }
    }
}

fn per_second(bytes: u64, passed: Duration) -> u64 {
    let per_second = u128::from(bytes) * 1000 / passed.as_millis().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_that_of_the_last_seconds() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut speed = Speed::new(begin);
        assert_eq!(speed.at(begin), 0);
        speed.add(1_000, at(0));
        assert_eq!(speed.at(at(1)), 1_000);
        speed.add(2_000, at(2));
        assert_eq!(speed.at(at(3)), 1_000);
        speed.add(60_000, at(4));
        assert_eq!(speed.at(at(4)), 1_000, "the last whole window");
        assert_eq!(speed.at(at(6)), 20_000);
        assert_eq!(speed.at(at(60)), 0, "nothing comes any more");
    }
}
