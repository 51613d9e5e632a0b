//! One attempt to reach a management server: name, TCP, TLS.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use role::TaskScope;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use crate::config::{LinkConfig, LinkLimits};
use crate::endpoints::Endpoint;
use crate::tls::{HandshakeError, Material, MaterialError};
use crate::transport::{self, Connection, HandshakeFailure};

/// Idle seconds before the kernel asks whether the peer is there, and between further asks.
const KEEPALIVE_IDLE: u32 = 30;
const KEEPALIVE_INTERVAL: u32 = 10;
const KEEPALIVE_COUNT: u32 = 3;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error("cannot prepare the connection to {endpoint}")]
    Prepare { endpoint: Endpoint, source: role::tasks::BlockingError },
    #[error("cannot resolve {endpoint}")]
    Resolve { endpoint: Endpoint, source: std::io::Error },
    #[error("{0} has no address")]
    NoAddress(Endpoint),
    #[error("cannot connect to {endpoint}")]
    Tcp { endpoint: Endpoint, source: std::io::Error },
    #[error("cannot connect to {endpoint} within {timeout:?}")]
    Timeout { endpoint: Endpoint, timeout: Duration },
    #[error("cannot set up TLS with {endpoint}")]
    Handshake { endpoint: Endpoint, source: HandshakeError },
}

impl ConnectError {
    /// Somebody has to act before an attempt can succeed.
    pub(crate) fn does_not_heal(&self) -> bool {
        match self {
            Self::Material(_) => true,
            Self::Handshake { source, .. } => source.is_about_trust(),
            _ => false,
        }
    }
}

/// A link that stands, before anything was said on it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    /// What the server presented, its own certificate first.
    pub(crate) presented: Vec<CertificateDer<'static>>,
    /// It was trusted because nothing was pinned.
    pub(crate) first_use: bool,
}

/// Connects, resolves the name anew and reads certificates and keys anew.
pub(crate) async fn open(
    link: &LinkConfig,
    unwritten: Vec<CertificateDer<'static>>,
    endpoint: Endpoint,
    tasks: &TaskScope,
) -> Result<Opened, ConnectError> {
    let limits = &link.management.limits;
    let for_material = link.clone();
    let material = tasks
        .blocking("link certificates", move || Material::load(&for_material, &unwritten))
        .await
        .map_err(|source| ConnectError::Prepare { endpoint: endpoint.clone(), source })??;
    let mut stream = connect(&endpoint, limits.connect_timeout).await?;
    if let Err(error) = set_options(&stream, limits) {
        tracing::debug!(%error, "cannot set socket options");
    }
    let (peer, local) = (stream.peer_addr().ok(), stream.local_addr().ok());
    let name = server_name(&endpoint, peer);
    let handshake =
        transport::handshake(&mut stream, material.config, name, limits.handshake_timeout);
    let engine = handshake.await.map_err(|failure| {
        let source = match failure {
            HandshakeFailure::Tls(error) => {
                let here = local.map(|local| local.ip());
                HandshakeError::of(error, here, material.offered.as_deref())
            }
            HandshakeFailure::Other(error) => error,
        };
        ConnectError::Handshake { endpoint: endpoint.clone(), source }
    })?;
    let presented = engine.peer_certificates();
    let connection = transport::start(stream.into_split(), engine, limits.max_message, tasks);
    Ok(Opened { connection, peer, local, presented, first_use: material.first_use })
}

/// Whether a TCP connection can be made; it is closed at once.
pub(crate) async fn is_reachable(endpoint: &Endpoint, timeout: Duration) -> bool {
    match connect(endpoint, timeout).await {
        Ok(_stream) => true,
        Err(error) => {
            tracing::debug!(error = bedrock::chain(&error), "probe failed");
            false
        }
    }
}

/// Tries each address of the name; each gets its share of the time.
async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<TcpStream, ConnectError> {
    let too_late = || ConnectError::Timeout { endpoint: endpoint.clone(), timeout };
    let lookup = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port));
    let addresses: Vec<SocketAddr> = tokio::time::timeout(timeout, lookup)
        .await
        .map_err(|_elapsed| too_late())?
        .map_err(|source| ConnectError::Resolve { endpoint: endpoint.clone(), source })?
        .collect();
    let share = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    let mut last = ConnectError::NoAddress(endpoint.clone());
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => last = ConnectError::Tcp { endpoint: endpoint.clone(), source },
            Err(_elapsed) => last = too_late(),
        }
    }
    Err(last)
}

/// A dead network path must end the connection by itself, also while nothing is sent.
fn set_options(stream: &TcpStream, limits: &LinkLimits) -> Result<(), nix::Error> {
    let fd = stream.as_fd();
    let unacknowledged = limits.unacknowledged_timeout.as_millis();
    let unacknowledged = u32::try_from(unacknowledged).unwrap_or(u32::MAX);
    setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
    setsockopt(&fd, sockopt::KeepAlive, &true)?;
    setsockopt(&fd, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
    setsockopt(&fd, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL)?;
    setsockopt(&fd, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
    setsockopt(&fd, sockopt::TcpUserTimeout, &unacknowledged)
}

/// No name is checked; a DNS name is sent as SNI as a stock agent does.
fn server_name(endpoint: &Endpoint, peer: Option<SocketAddr>) -> ServerName<'static> {
    ServerName::try_from(endpoint.host.clone()).unwrap_or_else(|_odd| {
        let unspecified = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        ServerName::from(peer.map_or(unspecified, |peer| peer.ip()))
    })
}
