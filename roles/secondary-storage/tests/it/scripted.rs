//! A server that answers each connection with the bytes a test wants, right or wrong.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub struct Scripted {
    addr: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

/// The first byte that a request asks for.
pub fn first(request: &str) -> Option<usize> {
    let lower = request.to_ascii_lowercase();
    let range = lower.split("range: bytes=").nth(1)?;
    range.split('-').next()?.parse().ok()
}

/// A head with the lines, closed by an empty one.
pub fn head(status: &str, lines: &[&str]) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\n{lines}Connection: close\r\n\r\n").into_bytes()
}

/// Everything, with further lines.
pub fn whole(image: &[u8], lines: &[&str]) -> Vec<u8> {
    let length = format!("Content-Length: {}", image.len());
    let lines: Vec<&str> = lines.iter().copied().chain([length.as_str()]).collect();
    [head("200 OK", &lines), image.to_vec()].concat()
}

/// The part from `from`, as a range.
pub fn part(image: &[u8], from: usize, lines: &[&str]) -> Vec<u8> {
    let total = image.len();
    let range = format!("Content-Range: bytes {from}-{}/{total}", total - 1);
    let length = format!("Content-Length: {}", total - from);
    let lines: Vec<&str> = lines.iter().copied().chain([range.as_str(), length.as_str()]).collect();
    [head("206 Partial Content", &lines), image[from..].to_vec()].concat()
}

/// A QCOW2 of 64 KiB in clusters of 4 KiB, all there, each different.
pub fn image() -> Vec<u8> {
    const CLUSTER: usize = 4096;
    let mut image = vec![0_u8; 21 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &12_u32.to_be_bytes());
    put(24, &(64_u64 << 10).to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &(3 * CLUSTER as u64).to_be_bytes());
    put(48, &(CLUSTER as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..21 {
        put(2 * CLUSTER + 2 * cluster, &[0, 1]);
    }
    put(3 * CLUSTER, &((1 << 63) | (4 * CLUSTER as u64)).to_be_bytes());
    for cluster in 0..16 {
        let at = (5 + cluster) * CLUSTER;
        put(4 * CLUSTER + 8 * cluster, &((1 << 63) | at as u64).to_be_bytes());
        put(at, &[cluster as u8 + 1; CLUSTER]);
    }
    image
}

impl Scripted {
    /// `script` gets how many requests came before, and the request.
    pub async fn start(script: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&seen);
        let script = Arc::new(script);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (requests, script) = (Arc::clone(&requests), Arc::clone(&script));
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let request = String::from_utf8_lossy(&request).into_owned();
                    let before = {
                        let mut requests = requests.lock().unwrap();
                        requests.push(request.clone());
                        requests.len() - 1
                    };
                    // A client that goes away half way is part of the tests.
                    let answer = script(before, &request);
                    let sent = stream.write_all(&answer).await;
                    let closed = stream.shutdown().await;
                    if let Err(error) = sent.and(closed) {
                        eprintln!("scripted server: {error}");
                    }
                });
            }
        });
        Self { addr, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.addr)
    }

    pub fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}
