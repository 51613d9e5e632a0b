//! A connection below HTTP: counted until its last owner drops it, with a way to read ahead.
//!
//! hyper hands the stream of an upgraded request on, so whoever holds a WebSocket holds the place of
//! its connection as well.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use crate::addresses::OfAddress;
use crate::proxy_header::{ProxyHeader, ProxyHeaderError, parse_proxy_header};

/// What HTTP is spoken over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A counted connection.
pub(crate) struct Counted<S> {
    pub(crate) socket: S,
    /// Among those of its client address, where these are counted.
    pub(crate) of_address: Option<OfAddress>,
    _place: OwnedSemaphorePermit,
}

/// A stream of which some bytes were looked at before somebody reads them.
pub(crate) struct Ahead<S> {
    pub(crate) inner: S,
    /// Read from the stream already, from `at` on not handed out yet.
    bytes: Vec<u8>,
    at: usize,
}

/// Why a PROXY header could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadHeaderError {
    #[error(transparent)]
    Header(#[from] ProxyHeaderError),
    #[error("cannot read the PROXY header")]
    Read(#[source] io::Error),
}

impl<S> Counted<S> {
    pub(crate) const fn new(socket: S, place: OwnedSemaphorePermit) -> Self {
        Self { socket, of_address: None, _place: place }
    }
}

impl<S> From<S> for Ahead<S> {
    fn from(inner: S) -> Self {
        Self { inner, bytes: Vec::new(), at: 0 }
    }
}

impl<S: AsyncRead + Unpin> Ahead<S> {
    /// What was looked at and not read yet.
    pub(crate) fn unread(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Takes as read what was looked at.
    pub(crate) fn consume(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
        if self.at >= self.bytes.len() {
            (self.bytes, self.at) = (Vec::new(), 0);
        }
    }

    /// Looks further; gives the number of new bytes, 0 at the end. The caller bounds what is held.
    pub(crate) async fn look(&mut self) -> io::Result<usize> {
        let mut block = [0; 2048];
        let count = self.inner.read(&mut block).await?;
        self.bytes.extend_from_slice(block.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// Reads the PROXY header; what came after it stays to be read.
    pub(crate) async fn proxy_header(&mut self) -> Result<Option<SocketAddr>, ReadHeaderError> {
        loop {
            if !self.unread().is_empty()
                && let ProxyHeader::Complete { length, source } = parse_proxy_header(self.unread())?
            {
                self.consume(length);
                return Ok(source);
            }
            // The parser bounds what is held: it refuses a header that is too long.
            if self.look().await.map_err(ReadHeaderError::Read)? == 0 {
                return Err(ReadHeaderError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let unread = self.unread();
        if unread.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = unread.len().min(buf.remaining());
        buf.put_slice(unread.get(..count).unwrap_or_default());
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

/// Writing goes straight through.
macro_rules! writes_through {
    ($wrapper:ident, $inner:ident) => {
        impl<S: AsyncWrite + Unpin> AsyncWrite for $wrapper<S> {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$inner).poll_write(cx, bytes)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$inner).poll_write_vectored(cx, slices)
            }

            fn is_write_vectored(&self) -> bool {
                self.$inner.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$inner).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$inner).poll_shutdown(cx)
            }
        }
    };
}

writes_through!(Counted, socket);
writes_through!(Ahead, inner);
