//! `/upload/<uuid>` and `/upload?uuid=`: what a browser posts to, and every answer it gets.
//!
//! A browser shows an answer to the page that asked only with the right headers on it, so they are
//! on all of them, refusals included. A refusal may come while the client still sends: its body is
//! then read and thrown away for a while, because a client that is cut off in the middle of sending
//! never sees why.

use agent_protocol::storage::PostUploadOrder;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http_front::ClientAddress;
use role::TaskScope;
use serde::Deserialize;

use super::error::UploadError;
use super::order::{self, OrderError, Sealed};
use super::page;
use super::pausing::Pausing;
use super::plan::Plan;
use super::receive::{self, drain};
use super::table::Uploads;
use super::tus;
use super::upload::Wish;
use crate::config::DownloadSettings;
use crate::live::Live;

/// Path prefix of every upload.
pub const PREFIX: &str = "/upload";

/// What the listener needs.
#[derive(Debug, Clone)]
pub struct UploadService {
    pub uploads: Uploads,
    pub(crate) downloads: Live<DownloadSettings>,
    /// The host's own name in the server's URLs.
    pub public_address: String,
    pub(super) pausing: Pausing,
    pub(super) tasks: TaskScope,
}

impl UploadService {
    pub(crate) fn new(
        uploads: Uploads,
        downloads: Live<DownloadSettings>,
        public_address: String,
        tasks: TaskScope,
    ) -> Self {
        Self { uploads, downloads, public_address, pausing: Pausing::default(), tasks }
    }
}

/// The routes below [`PREFIX`].
pub fn router(service: UploadService) -> Router {
    Router::new()
        .route("/upload", any(by_query))
        .route("/upload/", any(by_query))
        .route("/upload/page.js", get(page::script))
        .route("/upload/page.css", get(page::style))
        .route("/upload/{id}", any(by_path))
        .route("/upload/{id}/tus", any(tus::create))
        .route("/upload/{id}/tus/{token}", any(tus::resume))
        // Also a mistyped URL is refused in a way that the page that asked can read.
        .route("/upload/{id}/{other}", any(nowhere))
        .route("/upload/{id}/{other}/", any(nowhere))
        .route("/upload/{id}/{other}/{*rest}", any(nowhere))
        .layer(from_fn_with_state(service.clone(), with_cors))
        .with_state(service)
}

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS, HEAD, PATCH, DELETE");
/// The original's list, and what resumable uploads send besides.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "x-requested-with, content-type, origin, authorization, accept, client-security-token, \
     x-signature, x-metadata, x-expires, x-post-url, tus-resumable, upload-length, upload-offset, \
     upload-metadata",
);
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "location, retry-after, tus-resumable, tus-version, tus-extension, upload-offset, upload-length, \
     upload-expires",
);

/// Puts the headers on every answer that let a page of another host read it.
async fn with_cors(State(service): State<UploadService>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = next.run(request).await;
    let settings = service.uploads.settings();
    let headers = response.headers_mut();
    let allowed = if settings.origins.is_empty() {
        Some(HeaderValue::from_static("*"))
    } else {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        origin.filter(|origin| settings.origins.iter().any(|it| it.as_bytes() == origin.as_bytes()))
    };
    if let Some(allowed) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl IntoResponse for UploadError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.code(), "message": self.to_string() });
        let mut response = (self.status(), axum::Json(body)).into_response();
        let mut put = |name, value| response.headers_mut().insert(name, value);
        match self {
            Self::Method => {
                put(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
            }
            Self::Busy(_) | Self::Order(OrderError::NoKey) => {
                put(header::RETRY_AFTER, HeaderValue::from_static("30"));
            }
            Self::Suspended | Self::NotReady => {
                put(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response
    }
}

#[derive(Debug, Deserialize)]
struct Named {
    uuid: Option<String>,
}

/// As a proxy in front of the original rewrites it; without an id it is the page to upload from.
async fn by_query(
    State(service): State<UploadService>,
    query: Result<Query<Named>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let id = query.ok().and_then(|Query(named)| named.uuid);
    match id {
        Some(id) => answer(&service, id, request).await,
        None if matches!(*request.method(), Method::GET | Method::HEAD) => page::page(),
        None => answer(&service, String::new(), request).await,
    }
}

async fn by_path(
    State(service): State<UploadService>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    answer(&service, id, request).await
}

/// No upload has this path.
async fn nowhere(State(service): State<UploadService>, request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return permission();
    }
    let (head, body) = request.into_parts();
    let path = head.uri.path().chars().take(200).collect();
    refuse(&service, UploadError::Path(path), &head, Some(body))
}

/// What a browser asks before it posts.
fn permission() -> Response {
    let allow = [(header::ALLOW, "POST, OPTIONS"), (header::ACCESS_CONTROL_MAX_AGE, "600")];
    (StatusCode::OK, allow).into_response()
}

/// Success in the original's words, anything else as JSON.
async fn answer(service: &UploadService, id: String, request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return permission();
    }
    let (head, body) = request.into_parts();
    let mut body = Some(body);
    let posted = post(service, &id, &head, &mut body).await;
    match posted {
        Ok(()) => (StatusCode::OK, "upload successful.").into_response(),
        Err(error) => refuse(service, error, &head, body),
    }
}

/// The answer of a refusal; what is left of the request is read for a while.
pub(super) fn refuse(
    service: &UploadService,
    error: UploadError,
    head: &axum::http::request::Parts,
    rest: Option<Body>,
) -> Response {
    // Who comes back anyway is not waited for: the process stops.
    let rest = rest.filter(|_rest| error != UploadError::Suspended);
    let mut response = error.into_response();
    if head.headers.contains_key(header::EXPECT) {
        // The client waits for this answer before it sends. Reading would tell it to begin.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    } else if let Some(rest) = rest {
        service.tasks.spawn("drain a request", drain(rest));
    }
    response
}

async fn post(
    service: &UploadService,
    id: &str,
    head: &axum::http::request::Parts,
    body: &mut Option<Body>,
) -> Result<(), UploadError> {
    if head.method != Method::POST {
        return Err(UploadError::Method);
    }
    let id = known_id(id)?;
    let total = announced_length(&head.headers)?;
    let (plan, _order) = admit(service, &id, head).await?;
    // What is no form at all fails before the store is asked, and the server is told.
    let reader = match receive::Reader::of(&head.headers) {
        Ok(reader) => reader,
        Err(error) => {
            service.uploads.note_refusal(&id, &error).await;
            return Err(error);
        }
    };
    let client = client(head);
    let feed = service.uploads.begin(Wish { id, plan, total, client, resume: None }).await?;
    let limits = service.downloads.get().limits.clone();
    let Some(incoming) = body.take() else { return Err(UploadError::Lost) };
    let mut incoming = incoming.into_data_stream();
    let received = receive::form(&feed, reader, &mut incoming, &limits, &service.uploads).await;
    let upload = std::sync::Arc::clone(&feed.upload);
    if let Err(error) = received {
        upload.set_reason(error);
        // Without its end the upload fails.
        drop(feed);
        *body = Some(Body::from_stream(incoming));
        return upload.ended().await.map(|_| ());
    }
    let outcome = upload.ended().await;
    if outcome.is_err() {
        *body = Some(Body::from_stream(incoming));
    }
    outcome.map(|_| ())
}

/// The id as records and answers have it.
pub(super) fn known_id(text: &str) -> Result<String, UploadError> {
    match uuid::Uuid::try_parse(text) {
        Ok(id) if text.len() == 36 => Ok(id.to_string()),
        Ok(_) | Err(_) => Err(UploadError::Id(text.chars().take(60).collect())),
    }
}

fn announced_length(headers: &HeaderMap) -> Result<u64, UploadError> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length: Option<u64> = length.and_then(|text| text.parse().ok());
    length.filter(|length| *length > 0).ok_or(UploadError::Length)
}

/// Whose request it is, for people.
pub(super) fn client(head: &axum::http::request::Parts) -> Option<String> {
    head.extensions.get::<ClientAddress>().map(|client| client.0.to_string())
}

/// Checks what a request may upload. An authentic request that cannot be carried out is a failure
/// that the server is told; any other changes nothing.
pub(super) async fn admit(
    service: &UploadService,
    id: &str,
    head: &axum::http::request::Parts,
) -> Result<(Plan, PostUploadOrder), UploadError> {
    let text = |name: &'static str| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim()
    };
    let sealed = Sealed {
        signature: text("x-signature"),
        metadata: text("x-metadata"),
        expires: text("x-expires"),
    };
    let urls = possible_urls(&head.headers, head.uri.path(), id, &service.public_address);
    let keys = service.uploads.keys().all();
    let now = service.uploads.now();
    let opened = order::open(&keys, sealed, &urls, now).map_err(UploadError::from);
    let plan = opened.and_then(|order| {
        let plan = Plan::of(&order, id, &service.downloads.get())?;
        Ok((plan, order))
    });
    match plan {
        Ok(plan) => Ok(plan),
        Err(error) => {
            let is_authentic = match &error {
                UploadError::Order(error) => {
                    matches!(error, OrderError::Expired(_) | OrderError::Metadata)
                }
                _ => true,
            };
            if is_authentic {
                service.uploads.note_refusal(id, &error).await;
            } else {
                service.uploads.metrics().refused(error.code());
            }
            Err(error)
        }
    }
}

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The whole URL as the API answered it, from clients that know it.
const POST_URL: HeaderName = HeaderName::from_static("x-post-url");

/// Every URL that the server may have signed for this request: under the names that the client and
/// the proxies in front asked for, with and without a port, with and without TLS.
fn possible_urls(headers: &HeaderMap, path: &str, id: &str, own: &str) -> Vec<String> {
    let texts = |name: HeaderName| {
        let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    // A proxy in front of a proxy appends its own.
    let forwarded = texts(FORWARDED_HOST);
    let forwarded =
        forwarded.iter().flat_map(|line| line.split(',')).map(|host| host.trim().to_owned());
    let mut hosts: Vec<String> = forwarded.collect();
    hosts.extend(texts(header::HOST));
    hosts.push(own.to_owned());
    let without_port: Vec<String> = hosts
        .iter()
        .filter_map(|host| host.rsplit_once(':'))
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|(name, _)| name.to_owned())
        .collect();
    hosts.extend(without_port);
    hosts.dedup();
    // The id as the client wrote it, which is how it was signed.
    let last = path.rsplit('/').find(|part| part.eq_ignore_ascii_case(id)).unwrap_or(id);
    let told = texts(POST_URL)
        .into_iter()
        .filter(|url| url.rsplit('/').next().is_some_and(|part| part.eq_ignore_ascii_case(id)));
    let built = hosts.iter().filter(|host| !host.is_empty()).flat_map(|host| {
        ["https", "http"].map(|scheme| format!("{scheme}://{host}{PREFIX}/{last}"))
    });
    told.chain(built).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_looked_for_under_every_name() {
        let id = "5b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-host", "203-0-113-10.example.org:8443, inner".parse().unwrap());
        headers.append("host", "[fd00::1]:80".parse().unwrap());
        headers.append("x-post-url", format!("https://nat/upload/{id}").parse().unwrap());
        headers.append("x-post-url", "https://nat/upload/another".parse().unwrap());
        let path = format!("/upload/{}", id.to_uppercase());
        let urls = possible_urls(&headers, &path, id, "203.0.113.10");
        let last = id.to_uppercase();
        for host in [
            "203-0-113-10.example.org:8443",
            "203-0-113-10.example.org",
            "inner",
            "[fd00::1]:80",
            "[fd00::1]",
            "203.0.113.10",
        ] {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{host}/upload/{last}");
                assert!(urls.contains(&url), "{url} is not in {urls:?}");
            }
        }
        assert!(urls.contains(&format!("https://nat/upload/{id}")));
        assert_eq!(urls.iter().filter(|url| url.contains("another")).count(), 0);
    }
}
