//! The relay over streams without sockets: its limits under a virtual clock, and TLS that starts in
//! the middle of the handshake before it.

use futures_util::{SinkExt, StreamExt};
use rfb::security::{SecurityType, vnc_response};
use rfb::vencrypt::VencryptType;
use rfb::{PixelFormat, ServerInit};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::dialler::{BoxStream, Connection, StartTls};
use crate::metrics::Metrics;
use crate::refusal::VncServerError;
use crate::sessions::{NewSession, Sessions};
use crate::upstream::Upstream;
use crate::vnc_server;

const LIMITS: BridgeLimits =
    BridgeLimits { ping: Duration::from_secs(30), idle: Duration::from_secs(180), quiet: None };

type Viewer = WebSocketStream<DuplexStream>;

/// A relay between a viewer and the other end of `vnc_server`.
async fn start<S>(vnc_server: S, limits: BridgeLimits) -> (Viewer, JoinHandle<End>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    start_with(vnc_server, limits, false).await
}

/// The same for a page that speaks control messages, or not.
async fn start_with<S>(
    vnc_server: S,
    limits: BridgeLimits,
    control: bool,
) -> (Viewer, JoinHandle<End>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (browser, ours) = duplex(64 * 1024);
    let viewer = WebSocketStream::from_raw_socket(browser, Role::Client, None).await;
    let mut browser = Browser::new(ours, 1 << 20, control);
    let relaying = tokio::spawn(async move {
        let metrics = Arc::new(Metrics::default());
        let clock = role::Host::system().clock;
        let sessions = Arc::new(Sessions::new(clock, Arc::clone(&metrics)));
        let registered = sessions.enter(NewSession {
            uuid: "s".into(),
            key: "vm".into(),
            vm: "vm".into(),
            display_name: "vm".into(),
            client: [127, 0, 0, 1].into(),
            host: "h".into(),
            port: 5900,
            upstream: Upstream::tcp("h", 5900).unwrap(),
            sid: "s".into(),
            owed: true,
        });
        let session = Arc::clone(&registered.session);
        let (counters, window) = (metrics.bytes(), None);
        let terms = Terms { session, counters, limits, window, recorder: None };
        let vm = Vm { stream: vnc_server, ahead: Vec::new(), opaque: false };
        relay(&mut browser, vm, b"", &terms).await
    });
    (viewer, relaying)
}

const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, b'k'];

#[tokio::test(start_paused = true)]
async fn a_viewer_that_answers_no_ping_is_gone_and_one_that_does_stays() {
    let (_vm, ours) = duplex(1024);
    // Nobody polls this viewer's socket, so nobody answers.
    let began = Instant::now();
    let (_viewer, relaying) = start(ours, LIMITS).await;
    assert_eq!(relaying.await.unwrap(), End::Idle);
    assert_eq!(began.elapsed().as_secs(), 180);

    let (_vm, ours) = duplex(1024);
    let (mut viewer, relaying) = start(ours, LIMITS).await;
    let watching = tokio::spawn(async move { while viewer.next().await.is_some() {} });
    sleep(Duration::from_secs(3600)).await;
    assert!(!relaying.is_finished(), "a viewer that watches a still screen was thrown out");
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_quiet_console_ends_only_where_that_is_wanted() {
    let (mut vm, ours) = duplex(1024);
    let limits = BridgeLimits { quiet: Some(Duration::from_secs(600)), ..LIMITS };
    let (viewer, relaying) = start(ours, limits).await;
    let began = Instant::now();
    let (mut sink, mut source) = viewer.split();
    let watching = tokio::spawn(async move { while source.next().await.is_some() {} });
    for turn in 0..6 {
        sleep(Duration::from_secs(400)).await;
        // What is shown counts as what is typed does.
        if turn % 2 == 1 {
            vm.write_all(b"picture").await.unwrap();
            continue;
        }
        sink.send(Message::binary(KEY.to_vec())).await.unwrap();
        let mut key = [0; 8];
        vm.read_exact(&mut key).await.unwrap();
        assert_eq!(key, KEY);
    }
    assert_eq!(relaying.await.unwrap(), End::Quiet);
    assert_eq!(began.elapsed().as_secs(), 6 * 400 + 600);
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_vnc_server_that_takes_no_input_is_lost() {
    let (_deaf, ours) = duplex(1024);
    let (mut viewer, relaying) = start(ours, LIMITS).await;
    let began = Instant::now();
    viewer.send(Message::binary(vec![0; 4096])).await.unwrap();
    assert_eq!(relaying.await.unwrap(), End::ScreenLost);
    assert_eq!(began.elapsed(), LIMITS.ping);
}

#[tokio::test]
async fn the_end_of_either_side_ends_the_relay() {
    let (vm, ours) = duplex(1024);
    let (_viewer, relaying) = start(ours, LIMITS).await;
    drop(vm);
    assert_eq!(relaying.await.unwrap(), End::ScreenClosed);
    let (_vm, ours) = duplex(1024);
    let (mut viewer, relaying) = start(ours, LIMITS).await;
    viewer.close(None).await.unwrap();
    assert_eq!(relaying.await.unwrap(), End::ViewerClosed);
}

const PASSWORD: &str = "S3cr3tVncPassw0rd-_abc";
const CHALLENGE: [u8; 16] = [7; 16];
const NAME: &str = "kvm-1.example.org";

fn screen() -> ServerInit {
    ServerInit { width: 8, height: 8, format: PixelFormat::RGB888, name: b"tls".to_vec() }
}

/// A certificate's two halves: who shows it, and who believes it.
fn tls() -> (TlsAcceptor, TlsConnector) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let issued = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)))
}

fn start_tls(connector: TlsConnector, name: &'static str) -> StartTls {
    Box::new(move |stream| {
        Box::pin(async move {
            let name = ServerName::try_from(name).unwrap();
            let connected = connector.connect(name, stream).await;
            let stream = connected.map_err(|e| VncServerError::Tls("no".to_owned(), e))?;
            Ok(Box::new(stream) as BoxStream)
        })
    })
}

async fn expect(stream: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

/// A VNC server that offers VeNCrypt with X509Vnc, up to the go-ahead for TLS.
async fn until_tls(stream: &mut DuplexStream) {
    stream.write_all(b"RFB 003.008\n").await.unwrap();
    expect(stream, b"RFB 003.008\n").await;
    stream.write_all(&[2, SecurityType::VENCRYPT.0, SecurityType::VNC_AUTH.0]).await.unwrap();
    expect(stream, &[SecurityType::VENCRYPT.0]).await;
    stream.write_all(&[0, 2]).await.unwrap();
    expect(stream, &[0, 2]).await;
    stream.write_all(&[0, 1]).await.unwrap();
    let x509_vnc = VencryptType::X509_VNC.0.to_be_bytes();
    stream.write_all(&x509_vnc).await.unwrap();
    expect(stream, &x509_vnc).await;
    stream.write_all(&[1]).await.unwrap();
}

#[tokio::test]
async fn a_stream_encrypted_in_the_middle_of_the_handshake_is_relayed() {
    let (acceptor, connector) = tls();
    let (mut vm, ours) = duplex(16 * 1024);
    let vm = tokio::spawn(async move {
        until_tls(&mut vm).await;
        let mut inside = acceptor.accept(vm).await.unwrap();
        inside.write_all(&CHALLENGE).await.unwrap();
        expect(&mut inside, &vnc_response(PASSWORD.as_bytes(), &CHALLENGE)).await;
        inside.write_all(&[0; 4]).await.unwrap();
        expect(&mut inside, &[1]).await;
        inside.write_all(&screen().encode()).await.unwrap();
        inside.flush().await.unwrap();
        inside
    });
    let start_tls = Some(start_tls(connector, NAME));
    let connection = Connection { stream: Box::new(ours), start_tls, encrypted: false };
    let entered = vnc_server::enter(connection, PASSWORD, Duration::from_secs(30)).await.unwrap();
    assert_eq!((entered.init, entered.ahead), (screen(), Vec::new()));
    assert!(entered.encrypted);
    let mut vm = vm.await.unwrap();

    let (mut viewer, relaying) = start(entered.stream, LIMITS).await;
    viewer.send(Message::binary(KEY.to_vec())).await.unwrap();
    expect(&mut vm, &KEY).await;
    // More than the buffers on the way hold, so that both directions wait for each other.
    let picture: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_be_bytes).collect();
    let sending = tokio::spawn({
        let picture = picture.clone();
        async move {
            vm.write_all(&picture).await.unwrap();
            vm.shutdown().await.unwrap();
            vm
        }
    });
    let mut received = Vec::new();
    while received.len() < picture.len() {
        if let Message::Binary(bytes) = viewer.next().await.unwrap().unwrap() {
            received.extend_from_slice(&bytes);
        }
    }
    assert!(received == picture, "the picture is not the one that was sent");
    sending.await.unwrap();
    assert_eq!(relaying.await.unwrap(), End::ScreenClosed);
}

#[tokio::test]
async fn a_vnc_server_with_the_wrong_certificate_gets_no_password() {
    let (acceptor, connector) = tls();
    let (mut vm, ours) = duplex(16 * 1024);
    let vm = tokio::spawn(async move {
        until_tls(&mut vm).await;
        acceptor.accept(vm).await.err().is_some()
    });
    let start_tls = Some(start_tls(connector, "another.example.org"));
    let connection = Connection { stream: Box::new(ours), start_tls, encrypted: false };
    let error =
        vnc_server::enter(connection, PASSWORD, Duration::from_secs(30)).await.err().unwrap();
    assert!(error.to_string().starts_with("encryption cannot be started"), "{error}");
    assert!(vm.await.unwrap(), "the server took the connection for encrypted");
}
