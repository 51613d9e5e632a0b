//! Keeps one role running: preflight, run, decide, wait, again. One task per role, so that no role
//! can delay another.

use std::sync::Arc;

use role::RoleSpec;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Ports;
use super::preflight::{Preflight, preflight};
use super::run::run_once;
use crate::restart::{Decision, Failure, History, decide};

/// How the keeping of a role ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptEnd {
    /// Asked to stop.
    Stopped { killed: bool },
    /// Will not be started again in this process.
    Failed(Failure),
}

/// The first preflight of a role is done; false when it found something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preflighted(pub(super) bool);

pub(super) struct Keeper {
    pub(super) spec: Arc<dyn RoleSpec>,
    pub(super) ports: Ports,
    pub(super) stop: CancellationToken,
    pub(super) abort: CancellationToken,
    pub(super) preflighted: mpsc::Sender<Preflighted>,
}

impl Keeper {
    pub(super) async fn keep(self) -> KeptEnd {
        let kind = self.spec.kind();
        let epoch = Instant::now();
        let mut history = History::default();
        let mut first = true;
        loop {
            let begun = Instant::now();
            let (failure, text) = match self.attempt(&mut first).await {
                Attempt::Stopped { killed } => {
                    self.ports.board.stopped(kind);
                    tracing::info!("role stopped");
                    return KeptEnd::Stopped { killed };
                }
                Attempt::Failed(failure, text) => (failure, text),
            };
            let (now, ran_for) = (epoch.elapsed(), begun.elapsed());
            let policy = &self.ports.limits.restart;
            match decide(policy, &mut history, now, ran_for, failure, jitter()) {
                Decision::GiveUp => {
                    tracing::error!(error = text, "role failed and will not be restarted");
                    self.ports.board.failed(kind, text);
                    return KeptEnd::Failed(failure);
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
                        () = self.stop.cancelled() => {
                            self.ports.board.stopped(kind);
                            return KeptEnd::Stopped { killed: false };
                        }
                    }
                }
            }
        }
    }

    async fn attempt(&self, first: &mut bool) -> Attempt {
        let checked = tokio::select! {
            checked = checked(&self.spec, &self.ports.host) => checked,
            () = self.stop.cancelled() => return Attempt::Stopped { killed: false },
        };
        if std::mem::take(first) {
            let done = Preflighted(checked.is_ok());
            if self.preflighted.send(done).await.is_err() {
                tracing::debug!("supervisor is not listening any more");
            }
        }
        if let Err((failure, text)) = checked {
            return Attempt::Failed(failure, text);
        }
        let end = run_once(&self.spec, &self.ports, &self.stop, &self.abort).await;
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
