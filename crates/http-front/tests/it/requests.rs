//! A role's requests run in its scope and in its span, and nothing of a run outlives it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::TokioIo;
use task_scope::TaskScope;
use testkit::CapturedLog;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use super::{any, exchange, fetch, front, head, site};

/// A body fed by the test.
fn fed() -> (mpsc::Sender<Bytes>, Router) {
    let (feed, blocks) = mpsc::channel::<Bytes>(1);
    let blocks = Arc::new(Mutex::new(Some(blocks)));
    let router = Router::new().fallback(get(move || async move {
        let blocks = blocks.lock().unwrap().take().unwrap();
        let stream = futures_util::stream::unfold(blocks, |mut blocks| async move {
            let block = blocks.recv().await?;
            Some((Ok::<_, std::io::Error>(block), blocks))
        });
        Body::from_stream(stream)
    }));
    (feed, router)
}

#[tokio::test]
async fn a_stop_waits_for_the_response_in_flight() {
    let front = front();
    let (feed, router) = fed();
    let tasks = TaskScope::new();
    let ss = site("ss", any(), &["/"]);
    let ss = front.register(super::Site { router, tasks: tasks.clone(), ..ss }).await.unwrap();
    let addr = ss.local_addr();
    let client = tokio::spawn(async move { fetch(addr, "/").await });
    feed.send(Bytes::from_static(b"one ")).await.unwrap();
    feed.send(Bytes::from_static(b"two ")).await.unwrap();
    drop(ss);
    tasks.close();
    assert_eq!(tasks.len(), 1, "the response belongs to the role's scope");
    feed.send(Bytes::from_static(b"three")).await.unwrap();
    drop(feed);
    tasks.wait().await;
    let answer = client.await.unwrap();
    // Chunks without their lengths.
    assert!(answer.is_empty() || answer.ends_with("three"), "{answer}");
}

#[tokio::test]
async fn a_killed_run_leaves_neither_response_nor_connection() {
    let front = front();
    let (feed, router) = fed();
    let tasks = TaskScope::new();
    let ss = site("ss", any(), &["/"]);
    let ss = front.register(super::Site { router, tasks: tasks.clone(), ..ss }).await.unwrap();
    let mut client = TcpStream::connect(ss.local_addr()).await.unwrap();
    client.write_all(head("/", "").as_bytes()).await.unwrap();
    let mut status = [0; 12];
    client.read_exact(&mut status).await.unwrap();
    // The client reads no more; the sender of the body still waits for its turn.
    tasks.close();
    tasks.kill();
    tasks.wait().await;
    feed.closed().await;
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest).await);
    assert!(!String::from_utf8_lossy(&rest).ends_with("0\r\n\r\n"), "cut, not completed");
    drop(ss);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let front = front();
    let (entered, inside) = oneshot::channel::<oneshot::Sender<()>>();
    let (dropped, gone) = oneshot::channel::<()>();
    let once = Arc::new(Mutex::new(Some((entered, dropped))));
    let router = Router::new().fallback(get(move || async move {
        let (entered, dropped) = once.lock().unwrap().take().unwrap();
        entered.send(dropped).unwrap();
        std::future::pending::<StatusCode>().await
    }));
    let tasks = TaskScope::new();
    let ss = site("ss", any(), &["/"]);
    let ss = front.register(super::Site { router, tasks: tasks.clone(), ..ss }).await.unwrap();
    let mut client = TcpStream::connect(ss.local_addr()).await.unwrap();
    client.write_all(head("/", "").as_bytes()).await.unwrap();
    let held = inside.await.unwrap();
    drop(client);
    tasks.close();
    tasks.wait().await;
    drop(held);
    assert!(gone.await.is_err());
}

#[tokio::test]
async fn a_panic_in_a_handler_is_answered_and_ends_nothing_else() {
    let front = front();
    let router = Router::new().fallback(get(|| async {
        if true {
            panic!("boom");
        }
    }));
    let ss = super::Site { router, ..site("ss", any(), &["/"]) };
    let ss = front.register(ss).await.unwrap();
    for _twice in 0..2 {
        assert!(fetch(ss.local_addr(), "/").await.contains("before it could answer"));
    }
}

/// Echoes one byte over an upgraded connection, in the role's scope.
fn upgrades(tasks: TaskScope) -> Router {
    Router::new().fallback(get(move |mut request: Request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tasks.spawn("echo", async move {
            tracing::info!("upgraded");
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            while let Ok(byte) = stream.read_u8().await {
                stream.write_u8(byte).await.unwrap();
            }
        });
        (StatusCode::SWITCHING_PROTOCOLS, [("upgrade", "echo"), ("connection", "upgrade")])
            .into_response()
    }))
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// A connection after its upgrade.
async fn upgraded(addr: std::net::SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.unwrap());
    }
    client.write_u8(7).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 7);
    client
}

#[tokio::test]
async fn an_upgraded_connection_counts_until_it_ends() {
    let front = front();
    let tasks = TaskScope::new();
    let cp = site("cp", any(), &["/"]);
    let cp = super::Site { router: upgrades(tasks.clone()), tasks: tasks.clone(), ..cp };
    let cp = front.register(cp).await.unwrap();
    let connections = || front.listeners()[0].connections;
    let first = upgraded(cp.local_addr()).await;
    let second = upgraded(cp.local_addr()).await;
    assert_eq!(connections(), 2);
    // An upgraded connection ends with the run of its role.
    tasks.close();
    tasks.kill();
    tasks.wait().await;
    for mut client in [first, second] {
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    }
    assert_eq!(connections(), 0);
}

/// HTTP/1.0 has no upgrade: such a request is a plain one, whatever its headers say.
#[tokio::test]
async fn an_upgrade_in_http_1_0_is_answered_as_a_plain_request() {
    let front = front();
    let router = Router::new().fallback(get(|request: Request| async move {
        format!("{}", request.headers().contains_key("upgrade"))
    }));
    let cp = front.register(super::Site { router, ..site("cp", any(), &["/"]) }).await.unwrap();
    let mut client = TcpStream::connect(cp.local_addr()).await.unwrap();
    let answer = exchange(&mut client, UPGRADE.replace("1.1", "1.0").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("false"), "{answer}");
    let mut client = TcpStream::connect(cp.local_addr()).await.unwrap();
    let twice = head("/", "Host: y\r\n");
    let answer = exchange(&mut client, twice.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("two Host headers\n"));
}

#[tokio::test]
async fn a_request_and_its_upgrade_carry_the_name_of_their_own_role() {
    let log = CapturedLog::new();
    let front = front();
    // The storage role binds the port.
    let ss = front.register(site("ss", any(), &["/userdata/"]));
    let ss = ss.instrument(tracing::error_span!("role", role = "ss")).await.unwrap();
    let tasks = TaskScope::new();
    let cp = site("cp", ss.local_addr(), &["/"]);
    let cp = super::Site { router: upgrades(tasks.clone()), tasks, ..cp };
    let cp = front.register(cp).instrument(tracing::error_span!("role", role = "cp"));
    let cp = cp.await.unwrap();
    drop(upgraded(cp.local_addr()).await);
    let text = log.text();
    let line = text.lines().find(|line| line.contains("upgraded")).unwrap();
    assert!(line.contains("role=\"cp\"") && !line.contains("role=\"ss\""), "{line}");
}
