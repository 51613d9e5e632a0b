//! One TCP connection of an agent: TLS, the reader and the writer, and the faults that strike it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use agent_protocol::{Envelope, Frame, FrameHeader};
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use crate::attachment::Attachment;
use crate::core::Core;
use crate::events::{EventKind, Message};
use crate::hosts::HostState;
use crate::requests;
use crate::script::{Action, Point};
use crate::sync::lock;
use crate::tls::{self, TlsError, TlsSession};
use crate::wire::{self, MessageReader, Outgoing};
use bedrock::chain;

/// Messages that may wait for the writer.
const OUTBOX: usize = 256;
/// How long an agent may take for the handshake, as `agent.ssl.handshake.timeout`.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// A link that finished its handshake.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    core: Arc<Core>,
    outbox: mpsc::Sender<Outgoing>,
    closed: CancellationToken,
    cut: CancellationToken,
    reset: AtomicBool,
    silent: AtomicBool,
    stalled: AtomicBool,
    guid: OnceLock<String>,
    attachment: Mutex<Option<Arc<Attachment>>>,
}

impl Link {
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
        let header = request.server_response(self.core.config.management_id, via);
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

    pub(crate) fn attachment(&self) -> Option<Arc<Attachment>> {
        lock(&self.attachment).clone()
    }

    pub(crate) fn bind(&self, attachment: Arc<Attachment>) {
        *lock(&self.attachment) = Some(attachment);
    }

    pub(crate) fn record(&self, kind: EventKind) {
        self.core.journal.record(self.id, self.guid.get().cloned(), kind);
    }

    pub(crate) fn drop_message(&self, reason: impl Into<String>) {
        self.record(EventKind::Dropped { reason: reason.into() });
    }
}

/// Serves one accepted connection until it ends.
pub(crate) async fn serve(
    core: Arc<Core>,
    id: u64,
    mut stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    core.journal.record(id, None, EventKind::Accepted { peer });
    if turned_away(&core, &stream).await {
        core.journal.record(id, None, EventKind::TurnedAway);
        return;
    }
    let (session, early) = match secure(&core, &mut stream, peer).await {
        Ok(session) => session,
        Err(error) => {
            let reason = chain(&error);
            core.journal.record(id, None, EventKind::HandshakeFailed { reason });
            return;
        }
    };
    let certificate = session.peer_name();
    let (outbox, queue) = mpsc::channel(OUTBOX);
    let link = Arc::new(Link {
        id,
        core: Arc::clone(&core),
        outbox,
        closed: core.tasks.stop().child_token(),
        cut: CancellationToken::new(),
        reset: AtomicBool::new(false),
        silent: AtomicBool::new(false),
        stalled: AtomicBool::new(false),
        guid: OnceLock::new(),
        attachment: Mutex::new(None),
    });
    link.record(EventKind::Secured { certificate });
    let session = Arc::new(Mutex::new(session));
    let (read_half, write_half) = stream.split();
    let reader = MessageReader::new(read_half, Arc::clone(&session), early);
    let writer = wire::write_all(write_half, session, queue);
    tokio::select! {
        biased;
        () = link.cut.cancelled() => {}
        outcome = writer => link.close(&outcome.err().map_or_else(String::new, |e| chain(&e))),
        reason = read_all(&core, &link, reader) => link.close(&reason),
    }
    if link.reset.load(Ordering::Relaxed)
        && let Err(error) = stream.set_zero_linger()
    {
        tracing::debug!(%error, "reset not possible");
    }
    drop(stream);
    drop(permit);
    ended(&core, &link);
}

/// Lets the faults of [`Point::Accepted`] strike the bare socket; true when it shall be closed.
async fn turned_away(core: &Core, stream: &TcpStream) -> bool {
    for action in core.script.take(None, &Point::Accepted) {
        match action {
            Action::Delay(time) => tokio::time::sleep(time).await,
            Action::Hold(gate) => gate.opened().await,
            Action::Silence | Action::Stall => std::future::pending().await,
            Action::Reset => {
                if let Err(error) = stream.set_zero_linger() {
                    tracing::debug!(%error, "reset not possible");
                }
                return true;
            }
            _ => return true,
        }
    }
    false
}

async fn secure(
    core: &Core,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Result<(TlsSession, Vec<u8>), TlsError> {
    let settings = tls::settings(&core.authority, core.config.client_certificates, peer.ip())?;
    match tokio::time::timeout(HANDSHAKE_LIMIT, tls::handshake(stream, settings)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TlsError::Closed),
    }
}

/// Reads and handles messages until the agent closes the link; says why it ended.
async fn read_all<R: AsyncRead + Unpin>(
    core: &Arc<Core>,
    link: &Arc<Link>,
    mut reader: MessageReader<R>,
) -> String {
    core.strike(link, Point::Secured).await;
    loop {
        if link.stalled.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let Some(next) = link.closed.run_until_cancelled(reader.next()).await else {
            // The writer ends the link when everything before the end is written.
            return std::future::pending().await;
        };
        match next {
            Ok(Some(_)) if link.silent.load(Ordering::Relaxed) => {}
            Ok(Some(message)) => requests::handle(core, link, &message).await,
            Ok(None) => return "closed by the agent".to_owned(),
            Err(error) => return chain(&error),
        }
    }
}

/// The link is gone: wakes callers and moves the host's row.
fn ended(core: &Core, link: &Link) {
    // Taken out: the attachment holds the link, so the pair would never be freed.
    let Some(attachment) = lock(&link.attachment).take() else { return };
    attachment.close();
    let state = lock(&core.hosts).detach(&attachment, |state| match state {
        HostState::Up | HostState::Connecting => HostState::Alert,
        other => other,
    });
    if let Some(state) = state {
        link.record(EventKind::State(state));
    }
}
