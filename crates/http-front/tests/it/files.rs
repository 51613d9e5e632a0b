//! Files of a site, sent past the HTTP library: whole, to slow clients, over TLS, and never in the
//! way of what the router answers.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Request, Response};
use http_front::{FileAnswer, FileFuture, FileThreads, Files, SendError, Site, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::tls::{certificates, connect, key};
use super::{any, exchange, fetch, front, head, site};

/// One file under `/file`; everything else is the router's.
struct OneFile {
    file: Arc<std::fs::File>,
    length: u64,
    sent: Arc<AtomicU64>,
    turns: Arc<Semaphore>,
}

impl Files for OneFile {
    fn find(&self, request: Request<()>) -> FileFuture<Option<FileAnswer>> {
        let range = match request.uri().path() {
            "/file" => 0..self.length,
            "/tail" => self.length - 5..self.length,
            "/longer" => 0..self.length + 1,
            _ => return Box::pin(async { None }),
        };
        let length = range.end - range.start;
        let head = Response::builder().header("content-length", length).body(()).unwrap();
        let threads = Arc::new(Threads(Arc::clone(&self.sent), Arc::clone(&self.turns)));
        let answer = FileAnswer { head, file: Arc::clone(&self.file), range, threads };
        Box::pin(async move { Some(answer) })
    }
}

/// One thread for all.
struct Threads(Arc<AtomicU64>, Arc<Semaphore>);

impl FileThreads for Threads {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> FileFuture<Result<(), SendError>> {
        let turns = Arc::clone(&self.1);
        Box::pin(async move {
            let _turn = turns.acquire().await?;
            Ok(tokio::task::spawn_blocking(work).await?)
        })
    }

    fn sent(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
}

const LENGTH: usize = 5_000_011;

/// No two blocks alike, so that a byte at a wrong place is seen.
fn content() -> Vec<u8> {
    let mut state = 7_u64;
    let mut bytes = Vec::with_capacity(LENGTH + 8);
    while bytes.len() < LENGTH {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(LENGTH);
    bytes
}

struct Serving {
    _registration: http_front::Registration,
    addr: SocketAddr,
    sent: Arc<AtomicU64>,
    content: Vec<u8>,
    site: Site,
}

async fn serving(transport: Transport) -> Serving {
    let content = content();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let files = OneFile {
        file: Arc::new(file),
        length: LENGTH as u64,
        sent: Arc::clone(&sent),
        turns: Arc::new(Semaphore::new(1)),
    };
    let front = Box::leak(Box::new(front()));
    let site = Site { transport, ..site("ss", any(), &["/"]) };
    let registration = front.register_files(site.clone(), Arc::new(files)).await.unwrap();
    let addr = registration.local_addr();
    Serving { _registration: registration, addr, sent, content, site }
}

/// One answer with a length, on a connection that stays.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    (head, body)
}

async fn ask(stream: &mut (impl AsyncWrite + Unpin), path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// Files, then something else, on one connection; two requests at once as well.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, serving: &Serving) {
    ask(&mut stream, "/file").await;
    let (head, body) = read_answer(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\ndate: "), "{head}");
    assert!(body == serving.content, "the bytes are those of the file");
    ask(&mut stream, "/tail").await;
    ask(&mut stream, "/tail").await;
    for _answer in 0..2 {
        assert!(read_answer(&mut stream).await.1 == serving.content[LENGTH - 5..]);
    }
    ask(&mut stream, "/other").await;
    assert_eq!(read_answer(&mut stream).await.1, b"ss");
    // The connection is the library's now, and files are not reached on it any more: the router has
    // to answer for them as well.
    ask(&mut stream, "/file").await;
    assert_eq!(read_answer(&mut stream).await.1, b"ss");
    assert_eq!(serving.sent.load(Ordering::SeqCst), LENGTH as u64 + 10);
}

#[tokio::test]
async fn files_and_other_answers_follow_each_other_on_a_connection() {
    let serving = serving(Transport::default()).await;
    converse(TcpStream::connect(serving.addr).await.unwrap(), &serving).await;
}

#[tokio::test]
async fn files_are_sent_over_tls_as_well() {
    let held = key(&["a.example.org"]);
    let certificates = Some(certificates(&[&held]));
    let serving = serving(Transport { certificates, ..Transport::default() }).await;
    converse(connect(serving.addr, b"", "a.example.org", &[&held]).await, &serving).await;
    // The end of TLS comes after the last byte.
    let mut stream = connect(serving.addr, b"", "a.example.org", &[&held]).await;
    let mut answer = Vec::new();
    stream.write_all(head("/file", "").as_bytes()).await.unwrap();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(&serving.content[LENGTH - 100..]));
}

/// The thread comes back from a client that takes nothing: with one thread, another client gets its
/// file meanwhile.
#[tokio::test]
async fn a_client_that_does_not_read_holds_no_thread() {
    let serving = serving(Transport::default()).await;
    let mut idle = Vec::new();
    for _client in 0..8 {
        let mut stream = TcpStream::connect(serving.addr).await.unwrap();
        ask(&mut stream, "/file").await;
        idle.push(stream);
    }
    let body = fetch(serving.addr, "/tail").await;
    assert_eq!(body.len(), String::from_utf8_lossy(&serving.content[LENGTH - 5..]).len());
    for mut stream in idle {
        assert!(read_answer(&mut stream).await.1 == serving.content);
    }
}

#[tokio::test]
async fn a_file_that_became_shorter_ends_the_connection_before_its_length() {
    let serving = serving(Transport::default()).await;
    let mut stream = TcpStream::connect(serving.addr).await.unwrap();
    stream.write_all(head("/longer", "").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(answer.len() - body, LENGTH, "one byte was promised more");
}

#[tokio::test]
async fn a_file_request_ends_with_the_run_of_its_role() {
    let serving = serving(Transport::default()).await;
    let mut stream = TcpStream::connect(serving.addr).await.unwrap();
    ask(&mut stream, "/file").await;
    stream.read_u8().await.unwrap();
    serving.site.tasks.close();
    serving.site.tasks.kill();
    serving.site.tasks.wait().await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is closed");
}

#[tokio::test]
async fn what_is_not_a_plain_get_of_a_file_is_the_routers() {
    let serving = serving(Transport::default()).await;
    for (request, status) in [
        ("POST /file HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n", "405"),
        ("GET /file HTTP/1.0\r\n", "200"),
        ("GET /file HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n", "200"),
        ("GET /file HTTP/1.1\r\n", "400"),
        ("GET /file HTTP/1.1\r\nHost: a\r\nHost: b\r\n", "400"),
    ] {
        let mut stream = TcpStream::connect(serving.addr).await.unwrap();
        let bytes = format!("{request}Connection: close\r\n\r\nx");
        let answer = exchange(&mut stream, bytes.as_bytes()).await;
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.contains(status), "{request}: {first}");
    }
    assert_eq!(serving.sent.load(Ordering::SeqCst), 0);
}
