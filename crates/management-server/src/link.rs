//! The server's end of one connection: what goes to the writer, what ends it, and what the faults of
//! a script make of both.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use agent_protocol::frame::NO_ID;
use agent_protocol::{Envelope, Frame, FrameHeader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::events::{EventKind, Journal, Message};
use crate::wire::Outgoing;

/// A link that finished its handshake.
#[derive(Debug)]
pub(crate) struct Link {
    id: u64,
    journal: Arc<Journal>,
    management_id: i64,
    outbox: mpsc::Sender<Outgoing>,
    closed: CancellationToken,
    cut: CancellationToken,
    reset: AtomicBool,
    silent: AtomicBool,
    stalled: AtomicBool,
    guid: OnceLock<String>,
    host_id: AtomicI64,
}

impl Link {
    /// A link of server `management_id` whose messages go to `outbox`; `closed` ends it from outside.
    pub(crate) fn new(
        id: u64,
        journal: Arc<Journal>,
        management_id: i64,
        outbox: mpsc::Sender<Outgoing>,
        closed: CancellationToken,
    ) -> Link {
        Link {
            id,
            journal,
            management_id,
            outbox,
            closed,
            cut: CancellationToken::new(),
            reset: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            guid: OnceLock::new(),
            host_id: AtomicI64::new(NO_ID),
        }
    }

    /// Hands a message to the writer; a link that is closed or silent swallows it.
    pub(crate) async fn send(&self, frame: Frame) {
        if self.silent.load(Ordering::Relaxed) {
            return;
        }
        let envelopes = frame.envelopes().unwrap_or_default();
        let message = Message { header: frame.header, envelopes: envelopes.into() };
        if self.put(Outgoing::Message(frame.encode())).await {
            self.record(EventKind::Sent(message));
        }
    }

    /// Hands bytes to the writer; false when the link is closed.
    pub(crate) async fn put(&self, outgoing: Outgoing) -> bool {
        let send = self.outbox.send(outgoing);
        matches!(self.closed.run_until_cancelled(send).await, Some(Ok(())))
    }

    /// Sends an answer to a request of the agent.
    pub(crate) async fn respond(&self, request: &FrameHeader, via: i64, answers: &[Envelope]) {
        let header = request.server_response(self.management_id, via);
        self.send(Frame::new(header, answers)).await;
    }

    /// Closes the socket without a word, as the original does: after what is queued already.
    pub(crate) fn close(&self, reason: &str) {
        if !self.closed.is_cancelled() {
            self.record(EventKind::Closed { reason: reason.to_owned() });
            self.closed.cancel();
            if self.outbox.try_send(Outgoing::Close).is_err() {
                self.cut.cancel();
            }
        }
    }

    /// Resets the connection at once.
    pub(crate) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
        self.close("reset by script");
        self.cut.cancel();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Cancelled when what is queued shall not be written any more.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(crate) fn silence(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stall(&self) {
        self.silence();
        self.stalled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn guid(&self) -> Option<&str> {
        self.guid.get().map(String::as_str)
    }

    /// Remembers the guid of the first start-up command; a later one does not change it.
    pub(crate) fn identify(&self, guid: &str) {
        self.guid.get_or_init(|| guid.to_owned());
    }

    /// The host that the link is bound to; −1 before.
    pub(crate) fn host_id(&self) -> i64 {
        self.host_id.load(Ordering::Relaxed)
    }

    pub(crate) fn bind(&self, host_id: i64) {
        self.host_id.store(host_id, Ordering::Relaxed);
    }

    pub(crate) fn record(&self, kind: EventKind) {
        self.journal.record(self.id, self.guid.get().cloned(), kind);
    }

    pub(crate) fn drop_message(&self, reason: impl Into<String>) {
        self.record(EventKind::Dropped { reason: reason.into() });
    }
}
