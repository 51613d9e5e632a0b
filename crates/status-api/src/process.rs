//! `/status` and `/readyz`: the process, its roles, its links.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::details::Details;

/// Body of `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub version: String,
    pub pid: u32,
    pub state: ProcessState,
    /// Every role is ready and nobody asked the process to stop.
    pub ready: bool,
    pub started_at: Option<String>,
    pub uptime_ms: u64,
    pub admin_address: String,
    pub roles: Vec<RoleStatus>,
    /// Every link to a management server, each once; [`LinkStatus::role`] says whose it is.
    #[serde(default)]
    pub links: Vec<LinkStatus>,
}

impl ProcessStatus {
    /// The link of a role, by the role's short name.
    pub fn link_of(&self, role: &str) -> Option<&LinkStatus> {
        self.links.iter().find(|link| link.role == role)
    }

    /// A role by its short name.
    pub fn role(&self, role: &str) -> Option<&RoleStatus> {
        self.roles.iter().find(|status| status.role == role)
    }
}

/// Whether the process wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    Running,
    Stopping,
    /// A word of a newer process.
    #[serde(other)]
    Unknown,
}

/// One role of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleStatus {
    /// Short name, as in `--roles`.
    pub role: String,
    pub title: String,
    pub health: HealthWord,
    /// Why it is not ready.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it is started again, in backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// Since when its health is what it is.
    pub since: Option<String>,
    pub restarts: u32,
    #[serde(default)]
    pub consecutive_errors: u32,
    #[serde(default)]
    pub last_error: Option<LastError>,
    #[serde(default)]
    pub details: Details,
}

/// The failure that ended a role's last run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    pub at: Option<String>,
    pub text: String,
}

/// How a role is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthWord {
    Starting,
    Ready,
    /// Serves, but something named is missing.
    Degraded,
    /// Down, will be started again.
    Backoff,
    /// Down for good.
    Failed,
    Stopped,
    /// A word of a newer process.
    #[serde(other)]
    Unknown,
}

impl HealthWord {
    /// Every health a role can have.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Ready, Self::Degraded, Self::Backoff, Self::Failed, Self::Stopped];

    /// The word, as in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for HealthWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One link to a management server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Short name of the role it belongs to.
    pub role: String,
    pub state: LinkState,
    /// Guid with which it registers.
    #[serde(default)]
    pub guid: Option<String>,
    /// The management server in use or tried last, as configured or as the server told us.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Its resolved address while connected.
    #[serde(default)]
    pub peer: Option<String>,
    /// Host id that the server gave; kept while disconnected.
    #[serde(default)]
    pub host_id: Option<i64>,
    #[serde(default)]
    pub ping_interval_ms: Option<u64>,
    #[serde(default)]
    pub last_ping_ago_ms: Option<u64>,
    #[serde(default)]
    pub last_answer_ago_ms: Option<u64>,
    /// With three decimals: on a LAN it is shorter than one.
    #[serde(default)]
    pub round_trip_ms: Option<f64>,
    /// The last thing that went wrong; kept until attached again.
    #[serde(default)]
    pub last_error: Option<String>,
    /// When the next attempt is made, while disconnected.
    #[serde(default)]
    pub retry_in_ms: Option<u64>,
    /// Commands being worked on.
    #[serde(default)]
    pub in_flight: usize,
    /// End of the certificate that is presented to servers, if there is one.
    #[serde(default)]
    pub certificate_expires: Option<String>,
}

/// Stations of a link, coarse enough for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    Disconnected,
    Connecting,
    /// Startup sent, the server has not made us ready.
    Registering,
    /// Registered and ready.
    Attached,
    /// The server refused us; will be retried.
    Refused,
    /// Stopping.
    Draining,
    Closed,
    /// A word of a newer process.
    #[serde(other)]
    Unknown,
}

impl LinkState {
    /// The word, as in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Registering => "registering",
            Self::Attached => "attached",
            Self::Refused => "refused",
            Self::Draining => "draining",
            Self::Closed => "closed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Body of `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    pub stopping: bool,
    pub not_ready: Vec<NotReady>,
}

/// A role that is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    pub role: String,
    pub health: HealthWord,
    #[serde(default)]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_of_a_newer_process_can_be_read() {
        let document = json!({
            "version": "9", "pid": 1, "state": "hibernating", "ready": false, "started_at": null,
            "uptime_ms": 5, "admin_address": "127.0.0.1:1", "novelty": true,
            "roles": [{"role": "ss", "title": "t", "health": "dreaming", "since": null, "restarts": 0,
                       "details": {"moods": ["calm"]}}],
            "links": [{"role": "ss", "state": "tunnelling"}],
        });
        let status: ProcessStatus = serde_json::from_value(document).unwrap();
        assert_eq!(status.state, ProcessState::Unknown);
        let role = status.role("ss").unwrap();
        assert_eq!(role.health, HealthWord::Unknown);
        assert_eq!(role.details.other["moods"], json!(["calm"]));
        assert_eq!(status.link_of("ss").unwrap().state, LinkState::Unknown);
    }

    #[test]
    fn words_are_written_as_they_are_displayed() {
        for word in HealthWord::ALL {
            assert_eq!(serde_json::to_value(word).unwrap(), json!(word.as_str()));
        }
        for state in [LinkState::Disconnected, LinkState::Attached, LinkState::Draining] {
            assert_eq!(serde_json::to_value(state).unwrap(), json!(state.as_str()));
        }
    }
}
