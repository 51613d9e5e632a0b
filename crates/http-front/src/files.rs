//! Files that are sent past the HTTP library, from the page cache to the socket.
//!
//! A role's router answers everything. Beside it a site may have [`Files`]: before the HTTP library
//! sees a connection, a plain GET for a path of such a site is looked at here, and if the answer is
//! (a part of) a file of this machine, it is sent by `sendfile`, or through TLS in large writes, on
//! the threads of whoever has the file. Whatever is not plain (another method or version, a body, an
//! upgrade, an expectation) and whatever is not a file (an error, a redirection) goes to the library
//! with every byte, and the connection stays there. So nothing here decides what is right: a request
//! that is not understood is not answered here.
//!
//! A thread works on one connection for a slice of time and gives it back when the client does not
//! take more, so that slow clients hold no thread and fast ones share them.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderName, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Request, Response, Version};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::client::{ClientAddress, client_address};
use crate::front::{FrontRoutes, Route};
use crate::send::{self, Sender, Step};
use crate::serve::{Connection, Peer};
use crate::stream::Ahead;
use crate::strict;

/// A future of a trait's method.
pub type FileFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a site has files for.
pub trait Files: Send + Sync {
    /// The answer to a GET when it is (a part of) a file of this machine; `None` for everything that
    /// the site's router is to answer. The request has [`ClientAddress`] as an extension.
    fn find(&self, request: Request<()>) -> FileFuture<Option<FileAnswer>>;
}

/// Threads on which a file may be read: it may lie on a server that does not answer.
pub trait FileThreads: Send + Sync {
    /// Runs the work, waiting for a thread first if need be. An error ends the connection.
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> FileFuture<Result<(), SendError>>;

    /// So many bytes of the file were sent.
    fn sent(&self, bytes: u64);
}

/// Why a file could not be sent to its end.
pub type SendError = Box<dyn std::error::Error + Send + Sync>;

/// A response whose body is a part of a file.
pub struct FileAnswer {
    /// Status and headers, the length of the body among them.
    pub head: Response<()>,
    pub file: Arc<File>,
    pub range: Range<u64>,
    pub threads: Arc<dyn FileThreads>,
}

impl fmt::Debug for FileAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileAnswer").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Longest request head that is looked at here.
const HEAD_LIMIT: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// A client that takes nothing for so long has left.
const STALL: Duration = Duration::from_secs(120);

/// A connection as it comes to HTTP.
pub(crate) type Http = Ahead<Sender>;

/// What the front has to be asked for each request.
pub(crate) struct Lookup<'a> {
    pub(crate) routes: &'a FrontRoutes,
    pub(crate) peer: &'a Peer,
    pub(crate) connection: &'a Connection,
    /// How long a request head may take.
    pub(crate) header_timeout: Duration,
}

impl Lookup<'_> {
    /// Sends files until a request comes that is not for one; gives the connection back for that,
    /// `None` when it is over.
    pub(crate) async fn serve(&self, mut http: Http, shutdown: &CancellationToken) -> Option<Http> {
        let Peer::Tcp { local, .. } = self.peer else { return Some(http) };
        loop {
            let looking = tokio::time::timeout(self.header_timeout, look(&mut http));
            let (request, length) = match shutdown.run_until_cancelled(looking).await?.ok()? {
                Look::Get(request, length) => (*request, length),
                Look::Other => return Some(http),
                Look::Over => return None,
            };
            let Some(route) = self.route(*local, request.uri().path()) else { return Some(http) };
            let closes = says(request.headers(), &CONNECTION, "close");
            let Some(request) = self.admit(&route, request) else { return Some(http) };
            match answer(&route, request, http, length, closes).await? {
                Answered::Sent(after) => http = after,
                Answered::Not(before) => return Some(before),
            }
        }
    }

    fn route(&self, local: SocketAddr, path: &str) -> Option<Route> {
        self.routes.find(local, path).filter(|route| route.files.is_some())
    }

    /// The request as the site's router would see it.
    fn admit(&self, route: &Route, request: Request<()>) -> Option<Request<()>> {
        let mut request = request.map(|()| Body::empty());
        strict::admit(&mut request).ok()?;
        if let Some(remote) = self.connection.remote {
            let trusted = route.site.trusted_proxies.current();
            let client = ClientAddress(client_address(remote, request.headers(), &trusted));
            request.extensions_mut().insert(client);
        }
        Some(request.map(drop))
    }
}

enum Answered {
    Sent(Http),
    /// Nothing was read or written.
    Not(Http),
}

/// Finds and sends in the scope of the site's role, so that neither outlives its run.
async fn answer(
    route: &Route,
    request: Request<()>,
    http: Http,
    length: usize,
    closes: bool,
) -> Option<Answered> {
    let files = Arc::clone(route.files.as_ref()?);
    let (done, outcome) = oneshot::channel();
    let work = async move {
        let Some(answer) = files.find(request).await else {
            drop(done.send(Answered::Not(http)));
            return;
        };
        match send(http, answer, length, closes).await {
            Ok(http) => drop(done.send(Answered::Sent(http))),
            Err(error) => tracing::debug!(error = &*error, "a file was not sent to its end"),
        }
    };
    route.site.tasks.spawn_in(route.span.clone(), "file request", work);
    match outcome.await {
        Ok(Answered::Sent(_)) if closes => None,
        Ok(answered) => Some(answered),
        Err(_ended) => None,
    }
}

async fn send(
    mut http: Http,
    answer: FileAnswer,
    length: usize,
    closes: bool,
) -> Result<Http, SendError> {
    let FileAnswer { head, file, mut range, threads } = answer;
    http.consume(length);
    http.write_all(&head_bytes(head, closes)).await?;
    http.flush().await?;
    while !range.is_empty() {
        let before = range.start;
        let (done, outcome) = oneshot::channel();
        let reading = Arc::clone(&file);
        let work = move || {
            let step = send::slice(&mut http.inner, &reading, &mut range);
            drop(done.send((http, range, step)));
        };
        threads.run(Box::new(work)).await?;
        let step;
        (http, range, step) = outcome.await?;
        threads.sent(range.start.saturating_sub(before));
        if matches!(step?, Step::Blocked) {
            tokio::time::timeout(STALL, send::socket(&http.inner).writable()).await??;
        }
    }
    // What is encrypted and not taken yet, and the end of TLS.
    let ending = async { if closes { http.shutdown().await } else { http.flush().await } };
    tokio::time::timeout(STALL, ending).await??;
    Ok(http)
}

#[expect(clippy::disallowed_methods, reason = "the HTTP library dates its answers by it, too")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Status line and headers as they are sent.
fn head_bytes(head: Response<()>, closes: bool) -> Vec<u8> {
    let (mut parts, ()) = head.into_parts();
    let date = httpdate::fmt_http_date(now());
    if let Ok(date) = HeaderValue::from_str(&date) {
        parts.headers.insert(DATE, date);
    }
    if closes {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(piece);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// What the bytes at the beginning of a request are.
#[derive(Debug)]
enum Look {
    /// A plain GET, with the length of its head.
    Get(Box<Request<()>>, usize),
    /// For the HTTP library to deal with.
    Other,
    /// The client has left between two requests.
    Over,
}

async fn look(http: &mut Http) -> Look {
    loop {
        if let Some(look) = judge(http.unread()) {
            return look;
        }
        match http.look().await {
            Ok(0) if http.unread().is_empty() => return Look::Over,
            Ok(0) => return Look::Other,
            Ok(_more) => {}
            Err(_reset) => return Look::Over,
        }
    }
}

/// `None` while more bytes are needed.
fn judge(bytes: &[u8]) -> Option<Look> {
    const METHOD: &[u8] = b"GET ";
    let begins = METHOD.iter().zip(bytes).all(|(expected, found)| expected == found);
    if !begins {
        return Some(Look::Other);
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            Some(plain(&parsed).map_or(Look::Other, |get| Look::Get(Box::new(get), length)))
        }
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_LIMIT => None,
        Ok(httparse::Status::Partial) | Err(_) => Some(Look::Other),
    }
}

/// The request, unless there is more to it than its head.
fn plain(parsed: &httparse::Request<'_, '_>) -> Option<Request<()>> {
    const MORE: [HeaderName; 4] = [CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, EXPECT];
    if parsed.version != Some(1) {
        return None;
    }
    let mut request = Request::get(parsed.path?).version(Version::HTTP_11).body(()).ok()?;
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        if MORE.contains(&name) {
            return None;
        }
        request.headers_mut().append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(request)
}

/// Whether a header with a list of words has this one.
fn says(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut words = values.flat_map(|value| value.split(','));
    words.any(|found| found.trim().eq_ignore_ascii_case(word))
}

/// Plain or TLS, for a connection that files may be sent on.
pub(crate) fn over(sender: Sender) -> Http {
    Ahead::from(sender)
}

/// The sender of a connection without TLS.
pub(crate) fn without_tls(stream: send::Plain) -> Sender {
    Either::Left(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &str, expected: &str) {
        let found = match judge(bytes.as_bytes()) {
            None => "more".to_owned(),
            Some(Look::Other) => "other".to_owned(),
            Some(Look::Over) => "over".to_owned(),
            Some(Look::Get(request, length)) => format!("{} {length}", request.uri()),
        };
        assert_eq!(found, expected, "{bytes:?}");
    }

    #[test]
    fn only_a_plain_get_is_looked_at() {
        check("", "more");
        check("GE", "more");
        check("GET /a HTTP/1.1\r\nHost: x\r\n", "more");
        check("GET /a?b HTTP/1.1\r\nHost: x\r\n\r\nGET", "/a?b 30");
        for other in [
            "P",
            "HEAD / HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.0\r\n\r\n",
            "GET /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /a HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "GET /a HTTP/1.1\r\nExpect: 100-continue\r\n\r\n",
            "GET /a HTTP/1.1\r\nNo colon\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET \u{1} HTTP/1.1\r\n\r\n",
        ] {
            check(other, "other");
        }
        check(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_LIMIT)), "other");
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1)), "other");
    }

    #[test]
    fn a_head_is_written_with_date_and_end() {
        let head = Response::builder().status(206).header("etag", "\"a\"").body(()).unwrap();
        let text = String::from_utf8(head_bytes(head, true)).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 206 Partial Content\r\netag: \"a\"\r\ndate: "),
            "{text}"
        );
        assert!(text.ends_with(" GMT\r\nconnection: close\r\n\r\n"), "{text}");
    }
}
