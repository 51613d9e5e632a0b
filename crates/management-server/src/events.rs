//! What happened, for tests and for the page of `quickcloud dev`: a bounded journal, a bounded
//! broadcast, and a counter that wakes whoever waits for a condition.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_protocol::{Envelope, FrameHeader};
use tokio::sync::{broadcast, watch};

use crate::hosts::HostState;
use crate::script::{Action, Point};
use crate::sync::lock;

/// Events kept for late readers.
const HISTORY: usize = 4096;
/// Events a slow subscriber may be behind.
const BACKLOG: usize = 4096;

/// One thing that happened on one link.
#[derive(Debug, Clone)]
pub struct Event {
    /// Number of the link, counted from 1; 0 for what concerns no link.
    pub link: u64,
    /// Guid of the agent, once its start-up command was read.
    pub guid: Option<String>,
    /// What happened.
    pub kind: EventKind,
}

/// Kinds of events.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventKind {
    /// A TCP connection was accepted.
    Accepted {
        /// The agent's side.
        peer: SocketAddr,
    },
    /// A TCP connection was closed at once, because too many are open or a script says so.
    TurnedAway,
    /// The TLS handshake is done.
    Secured {
        /// Subject of the certificate that the agent showed.
        certificate: Option<String>,
    },
    /// The TLS handshake failed.
    HandshakeFailed {
        /// The whole chain of causes.
        reason: String,
    },
    /// A message came from the agent.
    Received(Message),
    /// A message was handed to the writer.
    Sent(Message),
    /// A message from the agent was dropped, as the original drops it.
    Dropped {
        /// Why.
        reason: String,
    },
    /// The agent was refused.
    Refused {
        /// The text it was told.
        details: String,
    },
    /// The host's row changed its state.
    State(HostState),
    /// A newer link with the same guid took the host over; this link is closed.
    TakenOver,
    /// The agent said goodbye.
    Goodbye {
        /// The reason it gave.
        reason: String,
    },
    /// The link ended without a goodbye while commands that had gone out were unanswered. The
    /// original waits for them all the same, in the connect phase with the host locked.
    Unanswered {
        /// Their classes, in the order of their numbers.
        commands: Vec<String>,
    },
    /// The link is closed.
    Closed {
        /// Why.
        reason: String,
    },
    /// A scripted fault struck.
    Fault {
        /// Where.
        point: Point,
        /// What.
        action: Action,
    },
    /// A console was admitted or denied.
    Console {
        /// UUID of the console session.
        session: String,
        /// Whether it was admitted.
        granted: bool,
        /// Which check decided.
        reason: &'static str,
    },
    /// A template, ISO or volume changed.
    Image {
        /// Number of the record.
        id: i64,
    },
}

/// A message of either direction.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its header.
    pub header: FrameHeader,
    /// Its envelopes; empty when the body could not be parsed.
    pub envelopes: Arc<[Envelope]>,
}

impl Message {
    /// Class names of the envelopes, in order.
    pub fn classes(&self) -> Vec<&str> {
        self.envelopes.iter().map(|envelope| envelope.class.as_str()).collect()
    }

    /// Whether one of the envelopes has this class.
    pub fn has(&self, class: &str) -> bool {
        self.envelopes.iter().any(|envelope| envelope.class == class)
    }
}

/// The condition did not come true in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} did not happen within {waited:?}")]
pub struct WaitError {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub waited: Duration,
}

/// The journal of one server.
#[derive(Debug)]
pub(crate) struct Journal {
    history: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
    version: watch::Sender<u64>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            history: Mutex::new(VecDeque::new()),
            live: broadcast::Sender::new(BACKLOG),
            version: watch::Sender::new(0),
        }
    }

    pub(crate) fn record(&self, link: u64, guid: Option<String>, kind: EventKind) {
        let event = Arc::new(Event { link, guid, kind });
        {
            let mut history = lock(&self.history);
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(Arc::clone(&event));
            // Inside the lock, so that a subscription made with the history loses nothing. Nobody
            // listening is fine.
            drop(self.live.send(event));
        }
        self.changed();
    }

    /// Wakes whoever waits for a condition, without an event.
    pub(crate) fn changed(&self) {
        self.version.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// A subscription that begins with the events kept so far.
    pub(crate) fn subscribe(&self) -> Events {
        let history = lock(&self.history);
        Events { past: history.clone(), live: self.live.subscribe() }
    }

    /// Waits until `condition` gives something; it is asked again after every change.
    pub(crate) async fn wait<T>(
        &self,
        what: impl Into<String>,
        timeout: Duration,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        let mut version = self.version.subscribe();
        let search = async {
            loop {
                version.borrow_and_update();
                if let Some(found) = condition() {
                    return Some(found);
                }
                if version.changed().await.is_err() {
                    return None;
                }
            }
        };
        match tokio::time::timeout(timeout, search).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) | Err(_) => Err(WaitError { what: what.into(), waited: timeout }),
        }
    }
}

/// Events from the oldest kept one on.
#[derive(Debug)]
pub struct Events {
    past: VecDeque<Arc<Event>>,
    live: broadcast::Receiver<Arc<Event>>,
}

impl Events {
    /// The next event; `None` when the server is gone. Events that a slow reader missed are
    /// skipped.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.past.pop_front() {
            return Some(event);
        }
        loop {
            match self.live.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "events skipped by a slow reader");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Skips events until `pick` takes one.
    ///
    /// # Errors
    /// [`WaitError`] when none was taken in time.
    pub async fn find<T>(
        &mut self,
        what: &str,
        timeout: Duration,
        mut pick: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, WaitError> {
        let search = async {
            while let Some(event) = self.next().await {
                if let Some(found) = pick(&event) {
                    return Some(found);
                }
            }
            None
        };
        match tokio::time::timeout(timeout, search).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) | Err(_) => Err(WaitError { what: what.to_owned(), waited: timeout }),
        }
    }

    /// The events that are already there.
    pub fn drain(&mut self) -> Vec<Arc<Event>> {
        let mut events: Vec<_> = self.past.drain(..).collect();
        loop {
            match self.live.try_recv() {
                Ok(event) => events.push(event),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return events,
            }
        }
    }
}
