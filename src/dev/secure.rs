//! One fetch over https, as a browser does that was told to trust the host's own certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bedrock::chain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const TIMEOUT: Duration = Duration::from_secs(30);
const LIMIT: u64 = 64 << 20;

/// The body of a successful answer; the certificate has to be the one in `authority`, for this address.
pub(crate) async fn fetch(
    address: SocketAddr,
    path: &str,
    authority: &Path,
) -> Result<Vec<u8>, String> {
    let fetching = exchange(address, path, authority);
    let answer = tokio::time::timeout(TIMEOUT, fetching)
        .await
        .map_err(|_elapsed| format!("https://{address} does not answer"))??;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = end
        .and_then(|at| answer.split_at_checked(at + 4))
        .ok_or_else(|| "the answer over https has no head".to_owned())?;
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(format!("https answers {status}"));
    }
    Ok(body.to_vec())
}

async fn exchange(address: SocketAddr, path: &str, authority: &Path) -> Result<Vec<u8>, String> {
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
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| format!("the certificate of https is not right: {}", chain(&error)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|e| text(&e))?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer).await.map_err(|e| text(&e))?;
    Ok(answer)
}
