//! A role's responses at its stop: they get the whole grace period, and nothing after it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use http_front::{Site, Transport, TrustedProxies};
use quickcloud::exit::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::roles::{GOOD, scripted};
use crate::running::{Running, start};

/// A process in which a client has begun to download, and the sender of what it still lacks.
async fn downloading(grace: Duration) -> (Running, TcpStream, mpsc::Sender<Bytes>) {
    let (feed, blocks) = mpsc::channel(1);
    let (blocks, (bound, mut addr)) = (Arc::new(Mutex::new(Some(blocks))), watch::channel(None));
    let role = scripted(GOOD, move |cx| {
        let (blocks, bound) = (Arc::clone(&blocks), bound.clone());
        async move {
            let answer = get(move || async move {
                let blocks = blocks.lock().unwrap().take().unwrap();
                Body::from_stream(futures_util::stream::unfold(
                    blocks,
                    async |mut blocks: mpsc::Receiver<Bytes>| {
                        let block = blocks.recv().await?;
                        Some((Ok::<_, std::io::Error>(block), blocks))
                    },
                ))
            });
            let site = Site {
                owner: cx.kind.short,
                addr: SocketAddr::from(([127, 0, 0, 1], 0)),
                prefixes: &["/"],
                router: Router::new().fallback(answer),
                tasks: cx.tasks.clone(),
                trusted_proxies: TrustedProxies::default(),
                transport: Transport::default(),
            };
            let registration = cx.http.register(site).await.unwrap();
            bound.send_replace(Some(registration.local_addr()));
            cx.health.started();
            cx.shutdown.cancelled().await;
        }
    });
    let running = start(vec![role], |config| config.shutdown_grace = grace).await;
    let addr = addr.wait_for(Option::is_some).await.unwrap().unwrap();
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    feed.send(Bytes::from_static(b"begun")).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"begun") {
        head.push(client.read_u8().await.unwrap());
    }
    (running, client, feed)
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_a_download_as_long_as_the_grace_period_says() {
    let (running, mut client, feed) = downloading(Duration::from_secs(3600)).await;
    running.shutdown.graceful.cancel();
    tokio::time::sleep(Duration::from_secs(1800)).await;
    feed.send(Bytes::from_static(b" and ended")).await.unwrap();
    drop(feed);
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, " and ended");
    assert_eq!(running.ended().await, Outcome::Clean);
}

#[tokio::test(start_paused = true)]
async fn no_download_outlives_the_grace_period() {
    let (running, mut client, feed) = downloading(Duration::from_secs(20)).await;
    assert_eq!(running.stop().await, Outcome::Failed);
    assert!(feed.is_closed(), "whatever fed the response is gone");
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
}
