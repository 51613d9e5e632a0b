//! The front as roles and browsers meet it: real sockets on loopback.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests start tasks of their own")]

mod files;
mod limits;
mod proxies;
mod requests;
mod sharing;
mod tls;

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use http_front::{HttpFront, Site, Transport, TrustedProxies};
use task_scope::TaskScope;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Any port of loopback.
fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn front() -> HttpFront {
    HttpFront::new(TaskScope::new())
}

fn site(owner: &'static str, addr: SocketAddr, prefix: &'static [&'static str]) -> Site {
    Site {
        owner,
        addr,
        prefixes: prefix,
        router: says(owner),
        tasks: TaskScope::new(),
        trusted_proxies: TrustedProxies::default(),
        transport: Transport::default(),
    }
}

fn says(text: &'static str) -> Router {
    Router::new().fallback(get(move || async move { text }))
}

/// Sends bytes, reads to the end.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset also is an end.
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n")
}

/// The body of the answer to a request with further header lines.
async fn fetch_with(addr: SocketAddr, path: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let answer = exchange(&mut stream, head(path, more).as_bytes()).await;
    answer.rsplit("\r\n").next().unwrap().to_owned()
}

async fn fetch(addr: SocketAddr, path: &str) -> String {
    fetch_with(addr, path, "").await
}
