//! The connections of agents: accept, TLS, one reader and one writer each, and what an end of the
//! link does to its host.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bedrock::chain;
use tokio::io::AsyncRead;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::connection::Connection;
use crate::core::Core;
use crate::events::EventKind;
use crate::hosts::HostState;
use crate::link::Link;
use crate::requests;
use crate::script::{Action, Point};
use crate::sync::lock;
use crate::tls::{self, TlsError, TlsSession};
use crate::wire::{self, MessageReader};

/// Messages that may wait for the writer.
const OUTBOX: usize = 256;
/// How long an agent may take for the handshake, as `agent.ssl.handshake.timeout`.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
/// How long what an agent wrote before it closed may take to come.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Takes connections until the server stops.
pub(crate) async fn accept(core: Arc<Core>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(core.config.connection_limit));
    let mut links = 0_u64;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "agent not accepted");
                // Out of descriptors, as a rule: it passes, and must not become a busy loop.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        links += 1;
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            core.journal.record(links, None, EventKind::TurnedAway);
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small messages may wait");
        }
        core.tasks.spawn(serve(Arc::clone(&core), links, stream, peer, permit));
    }
}

/// Serves one accepted connection until it ends.
async fn serve(
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
    let closed = core.tasks.stop().child_token();
    let journal = Arc::clone(&core.journal);
    let link = Link::new(id, journal, core.config.management_id, outbox, closed);
    link.record(EventKind::Secured { certificate });
    let connection = Arc::new(Connection::new(link));
    let link = connection.link();
    let session = Arc::new(Mutex::new(session));
    {
        let (read_half, write_half) = stream.split();
        let reader = MessageReader::new(read_half, Arc::clone(&session), early);
        let mut read = std::pin::pin!(read_all(&core, &connection, reader));
        tokio::select! {
            biased;
            () = link.cut().cancelled() => {}
            outcome = wire::write_all(write_half, session, queue) => match outcome {
                Ok(()) => link.close(""),
                // What the agent said before it closed counts, so it is read to its end.
                Err(error) => {
                    tokio::time::timeout(LAST_WORDS, read).await.ok();
                    link.close(&chain(&error));
                }
            },
            reason = &mut read => link.close(&reason),
        }
    }
    if link.is_reset()
        && let Err(error) = stream.set_zero_linger()
    {
        tracing::debug!(%error, "reset not possible");
    }
    drop(stream);
    drop(permit);
    ended(&core, &connection);
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
    connection: &Arc<Connection>,
    mut reader: MessageReader<R>,
) -> String {
    let link = connection.link();
    core.strike(link, Point::Secured).await;
    loop {
        if link.is_stalled() {
            std::future::pending::<()>().await;
        }
        let Some(next) = link.closed().run_until_cancelled(reader.next()).await else {
            // The writer ends the link when everything before the end is written.
            return std::future::pending().await;
        };
        match next {
            Ok(Some(_)) if link.is_silent() => {}
            Ok(Some(message)) => requests::handle(core, connection, &message).await,
            Ok(None) => return "closed by the agent".to_owned(),
            Err(error) => return chain(&error),
        }
    }
}

/// The link is gone: wakes callers and moves the host's row.
fn ended(core: &Core, connection: &Connection) {
    let Some(attachment) = connection.attachment() else { return };
    let locked = core.let_go(&attachment);
    let state = lock(&core.hosts).detach(&attachment, |state| match state {
        HostState::Connecting if locked => HostState::Connecting,
        HostState::Up | HostState::Connecting => HostState::Alert,
        other => other,
    });
    if let Some(state) = state {
        connection.link().record(EventKind::State(state));
    }
}
