//! The one table of roles: written by the runners, read by `/status`, metrics and the heartbeat.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use role::{Health, HealthReporter, Host, RoleContext, RoleKind};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// States of all roles. Cloneable; clones share everything.
#[derive(Clone)]
pub struct Board {
    shared: Arc<Shared>,
}

struct Shared {
    host: Host,
    started: (Instant, SystemTime),
    rows: Mutex<Vec<Row>>,
    changed: watch::Sender<u64>,
    stopping: CancellationToken,
    supervisor_seen: Mutex<Instant>,
    heartbeat_seen: Mutex<Instant>,
}

struct Row {
    kind: RoleKind,
    phase: Phase,
    run: Option<RoleContext>,
    since: SystemTime,
    restarts: u32,
    consecutive: u32,
    last_error: Option<LastError>,
}

enum Phase {
    /// The running role says how it is; the token tells its runner that it hangs.
    Running {
        hung: CancellationToken,
    },
    Backoff {
        error: String,
        retry_at: Instant,
    },
    Failed {
        error: String,
    },
    Waiting,
    Stopped,
}

/// The failure before this moment's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    pub at: SystemTime,
    pub text: String,
}

/// One role at one moment.
#[derive(Clone)]
pub struct RoleRow {
    pub kind: RoleKind,
    pub health: Health,
    pub since: SystemTime,
    pub restarts: u32,
    pub consecutive_errors: u32,
    pub last_error: Option<LastError>,
    running: bool,
    run: Option<RoleContext>,
}

impl std::fmt::Debug for RoleRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleRow")
            .field("role", &self.kind.short)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

impl RoleRow {
    /// The objects the role publishes. A source that panics does not hurt the reader.
    pub fn details(&self) -> serde_json::Map<String, serde_json::Value> {
        let Some(run) = &self.run else { return serde_json::Map::new() };
        let details = || run.health.details();
        std::panic::catch_unwind(AssertUnwindSafe(details)).unwrap_or_else(|_panic| {
            serde_json::Map::from_iter([("error".to_owned(), "a status source panicked".into())])
        })
    }

    /// The role's own metrics.
    pub fn metrics(&self) -> Option<Arc<Registry>> {
        self.run.as_ref()?.health.metrics()
    }

    /// The run of this moment.
    pub(crate) fn run(&self) -> Option<&RoleContext> {
        self.run.as_ref().filter(|_| self.running)
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.rows()).finish()
    }
}

impl Board {
    pub fn new(kinds: impl IntoIterator<Item = RoleKind>, host: Host) -> Self {
        let (now, wall) = (Instant::now(), host.clock.now());
        let rows = kinds
            .into_iter()
            .map(|kind| Row {
                kind,
                phase: Phase::Waiting,
                run: None,
                since: wall,
                restarts: 0,
                consecutive: 0,
                last_error: None,
            })
            .collect();
        Self {
            shared: Arc::new(Shared {
                host,
                started: (now, wall),
                rows: Mutex::new(rows),
                changed: watch::Sender::new(0),
                stopping: CancellationToken::new(),
                supervisor_seen: Mutex::new(now),
                heartbeat_seen: Mutex::new(now),
            }),
        }
    }

    fn update(&self, kind: RoleKind, change: impl FnOnce(&mut Row)) {
        let mut rows = self.shared.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.iter_mut().find(|row| row.kind == kind) {
            change(row);
            row.since = self.shared.host.clock.now();
        }
        drop(rows);
        self.shared.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// A run begins; from now on it speaks for the role. Returns the token that says it hangs.
    pub(super) fn begin(&self, run: &RoleContext) -> CancellationToken {
        let hung = CancellationToken::new();
        self.update(run.kind, |row| {
            row.phase = Phase::Running { hung: hung.clone() };
            row.run = Some(run.clone());
        });
        hung
    }

    /// The running role's health is another one now.
    pub(super) fn touch(&self, kind: RoleKind) {
        self.update(kind, |_row| {});
    }

    pub(super) fn backoff(&self, kind: RoleKind, error: String, delay: Duration, failures: u32) {
        let at = self.shared.host.clock.now();
        self.update(kind, |row| {
            row.restarts = row.restarts.saturating_add(1);
            row.consecutive = failures;
            row.last_error = Some(LastError { at, text: error.clone() });
            row.phase = Phase::Backoff { error, retry_at: Instant::now() + delay };
        });
    }

    pub(super) fn failed(&self, kind: RoleKind, error: String) {
        let at = self.shared.host.clock.now();
        self.update(kind, |row| {
            row.consecutive = row.consecutive.saturating_add(1);
            row.last_error = Some(LastError { at, text: error.clone() });
            row.phase = Phase::Failed { error };
        });
    }

    /// A role that was given up is tried again.
    pub(super) fn revived(&self, kind: RoleKind) {
        self.update(kind, |row| row.phase = Phase::Waiting);
    }

    pub(super) fn stopped(&self, kind: RoleKind) {
        self.update(kind, |row| row.phase = Phase::Stopped);
    }

    /// All roles as they are now.
    pub fn rows(&self) -> Vec<RoleRow> {
        let rows = self.shared.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().map(Row::snapshot).collect()
    }

    /// The running roles and the tokens that tell their runners they hang.
    pub(crate) fn running(&self) -> Vec<(RoleKind, HealthReporter, CancellationToken)> {
        let rows = self.shared.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter()
            .filter_map(|row| match (&row.phase, &row.run) {
                (Phase::Running { hung }, Some(run)) => {
                    Some((row.kind, run.health.clone(), hung.clone()))
                }
                _other => None,
            })
            .collect()
    }

    /// Every role is ready and nobody asked the process to stop.
    pub fn is_ready(&self) -> bool {
        !self.is_stopping() && self.rows().iter().all(|row| row.health == Health::Ready)
    }

    /// Changes whenever a role's state does.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    pub(super) fn stop(&self) {
        self.shared.stopping.cancel();
        self.shared.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.is_cancelled()
    }

    /// When the process started.
    pub fn started(&self) -> SystemTime {
        self.shared.started.1
    }

    pub fn uptime(&self) -> Duration {
        self.shared.started.0.elapsed()
    }

    /// The supervisor's loop is alive.
    pub(super) fn supervisor_tick(&self) {
        *self.shared.supervisor_seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Instant::now();
    }

    /// The heartbeat is alive.
    pub(crate) fn heartbeat_tick(&self) {
        *self.shared.heartbeat_seen.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Time since the supervisor's loop and the heartbeat last ticked, the longer of both.
    pub fn silent_for(&self) -> Duration {
        let age =
            |seen: &Mutex<Instant>| seen.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        age(&self.shared.supervisor_seen).max(age(&self.shared.heartbeat_seen))
    }

    /// One line for people: "ss ready, cp degraded (link down)".
    pub fn summary(&self) -> String {
        let parts: Vec<String> = self.rows().iter().map(RoleRow::summary).collect();
        let prefix = if self.is_stopping() { "stopping: " } else { "" };
        format!("{prefix}{}", parts.join(", "))
    }
}

impl Row {
    fn snapshot(&self) -> RoleRow {
        let health = match &self.phase {
            Phase::Waiting => Health::Starting,
            Phase::Running { .. } => {
                self.run.as_ref().map_or(Health::Starting, |run| run.health.health())
            }
            Phase::Backoff { error, retry_at } => Health::Backoff {
                error: error.clone(),
                restarts: self.restarts,
                retry_in_ms: millis(retry_at.saturating_duration_since(Instant::now())),
            },
            Phase::Failed { error } => Health::Failed { error: error.clone() },
            Phase::Stopped => Health::Stopped,
        };
        RoleRow {
            kind: self.kind,
            health,
            since: self.since,
            restarts: self.restarts,
            consecutive_errors: self.consecutive,
            last_error: self.last_error.clone(),
            running: matches!(self.phase, Phase::Running { .. }),
            run: self.run.clone(),
        }
    }
}

impl RoleRow {
    /// "cp degraded (link down)".
    pub fn summary(&self) -> String {
        let name = self.kind.short;
        let word = self.health.word();
        match self.health.reason() {
            Some(reason) => format!("{name} {word} ({reason})"),
            None => format!("{name} {word}"),
        }
    }
}

/// Whole milliseconds, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
