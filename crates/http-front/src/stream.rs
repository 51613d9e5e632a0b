//! A connection below TLS and HTTP: counted until its last owner drops it, with a way to read ahead.
//!
//! hyper hands the stream of an upgraded request on, so whoever holds a WebSocket holds the place of
//! its connection as well.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use crate::proxy_header::{ProxyHeader, ProxyHeaderError, parse_proxy_header};

/// What HTTP is spoken over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A counted connection.
pub(crate) struct Counted<S> {
    socket: S,
    /// Read from the socket already, from `at` on not handed out yet.
    ahead: Vec<u8>,
    at: usize,
    _place: OwnedSemaphorePermit,
}

/// Why a PROXY header could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadHeaderError {
    #[error(transparent)]
    Header(#[from] ProxyHeaderError),
    #[error("cannot read the PROXY header")]
    Read(#[source] io::Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Counted<S> {
    pub(crate) const fn new(socket: S, place: OwnedSemaphorePermit) -> Self {
        Self { socket, ahead: Vec::new(), at: 0, _place: place }
    }

    /// Reads the PROXY header; what came after it stays to be read.
    pub(crate) async fn proxy_header(&mut self) -> Result<Option<SocketAddr>, ReadHeaderError> {
        loop {
            if !self.ahead.is_empty()
                && let ProxyHeader::Complete { length, source } = parse_proxy_header(&self.ahead)?
            {
                self.at = length;
                return Ok(source);
            }
            // The parser bounds what is held: it refuses a header that is too long.
            let mut block = [0; 512];
            let count = self.socket.read(&mut block).await.map_err(ReadHeaderError::Read)?;
            if count == 0 {
                return Err(ReadHeaderError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            self.ahead.extend_from_slice(block.get(..count).unwrap_or_default());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let unread = this.ahead.get(this.at..).unwrap_or_default();
        if unread.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        }
        let count = unread.len().min(buf.remaining());
        buf.put_slice(unread.get(..count).unwrap_or_default());
        this.at += count;
        if this.at >= this.ahead.len() {
            (this.ahead, this.at) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
