//! Asks one role what the machine lacks, within a bound, whatever the role does.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use role::{Host, PreflightError, RoleSpec};

use super::run::panic_text;

/// How long a preflight may look.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preflight {
    Passed,
    /// Every finding, at least one.
    Lacking(Vec<PreflightError>),
    /// The preflight itself panicked or did not end.
    Broken(String),
}

/// Runs the preflight of `spec`.
pub async fn preflight(spec: &Arc<dyn RoleSpec>, host: &Host) -> Preflight {
    let looking = AssertUnwindSafe(async { spec.preflight(host).await }).catch_unwind();
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(Ok(findings)) if findings.is_empty() => Preflight::Passed,
        Ok(Ok(findings)) => Preflight::Lacking(findings),
        Ok(Err(panic)) => Preflight::Broken(format!("preflight {}", panic_text(panic.as_ref()))),
        Err(_elapsed) => Preflight::Broken("preflight hangs".to_owned()),
    }
}
