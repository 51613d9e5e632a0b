//! An RFB client that looks through a console link, as a browser does: token from the link,
//! WebSocket, then VNC by an implementation that is not ours.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::http::Uri;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use vnc::{ClientKeyEvent, PixelFormat, VncConnector, VncEncoding, VncEvent, X11Event};

use super::screen::ByteStream;

/// A picture of more colours than this is not a blank screen.
const COLOURS: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) width: u16,
    pub(crate) height: u16,
    /// Different pixel values in the first picture.
    pub(crate) colours: usize,
}

/// Opens the console behind `link`, waits for a picture and types `key`. The error is a sentence.
pub(crate) async fn look(link: &str, key: u32) -> Result<Seen, String> {
    tokio::time::timeout(TIMEOUT, look_and_type(link, key))
        .await
        .map_err(|_elapsed| format!("no picture within {TIMEOUT:?}"))?
}

async fn look_and_type(link: &str, key: u32) -> Result<Seen, String> {
    let stream = connect(link).await?;
    let said = |error: vnc::VncError| format!("VNC through the console: {error}");
    let client = VncConnector::new(stream)
        .set_auth_method(async { Ok(String::new()) })
        .add_encoding(VncEncoding::Raw)
        .set_pixel_format(PixelFormat::bgra())
        .build()
        .map_err(said)?
        .try_start()
        .await
        .map_err(said)?
        .finish()
        .map_err(said)?;
    let mut seen = Seen::default();
    let mut colours = BTreeSet::new();
    while colours.len() <= COLOURS {
        match client.recv_event().await.map_err(said)? {
            VncEvent::SetResolution(screen) => {
                (seen.width, seen.height) = (screen.width, screen.height)
            }
            VncEvent::RawImage(_, data) => {
                colours.extend(data.chunks_exact(4).filter_map(|p| <[u8; 4]>::try_from(p).ok()));
            }
            VncEvent::Error(error) => return Err(format!("VNC through the console: {error}")),
            _ => {}
        }
    }
    seen.colours = colours.len();
    for down in [true, false] {
        let event = X11Event::KeyEvent(ClientKeyEvent { keycode: key, down });
        client.input(event).await.map_err(said)?;
    }
    // The key must be on its way before the connection ends: the next picture follows it.
    client.input(X11Event::FullRefresh).await.map_err(said)?;
    loop {
        if let VncEvent::RawImage(..) = client.recv_event().await.map_err(said)? {
            break;
        }
    }
    client.close().await.map_err(said)?;
    Ok(seen)
}

/// The WebSocket that the page behind `link` would open.
async fn connect(link: &str) -> Result<ByteStream, String> {
    let uri: Uri =
        link.parse().map_err(|error| format!("the link {link} is not a URL: {error}"))?;
    let query = uri.query().unwrap_or_default();
    let value =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let token = value("token").ok_or("the link has no token")?;
    let port = value("port").ok_or("the link has no port")?;
    let host = uri.host().ok_or("the link has no host")?;
    let address = format!("{host}:{port}");
    let tcp = TcpStream::connect(&address)
        .await
        .map_err(|error| format!("cannot connect to {address}: {error}"))?;
    let encoded = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let mut request = format!("ws://{address}/websockify?token={encoded}")
        .into_client_request()
        .map_err(|error| error.to_string())?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", hyper::http::HeaderValue::from_static("binary"));
    let limits = WebSocketConfig::default().max_message_size(Some(16 << 20));
    let (socket, _answer) = tokio_tungstenite::client_async_with_config(request, tcp, Some(limits))
        .await
        .map_err(|error| format!("no WebSocket at {address}: {error}"))?;
    Ok(ByteStream::new(socket))
}
