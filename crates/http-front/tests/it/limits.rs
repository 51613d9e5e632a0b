//! The accept loop: whom it serves, and how long it waits for whom.

use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use http_front::{HttpLimits, Listener, Peer, Transport, serve};
use task_scope::TaskScope;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{any, exchange, head};

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
