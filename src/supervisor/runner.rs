//! Runs one role again and again: preflight, run, decide, wait. One task per role, so that no role
//! can delay another.

use std::sync::Arc;

use role::{RoleKind, RoleSpec};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Ports;
use super::preflight::{Preflight, preflight};
use super::run::run_once;
use super::slot::RoleSlot;
use crate::restart::{Decision, Failure, History, decide};

/// How a runner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunnerEnd {
    /// Asked to stop.
    Stopped { killed: bool },
    /// The role is given up.
    Failed { kind: RoleKind, failure: Failure },
}

/// The first preflight of a role is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preflighted {
    /// The machine lacks something that may come.
    pub(super) lacking: bool,
}

pub(super) struct RoleRunner {
    pub(super) slot: RoleSlot,
    pub(super) ports: Ports,
    pub(super) stop: CancellationToken,
    pub(super) abort: CancellationToken,
    /// Hears of the first preflight.
    pub(super) preflighted: Option<mpsc::Sender<Preflighted>>,
}

impl RoleRunner {
    pub(super) async fn run(mut self) -> RunnerEnd {
        let kind = self.slot.kind;
        let epoch = Instant::now();
        let mut history = History::default();
        loop {
            let mut offers = self.slot.offers();
            let begun = Instant::now();
            let (failure, text) = match self.attempt(&mut offers).await {
                Attempt::Stopped { killed } => {
                    self.ports.board.stopped(kind);
                    tracing::info!("role stopped");
                    return RunnerEnd::Stopped { killed };
                }
                Attempt::Failed(failure, text) => (failure, text),
            };
            let (now, ran_for) = (epoch.elapsed(), begun.elapsed());
            let policy = self.ports.limits.current().restart;
            match decide(&policy, &mut history, now, ran_for, failure, jitter()) {
                Decision::GiveUp => {
                    tracing::error!(error = text, "role failed and will not be restarted");
                    self.ports.board.failed(kind, text);
                    return RunnerEnd::Failed { kind, failure };
                }
                Decision::Restart { delay } => {
                    let retry_in_ms = super::board::millis(delay);
                    tracing::warn!(
                        error = text,
                        attempt = history.consecutive(),
                        retry_in_ms,
                        "role failed, will be restarted"
                    );
                    self.ports.board.backoff(kind, text, delay, history.consecutive());
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        // Another configuration may be what it needs.
                        Ok(()) = offers.changed() => {}
                        () = self.stop.cancelled() => {
                            self.ports.board.stopped(kind);
                            return RunnerEnd::Stopped { killed: false };
                        }
                    }
                }
            }
        }
    }

    async fn attempt(&mut self, offers: &mut watch::Receiver<u64>) -> Attempt {
        // From here on, an offer is one that this run was not built from.
        offers.mark_unchanged();
        let spec = self.slot.begin();
        let checked = tokio::select! {
            checked = checked(&spec, &self.ports.host) => checked,
            () = self.stop.cancelled() => return Attempt::Stopped { killed: false },
        };
        let lacking = matches!(checked, Err((failure, _)) if failure != Failure::Misconfigured);
        if let Some(preflighted) = self.preflighted.take()
            && preflighted.send(Preflighted { lacking }).await.is_err()
        {
            tracing::debug!("supervisor is not listening any more");
        }
        if let Err((failure, text)) = checked {
            return Attempt::Failed(failure, text);
        }
        let end = run_once(&spec, &self.ports, &self.stop, &self.abort).await;
        match end.failure {
            Some((failure, text)) if !self.stop.is_cancelled() => Attempt::Failed(failure, text),
            _stopping => Attempt::Stopped { killed: end.killed },
        }
    }
}

enum Attempt {
    Stopped { killed: bool },
    Failed(Failure, String),
}

/// Findings heal without us (a program gets installed, a bridge comes up), so they are outside
/// trouble; a preflight that breaks is ours.
async fn checked(spec: &Arc<dyn RoleSpec>, host: &role::Host) -> Result<(), (Failure, String)> {
    match preflight(spec, host).await {
        Preflight::Passed => Ok(()),
        Preflight::Misconfigured(findings) => Err((Failure::Misconfigured, list(&findings))),
        Preflight::Lacking(findings) => Err((Failure::Outside, list(&findings))),
        Preflight::Broken(text) => Err((Failure::Counted, text)),
    }
}

fn list(findings: &[role::PreflightError]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A number in -1.0..1.0 from the hasher's random keys; good enough to spread restarts.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    let unit = u32::try_from(random >> 32).map_or(0.0, f64::from) / f64::from(u32::MAX);
    unit.mul_add(2.0, -1.0)
}
