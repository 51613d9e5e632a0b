//! TLS on a listener: by name, replaced while it serves, and never in the way of others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_front::{
    ANYTHING_ELSE, CertificateError, Certificates, HttpLimits, Listener, Site, Transport, serve,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use task_scope::TaskScope;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{any, exchange, front, head, site};

fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

pub(super) fn key(names: &[&str]) -> Arc<CertifiedKey> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let private = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let chain = vec![made.cert.der().clone()];
    Arc::new(CertifiedKey::from_der(chain, private, &provider()).unwrap())
}

pub(super) fn certificates(keys: &[&Arc<CertifiedKey>]) -> Certificates {
    Certificates::new(keys.iter().map(|key| Arc::clone(key)).collect()).unwrap()
}

/// A connection over TLS as a client of `name`, after the bytes `before`.
pub(super) async fn connect(
    addr: SocketAddr,
    before: &[u8],
    name: &'static str,
    roots: &[&Arc<CertifiedKey>],
) -> TlsStream<TcpStream> {
    let mut store = rustls::RootCertStore::empty();
    for root in roots {
        store.add(root.cert[0].clone()).unwrap();
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(store).with_no_client_auth();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, before).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(name).unwrap();
    connector.connect(name, stream).await.unwrap()
}

/// The certificate a client of `name` is shown, and the answer it gets.
async fn visit(
    addr: SocketAddr,
    before: &[u8],
    name: &'static str,
    roots: &[&Arc<CertifiedKey>],
) -> (CertificateDer<'static>, String) {
    let mut stream = connect(addr, before, name, roots).await;
    let answer = exchange(&mut stream, head("/", "").as_bytes()).await;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    (shown, answer)
}

#[tokio::test]
async fn roles_share_a_tls_port_and_each_name_gets_its_certificate() {
    let front = front();
    let [first, second, third] =
        [key(&["a.example.org", "127.0.0.1"]), key(&["*.b.example.org"]), key(&["c.example.org"])];
    let transport =
        |keys: &[&_]| Transport { certificates: Some(certificates(keys)), ..Transport::default() };
    let cp = Site { transport: transport(&[&first, &second]), ..site("cp", any(), &["/"]) };
    let cp = front.register(cp).await.unwrap();
    let addr = cp.local_addr();
    let ss = Site { transport: transport(&[&third]), ..site("ss", addr, &["/userdata/"]) };
    let _ss = front.register(ss).await.unwrap();
    let roots = [&first, &second, &third];
    for (name, expected) in [
        ("a.example.org", &first),
        ("x.b.example.org", &second),
        ("c.example.org", &third),
        ("127.0.0.1", &first),
    ] {
        let (shown, answer) = visit(addr, b"", name, &roots).await;
        assert_eq!(shown, expected.cert[0], "{name}");
        assert!(answer.ends_with("cp"), "{name}");
    }
    // What nobody else wants has several owners, and "/" comes before it.
    let rest = Site { transport: transport(&[&third]), ..site("ss", addr, &[ANYTHING_ELSE]) };
    let rest = front.register(rest).await.unwrap();
    assert!(visit(addr, b"", "c.example.org", &roots).await.1.ends_with("cp"));
    drop(cp);
    assert!(visit(addr, b"", "c.example.org", &roots).await.1.ends_with("ss"));
    drop(rest);
    let error = front.register(site("ss", addr, &["/x/"])).await.unwrap_err();
    let expected = format!("cannot listen on {addr}: it is served with TLS already");
    assert_eq!(bedrock::chain(&error), expected);
}

#[tokio::test]
async fn certificates_are_replaced_while_they_are_served_and_a_fault_changes_nothing() {
    let front = front();
    let (old, new) = (key(&["a.example.org"]), key(&["a.example.org"]));
    let served = certificates(&[&old]);
    let transport = Transport { certificates: Some(served.clone()), ..Transport::default() };
    let cp = front.register(Site { transport, ..site("cp", any(), &["/"]) }).await.unwrap();
    let shown = async || visit(cp.local_addr(), b"", "a.example.org", &[&old, &new]).await.0;
    assert_eq!(shown().await, old.cert[0]);
    assert_eq!(served.replace(Vec::new()), Err(CertificateError::None));
    let foreign = CertifiedKey::new(new.cert.clone(), Arc::clone(&old.key));
    let error = served.replace(vec![Arc::clone(&new), Arc::new(foreign)]).unwrap_err();
    assert_eq!(error.to_string(), "certificate 2 does not belong to its key");
    assert_eq!(shown().await, old.cert[0]);
    served.replace(vec![Arc::clone(&new)]).unwrap();
    assert_eq!(shown().await, new.cert[0]);
}

#[tokio::test]
async fn a_proxy_header_stands_before_tls() {
    let front = front();
    let held = key(&["a.example.org"]);
    let transport = Transport {
        certificates: Some(certificates(&[&held])),
        proxy_protocol: vec!["127.0.0.1".parse().unwrap()],
    };
    let cp = front.register(Site { transport, ..site("cp", any(), &["/"]) }).await.unwrap();
    let header = b"PROXY TCP4 203.0.113.9 192.0.2.1 50123 443\r\n";
    let (_, answer) = visit(cp.local_addr(), header, "a.example.org", &[&held]).await;
    assert!(answer.ends_with("cp"), "{answer}");
}

/// With one handshake at a time, a client that sends nothing delays the next, and no longer than
/// its own time.
#[tokio::test]
async fn a_silent_client_keeps_nobody_from_tls_for_longer_than_its_time() {
    let held = key(&["a.example.org"]);
    let listener = Listener::tcp(any()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let transport =
        Transport { certificates: Some(certificates(&[&held])), ..Transport::default() };
    let listener = listener.over(transport).unwrap();
    let (tasks, shutdown) = (TaskScope::new(), CancellationToken::new());
    let limits = HttpLimits {
        handshakes: 2,
        handshake_timeout: Duration::from_millis(300),
        ..HttpLimits::default()
    };
    tasks.spawn("serve", serve(listener, super::says("x"), limits, tasks.clone(), shutdown));
    let mut silent = TcpStream::connect(addr).await.unwrap();
    let (_, answer) = visit(addr, b"", "a.example.org", &[&held]).await;
    assert!(answer.ends_with('x'), "{answer}");
    assert_eq!(exchange(&mut silent, b"").await, "", "the silent one was cut off");
}
