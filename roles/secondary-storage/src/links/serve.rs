//! `GET /userdata/<directory>/<file>`: the file behind a link, whole or in part.
//!
//! Blocks are read on the store's own threads, one ahead of the client; a slow client holds one
//! block, a stalled store ends the response at its deadline.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;

use super::range::{Part, Version, part};
use super::{LinkName, Links, Target};
use crate::commands::Commands;
use crate::metrics::Metrics;
use crate::stores::{Lane, Store, StoreError, Stores};

/// Path prefix of every link.
pub const PREFIX: &str = "/userdata/";
const BLOCK: u64 = 256 * 1024;

/// What the listener needs.
#[derive(Debug, Clone)]
pub struct LinkService {
    pub links: Links,
    pub stores: Stores,
    pub metrics: Arc<Metrics>,
}

impl LinkService {
    /// The listener's view of what the handlers work with.
    pub fn of(commands: &Commands) -> Self {
        Self {
            links: commands.links.clone(),
            stores: commands.stores.clone(),
            metrics: Arc::clone(&commands.metrics),
        }
    }
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
    let Some(target) = service.links.find(&name) else { return unknown() };
    match open(&service.stores, &target).await {
        Ok(Some((store, opened))) => respond(&service, store, opened, &name, &method, &headers),
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

/// A file to be served.
#[derive(Debug)]
struct Opened {
    file: File,
    length: u64,
    version: Version,
}

/// `None` when the file is not there.
async fn open(
    stores: &Stores,
    target: &Target,
) -> Result<Option<(Arc<Store>, Opened)>, StoreError> {
    let store = stores.open(&target.store, None).await?;
    let path = target.path.clone();
    let opened = store
        .run("open a file", Lane::Quick, move |root| {
            let found = root.parent_of(&path).and_then(|(dir, name)| dir.open_file(name));
            let file = match found {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let metadata = file.metadata()?;
            let version = version(metadata.modified()?, metadata.len());
            Ok(Some(Opened { file, length: metadata.len(), version }))
        })
        .await?;
    Ok(opened.map(|opened| (store, opened)))
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
    store: Arc<Store>,
    opened: Opened,
    name: &LinkName,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let Opened { file, length, version } = opened;
    let mut out = HeaderMap::new();
    let mut put = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            out.insert(name, value);
        }
    };
    put(header::ETAG, &version.etag);
    put(header::LAST_MODIFIED, &version.modified);
    put(header::ACCEPT_RANGES, "bytes");
    let (status, range) = match part(headers, &version, length) {
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
        Body::from_stream(blocks(store, file, range, Arc::clone(&service.metrics)))
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
    store: Arc<Store>,
    file: File,
    range: std::ops::Range<u64>,
    metrics: Arc<Metrics>,
) -> impl futures_util::Stream<Item = Result<Bytes, StoreError>> {
    let start = (store, Arc::new(file), range, metrics);
    futures_util::stream::try_unfold(start, |(store, file, range, metrics)| async move {
        let count = (range.end - range.start).min(BLOCK);
        if count == 0 {
            return Ok(None);
        }
        let (reader, at) = (Arc::clone(&file), range.start);
        let block = store
            .run_on_file("read a file", move || {
                let mut block = vec![0_u8; usize::try_from(count).unwrap_or(0)];
                reader.read_exact_at(&mut block, at)?;
                Ok(Bytes::from(block))
            })
            .await?;
        metrics.served(count);
        let rest = range.start + count..range.end;
        Ok(Some((block, (store, file, rest, metrics))))
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
