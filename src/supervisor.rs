//! Starts, watches and stops the roles. Knows them only as [`RoleSpec`].
//!
//! ```text
//! supervise ── keeper(ss) ── run ── main task + TaskScope of this run
//!           ├─ keeper(cp) ── …          the heartbeat checks progress of all runs
//!           └─ keeper(dhcp) ── …        and tells a keeper that its role hangs
//! ```
//!
//! The keepers are polled by the caller of `supervise` itself, not by a worker thread: a role that
//! blocks its worker right after it woke its keeper would keep the keeper from ever being polled
//! (the worker's next task is not up for stealing). Run it by `block_on`.
//!
//! A role that panics, returns, hangs or is misconfigured is its keeper's business alone. The
//! process ends when it is asked to, when no role is left, or when `exit_on_failed_role` says so.

mod announce;
pub mod board;
pub mod conflicts;
mod keeper;
pub mod preflight;
mod run;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::CatchUnwind;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http_front::HttpFront;
use role::{BoxFuture, Heartbeat, Host, RoleSpec};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::config::SupervisorConfig;
use crate::exit::Outcome;
use crate::restart::Failure;
use board::Board;
use keeper::{Keeper, KeptEnd, Preflighted};

/// How often the loop goes round at least; `/livez` and the watchdog look at it.
const ROUND: Duration = Duration::from_secs(1);
/// How often a drain says who is left.
const DRAIN_REPORT: Duration = Duration::from_secs(5);
/// What an aborted keeper gets to end, beyond its own patience.
const ABORT_PATIENCE: Duration = Duration::from_secs(3);

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
    pub(crate) limits: Arc<SupervisorConfig>,
}

/// Runs the roles until the process has to end; says how it ended.
pub(crate) async fn supervise(
    specs: &[Arc<dyn RoleSpec>],
    ports: &Ports,
    shutdown: &Shutdown,
) -> Outcome {
    let stop = CancellationToken::new();
    let abort = CancellationToken::new();
    let (preflighted, checks) = mpsc::channel(specs.len().max(1));
    let keepers = FuturesUnordered::new();
    for spec in specs {
        let keeper = Keeper {
            spec: Arc::clone(spec),
            ports: ports.clone(),
            stop: stop.clone(),
            abort: abort.clone(),
            preflighted: preflighted.clone(),
        };
        let span = tracing::error_span!("role", role = %spec.kind());
        let kept: KeptFuture = Box::pin(keeper.keep().instrument(span));
        keepers.push(AssertUnwindSafe(kept).catch_unwind());
    }
    drop(preflighted);
    let mut supervisor = Supervisor { ports, keepers, failed: Vec::new(), roles: specs.len() };
    let reason = supervisor.watch(checks, shutdown).await;
    ports.board.stop();
    let graceful = supervisor.drain(&stop, &abort, shutdown).await;
    match reason {
        Some(outcome) => outcome,
        None if graceful => Outcome::Clean,
        None => Outcome::Failed,
    }
}

type KeptFuture = BoxFuture<'static, KeptEnd>;
type Kept = Result<KeptEnd, Box<dyn Any + Send>>;

struct Supervisor<'a> {
    ports: &'a Ports,
    keepers: FuturesUnordered<CatchUnwind<AssertUnwindSafe<KeptFuture>>>,
    failed: Vec<Failure>,
    roles: usize,
}

impl Supervisor<'_> {
    /// Goes round until the process has to end; `None` when it was asked to.
    async fn watch(
        &mut self,
        mut checks: mpsc::Receiver<Preflighted>,
        shutdown: &Shutdown,
    ) -> Option<Outcome> {
        let mut round = tokio::time::interval(ROUND);
        let mut lacking = 0;
        loop {
            self.ports.board.loop_went_round();
            tokio::select! {
                biased;
                () = shutdown.immediate.cancelled() => return None,
                () = shutdown.graceful.cancelled() => return None,
                Some(Preflighted(passed)) = checks.recv() => {
                    lacking += usize::from(!passed);
                    if lacking == self.roles {
                        tracing::error!("the machine lacks what every role needs");
                        return Some(Outcome::Unavailable);
                    }
                }
                ended = self.keepers.next() => {
                    let Some(ended) = ended else { return Some(self.verdict()) };
                    self.ended(ended);
                    if self.keepers.is_empty() {
                        tracing::error!("no role is left");
                        return Some(self.verdict());
                    }
                    if self.ports.limits.exit_on_failed_role && !self.failed.is_empty() {
                        tracing::error!("a role failed for good and exit_on_failed_role is set");
                        return Some(self.verdict());
                    }
                }
                _ = round.tick() => {}
            }
        }
    }

    /// Notes the end of a keeper; false when something had to be aborted.
    fn ended(&mut self, ended: Kept) -> bool {
        match ended {
            Ok(KeptEnd::Stopped { killed }) => !killed,
            Ok(KeptEnd::Failed(failure)) => {
                self.failed.push(failure);
                true
            }
            Err(panic) => {
                // A bug of the keeper itself; the role is gone with it.
                tracing::error!(error = run::panic_text(panic.as_ref()), "keeper of a role ended");
                self.failed.push(Failure::Counted);
                false
            }
        }
    }

    /// The exit when roles failed for good.
    fn verdict(&self) -> Outcome {
        if self.failed.iter().all(|failure| *failure == Failure::Misconfigured) {
            Outcome::Configuration
        } else {
            Outcome::RoleFailed
        }
    }

    /// Stops all roles within the grace period; false when something had to be aborted.
    async fn drain(
        &mut self,
        stop: &CancellationToken,
        abort: &CancellationToken,
        shutdown: &Shutdown,
    ) -> bool {
        stop.cancel();
        let grace = self.ports.limits.shutdown_grace;
        let end = Instant::now() + grace;
        let mut report = tokio::time::interval_at(Instant::now() + DRAIN_REPORT, DRAIN_REPORT);
        let mut round = tokio::time::interval(ROUND);
        let mut graceful = true;
        while !self.keepers.is_empty() {
            self.ports.board.loop_went_round();
            tokio::select! {
                biased;
                Some(ended) = self.keepers.next() => graceful &= self.ended(ended),
                () = shutdown.immediate.cancelled() => {
                    tracing::warn!(roles = self.left(), "asked to end at once");
                    return self.abort(abort).await;
                }
                () = tokio::time::sleep_until(end) => {
                    tracing::error!(roles = self.left(), "grace period is over, aborting");
                    return self.abort(abort).await;
                }
                _ = report.tick() => {
                    let seconds_left = end.saturating_duration_since(Instant::now()).as_secs();
                    tracing::info!(roles = self.left(), seconds_left, "waiting for roles to stop");
                }
                _ = round.tick() => {}
            }
        }
        graceful
    }

    async fn abort(&mut self, abort: &CancellationToken) -> bool {
        abort.cancel();
        let gone = async { while self.keepers.next().await.is_some() {} };
        if tokio::time::timeout(ABORT_PATIENCE, gone).await.is_err() {
            tracing::error!(roles = self.left(), "roles left behind");
            self.keepers.clear();
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
