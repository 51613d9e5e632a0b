//! What the log says about a role's health: the first failure at info, a warning when it lasts, a
//! reminder now and then; never a line per retry.

use std::time::Duration;

use role::Health;
use tokio::time::Instant;

use super::board::millis;

/// An outage of this length is worth a warning.
const LASTING: Duration = Duration::from_secs(30);
/// And so is it again after each of these.
const REMINDER: Duration = Duration::from_mins(5);

/// Follows the health of one run.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    outage: Option<Outage>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    next_warning: Instant,
}

impl Announcer {
    /// The role's health is this now.
    pub(super) fn health(&mut self, health: &Health, now: Instant) {
        match (health, self.outage) {
            (Health::Degraded { reason }, None) => {
                tracing::info!(reason, "role degraded");
                self.outage = Some(Outage { since: now, next_warning: now + LASTING });
            }
            (Health::Degraded { reason }, Some(_)) => tracing::debug!(reason, "role degraded"),
            (Health::Ready, outage) => {
                let outage_ms = outage.map(|outage| millis(now - outage.since));
                tracing::info!(outage_ms, "role ready");
                self.outage = None;
            }
            (other, _) => {
                tracing::debug!(reason = other.reason(), health = %other.word(), "role");
            }
        }
    }

    /// When [`Announcer::remind`] wants to be called; never without an outage.
    pub(super) async fn due(&self) {
        match self.outage {
            Some(outage) => tokio::time::sleep_until(outage.next_warning).await,
            None => std::future::pending().await,
        }
    }

    /// Warns of an outage that lasts.
    pub(super) fn remind(&mut self, health: &Health, now: Instant) {
        if let Some(outage) = &mut self.outage {
            let outage_ms = millis(now - outage.since);
            tracing::warn!(outage_ms, reason = health.reason(), "role is still degraded");
            outage.next_warning = now + REMINDER;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::CapturedLog;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_once_warned_of_when_it_lasts_and_ends_with_its_length() {
        let captured = CapturedLog::new();
        let mut announcer = Announcer::default();
        let degraded = |reason: &str| Health::Degraded { reason: reason.to_owned() };
        let start = Instant::now();
        announcer.health(&Health::Ready, start);
        // A retry every five seconds, for 400 seconds.
        for attempt in 0..80 {
            let health = degraded(&format!("attempt {attempt}"));
            announcer.health(&health, Instant::now());
            let retry = Instant::now() + Duration::from_secs(5);
            while tokio::time::timeout_at(retry, announcer.due()).await.is_ok() {
                announcer.remind(&health, Instant::now());
            }
        }
        announcer.health(&Health::Ready, Instant::now());
        let log = captured.text();
        let expected = " INFO role ready\n INFO role degraded reason=\"attempt 0\"\n \
                        WARN role is still degraded outage_ms=30000 reason=\"attempt 5\"\n \
                        WARN role is still degraded outage_ms=330000 reason=\"attempt 65\"\n \
                        INFO role ready outage_ms=400000\n";
        assert_eq!(log, expected);
    }
}
