//! A viewer without a browser: tokio-tungstenite and our RFB client's half.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use management_server::ConsoleLink;
use rfb::{ClientHandshake, HandshakeError, ServerInit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WebSocketError;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::world::{LIMIT, World};

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// A console that opened.
pub(crate) struct Viewer<S = TcpStream> {
    pub(crate) socket: WebSocketStream<S>,
    pub(crate) init: ServerInit,
    /// Text messages so far.
    pub(crate) texts: Vec<serde_json::Value>,
    buffer: Vec<u8>,
}

/// A console that did not.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    /// In the RFB handshake, where viewers show it.
    pub(crate) reason: String,
    pub(crate) close: Option<(u16, String)>,
}

/// The address as API clients write it: everything raw.
pub(crate) fn raw_path(link: &ConsoleLink, extra: Option<&str>) -> String {
    let extra = extra.map(|extra| format!("&extra={extra}")).unwrap_or_default();
    format!("/websockify?token={}{extra}", link.token)
}

pub(crate) async fn upgrade(addr: SocketAddr, path: &str) -> Result<Socket, WebSocketError> {
    upgrade_with(addr, path, &[]).await
}

/// The same with further header lines.
async fn upgrade_with(
    addr: SocketAddr,
    path: &str,
    lines: &[(&'static str, &'static str)],
) -> Result<Socket, WebSocketError> {
    let stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    Ok(client_async(request(addr, path, lines)?, stream).await?.0)
}

/// The request for an upgrade.
pub(crate) fn request(
    addr: SocketAddr,
    path: &str,
    lines: &[(&'static str, &'static str)],
) -> Result<Request, WebSocketError> {
    let mut request = format!("ws://{addr}{path}").into_client_request()?;
    if !lines.iter().any(|(name, _)| *name == "sec-websocket-protocol") {
        request.headers_mut().append("sec-websocket-protocol", "binary".parse().unwrap());
    }
    for (name, value) in lines {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    Ok(request)
}

/// The close frame that ends a stream, skipping everything before.
pub(crate) async fn close_of<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Option<(u16, String)> {
    loop {
        match timeout(LIMIT, socket.next()).await.expect("a close frame or an end") {
            Some(Ok(Message::Close(frame))) => {
                return frame.map(|CloseFrame { code, reason }| (code.into(), reason.to_string()));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

pub(crate) async fn open_at(addr: SocketAddr, path: &str) -> Result<Viewer, Refused> {
    shake_hands(upgrade(addr, path).await.unwrap()).await
}

pub(crate) async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
) -> Result<Viewer<S>, Refused> {
    let mut handshake = ClientHandshake::new("");
    let mut texts = Vec::new();
    while !handshake.is_done() {
        match timeout(LIMIT, socket.next()).await.expect("the handshake goes on") {
            Some(Ok(Message::Binary(bytes))) => {
                if let Err(error) = handshake.receive(&bytes) {
                    let HandshakeError::Refused(reason) = error else { panic!("{error}") };
                    return Err(Refused { reason, close: close_of(&mut socket).await });
                }
                let output = handshake.take_output();
                if !output.is_empty() {
                    socket.send(Message::Binary(output.into())).await.unwrap();
                }
            }
            Some(Ok(Message::Text(text))) => texts.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(frame))) => {
                let close = frame.map(|f| (f.code.into(), f.reason.to_string()));
                return Err(Refused { reason: String::new(), close });
            }
            other => panic!("{other:?}"),
        }
    }
    let (init, buffer) = handshake.finish().unwrap();
    Ok(Viewer { socket, init, texts, buffer })
}

impl World {
    pub(crate) async fn open_link(&self, link: &ConsoleLink) -> Result<Viewer, Refused> {
        open_at(self.addr, &raw_path(link, None)).await
    }

    /// Asks for a link's WebSocket as a proxy in front would, with its header lines.
    pub(crate) async fn upgrade_behind(
        &self,
        link: &ConsoleLink,
        lines: &[(&'static str, &'static str)],
    ) -> Result<Socket, WebSocketError> {
        upgrade_with(self.addr, &raw_path(link, None), lines).await
    }

    /// Opens a link so.
    pub(crate) async fn open_behind(
        &self,
        link: &ConsoleLink,
        lines: &[(&'static str, &'static str)],
    ) -> Result<Viewer, Refused> {
        shake_hands(self.upgrade_behind(link, lines).await.unwrap()).await
    }

    /// Opens a console of a VM with a fresh link.
    pub(crate) async fn console(&self, number: usize) -> (ConsoleLink, Viewer) {
        let link = self.link(number).await;
        let viewer = self.open_link(&link).await.unwrap_or_else(|refused| panic!("{refused:?}"));
        (link, viewer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Viewer<S> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.socket.send(Message::Binary(bytes.to_vec().into())).await.unwrap();
    }

    pub(crate) async fn key(&mut self, keysym: u8) {
        self.send(&[4, 1, 0, 0, 0, 0, 0, keysym, 4, 0, 0, 0, 0, 0, 0, keysym]).await;
    }

    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            match timeout(LIMIT, self.socket.next()).await.expect("picture bytes") {
                Some(Ok(Message::Binary(bytes))) => self.buffer.extend_from_slice(&bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(text))) => {
                    self.texts.push(serde_json::from_str(&text).unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
        self.buffer.drain(..count).collect()
    }

    /// The next text message of that type.
    pub(crate) async fn told(&mut self, kind: &str) -> serde_json::Value {
        loop {
            if let Some(at) = self.texts.iter().position(|text| text["type"] == kind) {
                return self.texts.remove(at);
            }
            match timeout(LIMIT, self.socket.next()).await.expect("a text message") {
                Some(Ok(Message::Text(text))) => {
                    self.texts.push(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Binary(bytes))) => self.buffer.extend_from_slice(&bytes),
                Some(Ok(_)) => {}
                other => panic!("{kind}: {other:?}"),
            }
        }
    }

    pub(crate) async fn say(&mut self, text: &serde_json::Value) {
        self.socket.send(Message::text(text.to_string())).await.unwrap();
    }

    /// Asks for the whole picture, in the server's own format, and gives its first rectangle's pixels.
    pub(crate) async fn picture(&mut self) -> usize {
        let ([w1, w0], [h1, h0]) = (self.init.width.to_be_bytes(), self.init.height.to_be_bytes());
        // Encodings: raw alone.
        self.send(&[2, 0, 0, 1, 0, 0, 0, 0]).await;
        self.send(&[3, 0, 0, 0, 0, 0, w1, w0, h1, h0]).await;
        let head = self.exactly(16).await;
        assert_eq!(head[0], 0, "{head:?}");
        let side = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
        let pixels = side(8) * side(10);
        let bytes = usize::from(self.init.format.bits_per_pixel) / 8;
        self.exactly(pixels * bytes).await;
        pixels
    }

    /// Asks for the whole picture and gives the colours of the demo screen's four patches.
    pub(crate) async fn patches(&mut self) -> Vec<[u8; 3]> {
        let (w, h) = (self.init.width, self.init.height);
        let [w1, w0] = w.to_be_bytes();
        let [h1, h0] = h.to_be_bytes();
        self.send(&[3, 0, 0, 0, 0, 0, w1, w0, h1, h0]).await;
        let head = self.exactly(16).await;
        assert_eq!(head[..4], [0, 0, 0, 1]);
        let pixels = self.exactly(usize::from(w) * usize::from(h) * 4).await;
        (0..4)
            .map(|n| {
                let at = (8 * usize::from(w) + 8 + 16 * n) * 4;
                [pixels[at + 2], pixels[at + 1], pixels[at]]
            })
            .collect()
    }
}

pub(crate) const PATCHES: [[u8; 3]; 4] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]];
