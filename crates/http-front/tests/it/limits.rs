//! The accept loop: whom it serves, and how long it waits for whom.

use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use http_front::{HttpFront, HttpLimits, Listener, Peer, Site, Transport, TrustedProxies, serve};
use task_scope::TaskScope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::tls::{certificates, key};
use super::{any, exchange, fetch, head, site};

#[tokio::test]
async fn serves_knows_its_peer_and_ends_on_shutdown() {
    let listener = Listener::tcp(any()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = Router::new().route(
        "/",
        get(|Extension(peer): Extension<Peer>| async move {
            match peer {
                Peer::Tcp { remote, .. } => remote.ip().to_string(),
                Peer::Unix => "unix".to_owned(),
            }
        }),
    );
    let (tasks, shutdown) = (TaskScope::new(), CancellationToken::new());
    let limits = HttpLimits { header_timeout: Duration::from_millis(200), ..HttpLimits::default() };
    let serving = serve(listener, router, limits, tasks.clone(), shutdown.clone());
    let serving = tasks.spawn("serve", serving);
    let send = async |text: &str| {
        exchange(&mut TcpStream::connect(addr).await.unwrap(), text.as_bytes()).await
    };
    let answer = send(&head("/", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
    // A client that never ends its head is cut off.
    assert!(!send("GET / HT").await.starts_with("HTTP/1.1 200"));
    shutdown.cancel();
    assert!(serving.await.unwrap().is_some());
}

#[tokio::test]
async fn a_proxy_that_never_ends_its_header_is_cut_off() {
    let listener = Listener::tcp(any()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let proxy_protocol = vec!["127.0.0.1".parse().unwrap()];
    let listener = listener.over(Transport { proxy_protocol, ..Transport::default() }).unwrap();
    let (tasks, shutdown) = (TaskScope::new(), CancellationToken::new());
    let limits =
        HttpLimits { handshake_timeout: Duration::from_millis(100), ..HttpLimits::default() };
    tasks.spawn("serve", serve(listener, super::says("x"), limits, tasks.clone(), shutdown));
    let mut slow = TcpStream::connect(addr).await.unwrap();
    assert_eq!(exchange(&mut slow, b"PROXY TCP4 203.0.113.9 ").await, "");
}

/// Connections that stay: each has had an answer.
async fn keep(addr: std::net::SocketAddr, count: usize, before: &[u8]) -> Vec<TcpStream> {
    let mut kept = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(&[before, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"].concat()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        kept.push(stream);
    }
    kept
}

/// Whether a connection is closed without a word.
async fn is_refused(addr: std::net::SocketAddr, bytes: &[u8]) -> bool {
    exchange(&mut TcpStream::connect(addr).await.unwrap(), bytes).await.is_empty()
}

fn limited(limit: usize) -> HttpFront {
    let front = super::front();
    front.set_connections_per_address(limit);
    front
}

#[tokio::test]
async fn an_address_has_a_bounded_number_of_connections_on_all_listeners_together() {
    let front = limited(3);
    let first = front.register(site("cp", any(), &["/"])).await.unwrap();
    let second = front.register(site("ss", any(), &["/"])).await.unwrap();
    let mut kept = keep(first.local_addr(), 2, b"").await;
    kept.extend(keep(second.local_addr(), 1, b"").await);
    let request = head("/", "");
    assert!(is_refused(first.local_addr(), request.as_bytes()).await);
    let crowded = front.crowded().unwrap();
    assert_eq!((crowded.address.to_string(), crowded.limit), ("127.0.0.1".to_owned(), 3));
    // Others are served meanwhile, and a place is free again with the connection.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(first.local_addr()).await.unwrap();
    assert!(exchange(&mut other, request.as_bytes()).await.ends_with("cp"));
    kept.pop();
    testkit::eventually("a free place", Duration::from_secs(10), || {
        let open: usize = front.listeners().iter().map(|listener| listener.connections).sum();
        (open <= 2).then_some(())
    })
    .await;
    assert_eq!(fetch(first.local_addr(), "/").await, "cp");
}

#[tokio::test]
async fn a_connection_too_many_is_closed_before_tls_begins() {
    let front = limited(0);
    let certificates = Some(certificates(&[&key(&["a.example"])]));
    let transport = Transport { certificates, ..Transport::default() };
    let cp = Site { transport, ..site("cp", any(), &["/"]) };
    let cp = front.register(cp).await.unwrap();
    // Nothing was sent that TLS could answer.
    assert!(is_refused(cp.local_addr(), b"").await);
    assert!(front.crowded().is_some());
}

#[tokio::test]
async fn clients_behind_proxies_are_counted_by_themselves() {
    let front = limited(2);
    // One that tells inside HTTP has everybody's connections.
    let trusted_proxies = TrustedProxies::from(vec!["127.0.0.0/8".parse().unwrap()]);
    let cp = Site { trusted_proxies, ..site("cp", any(), &["/"]) };
    let cp = front.register(cp).await.unwrap();
    let _kept = keep(cp.local_addr(), 5, b"").await;
    assert_eq!(fetch(cp.local_addr(), "/").await, "cp");
    // One that tells before it has a connection for each client.
    let proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
    let transport = Transport { proxy_protocol, ..Transport::default() };
    let ss = Site { transport, ..site("ss", any(), &["/"]) };
    let ss = front.register(ss).await.unwrap();
    let (one, two) = (
        b"PROXY TCP4 203.0.113.9 192.0.2.1 50123 80\r\n".as_slice(),
        b"PROXY TCP4 203.0.113.10 192.0.2.1 50123 80\r\n".as_slice(),
    );
    let _kept = keep(ss.local_addr(), 2, one).await;
    let request = head("/", "");
    let with = |header: &[u8]| [header, request.as_bytes()].concat();
    assert!(is_refused(ss.local_addr(), &with(one)).await);
    assert!(!is_refused(ss.local_addr(), &with(two)).await);
    // A health check of the proxy itself is nobody's.
    assert!(!is_refused(ss.local_addr(), &with(b"PROXY UNKNOWN\r\n")).await);
}
