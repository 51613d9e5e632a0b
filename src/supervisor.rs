//! Starts, watches and stops the roles. Knows them only as [`RoleSpec`].
//!
//! ```text
//! supervise ── runner(ss) ── run ── main task + TaskScope of this run
//!           ├─ runner(cp) ── …          the heartbeat checks progress of all runs
//!           └─ runner(dhcp) ── …        and tells a runner that its role hangs
//! ```
//!
//! The runners are polled by the caller of `supervise` itself, not by a worker thread: a role that
//! blocks its worker right after it woke its runner would keep the runner from ever being polled
//! (the worker's next task is not up for stealing). Run it by `block_on`.
//!
//! A role that panics, returns, hangs or is misconfigured is its runner's business alone. The
//! process ends when it is asked to, when no role is left, or when `exit_on_failed_role` says so.

mod announce;
pub mod board;
pub mod conflicts;
pub mod preflight;
mod run;
mod runner;
mod slot;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::CatchUnwind;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http_front::HttpFront;
use role::{BoxFuture, Heartbeat, Host, RoleKind};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::config::SupervisorConfig;
use crate::exit::Outcome;
use crate::restart::Failure;
use board::Board;
use runner::{Preflighted, RoleRunner, RunnerEnd};
pub use slot::{ConfiguredRole, Keys};
pub(crate) use slot::{Offer, RoleSlot};

/// How often the loop ticks at least; `/livez` and the watchdog look at it.
const TICK: Duration = Duration::from_secs(1);
/// How often a drain says who is left.
const DRAIN_REPORT: Duration = Duration::from_secs(5);
/// What aborted runners get to end.
const ABORT_TIMEOUT: Duration = Duration::from_secs(3);

/// How the process is asked to stop. Cloneable; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Stop serving, let work end within the grace period.
    pub graceful: CancellationToken,
    /// End now.
    pub immediate: CancellationToken,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }
}

/// What every run of every role gets.
#[derive(Clone)]
pub(crate) struct Ports {
    pub(crate) board: Board,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) http: HttpFront,
    pub(crate) host: Host,
    pub(crate) limits: Limits,
}

/// The limits in force; a reload replaces them. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Limits(Arc<RwLock<Arc<SupervisorConfig>>>);

impl Limits {
    pub(crate) fn new(config: SupervisorConfig) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    pub(crate) fn current(&self) -> Arc<SupervisorConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, config: SupervisorConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}

/// Runs the roles until the process has to end; says how it ended.
pub(crate) async fn supervise(slots: &[RoleSlot], ports: &Ports, shutdown: &Shutdown) -> Outcome {
    let (preflighted, checks) = mpsc::channel(slots.len().max(1));
    let mut supervisor = Supervisor {
        ports,
        slots,
        runners: FuturesUnordered::new(),
        failed: Vec::new(),
        stop: CancellationToken::new(),
        abort: CancellationToken::new(),
    };
    for slot in slots {
        supervisor.start(slot, Some(preflighted.clone()));
    }
    drop(preflighted);
    let reason = supervisor.watch(checks, shutdown).await;
    ports.board.stop();
    let graceful = supervisor.drain(shutdown).await;
    match reason {
        Some(outcome) => outcome,
        None if graceful => Outcome::Clean,
        None => Outcome::Failed,
    }
}

type RunnerFuture = BoxFuture<'static, RunnerEnd>;
type Ended = Result<RunnerEnd, Box<dyn Any + Send>>;

struct Supervisor<'a> {
    ports: &'a Ports,
    slots: &'a [RoleSlot],
    runners: FuturesUnordered<CatchUnwind<AssertUnwindSafe<RunnerFuture>>>,
    failed: Vec<GivenUp>,
    stop: CancellationToken,
    abort: CancellationToken,
}

/// A role that failed for good, or until it gets another configuration.
struct GivenUp {
    /// `None` when the runner itself broke.
    kind: Option<RoleKind>,
    failure: Failure,
    offers: Option<watch::Receiver<u64>>,
}

impl Supervisor<'_> {
    fn start(&self, slot: &RoleSlot, preflighted: Option<mpsc::Sender<Preflighted>>) {
        let runner = RoleRunner {
            slot: slot.clone(),
            ports: self.ports.clone(),
            stop: self.stop.clone(),
            abort: self.abort.clone(),
            preflighted,
        };
        let span = tracing::error_span!("role", role = %slot.kind);
        let running: RunnerFuture = Box::pin(runner.run().instrument(span));
        self.runners.push(AssertUnwindSafe(running).catch_unwind());
    }

    /// Watches until the process has to end; `None` when it was asked to.
    async fn watch(
        &mut self,
        mut checks: mpsc::Receiver<Preflighted>,
        shutdown: &Shutdown,
    ) -> Option<Outcome> {
        let mut tick = tokio::time::interval(TICK);
        let mut lacking = 0;
        loop {
            self.ports.board.supervisor_tick();
            tokio::select! {
                biased;
                () = shutdown.immediate.cancelled() => return None,
                () = shutdown.graceful.cancelled() => return None,
                Some(preflighted) = checks.recv() => {
                    lacking += usize::from(preflighted.lacking);
                    if lacking == self.slots.len() {
                        tracing::error!("the machine lacks what every role needs");
                        return Some(Outcome::Unavailable);
                    }
                }
                ended = self.runners.next() => {
                    let Some(ended) = ended else { return Some(self.outcome()) };
                    self.ended(ended);
                    if self.runners.is_empty() {
                        tracing::error!("no role is left");
                        return Some(self.outcome());
                    }
                    if self.ports.limits.current().exit_on_failed_role && !self.failed.is_empty() {
                        tracing::error!("a role failed for good and exit_on_failed_role is set");
                        return Some(self.outcome());
                    }
                }
                _ = tick.tick() => {}
            }
            self.revive();
        }
    }

    /// Starts roles that were given up and got another configuration since.
    fn revive(&mut self) {
        let offered = |given_up: &mut GivenUp| {
            given_up.offers.as_ref().is_some_and(|offers| offers.has_changed().unwrap_or(false))
        };
        for given_up in self.failed.extract_if(.., offered).collect::<Vec<_>>() {
            let slot = self.slots.iter().find(|slot| Some(slot.kind) == given_up.kind);
            let Some(slot) = slot else { continue };
            tracing::info!(role = %slot.kind, "starting the role with its new configuration");
            self.ports.board.revived(slot.kind);
            self.start(slot, None);
        }
    }

    /// Notes the end of a runner; false when something had to be aborted.
    fn ended(&mut self, ended: Ended) -> bool {
        match ended {
            Ok(RunnerEnd::Stopped { killed }) => !killed,
            Ok(RunnerEnd::Failed { kind, failure }) => {
                let slot = self.slots.iter().find(|slot| slot.kind == kind);
                let offers = slot.map(RoleSlot::offers);
                self.failed.push(GivenUp { kind: Some(kind), failure, offers });
                true
            }
            Err(panic) => {
                // A bug of the runner itself; the role is gone with it.
                tracing::error!(error = run::panic_text(panic.as_ref()), "runner of a role ended");
                self.failed.push(GivenUp { kind: None, failure: Failure::Counted, offers: None });
                false
            }
        }
    }

    /// The exit when roles failed for good.
    fn outcome(&self) -> Outcome {
        if self.failed.iter().all(|given_up| given_up.failure == Failure::Misconfigured) {
            Outcome::Configuration
        } else {
            Outcome::RoleFailed
        }
    }

    /// Stops all roles within the grace period; false when something had to be aborted.
    async fn drain(&mut self, shutdown: &Shutdown) -> bool {
        self.stop.cancel();
        let grace = self.ports.limits.current().shutdown_grace;
        let end = Instant::now() + grace;
        let mut report = tokio::time::interval_at(Instant::now() + DRAIN_REPORT, DRAIN_REPORT);
        let mut tick = tokio::time::interval(TICK);
        let mut graceful = true;
        while !self.runners.is_empty() {
            self.ports.board.supervisor_tick();
            tokio::select! {
                biased;
                Some(ended) = self.runners.next() => graceful &= self.ended(ended),
                () = shutdown.immediate.cancelled() => {
                    tracing::warn!(roles = self.left(), "asked to end at once");
                    return self.abort().await;
                }
                () = tokio::time::sleep_until(end) => {
                    tracing::error!(roles = self.left(), "grace period is over, aborting");
                    return self.abort().await;
                }
                _ = report.tick() => {
                    let seconds_left = end.saturating_duration_since(Instant::now()).as_secs();
                    tracing::info!(roles = self.left(), seconds_left, "waiting for roles to stop");
                }
                _ = tick.tick() => {}
            }
        }
        graceful
    }

    async fn abort(&mut self) -> bool {
        self.abort.cancel();
        let gone = async { while self.runners.next().await.is_some() {} };
        if tokio::time::timeout(ABORT_TIMEOUT, gone).await.is_err() {
            tracing::error!(roles = self.left(), "roles left behind");
            self.runners.clear();
        }
        false
    }

    /// Names of the roles that still run.
    fn left(&self) -> String {
        let rows = self.ports.board.rows();
        let names: Vec<&str> = rows
            .iter()
            .filter(|row| {
                !matches!(row.health, role::Health::Stopped | role::Health::Failed { .. })
            })
            .map(|row| row.kind.short)
            .collect();
        names.join(",")
    }
}
