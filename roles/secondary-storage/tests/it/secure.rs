//! Downloads over https and through a proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use agent_protocol::storage::{
    Certificates, DownloadStatus, ImageFormat, Proxy, SecStorageSetupCommand,
};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::bench::{Bench, STORE, error_of, store_to};
use crate::images::vector;

/// Serves the ISO over TLS with a certificate of its own making; gives it as PEM.
async fn https_server() -> (SocketAddr, String) {
    https_server_for("127.0.0.1").await
}

/// The certificate is a CA and the server's at once, as `openssl req -x509` makes it.
async fn https_server_for(name: &str) -> (SocketAddr, String) {
    let parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    https_server_with(parameters).await
}

/// Takes connections of TLS with a certificate of its own making; gives it as PEM.
pub fn acceptor(parameters: &rcgen::CertificateParams) -> (TlsAcceptor, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = parameters.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.pem())
}

async fn https_server_with(mut parameters: rcgen::CertificateParams) -> (SocketAddr, String) {
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let (acceptor, pem) = acceptor(&parameters);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us breaks the handshake; that is what is tested.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let image = vector("tiny.iso");
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /tiny.iso HTTP/1.1"));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", image.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&image).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (addr, pem)
}

#[tokio::test]
async fn https_needs_a_trusted_certificate_and_the_servers_own_root_counts() {
    let (addr, pem) = https_server().await;
    let bench: Bench = Bench::new().await;
    let mut command = bench.download("unused", ImageFormat::Iso);
    command.url = Some(format!("https://{addr}/tiny.iso").into());
    let answer = bench.finish(&command).await;
    let text = error_of(&answer);
    assert!(text.contains("is not trusted") && text.contains("ca_file"), "{text}");
    let setup = SecStorageSetupCommand {
        store: Some(store_to()),
        sec_url: Some(STORE.into()),
        certs: Some(Certificates { root_ca_cert: Some(pem), ..Certificates::default() }),
        ..SecStorageSetupCommand::default()
    };
    assert!(bench.ask(&setup).await.base.result);
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
}

#[tokio::test]
async fn a_certificate_from_the_operators_file_counts() {
    let (addr, pem) = https_server().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let bench: Bench = Bench::with(&format!("ca_file = \"{}\"", file.path().display())).await;
    let mut command = bench.download("unused", ImageFormat::Iso);
    command.url = Some(format!("https://{addr}/tiny.iso").into());
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
}

#[tokio::test]
async fn a_certificate_of_the_operators_file_is_still_only_for_its_own_name() {
    let (addr, pem) = https_server_for("elsewhere.example").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let bench: Bench = Bench::with(&format!("ca_file = \"{}\"", file.path().display())).await;
    let mut command = bench.download("unused", ImageFormat::Iso);
    command.url = Some(format!("https://{addr}/tiny.iso").into());
    let answer = bench.finish(&command).await;
    assert!(error_of(&answer).contains("not valid for name"), "{answer:?}");
}

#[tokio::test]
async fn an_expired_certificate_and_an_unknown_issuer_are_named() {
    let mut parameters = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let (expired, pem) = https_server_with(parameters).await;
    let mut parameters = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "House Mirror");
    let (unknown, _) = https_server_with(parameters).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let trusting: Bench = Bench::with(&format!("ca_file = \"{}\"", file.path().display())).await;
    let bench: Bench = Bench::new().await;
    for (bench, addr, expected) in
        [(&trusting, expired, "Expired"), (&bench, unknown, "House Mirror")]
    {
        let mut command = bench.download("unused", ImageFormat::Iso);
        command.url = Some(format!("https://{addr}/tiny.iso").into());
        let answer = bench.finish(&command).await;
        assert!(error_of(&answer).contains(expected), "{expected}: {answer:?}");
    }
}

/// A proxy that opens tunnels, for whoever gives the credentials; gives the heads it saw.
async fn tunnels(
    to: SocketAddr,
    accept: bool,
) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tx, rx) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(client.read_u8().await.unwrap());
            }
            tx.send(String::from_utf8(request).unwrap()).await.unwrap();
            if !accept {
                let refusal =
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                client.write_all(refusal).await.unwrap();
                continue;
            }
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            let mut server = TcpStream::connect(to).await.unwrap();
            // Either end may go away first.
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                eprintln!("tunnel: {error}");
            }
        }
    });
    (addr, rx)
}

#[tokio::test]
async fn https_goes_through_a_proxy_by_connect_with_its_credentials() {
    let (addr, pem) = https_server_for("images.invalid").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let (proxy, mut seen) = tunnels(addr, true).await;
    let line = |proxy| {
        let ca = file.path().display();
        format!("ca_file = \"{ca}\"\nproxy = \"http://user:pw@{proxy}\"")
    };
    let bench: Bench = Bench::with(&line(proxy)).await;
    let mut command = bench.download("unused", ImageFormat::Iso);
    command.url = Some("https://images.invalid/tiny.iso".into());
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    let head = seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("connect images.invalid:443 http/1.1\r\n"), "{head}");
    assert!(head.contains("proxy-authorization: basic dxnlcjpwdw=="), "{head}");
    let (proxy, _seen) = tunnels(addr, false).await;
    let bench: Bench = Bench::with(&line(proxy)).await;
    let mut command = bench.download("unused", ImageFormat::Iso);
    command.url = Some("https://images.invalid/tiny.iso".into());
    let answer = bench.finish(&command).await;
    let text = error_of(&answer);
    assert!(text.contains("proxy") && !text.contains("pw@"), "{text}");
}

/// Passes requests for `http://images.invalid/…` on to `to`; gives the heads it saw.
async fn proxy_server(to: SocketAddr) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tx, rx) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 8192];
            let read = client.read(&mut request).await.unwrap();
            let head = String::from_utf8_lossy(&request[..read]).into_owned();
            let inner = head.replacen("http://images.invalid", "", 1);
            tx.send(head).await.unwrap();
            let mut server = TcpStream::connect(to).await.unwrap();
            server.write_all(inner.as_bytes()).await.unwrap();
            tokio::io::copy_bidirectional(&mut client, &mut server).await.unwrap();
        }
    });
    (addr, rx)
}

#[tokio::test]
async fn a_proxy_from_the_command_or_the_configuration_resolves_names_itself() {
    let bench: Bench = Bench::new().await;
    let (addr, mut seen) = proxy_server(bench.images.addr).await;
    let mut command = bench.download("unused", ImageFormat::Iso);
    command.url = Some("http://images.invalid/golden/tiny.iso".into());
    let answer = bench.finish(&command).await;
    assert!(
        error_of(&answer).starts_with("cannot find the address of images.invalid"),
        "{answer:?}"
    );
    let proxy = |port: u16| Proxy {
        host: Some("127.0.0.1".to_owned()),
        port: i32::from(port),
        user_name: Some("user".to_owned()),
        password: Some("pw".into()),
    };
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    command.proxy = Some(proxy(closed));
    let answer = bench.finish(&command).await;
    let expected = format!("Connection refused (through the web proxy http://127.0.0.1:{closed})");
    assert_eq!(error_of(&answer), expected);
    command.proxy = Some(proxy(addr.port()));
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    let head = seen.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.contains("proxy-authorization: basic dxnlcjpwdw=="), "{head}");
    let other: Bench = Bench::with(&format!("proxy = \"http://{addr}\"")).await;
    let mut command = other.download("unused", ImageFormat::Iso);
    command.url = Some("http://images.invalid/golden/tiny.iso".into());
    let answer = other.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
}
