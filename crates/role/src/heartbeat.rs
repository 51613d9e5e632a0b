//! Links that want to be pinged, as the one shared heartbeat of the process sees them.
//!
//! The supervisor runs the heartbeat; a link registers here and is pinged at the interval it
//! reports. The heartbeat neither knows what a ping looks like nor judges its answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use status_api::LinkState;

use crate::kind::RoleKind;

/// A link the heartbeat pings. Implemented by `management-link`.
pub trait PingedLink: Send + Sync + 'static {
    /// The facts of this moment. Must not block.
    fn report(&self) -> LinkReport;
    /// A ping is due. Must not block; a ping that cannot be sent now is skipped.
    fn ping(&self);
}

/// What is published about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReport {
    pub state: LinkState,
    /// Guid with which it registers.
    pub guid: Option<String>,
    /// The management server in use or tried last, as configured or as it told us.
    pub endpoint: Option<String>,
    /// Its resolved address while connected.
    pub peer: Option<SocketAddr>,
    /// Host id the server gave; kept while disconnected.
    pub host_id: Option<i64>,
    /// Interval the server gave; `None` until the link wants pings.
    pub ping_interval: Option<Duration>,
    pub last_ping: Option<Instant>,
    pub last_answer: Option<Instant>,
    pub round_trip: Option<Duration>,
    /// The last thing that went wrong, in the server's or our words; kept until attached again.
    pub last_error: Option<String>,
    /// When the next attempt is made, while disconnected.
    pub retry_at: Option<Instant>,
    /// Commands being worked on.
    pub in_flight: usize,
    /// End of the certificate that is presented to servers, in seconds since 1970.
    pub certificate_end: Option<i64>,
}

impl Default for LinkReport {
    /// A link that was never connected.
    fn default() -> Self {
        Self {
            state: LinkState::Disconnected,
            guid: None,
            endpoint: None,
            peer: None,
            host_id: None,
            ping_interval: None,
            last_ping: None,
            last_answer: None,
            round_trip: None,
            last_error: None,
            retry_at: None,
            in_flight: 0,
            certificate_end: None,
        }
    }
}

/// Where links register. Cloneable; clones share the list.
#[derive(Clone, Default)]
pub struct Heartbeat {
    links: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Clone)]
struct Entry {
    role: RoleKind,
    link: Weak<dyn PingedLink>,
}

impl std::fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heartbeat").field("links", &self.links().len()).finish()
    }
}

impl Heartbeat {
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a link until its last `Arc` is dropped.
    pub fn register(&self, role: RoleKind, link: &Arc<dyn PingedLink>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|entry| entry.link.strong_count() > 0);
        links.push(Entry { role, link: Arc::downgrade(link) });
    }

    /// The links alive now.
    pub fn links(&self) -> Vec<(RoleKind, Arc<dyn PingedLink>)> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().filter_map(|entry| Some((entry.role, entry.link.upgrade()?))).collect()
    }
}
