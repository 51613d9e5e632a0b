//! Asks one role what the machine lacks, within a bound, whatever the role does.

use std::sync::Arc;
use std::time::Duration;

use role::{Host, PreflightError, RoleSpec};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::run::panic_text;

/// How long a preflight may look.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preflight {
    Passed,
    /// A file that the configuration names is of no use: it does not heal.
    Misconfigured(Vec<PreflightError>),
    /// Every finding, at least one.
    Lacking(Vec<PreflightError>),
    /// The preflight itself panicked or did not end.
    Broken(String),
}

impl Preflight {
    fn of(findings: Vec<PreflightError>) -> Self {
        if findings.is_empty() { Self::Passed } else { Self::Lacking(findings) }
    }
}

/// Runs the preflight of `spec`.
pub async fn preflight(spec: &Arc<dyn RoleSpec>, host: &Host) -> Preflight {
    let (spec, host) = (Arc::clone(spec), host.clone());
    // A task of its own: it may block its thread, and dropping the set aborts it.
    let mut looking = JoinSet::new();
    let look = async move {
        let misconfigured = spec.misconfigured();
        match misconfigured.is_empty() {
            true => Preflight::of(spec.preflight(&host).await),
            false => Preflight::Misconfigured(misconfigured),
        }
    };
    looking.spawn(look.in_current_span());
    match tokio::time::timeout(TIMEOUT, looking.join_next()).await {
        Ok(Some(Ok(found))) => found,
        Ok(Some(Err(error))) if error.is_panic() => {
            Preflight::Broken(format!("preflight {}", panic_text(error.into_panic().as_ref())))
        }
        Ok(Some(Err(_)) | None) => Preflight::Broken("preflight was aborted".to_owned()),
        Err(_elapsed) => Preflight::Broken("preflight hangs".to_owned()),
    }
}
