//! What a session tells about itself: to the heartbeat, to `/status`, to the role's health.

use super::*;

/// The architecture as the server knows it; it refuses any other word.
pub(super) const fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "aarch64"
    } else if cfg!(target_arch = "x86") {
        "i686"
    } else {
        "x86_64"
    }
}

impl Session {
    pub(crate) fn link_state(&self) -> LinkState {
        match &self.state {
            _ if self.drain.is_some() && self.has_link() => LinkState::Draining,
            State::Disconnected { .. } => LinkState::Disconnected,
            State::Connecting => LinkState::Connecting,
            State::AwaitingStartupAnswer { .. } | State::AwaitingReady { .. } => {
                LinkState::Registering
            }
            State::Attached(_) => LinkState::Attached,
            State::Refused { .. } => LinkState::Refused,
            State::Closed => LinkState::Closed,
        }
    }

    /// The facts of this moment; the peer's address and the guid are not known here.
    pub(crate) fn report(&self) -> LinkReport {
        let retry_at = match &self.state {
            State::Disconnected { retry_at } | State::Refused { retry_at } => Some(*retry_at),
            _ => None,
        };
        LinkReport {
            state: self.link_state(),
            guid: None,
            endpoint: self.endpoint.as_ref().map(ToString::to_string),
            peer: None,
            host_id: self.identity.host_id,
            ping_interval: self.ping_interval.filter(|_| self.wants_pings()),
            last_ping: self.pings.last_sent,
            last_answer: self.pings.last_answered,
            round_trip: self.pings.round_trip,
            last_error: self.last_error.clone(),
            retry_at,
            in_flight: self.in_flight,
            certificate_end: None,
        }
    }

    /// Why the role is not at its best; `None` while attached and at the end.
    pub(crate) fn condition(&self) -> Option<String> {
        let server = match &self.endpoint {
            Some(endpoint) => format!("the management server {endpoint}"),
            None => "a management server".to_owned(),
        };
        let after = |doing: String| match &self.last_error {
            Some(error) => format!("{doing}; before: {error}"),
            None => doing,
        };
        match &self.state {
            _ if self.drain.is_some() => None,
            State::Attached(_) | State::Closed => None,
            State::AwaitingReady { .. } if self.stalled => self.last_error.clone(),
            State::Connecting => Some(after(format!("connecting to {server}"))),
            State::AwaitingStartupAnswer { .. } | State::AwaitingReady { .. } => {
                Some(after(format!("registering with {server}")))
            }
            State::Disconnected { .. } | State::Refused { .. } => Some(match &self.last_error {
                Some(error) => format!("no link to {server}: {error}"),
                None => format!("no link to {server} yet"),
            }),
        }
    }
}
