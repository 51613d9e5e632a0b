//! A bound socket and how bytes become HTTP on it: plain or TLS, with or without PROXY headers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bedrock::net::Network;
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::tls::{Certificates, server_config};

/// How bytes become HTTP on a TCP listener; the default is plain HTTP.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// TLS with these certificates.
    pub certificates: Option<Certificates>,
    /// Peers that send a PROXY header before everything else. They must send it; nobody else may.
    pub proxy_protocol: Vec<Network>,
}

/// A bound listener.
pub struct Listener {
    pub(crate) socket: Socket,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) proxy_protocol: Vec<Network>,
}

/// What connections are accepted from.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    /// The path is removed again when the accept loop ends.
    Unix(UnixListener, PathBuf),
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::of(Socket::Tcp(listener))
    }
}

impl Listener {
    const fn of(socket: Socket) -> Self {
        Self { socket, tls: None, proxy_protocol: Vec::new() }
    }

    /// Binds a TCP address, for plain HTTP.
    pub async fn tcp(addr: SocketAddr) -> Result<Self, BindError> {
        let listener = TcpListener::bind(addr).await;
        Ok(listener.map_err(|source| BindError::new(addr, source))?.into())
    }

    /// Binds a Unix socket, mode 0660, replacing the socket file of a process that died.
    pub fn unix(path: PathBuf) -> Result<Self, BindError> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let error = |source| BindError::new(path.display(), source);
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
        Ok(Self::of(Socket::Unix(listener, path)))
    }

    /// Speaks `transport` on a TCP listener.
    pub fn over(mut self, transport: Transport) -> Result<Self, BindError> {
        self.proxy_protocol = transport.proxy_protocol;
        match transport.certificates {
            Some(certificates) => self.over_tls(Arc::new(certificates), None),
            None => Ok(self),
        }
    }

    /// Speaks TLS, and asks clients for a certificate that `clients` checks; requests have it as
    /// [`ClientCertificate`](crate::ClientCertificate).
    pub fn over_mutual_tls(
        self,
        certificates: Certificates,
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Result<Self, BindError> {
        self.over_tls(Arc::new(certificates), Some(clients))
    }

    pub(crate) fn over_tls(
        mut self,
        resolver: Arc<dyn ResolvesServerCert>,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<Self, BindError> {
        let config = server_config(resolver, clients).map_err(|source| {
            let what = self.local_addr().map_or_else(|| "a socket".to_owned(), |a| a.to_string());
            BindError::new(what, std::io::Error::other(source))
        })?;
        self.tls = Some(config.into());
        Ok(self)
    }

    /// The bound address; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }
}

/// Why a listener could not be had.
#[derive(Debug)]
pub struct BindError {
    pub what: String,
    pub source: std::io::Error,
}

impl BindError {
    pub(crate) fn new(what: impl fmt::Display, source: std::io::Error) -> Self {
        Self { what: what.to_string(), source }
    }

    /// A port that this user may not have.
    fn is_privileged_port(&self) -> bool {
        let denied = self.source.kind() == std::io::ErrorKind::PermissionDenied;
        denied && self.what.parse::<SocketAddr>().is_ok_and(|addr| addr.port() < 1024)
    }
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

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
