//! Consoles over TLS: certificates from the server, from files and of our own; renewed under open
//! consoles.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::client_async;

use crate::viewer::{PATCHES, Viewer, raw_path, request, shake_hands};
use crate::world::{LIMIT, Options, World, start, vm};

/// As an unmodified 4.22 server sent it for `*.console.example`.
const KEY_STORE: &[u8] = include_bytes!("../vectors/console-tls.jks");
const PASSWORD: &str = "kVfFlopzkQl+Va0+4S35Jw==";

/// Where the role serves TLS, once it does.
pub(crate) async fn tls_address(world: &World) -> SocketAddr {
    testkit::eventually("a TLS listener", LIMIT, || {
        let listeners = world.cx.health.details()["listeners"].clone();
        let shown = listeners.as_array()?.iter().filter_map(|it| it.as_str());
        shown.filter_map(|it| it.strip_suffix(" (TLS)")?.parse().ok()).next()
    })
    .await
}

async fn tls(
    addr: SocketAddr,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap().dangerous();
    let verifier = tls_material::HostVerifier::new(tls_material::HostTrust::Any, &[]);
    let config = builder.with_custom_certificate_verifier(verifier);
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from("127-0-0-1.console.example").unwrap();
    connector.connect(name, stream).await.unwrap()
}

async fn shown(addr: SocketAddr) -> CertificateDer<'static> {
    tls(addr, rustls::ALL_VERSIONS).await.get_ref().1.peer_certificates().unwrap()[0].clone()
}

async fn console(world: &World, addr: SocketAddr, number: usize) -> Viewer<TlsStream<TcpStream>> {
    let link = world.link(number).await;
    let stream = tls(addr, rustls::ALL_VERSIONS).await;
    let request = request(addr, &raw_path(&link, None), &[]).unwrap();
    shake_hands(client_async(request, stream).await.unwrap().0).await.unwrap()
}

/// Writes a certificate and its key, as certbot and the like do.
fn write_pair(directory: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    std::fs::write(directory.join("c.pem"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("k.pem"), made.signing_key.serialize_pem()).unwrap();
}

async fn head(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    text.split("\r\n\r\n").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_key_store_brings_tls_with_consoles_of_both_versions() {
    let world = start(Options {
        role: "tls_listen = [\"127.0.0.1:0\"]\nurl_domain = \"*.console.example\"".into(),
        server: Box::new(|config| {
            config.console.key_store = Some((KEY_STORE.to_vec(), PASSWORD.into()));
        }),
        ..Options::default()
    })
    .await;
    let addr = tls_address(&world).await;
    let status = || world.cx.health.details()["certificate"].clone();
    testkit::eventually("the server's certificate", LIMIT, || {
        (status()["source"] == "management server").then_some(())
    })
    .await;
    assert_eq!(status()["problem"], serde_json::Value::Null, "{}", status());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = tls(addr, &[version]).await;
        let head = head(&mut stream, "/resource/noVNC/vnc.html").await;
        assert!(head.contains("strict-transport-security: max-age=2592000"), "{head}");
    }
    // A browser came under a name that the certificate has not.
    let problem = status()["problem"].as_str().unwrap().to_owned();
    assert_eq!(problem, "browsers come as other.example, which the certificate is not for");
    let mut viewer = console(&world, addr, 1).await;
    assert_eq!(viewer.patches().await, PATCHES);
    // Plain consoles go on, and say nothing about TLS.
    assert_eq!(world.console(1).await.1.patches().await, PATCHES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_under_a_hundred_open_consoles() {
    let directory = tempfile::tempdir().unwrap();
    write_pair(directory.path(), "old.example");
    let files = format!(
        "tls_listen = [\"127.0.0.1:0\"]\ncertificate_file = \"{0}/c.pem\"\ncertificate_key_file = \"{0}/k.pem\"",
        directory.path().display()
    );
    let world = start(Options { role: files, ..Options::default() }).await;
    let addr = tls_address(&world).await;
    testkit::eventually("the files' certificate", LIMIT, || {
        (world.cx.health.details()["certificate"]["names"][0] == "old.example").then_some(())
    })
    .await;
    let old = shown(addr).await;
    for number in 1..=100 {
        world.server.put_vm(vm(number, world.screen_addr));
    }
    let mut open = join_all((1..=100).map(|number| console(&world, addr, number))).await;
    write_pair(directory.path(), "new.example");
    testkit::eventually("the renewed certificate", LIMIT, || {
        (world.cx.health.details()["certificate"]["names"][0] == "new.example").then_some(())
    })
    .await;
    assert_ne!(shown(addr).await, old);
    for viewer in &mut open {
        assert_eq!(viewer.patches().await, PATCHES);
    }
    // A damaged file pushes nothing out.
    let renewed = shown(addr).await;
    std::fs::write(directory.path().join("c.pem"), "torn").unwrap();
    testkit::eventually("the damage is told", LIMIT, || {
        let role::Health::Degraded { reason } = world.cx.health.health() else { return None };
        reason.contains("cannot take certificates from").then_some(())
    })
    .await;
    assert_eq!(shown(addr).await, renewed);
}

#[tokio::test(flavor = "multi_thread")]
async fn named_listeners_are_served_with_a_certificate_of_our_own_until_there_is_a_better_one() {
    let role = "tls_listen = [\"127.0.0.1:0\"]".to_owned();
    let world = start(Options { role, ..Options::default() }).await;
    let addr = tls_address(&world).await;
    let status = world.cx.health.details()["certificate"].clone();
    assert_eq!(status["source"], "self-signed");
    assert_eq!(status["names"][0], "127.0.0.1");
    assert_eq!(console(&world, addr, 1).await.patches().await, PATCHES);
}
