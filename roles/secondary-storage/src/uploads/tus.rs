//! Uploads that go on where they broke off, by the tus protocol 1.0: creation, termination,
//! expiration.
//!
//! | request | what |
//! |---|---|
//! | `OPTIONS /upload/<uuid>/tus` | what the protocol can do here |
//! | `POST /upload/<uuid>/tus` | begins, signed as any upload; `Location` is where its bytes go |
//! | `HEAD <location>` | how many bytes are here |
//! | `PATCH <location>` | more bytes; the last one is answered when the object is there or has failed |
//! | `DELETE <location>` | gives it up |
//!
//! Whoever begins the same upload of the same file again, as its client does that was started anew, is
//! told where it goes on. What happens between two requests is in [`super::pausing`].

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::UploadError;
use super::http::{UploadService, admit, client, known_id, refuse};
use super::pausing::{Resumable, file_name};
use super::receive::{Incoming, pass};
use super::record::Resume;
use super::table::Feed;
use super::upload::Wish;

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const VERSION: HeaderName = HeaderName::from_static("tus-version");
const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const ONE: HeaderValue = HeaderValue::from_static("1.0.0");

pub(super) async fn create(
    State(service): State<UploadService>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    if request.method() == Method::OPTIONS {
        return options();
    }
    let (head, body) = request.into_parts();
    with_version(match begin(&service, &id, &head).await {
        Ok(Begun { location, length, offset, is_new }) => {
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            let mut response = (status, [(header::LOCATION, location)]).into_response();
            put(&mut response, OFFSET, offset);
            put(&mut response, LENGTH, length);
            put_expiry(&mut response, service.uploads.settings().pause, service.uploads.now());
            response
        }
        Err(error) => refuse(&service, error, &head, Some(body)),
    })
}

fn options() -> Response {
    let headers = [
        (RESUMABLE, ONE),
        (VERSION, ONE),
        (EXTENSION, HeaderValue::from_static("creation,termination,expiration")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn with_version(mut response: Response) -> Response {
    response.headers_mut().insert(RESUMABLE, ONE);
    response
}

fn put(response: &mut Response, name: HeaderName, value: u64) {
    response.headers_mut().insert(name, HeaderValue::from(value));
}

fn put_expiry(response: &mut Response, pause: Duration, now: SystemTime) {
    if let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(now + pause)) {
        response.headers_mut().insert(EXPIRES, value);
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// Longest description of a file that is kept.
const MAX_ABOUT: usize = 1_024;

/// What the client says of its file, to tell it by.
fn about(headers: &HeaderMap) -> String {
    let text = headers.get(METADATA).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.chars().take(MAX_ABOUT).collect()
}

/// Where the bytes of an upload go, and from where on.
struct Begun {
    location: String,
    length: u64,
    offset: u64,
    is_new: bool,
}

async fn begin(service: &UploadService, id: &str, head: &Parts) -> Result<Begun, UploadError> {
    if head.method != Method::POST {
        return Err(UploadError::Method);
    }
    let id = known_id(id)?;
    let length = number(&head.headers, &LENGTH).filter(|length| *length > 0);
    let length = length.ok_or(UploadError::Protocol("the header upload-length is missing or 0"))?;
    let (plan, order) = admit(service, &id, head).await?;
    let about = about(&head.headers);
    let location = |token: &str| format!("/upload/{id}/tus/{token}");
    if let Some((token, resumable)) = service.pausing.same(&id, length, &about) {
        let offset = resumable.settled().await?;
        tracing::info!(upload = id, offset, "the client of an upload has come back");
        return Ok(Begun { location: location(&token), length, offset, is_new: false });
    }
    // Whoever has the URL may go on with the upload.
    let token = uuid::Uuid::new_v4().simple().to_string();
    let client = client(head);
    let resume = Resume {
        token: token.clone(),
        order,
        total: length,
        about,
        client: client.clone(),
        checkpoint: None,
    };
    let file = file_name(&resume);
    let resume = Some(Box::new(resume));
    let wish = Wish { id: id.clone(), plan, total: length, client, resume };
    let feed = service.uploads.begin(wish).await?;
    if let Some(name) = file {
        feed.upload.set_file(name);
    }
    service.pausing.insert(token.clone(), feed);
    Ok(Begun { location: location(&token), length, offset: 0, is_new: true })
}

pub(super) async fn resume(
    State(service): State<UploadService>,
    Path((id, token)): Path<(String, String)>,
    request: Request,
) -> Response {
    if request.method() == Method::OPTIONS {
        return options();
    }
    let (head, body) = request.into_parts();
    let mut body = Some(body);
    let found = known_id(&id).ok().and_then(|id| service.pausing.find(&id, &token));
    let Some(resumable) = found else {
        return with_version(refuse(&service, UploadError::Unknown, &head, body));
    };
    with_version(match head.method {
        Method::HEAD | Method::GET => state(&service, &resumable).await,
        Method::PATCH => match more(&service, &resumable, &head, &mut body).await {
            Ok(offset) => {
                let mut response = StatusCode::NO_CONTENT.into_response();
                put(&mut response, OFFSET, offset);
                put_expiry(&mut response, service.uploads.settings().pause, service.uploads.now());
                response
            }
            Err(error) => refuse(&service, error, &head, body),
        },
        Method::DELETE => {
            resumable.upload.end(UploadError::Cancelled);
            if resumable.upload.ended().await.is_ok() {
                return with_version(refuse(&service, UploadError::Late, &head, body));
            }
            service.pausing.remove(&token);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => refuse(&service, UploadError::Method, &head, body),
    })
}

/// How far it is. An upload that has failed says why.
async fn state(service: &UploadService, resumable: &Resumable) -> Response {
    let offset = match resumable.settled().await {
        Ok(offset) => offset,
        Err(error) => return error.into_response(),
    };
    let mut response = StatusCode::OK.into_response();
    put(&mut response, OFFSET, offset);
    put(&mut response, LENGTH, resumable.upload.total);
    put_expiry(&mut response, service.uploads.settings().pause, service.uploads.now());
    response
}

/// Takes the bytes of one request; gives the offset behind them.
async fn more(
    service: &UploadService,
    resumable: &Resumable,
    head: &Parts,
    body: &mut Option<Body>,
) -> Result<u64, UploadError> {
    let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind != Some(b"application/offset+octet-stream") {
        let text = "the content type must be application/offset+octet-stream";
        return Err(UploadError::Protocol(text));
    }
    let given = number(&head.headers, &OFFSET);
    let given = given.ok_or(UploadError::Protocol("the header upload-offset is missing"))?;
    let current = resumable.take_turn();
    let upload = &resumable.upload;
    resumable.ready().await?;
    let mut place = resumable.feed.lock().await;
    if let Some(Err(error)) = upload.outcome() {
        return Err(error);
    }
    let actual = upload.received();
    if given != actual {
        return Err(UploadError::Offset { actual, given });
    }
    if let Some(feed) = place.as_ref() {
        let limits = service.downloads.get().limits.clone();
        let Some(incoming) = body.take() else { return Err(UploadError::Lost) };
        let mut stream = incoming.into_data_stream();
        let outcome = {
            let mut incoming = Incoming::new(&mut stream, &limits, upload);
            tokio::select! {
                taken = take(service, resumable, feed, &mut incoming) => taken,
                () = current.cancelled() => Err(UploadError::Protocol("another request goes on with the upload")),
            }
        };
        if let Err(error) = outcome {
            // A connection that broke off is a pause; too many bytes are not.
            if matches!(error, UploadError::TooLarge { .. }) {
                upload.end(error.clone());
            }
            let has_ended = upload.cancel.is_cancelled() || upload.outcome().is_some();
            if has_ended && let Err(reason) = upload.ended().await {
                *body = Some(Body::from_stream(stream));
                return Err(reason);
            }
            *body = Some(Body::from_stream(stream));
            return Err(error);
        }
        if upload.received() == upload.total {
            if feed.end().await.is_err() {
                tracing::debug!(upload = upload.id, "the upload ended before its last byte");
            }
            place.take();
        }
    }
    drop(place);
    if upload.received() == upload.total {
        upload.ended().await?;
    }
    Ok(upload.received())
}

async fn take(
    service: &UploadService,
    resumable: &Resumable,
    feed: &Feed,
    incoming: &mut Incoming<'_>,
) -> Result<(), UploadError> {
    let upload = &resumable.upload;
    while let Some(piece) = incoming.next().await? {
        if upload.received().saturating_add(piece.len() as u64) > upload.total {
            let text = "the request has more bytes than the upload announced";
            return Err(UploadError::Protocol(text));
        }
        pass(feed, piece, &service.uploads).await?;
        resumable.touch();
    }
    Ok(())
}
