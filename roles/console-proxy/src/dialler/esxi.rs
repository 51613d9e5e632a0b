//! The console of an ESXi host: a WebSocket behind a ticket. Its binary messages are the bytes of RFB,
//! which browser and host negotiate among themselves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WebSocketError;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{BoxStream, Connection, tcp, tls};
use crate::refusal::VncServerError;
use crate::upstream::Ticket;

/// Longest message of a host.
const MESSAGE_LIMIT: usize = 16 << 20;
/// What waits to be sent to the host, at most.
const WRITE_LIMIT: usize = 1 << 20;

/// Dials the ticket.
pub(super) async fn connect(url: &str) -> Result<Connection, VncServerError> {
    let ticket = Ticket::parse(url).ok_or(VncServerError::Ticket)?;
    let stream = tcp(&ticket.host, ticket.port).await.map_err(VncServerError::Connect)?;
    let stream = tls::to_anyone(stream, &ticket.host).await?;
    open(stream, url).await
}

async fn open(stream: BoxStream, url: &str) -> Result<Connection, VncServerError> {
    let mut request = url.into_client_request().map_err(|_odd| VncServerError::Ticket)?;
    let binary = HeaderValue::from_static("binary");
    request.headers_mut().insert("sec-websocket-protocol", binary);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT))
        .max_write_buffer_size(WRITE_LIMIT)
        .write_buffer_size(0);
    let opened = client_async_with_config(request, stream, Some(config)).await;
    let (socket, _response) = opened.map_err(|error| match error {
        WebSocketError::Io(error) => VncServerError::Io(error),
        WebSocketError::Http(response) => VncServerError::TicketRefused(response.status().as_u16()),
        _ => VncServerError::Ticket,
    })?;
    let stream = MessageBytes { socket, unread: Bytes::new() };
    Ok(Connection { stream: Box::new(stream), start_tls: None, encrypted: true })
}

/// Binary messages as a stream of bytes. Text messages are dropped, as the original does.
struct MessageBytes {
    socket: WebSocketStream<BoxStream>,
    unread: Bytes,
}

fn broken(error: WebSocketError) -> io::Error {
    match error {
        WebSocketError::Io(error) => error,
        WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed => {
            io::ErrorKind::BrokenPipe.into()
        }
        other => io::Error::other(other),
    }
}

impl AsyncRead for MessageBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.unread.is_empty() {
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => this.unread = bytes,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(WebSocketError::ConnectionClosed)) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MessageBytes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(broken)?;
        let mut piece = bytes;
        let message = Message::Binary(piece.copy_to_bytes(bytes.len()));
        socket.start_send(message).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(broken)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// A host that takes one upgrade and answers with what `serve` does.
    async fn host<F: Future<Output = ()> + Send + 'static>(
        serve: impl FnOnce(WebSocketStream<tokio::io::DuplexStream>) -> F + Send + 'static,
    ) -> Result<Connection, VncServerError> {
        let (ours, theirs) = duplex(64 * 1024);
        tokio::spawn(async move {
            let mut offered = None;
            #[expect(clippy::result_large_err, reason = "as the library wants it")]
            let callback = |request: &http::Request, mut response: http::Response| {
                offered = request.headers().get("sec-websocket-protocol").cloned();
                assert_eq!(request.uri().path(), "/ticket/abc");
                let headers = response.headers_mut();
                headers.insert("sec-websocket-protocol", HeaderValue::from_static("binary"));
                Ok(response)
            };
            let socket = tokio_tungstenite::accept_hdr_async(theirs, callback).await.unwrap();
            assert_eq!(offered, Some(HeaderValue::from_static("binary")));
            serve(socket).await;
        });
        open(Box::new(ours), "wss://10.0.0.9:443/ticket/abc").await
    }

    mod http {
        pub(super) use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    }

    #[tokio::test]
    async fn binary_messages_are_bytes_both_ways_and_text_is_dropped() {
        let connection = host(async |mut socket| {
            socket.send(Message::text("hello")).await.unwrap();
            socket.send(Message::binary(b"RFB 003".to_vec())).await.unwrap();
            socket.send(Message::binary(b".008\n".to_vec())).await.unwrap();
            let mut received = Vec::new();
            while received.len() < 12 {
                if let Some(Ok(Message::Binary(bytes))) = socket.next().await {
                    received.extend_from_slice(&bytes);
                }
            }
            socket.send(Message::binary(received)).await.unwrap();
            socket.close(None).await.unwrap();
            while socket.next().await.is_some() {}
        })
        .await
        .unwrap();
        let mut stream = connection.stream;
        let mut version = [0; 12];
        stream.read_exact(&mut version).await.unwrap();
        assert_eq!(&version, b"RFB 003.008\n");
        stream.write_all(&version).await.unwrap();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, version);
    }

    #[tokio::test]
    async fn a_ticket_that_was_used_is_told_by_its_status() {
        let (ours, mut theirs) = duplex(4096);
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            let _count = theirs.read(&mut buffer).await.unwrap();
            theirs.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        });
        let Err(error) = open(Box::new(ours), "wss://h/ticket/x").await else { panic!("opened") };
        assert!(error.to_string().contains("refused the ticket (404)"), "{error}");
    }
}
