//! How fast a server gives bytes. One that gives a byte now and then never stalls, and would hold
//! its turn for ever.

use std::time::Duration;

use crate::sources::error::SourceError;

/// The least that a server has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinimumRate {
    /// Bytes in each second, as a mean over the window; 0 asks for nothing.
    pub bytes_per_second: u64,
    /// Judged each time so much was spent waiting for the server.
    pub window: Duration,
}

/// Bytes and waiting of the current window. What the store takes its time for does not count.
#[derive(Debug)]
pub(crate) struct Pace {
    least: MinimumRate,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) const fn new(least: MinimumRate) -> Self {
        Self { least, waited: Duration::ZERO, bytes: 0 }
    }

    /// Counts bytes and the time they were waited for.
    pub(crate) fn add(&mut self, bytes: u64, waited: Duration) -> Result<(), SourceError> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited = self.waited.saturating_add(waited);
        if self.waited < self.least.window {
            return Ok(());
        }
        let wanted = self.waited.as_millis() * u128::from(self.least.bytes_per_second) / 1000;
        if u128::from(self.bytes) < wanted {
            return Err(SourceError::TooSlow {
                bytes: self.bytes,
                waited: self.waited,
                least: self.least.bytes_per_second,
            });
        }
        *self = Self::new(self.least);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_told_from_a_pause() {
        let second = Duration::from_secs(1);
        let rate = |bytes_per_second| MinimumRate { bytes_per_second, window: 10 * second };
        let mut trickle = Pace::new(rate(100));
        for _ in 0..9 {
            trickle.add(1, second).unwrap();
        }
        let text = trickle.add(1, second).unwrap_err().to_string();
        assert!(text.contains("10 bytes in 10 seconds") && text.contains("min_rate"), "{text}");
        let mut uneven = Pace::new(rate(100));
        for _window in 0..5 {
            uneven.add(0, 9 * second).unwrap();
            uneven.add(1_000, second).unwrap();
        }
        let mut anything = Pace::new(rate(0));
        anything.add(0, 100 * second).unwrap();
    }
}
