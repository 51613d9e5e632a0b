//! A WebSocket as a byte stream, so that an RFB client can look at a console as a browser does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// What comes beside the bytes.
#[derive(Debug)]
pub(crate) enum Said {
    Text(String),
    /// Code and reason.
    Closed(u16, String),
}

/// Bytes of binary messages, in order; a close message ends the stream.
#[derive(Debug)]
pub(crate) struct ByteStream<S> {
    socket: WebSocketStream<S>,
    pending: Bytes,
    /// What nobody reads is dropped.
    said: mpsc::Sender<Said>,
}

impl<S> ByteStream<S> {
    pub(crate) const fn new(socket: WebSocketStream<S>, said: mpsc::Sender<Said>) -> Self {
        Self { socket, pending: Bytes::new(), said }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.pending.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.pending = bytes,
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = frame
                        .map(|frame| (frame.code.into(), frame.reason.to_string()))
                        .unwrap_or_default();
                    self.said.try_send(Said::Closed(code, reason.clone())).ok();
                    return Poll::Ready(Err(io::Error::other(format!("closed: {reason}"))));
                }
                Some(Ok(Message::Text(text))) => {
                    self.said.try_send(Said::Text(text.to_string())).ok();
                }
                Some(Ok(_control)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = buffer.remaining().min(self.pending.len());
        let piece = self.pending.split_to(count);
        buffer.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        // Users of a TCP stream do not flush. What does not go out now goes with the next read.
        if let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx) {
            flushed.map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io::Error::other)
    }
}
