//! Dialling a VM's VNC server: from an [`Upstream`] to a stream of bytes.

use std::io;
use std::time::Duration;

use role::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::refusal::VncServerError;
use crate::upstream::{Upstream, UpstreamKind};

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
    Box<dyn FnOnce(BoxStream) -> BoxFuture<'static, io::Result<BoxStream>> + Send>;

/// A connection to a VNC server, and how it may be encrypted where the server offers that.
pub(crate) struct Connection {
    pub(crate) stream: BoxStream,
    /// `None` = it cannot be.
    pub(crate) start_tls: Option<StartTls>,
}

/// The kind of an upstream that cannot be dialled. Asked before a link is used up.
pub(crate) const fn unsupported(upstream: &Upstream) -> Option<UpstreamKind> {
    match upstream {
        Upstream::Tcp { .. } => None,
        Upstream::Tunnel { .. } | Upstream::WebSocket { .. } | Upstream::HyperV { .. } => {
            Some(upstream.kind())
        }
    }
}

pub(crate) async fn dial(
    upstream: &Upstream,
    connect_timeout: Duration,
) -> Result<Connection, VncServerError> {
    match upstream {
        Upstream::Tcp { host, port } => {
            let stream = timeout(connect_timeout, tcp(host, *port))
                .await
                .map_err(|_elapsed| VncServerError::Timeout(connect_timeout))?
                .map_err(VncServerError::Connect)?;
            Ok(Connection { stream: Box::new(stream), start_tls: None })
        }
        Upstream::Tunnel { .. } | Upstream::WebSocket { .. } | Upstream::HyperV { .. } => {
            Err(VncServerError::Unsupported(upstream.kind()))
        }
    }
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
