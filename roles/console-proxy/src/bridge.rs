//! The relay between a viewer and a VNC server after both handshakes, whatever their bytes travel
//! over.
//!
//! Both directions run independently, each with one buffer under way: whoever reads slowly slows
//! only what is sent to him. Data frames are the only bytes that reach the VM.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use prometheus_client::metrics::counter::Counter;
use rfb::MessageScanner;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::refusal::End;
use crate::sessions::Session;
use crate::viewer::data;

/// One read from the VM, and so one message to the viewer.
const BUFFER: usize = 64 * 1024;

/// Bounds of a running console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BridgeLimits {
    /// Distance of our pings to the viewer. A screen that takes no input for as long is lost: its
    /// viewer's pongs, and its leaving, wait unread behind that input.
    pub(crate) ping: Duration,
    /// Without any frame from the viewer for this long, pongs included, it is gone.
    pub(crate) idle: Duration,
    /// Without key, mouse or clipboard for this long the console ends; `None` = never.
    pub(crate) input: Option<Duration>,
}

/// When the viewer was last heard of, and when somebody last touched something, in milliseconds
/// since the start of the relay.
struct Signs {
    start: Instant,
    heard: AtomicU64,
    input: AtomicU64,
}

impl Signs {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self, since: &AtomicU64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(since.load(Ordering::Relaxed)))
    }
}

/// Relays until one side ends, the viewer is idle, or the session is asked to end.
pub(crate) async fn relay<V, S>(
    socket: &mut WebSocketStream<V>,
    stream: S,
    ahead: (Vec<u8>, Vec<u8>),
    session: &Arc<Session>,
    counters: (Counter, Counter),
    limits: BridgeLimits,
) -> End
where
    V: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite,
{
    let (from_viewer, from_vm) = ahead;
    let (to_viewer_bytes, to_vm_bytes) = counters;
    let signs = Signs { start: Instant::now(), heard: AtomicU64::new(0), input: AtomicU64::new(0) };
    let (read, write) = tokio::io::split(stream);
    let (sink, source) = socket.split();
    let up = Up {
        source,
        write,
        session,
        signs: &signs,
        bytes: to_vm_bytes,
        write_timeout: limits.ping,
    };
    let down = Down { sink, read, session, bytes: to_viewer_bytes, ping: limits.ping };
    tokio::select! {
        end = up.run(from_viewer) => end,
        end = down.run(from_vm) => end,
        end = watch(&signs, limits) => end,
        ended = session.ended() => ended.into(),
    }
}

/// Viewer to VM.
struct Up<'a, V, S> {
    source: SplitStream<&'a mut WebSocketStream<V>>,
    write: WriteHalf<S>,
    session: &'a Session,
    signs: &'a Signs,
    bytes: Counter,
    write_timeout: Duration,
}

impl<V, S> Up<'_, V, S>
where
    V: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite,
{
    async fn run(mut self, ahead: Vec<u8>) -> End {
        let mut scanner = MessageScanner::default();
        if let Err(end) = self.forward(&ahead, &mut scanner).await {
            return end;
        }
        loop {
            let message = self.source.next().await;
            self.signs.heard.store(self.signs.now(), Ordering::Relaxed);
            let outcome = match data(message) {
                Ok(bytes) => self.forward(&bytes, &mut scanner).await,
                Err(end) => return end,
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn forward(&mut self, bytes: &[u8], scanner: &mut MessageScanner) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        let before = scanner.counts().by_person();
        scanner.scan(bytes);
        let touched = scanner.counts().by_person() - before;
        if touched > 0 || scanner.is_lost() {
            self.signs.input.store(self.signs.now(), Ordering::Relaxed);
            self.session.inputs.fetch_add(touched, Ordering::Relaxed);
        }
        let write = async {
            self.write.write_all(bytes).await?;
            // An encrypted stream may hold something back.
            self.write.flush().await
        };
        match timeout(self.write_timeout, write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot write to the VNC server");
                return Err(End::ScreenLost);
            }
            Err(_elapsed) => {
                tracing::debug!("the VNC server takes no input");
                return Err(End::ScreenLost);
            }
        }
        let count = u64::try_from(bytes.len()).unwrap_or_default();
        self.session.to_vm.fetch_add(count, Ordering::Relaxed);
        self.bytes.inc_by(count);
        self.session.touch();
        Ok(())
    }
}

/// VM to viewer.
struct Down<'a, V, S> {
    sink: SplitSink<&'a mut WebSocketStream<V>, Message>,
    read: ReadHalf<S>,
    session: &'a Session,
    bytes: Counter,
    ping: Duration,
}

impl<V, S> Down<'_, V, S>
where
    V: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead,
{
    async fn run(mut self, ahead: Vec<u8>) -> End {
        let mut ping = interval_at(Instant::now() + self.ping, self.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut buffer = BytesMut::from(ahead.as_slice());
        loop {
            if !buffer.is_empty() {
                let count = u64::try_from(buffer.len()).unwrap_or_default();
                let message = Message::Binary(buffer.split().freeze());
                if let Err(error) = self.sink.send(message).await {
                    return crate::websocket::end_of(&error);
                }
                self.session.to_viewer.fetch_add(count, Ordering::Relaxed);
                self.bytes.inc_by(count);
                self.session.touch();
            }
            buffer.reserve(BUFFER);
            tokio::select! {
                outcome = self.read.read_buf(&mut buffer) => match outcome {
                    Ok(0) => return End::ScreenClosed,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "cannot read from the VNC server");
                        return End::ScreenLost;
                    }
                },
                _ = ping.tick() => {
                    if let Err(error) = self.sink.send(Message::Ping(bytes::Bytes::new())).await {
                        return crate::websocket::end_of(&error);
                    }
                }
            }
        }
    }
}

/// Ends a relay that nobody is at the other end of.
async fn watch(signs: &Signs, limits: BridgeLimits) -> End {
    loop {
        let unheard = signs.age(&signs.heard);
        if unheard >= limits.idle {
            return End::Idle;
        }
        let mut wait = limits.idle - unheard;
        if let Some(limit) = limits.input {
            let untouched = signs.age(&signs.input);
            if untouched >= limit {
                return End::NoInput;
            }
            wait = wait.min(limit - untouched);
        }
        sleep(wait.max(Duration::from_millis(10))).await;
    }
}

#[cfg(test)]
mod tests;
