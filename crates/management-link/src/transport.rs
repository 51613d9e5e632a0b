//! One connection: bytes of a socket to whole messages and back.
//!
//! The peer frames *outside* TLS. The handshake runs bare; from then on every write is a clear
//! 4-byte header and the TLS records it counts. An ordinary TLS stream cannot do that, so the TLS
//! engine is fed by hand:
//!
//! ```text
//! socket ── header, records ──▶ reader task ── engine ── joiner ──▶ inbound queue
//! socket ◀── header, record ─── writer task ── engine ── splitter ◀─ two outbound queues
//! ```
//!
//! One writer task writes a message to its end before the next, so the packets of two messages
//! never mix. The engine is shared by the two tasks and locked for one packet at a time, never
//! across an await. Nothing is ever written outside of a packet after the handshake: no alert, no
//! close_notify; the connection just ends.
//!
//! Bounds: a packet 18 000 bytes, a message `max_message`, the queues a few messages each. A peer
//! that does not read stops the senders, not the reader.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_protocol::packet::{self, Joiner, PacketError, PacketHeader};
use role::TaskScope;
use rustls::ClientConnection;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::tls::HandshakeError;

const READ_BUFFER: usize = 64 * 1024;
/// Packets are gathered up to this size before they are written.
const WRITE_BUFFER: usize = 64 * 1024;
/// Room that the writer keeps between messages.
const KEPT_BUFFER: usize = 8 * 1024;
const INBOUND_QUEUE: usize = 4;
/// Answers and requests of handlers; they wait when it is full.
const ORDINARY_QUEUE: usize = 64;
/// Startup, ready answers, pings: small, few, never waited for.
const URGENT_QUEUE: usize = 32;
/// Type, version and length in front of a TLS record.
const RECORD_HEADER: usize = 5;
/// A TLS 1.2 record has at most 16 KiB of content and 2 KiB of padding and checks.
const MAX_RECORD: usize = 16_384 + 2048;

/// Why a connection that stood has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LossError {
    #[error("the management server closed the link")]
    Closed,
    #[error("the link ended in the middle of a packet")]
    CutPacket,
    #[error("cannot read from the link")]
    Read(#[source] std::io::Error),
    #[error("cannot write to the link")]
    Write(#[source] std::io::Error),
    #[error("the management server broke the packet format")]
    Packet(#[from] PacketError),
    #[error("the management server sent a packet that does not end with a TLS record")]
    CutRecord,
    #[error("the management server broke the TLS session")]
    Tls(#[source] rustls::Error),
    #[error("the management server does not read: there is no room for an answer")]
    NoRoom,
    #[error("the TLS session is used up")]
    SessionUsedUp,
}

impl LossError {
    /// The server (or the network) ended it, as opposed to a violation that we saw.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::CutPacket | Self::Read(_) | Self::Write(_))
    }
}

/// A standing connection. Dropping it ends both tasks and closes the socket.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Whole messages in order, then once the reason of the end.
    pub(crate) inbound: mpsc::Receiver<Result<Vec<u8>, LossError>>,
    pub(crate) outbound: Outbound,
    stop: DropGuard,
}

impl Connection {
    /// Writes what is queued and closes: at the latest after `timeout`. What still comes in is read, so
    /// that the end reaches the peer behind the last answer, and dropped.
    pub(crate) async fn finish(self, timeout: Duration) {
        let Self { mut inbound, outbound, stop } = self;
        drop(outbound);
        let written = async { while let Some(Ok(_)) = inbound.recv().await {} };
        if tokio::time::timeout(timeout, written).await.is_err() {
            tracing::warn!("the management server does not read, closing with answers unsent");
        }
        drop(stop);
    }
}

/// The sending side of a connection. Cloneable; of no effect once the connection is gone.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    urgent: mpsc::Sender<Vec<u8>>,
    ordinary: mpsc::Sender<Vec<u8>>,
}

impl Outbound {
    /// Hands over a message that must not wait behind answers. `false` when the peer does not
    /// read or the connection is gone.
    pub(crate) fn send_urgent(&self, message: Vec<u8>) -> bool {
        self.urgent.try_send(message).is_ok()
    }

    /// Hands over a message, waiting for room. `false` when the connection is gone.
    pub(crate) async fn send(&self, message: Vec<u8>) -> bool {
        self.ordinary.send(message).await.is_ok()
    }

    /// As [`Outbound::send`] without waiting; gives the message back when there is no room.
    pub(crate) fn try_send(&self, message: Vec<u8>) -> Result<(), Vec<u8>> {
        self.ordinary.try_send(message).map_err(mpsc::error::TrySendError::into_inner)
    }

    /// For who may need long: does not keep the connection from its end.
    pub(crate) fn downgrade(&self) -> WeakOutbound {
        WeakOutbound { ordinary: self.ordinary.downgrade() }
    }
}

/// See [`Outbound::downgrade`].
#[derive(Debug, Clone)]
pub(crate) struct WeakOutbound {
    ordinary: mpsc::WeakSender<Vec<u8>>,
}

impl WeakOutbound {
    /// As [`Outbound::send`]; also `false` when the link is ending.
    pub(crate) async fn send(&self, message: Vec<u8>) -> bool {
        match self.ordinary.upgrade() {
            Some(ordinary) => ordinary.send(message).await.is_ok(),
            None => false,
        }
    }
}

/// A TLS engine after its handshake.
pub(crate) struct Engine(ClientConnection);

impl Engine {
    /// What the peer presented, its own certificate first.
    pub(crate) fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect()
    }
}

/// Runs the handshake on a bare stream, record by record, so that not one byte behind it is read.
/// The errors about certificates do not know addresses yet: see [`HandshakeError::of`].
pub(crate) async fn handshake<S>(
    stream: &mut S,
    config: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
    timeout: Duration,
) -> Result<Engine, HandshakeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let engine = ClientConnection::new(config, name).map_err(HandshakeFailure::Tls)?;
    match tokio::time::timeout(timeout, exchange(stream, engine)).await {
        Ok(done) => done.map(Engine),
        Err(_elapsed) => Err(HandshakeFailure::Other(HandshakeError::Timeout(timeout))),
    }
}

/// A failed handshake before its error is put in words.
#[derive(Debug)]
pub(crate) enum HandshakeFailure {
    Tls(rustls::Error),
    Other(HandshakeError),
}

async fn exchange<S>(
    stream: &mut S,
    mut engine: ClientConnection,
) -> Result<ClientConnection, HandshakeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let io = |error| HandshakeFailure::Other(HandshakeError::Io(error));
    loop {
        let mut pending = Vec::new();
        while engine.wants_write() {
            engine.write_tls(&mut pending).map_err(io)?;
        }
        stream.write_all(&pending).await.map_err(end_or(io))?;
        stream.flush().await.map_err(end_or(io))?;
        if !engine.is_handshaking() {
            return Ok(engine);
        }
        let record = read_record(stream).await?;
        let mut rest = record.as_slice();
        while !rest.is_empty() {
            engine.read_tls(&mut rest).map_err(io)?;
            if let Err(error) = engine.process_new_packets() {
                // The alert still belongs to the handshake, which has no packets.
                let mut alert = Vec::new();
                while engine.wants_write() && engine.write_tls(&mut alert).is_ok() {}
                if let Err(error) = stream.write_all(&alert).await {
                    tracing::debug!(%error, "cannot send the TLS alert");
                }
                return Err(HandshakeFailure::Tls(error));
            }
        }
    }
}

async fn read_record<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, HandshakeFailure> {
    let io = |error| HandshakeFailure::Other(HandshakeError::Io(error));
    let mut record = vec![0; RECORD_HEADER];
    stream.read_exact(&mut record).await.map_err(end_or(io))?;
    let length = record_length(&record).filter(|length| *length <= MAX_RECORD);
    let Some(length) = length else {
        // Let the engine say what is wrong with it.
        return Ok(record);
    };
    record.resize(RECORD_HEADER + length, 0);
    let body = record.get_mut(RECORD_HEADER..).unwrap_or_default();
    stream.read_exact(body).await.map_err(end_or(io))?;
    Ok(record)
}

/// An end of the stream has its own meaning in a handshake.
fn end_or(
    other: impl Fn(std::io::Error) -> HandshakeFailure,
) -> impl Fn(std::io::Error) -> HandshakeFailure {
    use std::io::ErrorKind;
    move |error| match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            HandshakeFailure::Other(HandshakeError::Closed)
        }
        _ => other(error),
    }
}

/// Content length of the record that starts `bytes`.
fn record_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(3..RECORD_HEADER)?;
    Some(length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
}

/// Starts the two tasks on a stream whose handshake is done. Its halves share no lock: reading and
/// writing go on side by side.
pub(crate) fn start<R, W>(
    (read_half, write_half): (R, W),
    engine: Engine,
    max_message: usize,
    tasks: &TaskScope,
) -> Connection
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let engine = Arc::new(Mutex::new(engine.0));
    let stop = CancellationToken::new();
    let (inbound_tx, inbound) = mpsc::channel(INBOUND_QUEUE);
    let (urgent, urgent_rx) = mpsc::channel(URGENT_QUEUE);
    let (ordinary, ordinary_rx) = mpsc::channel(ORDINARY_QUEUE);

    let reader = Reader {
        stream: BufReader::with_capacity(READ_BUFFER, read_half),
        engine: Arc::clone(&engine),
        joiner: Joiner::new(max_message),
        inbound: inbound_tx.clone(),
    };
    let stopped = stop.clone();
    tasks.spawn("link reader", async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            () = reader.run() => {}
        }
    });
    let writer = Writer { stream: write_half, engine, urgent: urgent_rx, ordinary: ordinary_rx };
    let stopped = stop.clone();
    tasks.spawn("link writer", async move {
        tokio::select! {
            () = stopped.cancelled() => {}
            error = writer.run() => {
                // Nobody listens any more when the link was closed meanwhile.
                inbound_tx.send(Err(error)).await.ok();
            }
        }
    });
    Connection { inbound, outbound: Outbound { urgent, ordinary }, stop: stop.drop_guard() }
}

struct Reader<R> {
    stream: BufReader<R>,
    engine: Arc<Mutex<ClientConnection>>,
    joiner: Joiner,
    inbound: mpsc::Sender<Result<Vec<u8>, LossError>>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) {
        loop {
            let message = self.message().await;
            let ended = message.is_err();
            if self.inbound.send(message).await.is_err() || ended {
                return;
            }
        }
    }

    async fn message(&mut self) -> Result<Vec<u8>, LossError> {
        let mut records = Vec::new();
        let mut plain = Vec::new();
        loop {
            let header = self.header().await?;
            records.resize(usize::from(header.len), 0);
            self.stream.read_exact(&mut records).await.map_err(cut_or_read)?;
            plain.clear();
            self.decrypt(&records, &mut plain)?;
            if let Some(message) = self.joiner.push(&plain, header.more)? {
                return Ok(message);
            }
        }
    }

    async fn header(&mut self) -> Result<PacketHeader, LossError> {
        let mut bytes = [0; packet::HEADER_LEN];
        let (first, rest) = bytes.split_at_mut(1);
        if self.stream.read(first).await.map_err(LossError::Read)? == 0 {
            return Err(LossError::Closed);
        }
        self.stream.read_exact(rest).await.map_err(cut_or_read)?;
        Ok(PacketHeader::decode(bytes)?)
    }

    fn decrypt(&self, records: &[u8], plain: &mut Vec<u8>) -> Result<(), LossError> {
        use std::io::Read;
        check_whole_records(records)?;
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = records;
        while !rest.is_empty() {
            engine.read_tls(&mut rest).map_err(LossError::Read)?;
            let state = engine.process_new_packets().map_err(LossError::Tls)?;
            if state.peer_has_closed() {
                return Err(LossError::Closed);
            }
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            let room = plain.get_mut(start..).unwrap_or_default();
            engine.reader().read_exact(room).map_err(LossError::Read)?;
        }
        Ok(())
    }
}

/// The peer cannot decrypt a record that a packet cuts, so it never sends one: it would be a sign
/// that header and records have come apart.
fn check_whole_records(mut records: &[u8]) -> Result<(), LossError> {
    while !records.is_empty() {
        let length = record_length(records).ok_or(LossError::CutRecord)?;
        records = records.get(RECORD_HEADER + length..).ok_or(LossError::CutRecord)?;
    }
    Ok(())
}

fn cut_or_read(error: std::io::Error) -> LossError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => LossError::CutPacket,
        _ => LossError::Read(error),
    }
}

struct Writer<W> {
    stream: W,
    engine: Arc<Mutex<ClientConnection>>,
    urgent: mpsc::Receiver<Vec<u8>>,
    ordinary: mpsc::Receiver<Vec<u8>>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes until writing fails. When both queues are closed the socket's sending side is shut.
    async fn run(mut self) -> LossError {
        let mut packets = Vec::new();
        loop {
            let message = tokio::select! {
                biased;
                Some(message) = self.urgent.recv() => message,
                Some(message) = self.ordinary.recv() => message,
                else => {
                    let ended = self.stream.shutdown().await;
                    return ended.err().map_or(LossError::Closed, LossError::Write);
                }
            };
            if let Err(error) = self.write(message, &mut packets).await {
                return error;
            }
        }
    }

    /// Writes a message and what has been queued behind it meanwhile, in one go where it fits.
    async fn write(&mut self, message: Vec<u8>, packets: &mut Vec<u8>) -> Result<(), LossError> {
        let mut next = Some(message);
        while let Some(message) = next {
            for (piece, more) in packet::split(&message) {
                self.encrypt(piece, more, packets)?;
                if packets.len() >= WRITE_BUFFER {
                    self.write_out(packets).await?;
                }
            }
            next = self.urgent.try_recv().or_else(|_| self.ordinary.try_recv()).ok();
        }
        self.write_out(packets).await?;
        // A large message is not a reason to keep its room for ever.
        packets.shrink_to(KEPT_BUFFER);
        self.stream.flush().await.map_err(LossError::Write)
    }

    async fn write_out(&mut self, packets: &mut Vec<u8>) -> Result<(), LossError> {
        self.stream.write_all(packets).await.map_err(LossError::Write)?;
        packets.clear();
        Ok(())
    }

    /// Appends one packet.
    fn encrypt(&self, piece: &[u8], more: bool, packets: &mut Vec<u8>) -> Result<(), LossError> {
        use std::io::Write;
        let mut records = Vec::with_capacity(piece.len() + 64);
        {
            let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            engine.writer().write_all(piece).map_err(LossError::Write)?;
            while engine.wants_write() {
                engine.write_tls(&mut records).map_err(LossError::Write)?;
            }
        }
        if records.is_empty() {
            return Err(LossError::SessionUsedUp);
        }
        packets.extend_from_slice(&PacketHeader::new(records.len(), more)?.encode());
        packets.extend_from_slice(&records);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
