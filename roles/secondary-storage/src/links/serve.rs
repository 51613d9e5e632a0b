//! `GET /userdata/<directory>/<file>`: the file behind a link, whole or in part.
//!
//! Blocks are read on the store's own threads, one ahead of the client; a slow client holds one
//! block, a stalled store ends the response at its deadline.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use role::Host;

use super::range::{Part, Version, part};
use super::{LinkName, Links, Target};
use crate::metrics::Metrics;
use crate::stores::{Opened, Store, StoreError, Stores, Work};

/// Path prefix of every link.
pub const PREFIX: &str = "/userdata/";
const BLOCK: u64 = 256 * 1024;

/// What the listener needs.
#[derive(Debug, Clone)]
pub struct LinkService {
    pub links: Links,
    pub stores: Stores,
    pub metrics: Arc<Metrics>,
    pub host: Host,
}

/// The routes below [`PREFIX`].
pub fn router(service: LinkService) -> Router {
    Router::new()
        .route("/userdata/{directory}/{file}", any(answer))
        .fallback(|| async { unknown() })
        .with_state(service)
}

fn unknown() -> Response {
    (StatusCode::NOT_FOUND, "This link does not exist, or it has expired.\n").into_response()
}

async fn answer(
    State(service): State<LinkService>,
    Path((directory, file)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let allow = [(header::ALLOW, "GET, HEAD")];
        return (StatusCode::METHOD_NOT_ALLOWED, allow).into_response();
    }
    let Ok(name) = LinkName::new(&directory, &file) else { return unknown() };
    let Some(target) = service.links.find(&name, service.host.clock.unix_ms()) else {
        return unknown();
    };
    match open(&service.stores, &target).await {
        Ok(Some(serving)) => respond(&service, serving, &name, &method, &headers),
        Ok(None) => {
            (StatusCode::GONE, "The file behind this link has been deleted.\n").into_response()
        }
        Err(error) => {
            tracing::warn!(path = %target.path, error = bedrock::chain(&error), "cannot serve a link");
            let text = "The store of this file cannot be read at the moment.\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// A file to be served, and the owner of what is read of it.
#[derive(Debug)]
struct Serving {
    store: Arc<Store>,
    file: Box<dyn Opened>,
    version: Version,
    /// Reads that have not begun when the client goes away never do.
    _work: Work,
}

/// `None` when the file is not there.
async fn open(stores: &Stores, target: &Target) -> Result<Option<Serving>, StoreError> {
    let store = stores.open(&target.store, None).await?;
    let work = Work::new();
    let opening = store.engine().open(&work, target.path.clone());
    Ok(store.run("open a file", opening).await?.map(|file| {
        let version = version(file.modified(), file.length());
        Serving { store, file, version, _work: work }
    }))
}

fn version(modified: SystemTime, length: u64) -> Version {
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let date = jiff::Timestamp::try_from(modified)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    Version { etag: format!("\"{:x}-{length:x}\"", since.as_nanos()), modified: date }
}

fn respond(
    service: &LinkService,
    serving: Serving,
    name: &LinkName,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let length = serving.file.length();
    let mut out = HeaderMap::new();
    let mut put = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            out.insert(name, value);
        }
    };
    put(header::ETAG, &serving.version.etag);
    put(header::LAST_MODIFIED, &serving.version.modified);
    put(header::ACCEPT_RANGES, "bytes");
    let (status, range) = match part(headers, &serving.version, length) {
        Part::NotModified => return (StatusCode::NOT_MODIFIED, out).into_response(),
        Part::Unsatisfiable => {
            put(header::CONTENT_RANGE, &format!("bytes */{length}"));
            return (StatusCode::RANGE_NOT_SATISFIABLE, out).into_response();
        }
        Part::Whole => (StatusCode::OK, 0..length),
        Part::Some(range) => {
            let last = range.end.saturating_sub(1);
            put(header::CONTENT_RANGE, &format!("bytes {}-{last}/{length}", range.start));
            (StatusCode::PARTIAL_CONTENT, range)
        }
    };
    put(header::CONTENT_TYPE, "application/octet-stream");
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::CONTENT_LENGTH, &(range.end - range.start).to_string());
    put(header::CONTENT_DISPOSITION, &disposition(name.file.as_str()));
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(blocks(serving, range, Arc::clone(&service.metrics)))
    };
    (status, out, body).into_response()
}

/// The name for the user's disk: plain ASCII as it is, anything else in the encoded form.
fn disposition(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.bytes().all(plain) {
        return format!("attachment; filename=\"{name}\"");
    }
    let encoded: String = name
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("attachment; filename*=UTF-8''{encoded}")
}

/// The range in blocks, each read when the one before has been taken.
fn blocks(
    serving: Serving,
    range: std::ops::Range<u64>,
    metrics: Arc<Metrics>,
) -> impl futures_util::Stream<Item = Result<Bytes, StoreError>> {
    let start = (serving, range, metrics);
    futures_util::stream::try_unfold(start, |(serving, range, metrics)| async move {
        let end = range.start.saturating_add(BLOCK).min(range.end);
        if range.start >= end {
            return Ok(None);
        }
        let reading = serving.file.read(range.start..end);
        let block = serving.store.run("read a file", reading).await?;
        metrics.served(block.len() as u64);
        Ok(Some((block, (serving, end..range.end, metrics))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_break_the_header_are_encoded() {
        assert_eq!(disposition("a-1.qcow2"), "attachment; filename=\"a-1.qcow2\"");
        assert_eq!(disposition("a\"b é"), "attachment; filename*=UTF-8''a%22b%20%C3%A9");
    }

    #[test]
    fn a_version_changes_with_time_and_length() {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_761_825_909);
        let one = version(at, 10);
        assert_eq!(one.modified, "Thu, 30 Oct 2025 12:05:09 GMT");
        assert_ne!(one.etag, version(at, 11).etag);
    }
}
