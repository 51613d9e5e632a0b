//! The one bounded accept loop behind every HTTP listener of the process.
//!
//! Roles and the admin listener differ in their routers, not in how they accept: a bound on
//! connections, a deadline for the request head, upgrades allowed, graceful end on shutdown.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use task_scope::TaskScope;

/// Who is at the other end; an extension of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    Tcp { remote: SocketAddr, local: SocketAddr },
    Unix,
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    /// The path is removed again when the loop ends.
    Unix(UnixListener, PathBuf),
}

/// Bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at the same time; further ones wait in the kernel's backlog.
    pub connections: usize,
    /// From accept to the end of the request head, and between requests.
    pub header_timeout: Duration,
    /// How long running requests may go on after shutdown.
    pub drain: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            header_timeout: Duration::from_secs(15),
            drain: Duration::from_secs(5),
        }
    }
}

/// Serves `router` on `listener` until `shutdown` fires. Upgraded connections (WebSocket) leave
/// the loop's count of requests but not its count of connections.
pub async fn serve(
    listener: Listener,
    router: Router,
    limits: HttpLimits,
    tasks: TaskScope,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_closed) => break,
            },
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener) => accepted,
        };
        let (stream, peer) = match accepted {
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
        let router = router.clone().layer(axum::Extension(peer));
        let shutdown = shutdown.clone();
        tasks.spawn("http connection", async move {
            connection(stream, router, limits, shutdown).await;
            drop(permit);
        });
    }
    if let Listener::Unix(_, path) = &listener
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::debug!(path = %path.display(), %error, "socket file was gone already");
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

async fn accept(listener: &Listener) -> std::io::Result<(Box<dyn Stream>, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, remote) = listener.accept().await?;
            // Fails only on a connection that its peer has reset.
            let gone = |_error| std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
            stream.set_nodelay(true).map_err(gone)?;
            let local = stream.local_addr().map_err(gone)?;
            Ok((Box::new(stream), Peer::Tcp { remote, local }))
        }
        Listener::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            Ok((Box::new(stream), Peer::Unix))
        }
    }
}

async fn connection(
    stream: Box<dyn Stream>,
    router: Router,
    limits: HttpLimits,
    shutdown: CancellationToken,
) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(64 * 1024);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.drain, &mut connection).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => return,
            }
        }
    };
    if let Err(error) = outcome {
        tracing::trace!(error = %bedrock::chain(&error), "connection ended");
    }
}

/// Why a listener could not be had.
#[derive(Debug)]
pub struct BindError {
    pub what: String,
    pub source: std::io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}", self.what)?;
        if self.is_privileged_port() {
            let remedy = "; run as root, grant CAP_NET_BIND_SERVICE, or use a port above 1023";
            f.write_str(remedy)?;
        }
        Ok(())
    }
}

impl BindError {
    /// A port that this user may not have.
    fn is_privileged_port(&self) -> bool {
        let denied = self.source.kind() == std::io::ErrorKind::PermissionDenied;
        denied && self.what.parse::<SocketAddr>().is_ok_and(|addr| addr.port() < 1024)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Listener {
    pub async fn tcp(addr: SocketAddr) -> Result<Self, BindError> {
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|source| BindError { what: addr.to_string(), source })?;
        Ok(Self::Tcp(listener))
    }

    /// Binds a Unix socket, mode 0660, replacing the socket file of a process that died.
    pub fn unix(path: PathBuf) -> Result<Self, BindError> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let error = |source| BindError { what: path.display().to_string(), source };
        if let Ok(metadata) = std::fs::symlink_metadata(&path)
            && metadata.file_type().is_socket()
        {
            if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                return Err(error(std::io::Error::from(std::io::ErrorKind::AddrInUse)));
            }
            std::fs::remove_file(&path).map_err(error)?;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(error)?;
        }
        let listener = UnixListener::bind(&path).map_err(error)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).map_err(error)?;
        Ok(Self::Unix(listener, path))
    }

    /// The bound address; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn fetch(addr: SocketAddr, text: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn a_port_that_is_not_ours_to_have_is_told_with_a_remedy() {
        let text = |what: &str, kind: std::io::ErrorKind| {
            BindError { what: what.to_owned(), source: kind.into() }.to_string()
        };
        use std::io::ErrorKind::{AddrInUse, PermissionDenied};
        let denied = text("0.0.0.0:80", PermissionDenied);
        assert!(denied.starts_with("cannot listen on 0.0.0.0:80; run as root"), "{denied}");
        assert_eq!(text("0.0.0.0:80", AddrInUse), "cannot listen on 0.0.0.0:80");
        assert_eq!(text("/run/x.sock", PermissionDenied), "cannot listen on /run/x.sock");
    }

    #[tokio::test]
    async fn serves_knows_its_peer_and_ends_on_shutdown() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = Router::new().route(
            "/",
            get(|axum::Extension(peer): axum::Extension<Peer>| async move {
                match peer {
                    Peer::Tcp { remote, .. } => remote.ip().to_string(),
                    Peer::Unix => "unix".to_owned(),
                }
            }),
        );
        let (tasks, shutdown) = (TaskScope::new(), CancellationToken::new());
        let limits =
            HttpLimits { header_timeout: Duration::from_millis(200), ..Default::default() };
        let loop_task =
            tasks.spawn("serve", serve(listener, router, limits, tasks.clone(), shutdown.clone()));
        let answer = fetch(addr, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
        // A client that never ends its head is cut off.
        assert!(!fetch(addr, "GET / HT").await.starts_with("HTTP/1.1 200"));
        shutdown.cancel();
        assert!(loop_task.await.unwrap().is_some());
    }
}
