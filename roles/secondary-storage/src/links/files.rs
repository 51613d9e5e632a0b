//! A file of a store as the answer to a GET or HEAD: whole or in part.
//!
//! Two ways lead to the client with the same head. A plain GET of a file that has a descriptor goes
//! from the page cache to the socket (see `http_front::Files`). Everything else is read in blocks on
//! the store's own threads, two ahead of the client; a slow client holds these, a stalled store ends
//! the response at its deadline.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use http_front::{FileAnswer, FileFuture, FileThreads, SendError};

use super::range::{Part, Version, part};
use crate::metrics::Metrics;
use crate::stores::{InstallPath, LocalFile, Opened, Store, StoreError, Work};

const BLOCK: u64 = 256 * 1024;
/// Blocks that are read while the client takes the one before them.
const AHEAD: usize = 2;
/// 9999-12-31T23:59:59Z, the last moment that an HTTP date can name.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// A file to be served, and the owner of what is read of it.
#[derive(Debug)]
pub struct Serving {
    store: Arc<Store>,
    file: Box<dyn Opened>,
    version: Version,
    /// Reads that have not begun when the client goes away never do.
    work: Work,
}

/// An answer: its head, and the part of the file that follows.
#[derive(Debug)]
pub struct Answer {
    head: Response<()>,
    content: Option<(Serving, Range<u64>)>,
}

impl Serving {
    /// `None` when the file is not there.
    pub async fn open(store: Arc<Store>, path: InstallPath) -> Result<Option<Self>, StoreError> {
        let work = Work::new();
        let opening = store.engine().open(&work, path);
        Ok(store.run("open a file", opening).await?.map(|file| {
            let version = version(file.modified(), file.length());
            Self { store, file, version, work }
        }))
    }

    /// The answer to a GET or HEAD; `name` is what the client is to call the file.
    pub fn answer(self, method: &Method, headers: &HeaderMap, name: Option<&str>) -> Answer {
        let length = self.file.length();
        let mut out = HeaderMap::new();
        let mut put = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                out.insert(name, value);
            }
        };
        put(header::ETAG, &self.version.etag);
        put(header::LAST_MODIFIED, &httpdate::fmt_http_date(self.version.modified));
        put(header::ACCEPT_RANGES, "bytes");
        let (status, range) = match part(headers, &self.version, length) {
            Part::NotModified => (StatusCode::NOT_MODIFIED, None),
            Part::Failed => (StatusCode::PRECONDITION_FAILED, None),
            Part::Unsatisfiable => {
                put(header::CONTENT_RANGE, &format!("bytes */{length}"));
                (StatusCode::RANGE_NOT_SATISFIABLE, None)
            }
            Part::Whole => (StatusCode::OK, Some(0..length)),
            Part::Some(range) => {
                let last = range.end.saturating_sub(1);
                put(header::CONTENT_RANGE, &format!("bytes {}-{last}/{length}", range.start));
                (StatusCode::PARTIAL_CONTENT, Some(range))
            }
        };
        if let Some(range) = &range {
            put(header::CONTENT_TYPE, "application/octet-stream");
            put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
            put(header::CONTENT_LENGTH, &(range.end - range.start).to_string());
            if let Some(name) = name {
                put(header::CONTENT_DISPOSITION, &disposition(name));
            }
        }
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = out;
        let content = range.filter(|_| method == Method::GET).map(|range| (self, range));
        Answer { head, content }
    }
}

impl Answer {
    /// For the router.
    pub fn response(self, metrics: &Arc<Metrics>) -> Response<Body> {
        let body = match self.content {
            Some((serving, range)) => {
                Body::from_stream(blocks(serving, range, Arc::clone(metrics)))
            }
            None => Body::empty(),
        };
        self.head.map(|()| body)
    }

    /// For the way past the router, when there is a body and the file has a descriptor.
    pub fn file(self, metrics: &Arc<Metrics>) -> Option<FileAnswer> {
        let (serving, range) = self.content?;
        let local = serving.file.local()?;
        let file = Arc::clone(&local.file);
        let threads = Threads { local, serving, metrics: Arc::clone(metrics) };
        Some(FileAnswer { head: self.head, file, range, threads: Arc::new(threads) })
    }
}

/// The store's threads, for one answer.
struct Threads {
    local: LocalFile,
    serving: Serving,
    metrics: Arc<Metrics>,
}

impl FileThreads for Threads {
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> FileFuture<Result<(), SendError>> {
        let store = Arc::clone(&self.serving.store);
        let sending = self.local.run(self.serving.work.owned(), work);
        Box::pin(async move { Ok(store.run("send a file", sending).await?) })
    }

    fn sent(&self, bytes: u64) {
        self.metrics.served(bytes);
    }
}

fn version(modified: SystemTime, length: u64) -> Version {
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Version {
        etag: format!("\"{:x}-{length:x}\"", since.as_nanos()),
        // Whole seconds, as the header has them.
        modified: UNIX_EPOCH + Duration::from_secs(since.min(LAST_DATE).as_secs()),
    }
}

/// The name for the user's disk: plain ASCII as it is, anything else in the encoded form beside a
/// plain one for clients that do not know that form.
fn disposition(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.bytes().all(plain) {
        return format!("attachment; filename=\"{name}\"");
    }
    let encoded: String = name
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    let simple: String = name
        .chars()
        .map(
            |c| if u8::try_from(c).is_ok_and(|byte| plain(byte) || byte == b' ') { c } else { '_' },
        )
        .collect();
    format!("attachment; filename=\"{simple}\"; filename*=UTF-8''{encoded}")
}

/// The range in blocks.
fn blocks(
    serving: Serving,
    range: Range<u64>,
    metrics: Arc<Metrics>,
) -> impl futures_util::Stream<Item = Result<Bytes, StoreError>> {
    let start = (serving, range, FuturesOrdered::new(), metrics);
    futures_util::stream::try_unfold(start, |(serving, mut range, mut reads, metrics)| async move {
        while range.start < range.end && reads.len() < AHEAD {
            let end = range.start.saturating_add(BLOCK).min(range.end);
            let (store, reading) =
                (Arc::clone(&serving.store), serving.file.read(range.start..end));
            reads.push_back(async move { store.run("read a file", reading).await });
            range.start = end;
        }
        let Some(block) = reads.next().await.transpose()? else { return Ok(None) };
        metrics.served(block.len() as u64);
        Ok(Some((block, (serving, range, reads, metrics))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_break_the_header_are_encoded() {
        assert_eq!(disposition("a-1.qcow2"), "attachment; filename=\"a-1.qcow2\"");
        let odd = "attachment; filename=\"a_b _\"; filename*=UTF-8''a%22b%20%C3%A9";
        assert_eq!(disposition("a\"b é"), odd);
    }

    #[test]
    fn a_version_changes_with_time_and_length_and_any_time_is_a_date() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let date = |time| httpdate::fmt_http_date(version(time, 10).modified);
        assert_eq!(date(at(1_761_825_909)), "Thu, 30 Oct 2025 12:05:09 GMT");
        assert_ne!(version(at(1), 10).etag, version(at(1), 11).etag);
        assert_ne!(version(at(1), 10).etag, version(at(2), 10).etag);
        assert_eq!(date(at(300_000_000_000)), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(date(UNIX_EPOCH - Duration::from_secs(9)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
