//! Dialling a VM's VNC server: from an [`Upstream`] to a stream of bytes.

mod esxi;
mod tls;
mod tunnel;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use management_link::HostCredentials;
use role::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::HostTlsPolicy;
use crate::metrics::Metrics;
use crate::refusal::VncServerError;
use crate::upstream::Upstream;

pub(crate) use tls::of_stream;
pub use tunnel::{ReplyError, reply};

/// A host that died without a word is noticed by keep-alive.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Distance of the probes after that; the kernel sends nine.
const PROBES: Duration = Duration::from_secs(15);

/// Bytes of a VNC server, over whatever they travel.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(crate) type BoxStream = Box<dyn Stream>;

/// Puts TLS around a stream in the middle of a handshake, as the client.
pub(crate) type StartTls =
    Box<dyn FnOnce(BoxStream) -> BoxFuture<'static, Result<BoxStream, VncServerError>> + Send>;

/// A connection to a VNC server, and how it may be encrypted where the server offers that.
pub(crate) struct Connection {
    pub(crate) stream: BoxStream,
    /// `None` = it cannot be.
    pub(crate) start_tls: Option<StartTls>,
    /// Encrypted already, from the first byte on.
    pub(crate) encrypted: bool,
}

/// Who we are for hosts; fetched anew for each connection that needs it.
pub(crate) trait Credentials: Send + Sync + 'static {
    fn credentials(&self) -> BoxFuture<'_, Result<HostCredentials, String>>;
}

/// How hosts are dialled.
#[derive(Clone)]
pub(crate) struct Dialling {
    /// TCP, and on top of it whatever precedes RFB.
    pub(crate) connect_timeout: Duration,
    pub(crate) policy: HostTlsPolicy,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) metrics: Arc<Metrics>,
}

pub(crate) async fn dial(
    upstream: &Upstream,
    dialling: &Dialling,
) -> Result<Connection, VncServerError> {
    let limit = dialling.connect_timeout;
    let dialled = async {
        match upstream {
            Upstream::Tcp { host, port } => {
                let stream = tcp(host, *port).await.map_err(VncServerError::Connect)?;
                let start_tls = match dialling.policy {
                    HostTlsPolicy::Off => None,
                    _ => Some(tls::start(host.clone(), dialling.clone())),
                };
                Ok(Connection { stream: Box::new(stream), start_tls, encrypted: false })
            }
            Upstream::Tunnel { url, session } => {
                tunnel::connect(url.reveal(), session.reveal()).await
            }
            Upstream::WebSocket { url } => esxi::connect(url.reveal()).await,
            Upstream::HyperV { .. } => Err(VncServerError::Unsupported(upstream.kind())),
        }
    };
    timeout(limit, dialled).await.map_err(|_elapsed| VncServerError::Timeout(limit))?
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(PROBES);
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "cannot set keep-alive towards the VNC server");
    }
    Ok(stream)
}
