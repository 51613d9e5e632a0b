//! A viewer that opens a console link as a browser does: token from the link, WebSocket, then VNC by an
//! implementation that is not ours.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hyper::http::{HeaderValue, Uri};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use vnc::{ClientKeyEvent, PixelFormat, VncClient, VncConnector, VncEncoding, VncEvent, X11Event};

use super::screen::{ByteStream, Said};
use super::secure;

/// A picture of more colours than this is not a blank screen.
const COLOURS: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Texts of the proxy that wait to be read.
const TEXTS: usize = 64;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) width: u16,
    pub(crate) height: u16,
    /// Distinct colours, counted up to a bound.
    pub(crate) colours: usize,
}

/// Who opens the link.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Client<'a> {
    /// A program that knows VNC and nothing else.
    Plain,
    /// A page, which hears what the proxy says; with a ticket it comes back.
    Page { ticket: Option<&'a str> },
}

/// An open console.
pub(crate) struct Viewer {
    client: VncClient,
    said: mpsc::Receiver<Said>,
    heard: VecDeque<Value>,
}

async fn in_time<T>(
    what: &str,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let outcome = tokio::time::timeout(TIMEOUT, work).await;
    outcome.map_err(|_elapsed| format!("{what} within {TIMEOUT:?}"))?
}

fn odd(error: vnc::VncError) -> String {
    format!("VNC through the console: {error}")
}

impl Viewer {
    /// Opens the console behind a link. The error is a sentence.
    pub(crate) async fn open(link: &str, client: Client<'_>) -> Result<Self, String> {
        let opening = async {
            let target = Target::of(link)?;
            let address = &target.address;
            let tcp = TcpStream::connect(address)
                .await
                .map_err(|error| format!("cannot connect to {address}: {error}"))?;
            Self::over(tcp, &target, client).await
        };
        in_time("no console", Box::pin(opening)).await
    }

    /// The same through the listener that speaks TLS with this certificate.
    pub(crate) async fn open_over_tls(
        link: &str,
        address: SocketAddr,
        certificate: &Path,
    ) -> Result<Self, String> {
        let opening = async {
            let stream = secure::connect(address, certificate).await?;
            Self::over(stream, &Target::of(link)?, Client::Plain).await
        };
        in_time("no console", Box::pin(opening)).await
    }

    async fn over<S>(stream: S, target: &Target, client: Client<'_>) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let Target { address, token } = target;
        let (protocols, resume) = match client {
            Client::Plain => ("binary", None),
            Client::Page { ticket } => ("quickcloud.console.1, binary", ticket),
        };
        let resume = resume.map(|ticket| format!("&resume={ticket}")).unwrap_or_default();
        let mut request = format!("ws://{address}/websockify?token={token}{resume}")
            .into_client_request()
            .map_err(|error| error.to_string())?;
        let protocols = HeaderValue::from_static(protocols);
        request.headers_mut().insert("sec-websocket-protocol", protocols);
        let limits = WebSocketConfig::default().max_message_size(Some(16 << 20));
        let (socket, _answer) = client_async_with_config(request, stream, Some(limits))
            .await
            .map_err(|error| format!("no WebSocket at {address}: {error}"))?;
        let (say, said) = mpsc::channel(TEXTS);
        let client = VncConnector::new(ByteStream::new(socket, say))
            .set_auth_method(async { Ok(String::new()) })
            .add_encoding(VncEncoding::Raw)
            .set_pixel_format(PixelFormat::bgra())
            .build()
            .map_err(odd)?
            .try_start()
            .await
            .map_err(odd)?
            .finish()
            .map_err(odd)?;
        Ok(Self { client, said, heard: VecDeque::new() })
    }

    /// Waits for a picture and types `key`, then closes.
    pub(crate) async fn look(self, key: u32) -> Result<Seen, String> {
        in_time("no picture", self.look_and_type(key)).await
    }

    async fn look_and_type(self, key: u32) -> Result<Seen, String> {
        let client = self.client;
        let mut seen = Seen::default();
        let mut colours = BTreeSet::new();
        while colours.len() <= COLOURS {
            match client.recv_event().await.map_err(odd)? {
                VncEvent::SetResolution(screen) => {
                    (seen.width, seen.height) = (screen.width, screen.height);
                }
                VncEvent::RawImage(_, data) => {
                    let pixels = data.chunks_exact(4);
                    colours.extend(pixels.filter_map(|p| <[u8; 4]>::try_from(p).ok()));
                }
                VncEvent::Error(error) => return Err(format!("VNC through the console: {error}")),
                _ => {}
            }
        }
        seen.colours = colours.len();
        for down in [true, false] {
            let event = X11Event::KeyEvent(ClientKeyEvent { keycode: key, down });
            client.input(event).await.map_err(odd)?;
        }
        // The key must be on its way before the connection ends: the next picture follows it.
        client.input(X11Event::FullRefresh).await.map_err(odd)?;
        loop {
            if let VncEvent::RawImage(..) = client.recv_event().await.map_err(odd)? {
                break;
            }
        }
        client.close().await.map_err(odd)?;
        Ok(seen)
    }

    /// The next message of this type that the proxy has for the page.
    pub(crate) async fn told(&mut self, kind: &str) -> Result<Value, String> {
        let is_it = |text: &Value| text.get("type").and_then(Value::as_str) == Some(kind);
        let hearing = async {
            loop {
                if let Some(at) = self.heard.iter().position(is_it) {
                    return Ok(self.heard.remove(at).unwrap_or_default());
                }
                match self.said.recv().await {
                    Some(Said::Text(text)) => {
                        self.heard.extend(serde_json::from_str(&text).ok());
                    }
                    other => return Err(format!("{kind} was not said but {other:?}")),
                }
            }
        };
        in_time("the page heard nothing", hearing).await
    }

    /// Code and reason with which the proxy closes.
    pub(crate) async fn closed(mut self) -> Result<(u16, String), String> {
        let closing = async {
            while let Some(said) = self.said.recv().await {
                if let Said::Closed(code, reason) = said {
                    return Ok((code, reason));
                }
            }
            Err("the connection ended without a goodbye".to_owned())
        };
        in_time("no end", closing).await
    }
}

/// The WebSocket that the page behind a link would open.
struct Target {
    address: String,
    token: String,
}

impl Target {
    fn of(link: &str) -> Result<Self, String> {
        let uri: Uri =
            link.parse().map_err(|error| format!("the link {link} is not a URL: {error}"))?;
        let query = uri.query().unwrap_or_default();
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let token = value("token").ok_or("the link has no token")?;
        let port = value("port").ok_or("the link has no port")?;
        let host = uri.host().ok_or("the link has no host")?;
        let token = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        Ok(Self { address: format!("{host}:{port}"), token })
    }
}
