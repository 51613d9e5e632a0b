//! A scripted server: answers as it is told, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bedrock::Secret;
use cloudstack_api::{Client, ClientConfig, Credentials};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with one request.
pub(crate) enum Reply {
    /// Status and body.
    Answer(u16, String),
    /// As `Answer`, then closes the connection without having said so.
    AnswerAndClose(u16, String),
    /// Status line and headers in so many words, then the body.
    Head(&'static str, String),
    /// Closes without an answer.
    Close,
    /// Begins an answer of 100 bytes, sends some and closes.
    Cut,
    /// Says nothing.
    Silence,
}

/// A request as it came: method, path with query, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: String,
    /// Number of the connection, from 1.
    pub(crate) connection: usize,
}

impl Seen {
    /// A parameter, unescaped as far as tests need it.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let text = self.target.split_once('?').map_or(self.body.as_str(), |(_, query)| query);
        let value = text.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
        Some(value.replace("%3A", ":").replace("%2B", "+").replace("%20", " "))
    }
}

pub(crate) struct Server {
    pub(crate) url: String,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::start_with(replies, None).await
    }

    pub(crate) async fn start_with(
        replies: impl IntoIterator<Item = Reply>,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let replies = Arc::new(Mutex::new(replies.into_iter().collect::<VecDeque<_>>()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::clone(&replies), Arc::clone(&seen));
        tokio::spawn(async move {
            for connection in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, log, tls) = (Arc::clone(&script), Arc::clone(&log), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, connection, &script, &log).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, connection, &script, &log).await,
                            Err(_refused) => {}
                        },
                    }
                });
            }
        });
        Self { url, replies, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn all_replies_given(&self) -> bool {
        self.replies.lock().unwrap().is_empty()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(config(&[&self.url]))
    }
}

pub(crate) fn config(urls: &[&str]) -> ClientConfig {
    let key = |text: &str| Secret::new(text.to_owned());
    let credentials = Credentials { api_key: key("THE-KEY"), secret_key: key("THE-SECRET") };
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
    ClientConfig {
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        body_limit: 1 << 20,
        page_size: 2,
        ..ClientConfig::new(urls, credentials, Arc::new(tls), || SystemTime::UNIX_EPOCH)
    }
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    connection: usize,
    script: &Mutex<VecDeque<Reply>>,
    log: &Mutex<Vec<Seen>>,
) {
    while let Some(seen) = read_request(&mut stream, connection).await {
        log.lock().unwrap().push(seen);
        let reply = script.lock().unwrap().pop_front().unwrap_or(Reply::Close);
        let (status, body, close) = match reply {
            Reply::Answer(status, body) => (status, body, false),
            Reply::AnswerAndClose(status, body) => (status, body, true),
            Reply::Head(head, body) => {
                let length = body.len();
                let text = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await.unwrap();
                continue;
            }
            Reply::Close => return,
            Reply::Cut => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<listzonesresponse>";
                stream.write_all(head.as_bytes()).await.unwrap();
                return;
            }
            Reply::Silence => return std::future::pending().await,
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        if close {
            return;
        }
    }
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S, connection: usize) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    let mut words = head.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    Some(Seen { method, target, body: String::from_utf8(body).unwrap(), connection })
}

/// A TCP port that nobody listens on.
pub(crate) async fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    assert!(TcpStream::connect(addr).await.is_err());
    format!("http://{addr}")
}
