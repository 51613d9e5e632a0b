//! What a role says about itself: ready or not, what is missing, and facts for `/status`.
//!
//! A role is `Ready` once it called [`HealthReporter::started`] and no named condition is set.
//! Several things can be missing at a time (link down, store read-only), so a condition is a name
//! with a reason, set and cleared by whoever watches that thing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use serde::Serialize;
use status_api::{HealthWord, Published};
use tokio::sync::watch;

/// State of one role as the supervisor publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Starting,
    Ready,
    /// Serves, but something named is missing: link down, store read-only.
    Degraded {
        reason: String,
    },
    /// Down, will be retried.
    Backoff {
        error: String,
        restarts: u32,
        retry_in_ms: u64,
    },
    /// Down, will not be retried.
    Failed {
        error: String,
    },
    Stopped,
}

impl Health {
    /// The word for it, as in `/status`.
    pub const fn word(&self) -> HealthWord {
        match self {
            Self::Starting => HealthWord::Starting,
            Self::Ready => HealthWord::Ready,
            Self::Degraded { .. } => HealthWord::Degraded,
            Self::Backoff { .. } => HealthWord::Backoff,
            Self::Failed { .. } => HealthWord::Failed,
            Self::Stopped => HealthWord::Stopped,
        }
    }

    /// Why the role is not ready, in words.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Degraded { reason } => Some(reason),
            Self::Backoff { error, .. } | Self::Failed { error } => Some(error),
            Self::Starting | Self::Ready | Self::Stopped => None,
        }
    }
}

type StatusSource = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Handle of one run of a role. Cloneable; clones share everything.
#[derive(Clone)]
pub struct HealthReporter {
    shared: Arc<Shared>,
}

struct Shared {
    health: watch::Sender<Health>,
    conditions: Mutex<(bool, BTreeMap<&'static str, String>)>,
    born: Instant,
    progress_ms: AtomicU64,
    sources: Mutex<BTreeMap<&'static str, StatusSource>>,
    metrics: Mutex<Option<Arc<Registry>>>,
}

impl fmt::Debug for HealthReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthReporter").field("health", &*self.shared.health.borrow()).finish()
    }
}

impl Default for HealthReporter {
    fn default() -> Self {
        Self::new()
    }
}

impl HealthReporter {
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                health: watch::Sender::new(Health::Starting),
                conditions: Mutex::default(),
                born: Instant::now(),
                progress_ms: AtomicU64::new(0),
                sources: Mutex::default(),
                metrics: Mutex::default(),
            }),
        }
    }

    /// The role serves. Before this call it is `Starting` whatever its conditions are, unless one
    /// is set: then it is `Degraded`.
    pub fn started(&self) {
        self.update(|started, _| *started = true);
    }

    /// Something named is missing. `name` is stable ("link", "dnsmasq"), `reason` is for people.
    pub fn set_condition(&self, name: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        self.update(|_, conditions| {
            conditions.insert(name, reason);
        });
    }

    /// The named thing is there again.
    pub fn clear_condition(&self, name: &'static str) {
        self.update(|_, conditions| {
            conditions.remove(name);
        });
    }

    fn update(&self, change: impl FnOnce(&mut bool, &mut BTreeMap<&'static str, String>)) {
        let mut guard = self.shared.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let (started, conditions) = &mut *guard;
        change(started, conditions);
        let health = if conditions.is_empty() {
            if *started { Health::Ready } else { Health::Starting }
        } else {
            let reasons: Vec<&str> = conditions.values().map(String::as_str).collect();
            Health::Degraded { reason: reasons.join("; ") }
        };
        self.shared.health.send_if_modified(|current| {
            let changed = *current != health;
            *current = health;
            changed
        });
    }

    pub fn health(&self) -> Health {
        self.shared.health.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// The role's main loop is alive. Called by that loop at least every few seconds, never by a
    /// handler: a long copy must not look like a hang, a deadlocked loop must.
    pub fn progress(&self) {
        let elapsed = u64::try_from(self.shared.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.progress_ms.store(elapsed, Ordering::Relaxed);
    }

    /// Time since the last [`HealthReporter::progress`] (or since the role was started).
    pub fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.shared.progress_ms.load(Ordering::Relaxed));
        self.shared.born.elapsed().saturating_sub(last)
    }

    /// Adds an object to the role's `details` in `/status`, under the name its type has there. The
    /// source is called per request and must not block; it must not hold secrets.
    pub fn report<T: Published>(&self, source: impl Fn() -> T + Send + Sync + 'static) {
        self.publish(T::NAME, source);
    }

    /// As [`HealthReporter::report`], for objects that have no type in `status-api`.
    pub fn publish<T: Serialize>(
        &self,
        name: &'static str,
        source: impl Fn() -> T + Send + Sync + 'static,
    ) {
        let source = move || {
            serde_json::to_value(source()).unwrap_or_else(|error| {
                tracing::error!(name, %error, "a status object cannot be written as JSON");
                serde_json::Value::Null
            })
        };
        self.shared
            .sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, Arc::new(source));
    }

    /// The published objects, for `/status`.
    pub fn details(&self) -> serde_json::Map<String, serde_json::Value> {
        let sources = self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sources.into_iter().map(|(name, source)| (name.to_owned(), source())).collect()
    }

    /// Hands over the role's metrics for `/metrics`. Names start with `quickcloud_<role>_`.
    pub fn install_metrics(&self, registry: Registry) {
        *self.shared.metrics.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(registry));
    }

    pub fn metrics(&self) -> Option<Arc<Registry>> {
        self.shared.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_start_and_no_condition() {
        let reporter = HealthReporter::new();
        assert_eq!(reporter.health(), Health::Starting);
        reporter.set_condition("link", "link down");
        reporter.started();
        reporter.set_condition("store", "store read-only");
        let reason = "link down; store read-only".to_owned();
        assert_eq!(reporter.health(), Health::Degraded { reason });
        reporter.clear_condition("link");
        reporter.clear_condition("store");
        assert_eq!(reporter.health(), Health::Ready);
    }

    #[test]
    fn published_objects_are_evaluated_per_request() {
        let reporter = HealthReporter::new();
        reporter.publish("sessions", || serde_json::json!([1]));
        assert_eq!(
            serde_json::Value::Object(reporter.details()),
            serde_json::json!({"sessions":[1]})
        );
    }
}
