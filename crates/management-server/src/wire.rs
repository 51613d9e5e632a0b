//! One link's bytes: packets off the socket into messages, messages into packets onto it. Reading
//! and writing are two tasks that share the TLS state behind a lock which is never held across a
//! wait.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_protocol::packet::{self, Joiner, PacketError, PacketHeader, PacketReader};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::sync::lock;
use crate::tls::{TlsError, TlsSession};

/// Longest message that is accepted, in bytes of plaintext.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;
/// How long an agent may refuse to take bytes.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
const READ_CHUNK: usize = 32 * 1024;

/// Why a link broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{operation} on the agent's link")]
    Socket {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("agent's link ended inside a packet")]
    Cut,
    #[error("agent took no bytes for {0:?}")]
    Stalled(Duration),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What the writer task is given.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A message: header and body as plaintext.
    Message(Vec<u8>),
    /// Bytes for the socket as they are; only faults use them.
    Raw(Vec<u8>),
    /// One message whose single record is cut across two packets; only faults use it.
    CutRecord(Vec<u8>),
    /// The end: what was queued before is written, then the socket is closed.
    Close,
}

/// The session shared by the two halves of a link.
pub(crate) type SharedSession = Arc<Mutex<TlsSession>>;

/// Takes messages off the socket.
pub(crate) struct MessageReader<R> {
    socket: R,
    session: SharedSession,
    packets: PacketReader,
    joiner: Joiner,
    input: Vec<u8>,
    used: usize,
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    /// `early` are bytes that were read behind the handshake.
    pub(crate) fn new(socket: R, session: SharedSession, early: Vec<u8>) -> Self {
        Self {
            socket,
            session,
            packets: PacketReader::new(),
            joiner: Joiner::new(MESSAGE_LIMIT),
            input: early,
            used: 0,
        }
    }

    /// The next whole message; `None` when the agent closed the link between two packets.
    /// Cancelling loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        loop {
            while let Some(packet) = self.next_packet()? {
                let mut plaintext = Vec::with_capacity(packet.records.len());
                lock(&self.session).open(&packet.records, &mut plaintext)?;
                if let Some(message) = self.joiner.push(&plaintext, packet.more)? {
                    return Ok(Some(message));
                }
            }
            self.input.clear();
            self.used = 0;
            self.input.reserve(READ_CHUNK);
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) if self.packets.is_at_boundary() && self.joiner.pending() == 0 => {
                    return Ok(None);
                }
                Ok(0) => return Err(WireError::Cut),
                Ok(_) => {}
                Err(source) => return Err(WireError::Socket { operation: "read", source }),
            }
        }
    }

    fn next_packet(&mut self) -> Result<Option<packet::Packet>, PacketError> {
        let mut rest = self.input.get(self.used..).unwrap_or_default();
        let before = rest.len();
        let packet = self.packets.next(&mut rest);
        self.used += before - rest.len();
        packet
    }
}

/// Writes what the queue holds until [`Outgoing::Close`] or until the link breaks.
pub(crate) async fn write_all(
    mut socket: impl AsyncWrite + Unpin,
    session: SharedSession,
    mut queue: mpsc::Receiver<Outgoing>,
) -> Result<(), WireError> {
    while let Some(outgoing) = queue.recv().await {
        let packets = match outgoing {
            Outgoing::Message(message) => seal(&session, &message)?,
            Outgoing::Raw(bytes) => bytes,
            Outgoing::CutRecord(message) => cut(&session, &message)?,
            Outgoing::Close => return Ok(()),
        };
        let written = tokio::time::timeout(WRITE_LIMIT, socket.write_all(&packets)).await;
        written
            .map_err(|_| WireError::Stalled(WRITE_LIMIT))?
            .map_err(|source| WireError::Socket { operation: "write", source })?;
    }
    Ok(())
}

/// All packets of one message.
fn seal(session: &SharedSession, message: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut packets = Vec::with_capacity(message.len() + 64);
    let mut session = lock(session);
    for (piece, more) in packet::split(message) {
        let record = session.seal(piece)?;
        packets.extend_from_slice(&PacketHeader::new(record.len(), more)?.encode());
        packets.extend_from_slice(&record);
    }
    Ok(packets)
}

fn cut(session: &SharedSession, message: &[u8]) -> Result<Vec<u8>, WireError> {
    let record = lock(session).seal(message)?;
    let (first, second) = record.split_at(record.len() / 2);
    let mut packets = Vec::with_capacity(record.len() + 2 * packet::HEADER_LEN);
    for (half, more) in [(first, true), (second, false)] {
        packets.extend_from_slice(&PacketHeader::new(half.len(), more)?.encode());
        packets.extend_from_slice(half);
    }
    Ok(packets)
}
