//! Exchanges over https, as a browser does that was told to trust the host's own certificate, and one
//! over plain http with headers and a body.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bedrock::chain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const TIMEOUT: Duration = Duration::from_secs(30);
const LIMIT: u64 = 64 << 20;

/// Status and body.
pub(crate) type Reply = (u16, Vec<u8>);

/// The body of a successful answer; the certificate has to be the one in `authority`, for this address.
pub(crate) async fn fetch(
    address: SocketAddr,
    path: &str,
    authority: &Path,
) -> Result<Vec<u8>, String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let (status, body) = send(address, request.as_bytes(), Some(authority)).await?;
    if status == 200 { Ok(body) } else { Err(format!("https answers {status}")) }
}

/// One exchange on a connection of its own, over TLS when there is an `authority`.
pub(crate) async fn send(
    address: SocketAddr,
    request: &[u8],
    authority: Option<&Path>,
) -> Result<Reply, String> {
    let exchanging = async {
        match authority {
            Some(authority) => talk(connect(address, authority).await?, request).await,
            None => {
                let stream = TcpStream::connect(address).await.map_err(|e| chain(&e))?;
                talk(stream, request).await
            }
        }
    };
    let answer = tokio::time::timeout(TIMEOUT, exchanging)
        .await
        .map_err(|_elapsed| format!("{address} does not answer"))??;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = end
        .and_then(|at| answer.split_at_checked(at + 4))
        .ok_or_else(|| format!("the answer of {address} has no head"))?;
    let head = String::from_utf8_lossy(head);
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| format!("the answer of {address} has no status"))?;
    Ok((status, body.to_vec()))
}

/// A connection over TLS; the certificate has to be the one in `authority`, for this address.
pub(crate) async fn connect(
    address: SocketAddr,
    authority: &Path,
) -> Result<TlsStream<TcpStream>, String> {
    let text = |error: &(dyn std::error::Error + 'static)| chain(error);
    let certificate = CertificateDer::from_pem_file(authority).map_err(|e| text(&e))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).map_err(|e| text(&e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| text(&e))?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.map_err(|e| text(&e))?;
    let name = ServerName::from(address.ip());
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connecting.map_err(|error| format!("the certificate of https is not right: {}", chain(&error)))
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Result<Vec<u8>, String> {
    stream.write_all(request).await.map_err(|e| chain(&e))?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer).await.map_err(|e| chain(&e))?;
    Ok(answer)
}
