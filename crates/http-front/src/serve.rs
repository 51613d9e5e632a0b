//! The one bounded accept loop behind every HTTP listener of the process.
//!
//! Roles and the admin listener differ in their routers, not in how they accept: a bound on
//! connections, a deadline for everything before HTTP (PROXY header, TLS handshake) and for the
//! request head, upgrades allowed, a graceful end on shutdown. A connection counts until its last
//! owner drops it; after an upgrade that is whoever holds the upgraded stream.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use task_scope::TaskScope;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::addresses::TooMany;
use crate::client::ClientAddress;
use crate::files::{self, Http, Lookup};
use crate::front::FrontRoutes;
use crate::listener::{Listener, Socket};
use crate::send::Plain;
use crate::stream::{Ahead, Counted, Stream};
use crate::strict;

/// Who is at the other end of the connection; an extension of every request. Behind a proxy that is
/// the proxy: see [`ClientAddress`] for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    Tcp { remote: SocketAddr, local: SocketAddr },
    Unix,
}

/// The process at the other end of a Unix socket; an extension of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixPeer {
    pub uid: u32,
    pub gid: u32,
}

/// The certificate that the client showed and the listener's check accepted; an extension of its
/// requests.
#[derive(Debug, Clone)]
pub struct ClientCertificate(pub Arc<CertificateDer<'static>>);

/// Bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at the same time; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// TLS handshakes at the same time; further ones wait, within their time.
    pub handshakes: usize,
    /// From accept to the end of PROXY header and TLS handshake.
    pub handshake_timeout: Duration,
    /// From there to the end of the request head, and between requests.
    pub header_timeout: Duration,
    /// How long running requests may go on after shutdown.
    pub drain: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            handshakes: 64,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(15),
            drain: Duration::from_secs(5),
        }
    }
}

/// What the front knows of the connection a request came on.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// The other end, as the PROXY header has it where there is one.
    pub(crate) remote: Option<IpAddr>,
    /// Who it is, where the socket or the handshake tells.
    unix: Option<UnixPeer>,
    certificate: Option<ClientCertificate>,
    /// Ends the connection at once.
    pub(crate) cut: CancellationToken,
}

impl Connection {
    fn of(remote: Option<IpAddr>) -> Self {
        Self { remote, unix: None, certificate: None, cut: CancellationToken::new() }
    }
}

/// Serves `router` on `listener` until `shutdown` fires.
pub async fn serve(
    listener: Listener,
    router: Router,
    limits: HttpLimits,
    tasks: TaskScope,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let what = Served { router, routes: None };
    serve_counted(listener, what, limits, tasks, shutdown, places).await;
}

/// What a listener serves.
pub(crate) struct Served {
    pub(crate) router: Router,
    /// Where files are found, for listeners of the front.
    pub(crate) routes: Option<FrontRoutes>,
}

/// The same, with the places of its connections to look at.
pub(crate) async fn serve_counted(
    listener: Listener,
    Served { router, routes }: Served,
    limits: HttpLimits,
    tasks: TaskScope,
    shutdown: CancellationToken,
    places: Arc<Semaphore>,
) {
    let Listener { socket, tls, proxy_protocol } = listener;
    let handshakes = Semaphore::new(limits.handshakes);
    let server = Server { router, routes, limits, tls, proxy_protocol, handshakes, shutdown };
    let server = Arc::new(server);
    let accepting = accept_all(&socket, &server, &tasks, &places);
    if server.shutdown.run_until_cancelled(accepting).await.is_some() {
        tracing::error!("the accept loop ended by itself");
    }
    if let Socket::Unix(_, path) = &socket
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::debug!(path = %path.display(), %error, "socket file was gone already");
    }
}

async fn accept_all(
    socket: &Socket,
    server: &Arc<Server>,
    tasks: &TaskScope,
    places: &Arc<Semaphore>,
) {
    loop {
        // Nobody else takes places, so the one seen free here is free after the accept.
        let Ok(free) = places.acquire().await else { return };
        drop(free);
        let accepted = match accept(socket).await {
            Ok(accepted) => accepted,
            // The peer is gone already; nobody else waits for that.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                // Out of file descriptors or memory: does not end the loop.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
        let server = Arc::clone(server);
        tasks.spawn("http connection", async move {
            match accepted {
                Accepted::Tcp(stream, peer) => server.tcp(stream, peer, place).await,
                Accepted::Unix(stream) => {
                    let peer = stream.peer_cred().ok();
                    let unix = peer.map(|peer| UnixPeer { uid: peer.uid(), gid: peer.gid() });
                    let stream = Box::new(Counted::new(stream, place));
                    let connection = Connection { unix, ..Connection::of(None) };
                    server.http(stream, Peer::Unix, connection).await;
                }
            }
        });
    }
}

enum Accepted {
    Tcp(TcpStream, (SocketAddr, SocketAddr)),
    Unix(UnixStream),
}

async fn accept(socket: &Socket) -> std::io::Result<Accepted> {
    match socket {
        Socket::Tcp(listener) => {
            let (stream, remote) = listener.accept().await?;
            // Fails only on a connection that its peer has reset.
            let gone = |_error| std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
            stream.set_nodelay(true).map_err(gone)?;
            let local = stream.local_addr().map_err(gone)?;
            Ok(Accepted::Tcp(stream, (remote, local)))
        }
        Socket::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
    }
}

/// What every connection of a listener needs.
struct Server {
    router: Router,
    routes: Option<FrontRoutes>,
    limits: HttpLimits,
    tls: Option<tokio_rustls::TlsAcceptor>,
    proxy_protocol: Vec<bedrock::net::Network>,
    handshakes: Semaphore,
    shutdown: CancellationToken,
}

/// Why a connection never came to HTTP.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    ProxyHeader(#[from] crate::stream::ReadHeaderError),
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    #[error("PROXY header and TLS handshake took too long")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error("the listener ends")]
    Stopped,
}

impl Server {
    async fn tcp(
        &self,
        stream: TcpStream,
        (remote, local): (SocketAddr, SocketAddr),
        place: OwnedSemaphorePermit,
    ) {
        let stream = Ahead::from(Counted::new(stream, place));
        let has_header = self.proxy_protocol.iter().any(|network| network.contains(remote.ip()));
        let opened = self.open(stream, has_header, remote).await;
        match opened {
            Ok((http, source, certificate)) => {
                let of = Connection::of(Some(source.ip().to_canonical()));
                let connection = Connection { certificate, ..of };
                let peer = Peer::Tcp { remote, local };
                if let Some(http) = self.files(http, &peer, &connection).await {
                    self.http(Box::new(http), peer, connection).await;
                }
            }
            Err(OpenError::TooMany(TooMany { address, limit })) => {
                tracing::warn!(%address, limit, "an address has too many connections");
            }
            Err(error) => {
                tracing::debug!(%remote, error = bedrock::chain(&error), "connection refused");
            }
        }
    }

    /// Counts the connection as one of its client's.
    fn count(&self, stream: &mut Plain, client: IpAddr) -> Result<(), TooMany> {
        if let Some(routes) = &self.routes {
            stream.inner.of_address = routes.count(client)?;
        }
        Ok(())
    }

    /// Everything between accept and HTTP.
    async fn open(
        &self,
        mut stream: Plain,
        has_header: bool,
        remote: SocketAddr,
    ) -> Result<(Http, SocketAddr, Option<ClientCertificate>), OpenError> {
        if !has_header {
            self.count(&mut stream, remote.ip())?;
            if self.tls.is_none() {
                return Ok((files::over(files::without_tls(stream)), remote, None));
            }
        }
        let opening = async {
            let source = if has_header { stream.proxy_header().await? } else { None };
            if let Some(source) = source {
                self.count(&mut stream, source.ip())?;
            }
            let mut certificate = None;
            let sender = match &self.tls {
                Some(acceptor) => {
                    let _turn =
                        self.handshakes.acquire().await.map_err(|_closed| OpenError::Stopped)?;
                    let tls = acceptor.accept(stream).await.map_err(OpenError::Handshake)?;
                    let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    certificate =
                        shown.map(|it| ClientCertificate(Arc::new(it.clone().into_owned())));
                    Either::Right(Box::new(tls))
                }
                None => files::without_tls(stream),
            };
            Ok((files::over(sender), source.unwrap_or(remote), certificate))
        };
        tokio::select! {
            opened = tokio::time::timeout(self.limits.handshake_timeout, opening) => opened?,
            () = self.shutdown.cancelled() => Err(OpenError::Stopped),
        }
    }

    /// Sends files as long as nothing else is asked for; `None` when the connection is over.
    async fn files(&self, http: Http, peer: &Peer, connection: &Connection) -> Option<Http> {
        let Some(routes) = &self.routes else { return Some(http) };
        let header_timeout = self.limits.header_timeout;
        let lookup = Lookup { routes, peer, connection, header_timeout };
        lookup.serve(http, &self.shutdown).await
    }

    async fn http(&self, stream: Box<dyn Stream>, peer: Peer, connection: Connection) {
        let cut = connection.cut.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let request = prepare(request, &peer, &connection);
            let router = self.router.clone();
            async move {
                match request {
                    Ok(request) => router.oneshot(request).await,
                    Err(refusal) => {
                        let text = format!("{refusal}\n");
                        Ok((StatusCode::BAD_REQUEST, [(CONNECTION, "close")], text).into_response())
                    }
                }
            }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            // What an upload is read by; each piece costs several threads a turn.
            .max_buf_size(128 * 1024);
        let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::pin!(serving);
        let outcome = tokio::select! {
            outcome = &mut serving => outcome,
            () = cut.cancelled() => return,
            () = self.shutdown.cancelled() => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    outcome = &mut serving => outcome,
                    () = cut.cancelled() => return,
                    () = tokio::time::sleep(self.limits.drain) => return,
                }
            }
        };
        if let Err(error) = outcome {
            tracing::trace!(error = bedrock::chain(&error), "connection ended");
        }
    }
}

/// The request as handlers see it, or what is wrong with one that breaks HTTP's own rules.
fn prepare(
    request: Request<Incoming>,
    peer: &Peer,
    connection: &Connection,
) -> Result<Request<Body>, &'static str> {
    let mut request = request.map(Body::new);
    strict::admit(&mut request)?;
    let extensions = request.extensions_mut();
    extensions.insert(peer.clone());
    extensions.insert(connection.clone());
    if let Some(unix) = connection.unix {
        extensions.insert(unix);
    }
    if let Some(certificate) = &connection.certificate {
        extensions.insert(certificate.clone());
    }
    if let Some(remote) = connection.remote {
        extensions.insert(ClientAddress(remote));
    }
    Ok(request)
}
