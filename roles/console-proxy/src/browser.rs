//! A browser's WebSocket: its frames, its bounds, and closing with a reason.
//!
//! `permessage-deflate` is never negotiated: every browser offers it, and deflating a picture costs
//! ten times the processor time of sending it. The frames are our own: a picture goes out as one
//! vectored write of its head and the buffer that it was read into.

use std::io::{self, IoSlice};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use websocket::{CloseFrame, Event, Header, Opcode, Receiver};

use crate::refusal::End;

/// What arrives is small, and every session has one.
const READ_BUFFER: usize = 1024;
/// How long a viewer may take to hear the goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// The connection of an upgraded request.
pub(crate) type Socket = Browser<TokioIo<Upgraded>>;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Browser<S> {
    pub(crate) stream: S,
    pub(crate) incoming: Incoming,
    /// It understands the messages of [`crate::control`].
    pub(crate) has_control: bool,
}

/// What a browser sends, and its goodbye once it said it.
#[derive(Debug)]
pub(crate) struct Incoming {
    receiver: Receiver,
    chunk: Vec<u8>,
    goodbye: Option<Option<CloseFrame>>,
}

impl Incoming {
    /// What was received already; `Ok(None)` when more bytes are needed.
    fn ready(&mut self) -> Result<Option<Event>, End> {
        let event = self.receiver.take().map_err(|error| {
            tracing::debug!(%error, "the viewer broke the protocol");
            End::BadFrame(error)
        })?;
        if let Some(Event::Close(frame)) = &event {
            self.goodbye = Some(frame.clone());
            return Err(End::ViewerClosed);
        }
        Ok(event)
    }

    /// The next thing. May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<Event, End> {
        loop {
            if let Some(event) = self.ready()? {
                return Ok(event);
            }
            match from.read(&mut self.chunk).await {
                Ok(0) => return Err(End::ViewerLost),
                Ok(count) => self.receiver.receive(self.chunk.get(..count).unwrap_or_default()),
                Err(error) => {
                    tracing::debug!(%error, "the viewer is gone");
                    return Err(End::ViewerLost);
                }
            }
        }
    }

    /// The code with which the viewer said goodbye.
    pub(crate) fn goodbye_code(&self) -> Option<u16> {
        self.goodbye.as_ref()?.as_ref().map(|frame| frame.code)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Browser<S> {
    pub(crate) fn new(stream: S, message_limit: usize, has_control: bool) -> Self {
        let incoming = Incoming {
            receiver: Receiver::new(message_limit),
            chunk: vec![0; READ_BUFFER],
            goodbye: None,
        };
        Self { stream, incoming, has_control }
    }

    /// The next thing that the browser sends.
    pub(crate) async fn next(&mut self) -> Result<Event, End> {
        self.incoming.next(&mut self.stream).await
    }

    /// Sends a message whole.
    pub(crate) async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), End> {
        send(&mut self.stream, opcode, payload).await
    }

    /// Says goodbye with a code and a reason, and waits a moment for the viewer's. One that said it
    /// first hears its own again.
    pub(crate) async fn close(mut self, code: u16, reason: &str) {
        let said = self.incoming.goodbye.take();
        let body = match &said {
            Some(Some(frame)) => CloseFrame::encode(frame.code, &frame.reason),
            Some(None) => Vec::new(),
            None => CloseFrame::encode(code, reason),
        };
        let goodbye = async {
            if let Err(end) = self.send(Opcode::Close, &body).await {
                tracing::trace!(reason = end.label(), "viewer is gone before the goodbye");
            }
            while said.is_none() && self.next().await.is_ok() {}
            self.stream.shutdown().await.ok();
        };
        if timeout(GOODBYE, goodbye).await.is_err() {
            tracing::trace!("viewer did not say goodbye");
        }
    }
}

/// Sends a message: its head and what stands in `payload` already, without a copy.
pub(crate) async fn send(
    to: &mut (impl AsyncWrite + Unpin),
    opcode: Opcode,
    payload: &[u8],
) -> Result<(), End> {
    let header = Header::new(opcode, payload.len());
    let written = async {
        let (mut head, mut body) = (header.as_bytes(), payload);
        while !head.is_empty() || !body.is_empty() {
            let count = to.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero));
            }
            let of_head = count.min(head.len());
            head = head.get(of_head..).unwrap_or_default();
            body = body.get(count - of_head..).unwrap_or_default();
        }
        // An encrypted stream may hold something back.
        to.flush().await
    };
    written.await.map_err(|error| {
        tracing::debug!(%error, "the viewer is gone");
        End::ViewerLost
    })
}
