//! An image server that misbehaves on request. The first path segment says how, the rest names a
//! file among the vectors or one that a test put up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

#[derive(Clone)]
pub struct ImageServer {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// Requests seen, by path, with their head.
    seen: Mutex<Vec<(String, String)>>,
    files: Mutex<HashMap<String, Vec<u8>>>,
    /// `/gated/…` sends one half, then waits for a permit.
    gate: Semaphore,
}

pub fn vector(name: &str) -> Vec<u8> {
    std::fs::read(testkit::vector(env!("CARGO_MANIFEST_DIR"), &format!("images/{name}"))).unwrap()
}

/// A RAW image of so many bytes, each part of it different.
pub fn raw(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..length as u64).map(|n| (n.wrapping_mul(n) >> 7) as u8 ^ (n >> 16) as u8).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes
}

impl ImageServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            files: Mutex::default(),
            gate: Semaphore::new(0),
        });
        let server = Self { addr, shared };
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = accepting.clone();
                tokio::spawn(async move {
                    // A client that goes away half way is part of the tests.
                    if let Err(error) = server.serve(stream).await {
                        eprintln!("image server: {error}");
                    }
                });
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.addr)
    }

    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.shared.files.lock().unwrap().insert(name.to_owned(), bytes);
    }

    /// Lets one gated response go on.
    pub fn open_gate(&self) {
        self.shared.gate.add_permits(1);
    }

    pub fn requests(&self, path: &str) -> usize {
        self.heads(path).len()
    }

    /// The request heads for a path.
    pub fn heads(&self, path: &str) -> Vec<String> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|(seen, _)| seen == path).map(|(_, head)| head.clone()).collect()
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default().trim_start_matches('/').to_owned();
        let nth = self.requests(&path);
        self.shared.seen.lock().unwrap().push((path.clone(), head.clone()));
        let (how, name) = path.split_once('/').unwrap_or((&path, ""));
        let file = self.shared.files.lock().unwrap().get(name).cloned();
        let file = file
            .unwrap_or_else(|| if name.is_empty() { Vec::new() } else { vector_or_nothing(name) });
        self.respond(&mut stream, how, name, &file, &head, nth).await?;
        stream.shutdown().await
    }

    async fn respond(
        &self,
        stream: &mut TcpStream,
        how: &str,
        name: &str,
        file: &[u8],
        head: &str,
        nth: usize,
    ) -> std::io::Result<()> {
        let half = file.len() / 2;
        match how {
            "golden" => plain(stream, file, head, "\"v1\"", file.len()).await,
            "chunked" | "chunked-cut" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                for chunk in file.chunks(5_000) {
                    stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
                    stream.write_all(chunk).await?;
                    stream.write_all(b"\r\n").await?;
                }
                if how == "chunked" { stream.write_all(b"0\r\n\r\n").await } else { Ok(()) }
            }
            "no-length" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
                stream.write_all(file).await
            }
            "r301" | "r302" | "r303" | "r307" | "r308" => {
                let to = format!("/golden/{name}");
                redirect(stream, &how[1..], &to).await
            }
            "loop" => redirect(stream, "302", &format!("/loop/{name}")).await,
            "elsewhere" => {
                let to = format!("http://127.0.0.2:{}/golden/{name}", self.addr.port());
                redirect(stream, "302", &to).await
            }
            "to-file" => redirect(stream, "302", "file:///etc/passwd").await,
            "cut" => plain_unranged(stream, file, half).await,
            "cut-once" if nth == 0 => plain(stream, file, head, "\"v1\"", half).await,
            "cut-once" => plain(stream, file, head, "\"v1\"", file.len()).await,
            // Breaks, is away for one connection, then serves without ranges.
            "restarting" if nth == 0 => plain_unranged(stream, file, half).await,
            "restarting" if nth == 1 => Ok(()),
            "restarting" => plain_unranged(stream, file, file.len()).await,
            "changed" if nth == 0 => plain(stream, file, head, "\"v1\"", half).await,
            "changed" => plain(stream, file, head, "\"v2\"", file.len()).await,
            "stall" => {
                plain_unranged(stream, file, half).await?;
                std::future::pending().await
            }
            // A byte now and then: it never stalls.
            "trickle" => {
                plain_unranged(stream, file, half).await?;
                for byte in &file[half..] {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(())
            }
            "silent" => std::future::pending().await,
            "gated" => {
                let length = file.len();
                let ok = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(ok.as_bytes()).await?;
                stream.write_all(&file[..half]).await?;
                stream.flush().await?;
                self.shared.gate.acquire().await.unwrap().forget();
                stream.write_all(&file[half..]).await
            }
            // Stops half way at first; whoever asks again gets the rest.
            "paused" | "paused-changed" if nth == 0 => {
                plain(stream, file, head, "\"v1\"", half).await?;
                std::future::pending().await
            }
            "paused" => plain(stream, file, head, "\"v1\"", file.len()).await,
            "paused-changed" => plain(stream, file, head, "\"v2\"", file.len()).await,
            "huge" => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n")
                    .await?;
                stream.write_all(file).await
            }
            "auth" if !head.to_ascii_lowercase().contains("authorization: basic dxnlcjpwdw==") => {
                stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await
            }
            "auth" => plain(stream, file, head, "\"v1\"", file.len()).await,
            _ => {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnone\n").await
            }
        }
    }
}

fn vector_or_nothing(name: &str) -> Vec<u8> {
    let path = testkit::vector(env!("CARGO_MANIFEST_DIR"), &format!("images/{name}"));
    std::fs::read(path).unwrap_or_default()
}

async fn redirect(stream: &mut TcpStream, status: &str, to: &str) -> std::io::Result<()> {
    let text = format!("HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await
}

async fn plain_unranged(stream: &mut TcpStream, file: &[u8], until: usize) -> std::io::Result<()> {
    let ok = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len());
    stream.write_all(ok.as_bytes()).await?;
    stream.write_all(&file[..until]).await
}

/// With ranges and conditions; sends the file up to `until`.
async fn plain(
    stream: &mut TcpStream,
    file: &[u8],
    head: &str,
    etag: &str,
    until: usize,
) -> std::io::Result<()> {
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let same = header("If-Range").is_none_or(|known| known == etag);
    let from = header("Range")
        .filter(|_range| same)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (status, extra, from) = match from {
        Some(from) => {
            let range =
                format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len());
            ("206 Partial Content", range, from)
        }
        None => ("200 OK", String::new(), 0),
    };
    let length = file.len() - from;
    let head =
        format!("HTTP/1.1 {status}\r\nETag: {etag}\r\n{extra}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&file[from..until.max(from)]).await
}
