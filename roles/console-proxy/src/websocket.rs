//! The WebSocket under a console: accepting the upgrade, and closing with a reason.
//!
//! `permessage-deflate` is never negotiated: every browser offers it, and deflating a picture costs
//! ten times the processor time of sending it.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error as WebSocketError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
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

/// Whether a request asks for an upgrade at all.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_word(headers, &UPGRADE, "websocket")
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let words = value.to_str().unwrap_or_default().split(',');
        words.into_iter().any(|w| w.trim().eq_ignore_ascii_case(word))
    })
}

/// Answers an upgrade request: 101 and the future connection, or what is wrong with it.
pub(crate) fn accept(
    request: &mut Request<Body>,
) -> Result<(Response<Body>, OnUpgrade), (StatusCode, &'static str)> {
    let headers = request.headers();
    if request.method() != Method::GET || !has_word(headers, &CONNECTION, "upgrade") {
        return Err((StatusCode::BAD_REQUEST, "this is not a WebSocket handshake\n"));
    }
    if !has_word(headers, &SEC_WEBSOCKET_VERSION, "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here\n"));
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return Err((StatusCode::BAD_REQUEST, "the WebSocket handshake has no key\n"));
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_error| (StatusCode::BAD_REQUEST, "the WebSocket handshake has a bad key\n"))?;
    let binary = has_word(headers, &SEC_WEBSOCKET_PROTOCOL, "binary");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if binary {
        // Some viewers offer it and fail without it, others fail when it comes unasked.
        out.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"));
    }
    Ok((response, hyper::upgrade::on(request)))
}

/// Whether the page of this origin may open a console here. Without an allow-list every page may:
/// what admits a viewer is the link's token and nothing that a browser adds by itself.
pub(crate) fn origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(axum::http::header::ORIGIN) else { return true };
    if allowed.is_empty() || allowed.iter().any(|a| a.eq_ignore_ascii_case(origin)) {
        return true;
    }
    // The page and the WebSocket may be on two ports of one host.
    let host = |authority: &str| {
        let name = authority.rsplit_once(':').map_or(authority, |(name, port)| {
            if port.bytes().all(|b| b.is_ascii_digit()) { name } else { authority }
        });
        name.to_ascii_lowercase()
    };
    let own = text(axum::http::header::HOST).map(host);
    let theirs = origin.split_once("://").map(|(_, authority)| host(authority));
    own.is_some() && own == theirs
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn own_pages_and_listed_ones_may_open_consoles_and_without_a_list_all() {
        let listed = ["https://portal.example.org".to_owned()];
        let check = |origin: Option<&'static str>, allowed: &[String], expected: bool| {
            let mut headers = headers(&[("host", "10.0.0.1:8080")]);
            if let Some(origin) = origin {
                headers.insert("origin", HeaderValue::from_static(origin));
            }
            assert_eq!(origin_allowed(&headers, allowed), expected, "{origin:?}");
        };
        check(None, &listed, true);
        check(Some("http://10.0.0.1"), &listed, true);
        check(Some("http://10.0.0.1:80"), &listed, true);
        check(Some("https://portal.example.org"), &listed, true);
        check(Some("https://evil.example.org"), &listed, false);
        check(Some("null"), &listed, false);
        check(Some("https://evil.example.org"), &[], true);
    }

    #[test]
    fn words_in_headers_are_found_in_any_case_and_place() {
        let headers = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert!(is_upgrade(&headers));
        assert!(has_word(&headers, &CONNECTION, "upgrade"));
        assert!(!has_word(&headers, &CONNECTION, "grade"));
    }
}
