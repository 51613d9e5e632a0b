//! VM to viewer: whole reads become messages, without a copy in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use websocket::Opcode;

use super::{Outgoing, Signs};
use crate::browser::send;
use crate::recording::Recorder;
use crate::refusal::End;
use crate::sessions::Session;

/// A session at rest, one with a picture now and then, one that floods.
const SMALLEST: usize = 2 * 1024;
const LARGEST: usize = 256 * 1024;
/// After so many bytes without a wait the others get their turn.
const TURN: usize = LARGEST;

pub(super) struct Down<'a, V, S> {
    pub(super) write: V,
    pub(super) read: S,
    pub(super) waiting: mpsc::Receiver<Outgoing>,
    pub(super) session: &'a Arc<Session>,
    pub(super) signs: &'a Signs,
    pub(super) bytes: &'a Counter,
    pub(super) ping: Duration,
    pub(super) recorder: Option<&'a Recorder>,
}

/// The one buffer: it grows while reads fill it, and is small again after a time of rest.
struct Buffer {
    bytes: Vec<u8>,
    filled: bool,
}

impl Buffer {
    fn grow(&mut self, count: usize) {
        if count == self.bytes.len() && count < LARGEST {
            self.bytes = vec![0; (count * 4).min(LARGEST)];
        }
        self.filled |= count * 4 > self.bytes.len();
    }

    fn rest(&mut self) {
        if !std::mem::take(&mut self.filled) && self.bytes.len() > SMALLEST {
            self.bytes = vec![0; SMALLEST];
        }
    }
}

impl<V, S> Down<'_, V, S>
where
    V: AsyncWrite + Unpin,
    S: AsyncRead + Unpin,
{
    pub(super) async fn run(mut self, ahead: Vec<u8>) -> End {
        match self.pump(ahead).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn pump(&mut self, ahead: Vec<u8>) -> Result<std::convert::Infallible, End> {
        let mut ping = interval_at(Instant::now() + self.ping, self.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Skip);
        if !ahead.is_empty() {
            self.picture(&ahead).await?;
        }
        drop(ahead);
        let mut buffer = Buffer { bytes: vec![0; SMALLEST], filled: false };
        let mut moved = 0;
        loop {
            tokio::select! {
                // Messages first: a picture without end must not keep a pong waiting.
                biased;
                Some(message) = self.waiting.recv() => match message {
                    Outgoing::Pong(payload) => send(&mut self.write, Opcode::Pong, &payload).await?,
                    Outgoing::Page(message) => {
                        send(&mut self.write, Opcode::Text, message.text().as_bytes()).await?;
                    }
                },
                _ = ping.tick() => {
                    buffer.rest();
                    send(&mut self.write, Opcode::Ping, b"").await?;
                }
                outcome = self.read.read(&mut buffer.bytes) => {
                    let count = match outcome {
                        Ok(0) => return Err(End::ScreenClosed),
                        Ok(count) => count,
                        Err(error) => {
                            tracing::debug!(%error, "cannot read from the VNC server");
                            return Err(End::ScreenLost);
                        }
                    };
                    let picture = buffer.bytes.get(..count).unwrap_or_default();
                    // `picture` borrows the buffer, so the counting is done by hand.
                    if let Some(recorder) = self.recorder {
                        recorder.shown(picture);
                    }
                    send(&mut self.write, Opcode::Binary, picture).await?;
                    self.count(count);
                    buffer.grow(count);
                    moved += count;
                    if moved >= TURN {
                        moved = 0;
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }

    async fn picture(&mut self, bytes: &[u8]) -> Result<(), End> {
        if let Some(recorder) = self.recorder {
            recorder.shown(bytes);
        }
        send(&mut self.write, Opcode::Binary, bytes).await?;
        self.count(bytes.len());
        Ok(())
    }

    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or_default();
        self.session.to_viewer.fetch_add(bytes, Ordering::Relaxed);
        self.session.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.inc_by(bytes);
        self.session.touch();
        self.signs.mark(&self.signs.moved);
    }
}
