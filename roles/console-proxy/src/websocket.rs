//! The WebSocket under a console: its bounds, and closing with a reason.
//!
//! `permessage-deflate` is never negotiated: every browser offers it, and deflating a picture costs
//! ten times the processor time of sending it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error as WebSocketError;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::refusal::End;

/// A console's connection to the browser.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Small, since a console's input is small and every session has one.
const READ_BUFFER: usize = 8 * 1024;
/// How long a viewer may take to hear the goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Longest text of a close frame.
const REASON_LIMIT: usize = 123;

/// Wraps an upgraded connection.
pub(crate) async fn open(upgraded: Upgraded, message_limit: usize) -> Socket {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Every message is written at once and waited for: nothing piles up here.
        .write_buffer_size(0)
        .max_write_buffer_size(1024 * 1024)
        .max_message_size(Some(message_limit))
        .max_frame_size(Some(message_limit));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// The end that an error of the connection means.
pub(crate) fn end_of(error: &WebSocketError) -> End {
    match error {
        WebSocketError::Capacity(_) => End::TooBig,
        WebSocketError::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => End::ViewerLost,
        WebSocketError::Protocol(_) | WebSocketError::Utf8(_) => End::BadFrame,
        _ => End::ViewerLost,
    }
}

/// Says goodbye with a code and a reason, and waits a moment for the viewer's.
pub(crate) async fn close(mut socket: Socket, code: CloseCode, reason: &str) {
    let mut end = reason.len().min(REASON_LIMIT);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = reason.get(..end).unwrap_or_default().to_owned();
    let frame = CloseFrame { code, reason: reason.into() };
    let goodbye = async {
        if let Err(error) = socket.send(Message::Close(Some(frame))).await {
            tracing::trace!(%error, "viewer said goodbye first, or is gone");
        }
        // Reading also sends what is owed to a viewer that closed first: its own code again.
        while let Some(Ok(_)) = socket.next().await {}
    };
    if timeout(GOODBYE, goodbye).await.is_err() {
        tracing::trace!("viewer did not say goodbye");
    }
}
