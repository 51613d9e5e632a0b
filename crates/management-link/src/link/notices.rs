//! What a session notices, as lines of the log.

use std::time::Duration;

use super::driver::{Driver, now};
use super::outage::LogLevel;
use crate::session::Notice;

impl Driver {
    pub(super) fn log(&mut self, notice: Notice) {
        let endpoint = self.session.report().endpoint;
        match notice {
            Notice::ConnectFailed { error, retry_in } | Notice::Lost { error, retry_in } => {
                let level = self.outage.failed(now());
                log_failure(level, "link down, will retry", endpoint, &error, retry_in);
            }
            Notice::Refused { details, retry_in } => {
                self.outage.failed(now());
                let level = match self.refusals.failed(now()) {
                    LogLevel::Info => LogLevel::Warn { suppressed: 0 },
                    other => other,
                };
                let what = "the management server refused us, will retry";
                log_failure(level, what, endpoint, &details, retry_in);
            }
            Notice::TakenOver => {
                let guid = &self.shared.config().guid;
                tracing::error!(guid, "another agent uses our guid, each throws the other out");
            }
            Notice::Moves { endpoint, why } => tracing::info!(%endpoint, why, "changing server"),
            Notice::Stays => tracing::warn!("asked to change server, but none can be reached"),
            Notice::ServerList { list } => tracing::info!(list, "got a list of servers"),
            Notice::StartupWanted { honoured: true } => tracing::info!("server wants a startup"),
            Notice::StartupWanted { honoured: false } => {
                tracing::debug!("server wants a startup while it still connects us");
            }
            Notice::OddPingAnswer { class, details } => {
                tracing::warn!(class, details, "the ping failed on the server");
            }
            Notice::Deleted { reason } => tracing::warn!(reason, "the server deleted our host"),
            Notice::NotTaken { class } => tracing::info!(class, "command refused, stopping"),
            Notice::Stalled { error } => {
                tracing::warn!(endpoint, error, "the management server does not make us ready");
            }
            Notice::StopsLater { at_most } => {
                let at_most_ms = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(
                    at_most_ms,
                    "stopping as soon as the management server has connected us"
                );
            }
            Notice::GivesUp { commands, ready } => {
                tracing::warn!(commands, ready, "stopping without an end of what is under way");
            }
            Notice::BadBody { class, error } => {
                tracing::warn!(class, error, "command with an unreadable body");
            }
        }
    }
}

fn log_failure(
    level: LogLevel,
    what: &str,
    endpoint: Option<String>,
    error: &str,
    retry_in: Duration,
) {
    let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
    match level {
        LogLevel::Info => tracing::info!(message = what, endpoint, retry_in_ms, error),
        LogLevel::Warn { suppressed } => {
            tracing::warn!(message = what, endpoint, retry_in_ms, suppressed, error);
        }
        LogLevel::Silent => tracing::debug!(message = what, endpoint, retry_in_ms, error),
    }
}
