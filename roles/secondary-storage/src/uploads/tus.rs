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
//! Between two requests the way into the store stays open, so that nothing is read or written twice.
//! It ends with a pause that is too long, and with this process: the management server counts an
//! upload as lost as soon as its host is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use role::RoleContext;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::UploadError;
use super::http::{UploadService, admit, client, known_id, refuse};
use super::receive::{Incoming, pass};
use super::table::Feed;
use super::upload::{Upload, Wish};

const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const VERSION: HeaderName = HeaderName::from_static("tus-version");
const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const ONE: HeaderValue = HeaderValue::from_static("1.0.0");

/// Between two looks for uploads that pause too long.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the end of an upload can be asked for.
const KEPT: Duration = Duration::from_secs(600);

/// Resumable uploads by the secret of their URL. Cloneable; clones share everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Pausing(Arc<Mutex<HashMap<String, Arc<Resumable>>>>);

#[derive(Debug)]
struct Resumable {
    upload: Arc<Upload>,
    /// Whoever sends has it; `None` once all bytes are here.
    feed: tokio::sync::Mutex<Option<Feed>>,
    turn: Mutex<Turn>,
}

#[derive(Debug)]
struct Turn {
    /// Ends the request that sends now, when another one takes its place.
    current: CancellationToken,
    last: Instant,
}

impl Pausing {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Arc<Resumable>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str, token: &str) -> Option<Arc<Resumable>> {
        self.table().get(token).filter(|it| it.upload.id == id).cloned()
    }
}

impl Resumable {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of a request that still sends: its client has come back on another
    /// connection, before this host saw the end of the old one.
    fn take_turn(&self) -> CancellationToken {
        let current = CancellationToken::new();
        let mut turn = self.turn();
        turn.last = Instant::now();
        std::mem::replace(&mut turn.current, current.clone()).cancel();
        current
    }

    fn touch(&self) {
        self.turn().last = Instant::now();
    }
}

/// Ends uploads that pause too long, until shutdown.
pub(crate) async fn end_pauses(service: UploadService, cx: RoleContext) {
    loop {
        tokio::select! {
            () = cx.shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        service.end_old_pauses(service.uploads.settings().pause);
    }
}

impl UploadService {
    /// Ends uploads that pause for longer, and forgets those that ended long ago.
    pub fn end_old_pauses(&self, pause: Duration) {
        let now = Instant::now();
        self.pausing.table().retain(|_, it| {
            let idle = now.duration_since(it.turn().last);
            if it.upload.outcome().is_some() {
                // Its threads end with the way in.
                if let Ok(mut place) = it.feed.try_lock() {
                    place.take();
                }
                return idle < KEPT;
            }
            // All bytes are here: it ends by itself.
            if idle > pause && !it.upload.is_installing() {
                it.upload.end(UploadError::Paused(pause));
            }
            true
        });
    }
}

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
        Ok((location, length)) => {
            let created = [(header::LOCATION, location)];
            let mut response = (StatusCode::CREATED, created).into_response();
            put(&mut response, OFFSET, 0);
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

/// The name of the file, from the first pair that is called so.
fn file_name(headers: &HeaderMap) -> Option<String> {
    use base64::Engine;
    let pairs = headers.get(METADATA)?.to_str().ok()?;
    let names = ["filename", "name"];
    let value = pairs.split(',').find_map(|pair| {
        let (name, value) = pair.trim().split_once(' ')?;
        names.contains(&name).then_some(value)
    })?;
    let bytes = base64::prelude::BASE64_STANDARD.decode(value).ok()?;
    Some(String::from_utf8_lossy(&bytes).chars().take(255).collect())
}

async fn begin(
    service: &UploadService,
    id: &str,
    head: &Parts,
) -> Result<(String, u64), UploadError> {
    if head.method != Method::POST {
        return Err(UploadError::Method);
    }
    let id = known_id(id)?;
    let total = number(&head.headers, &LENGTH).filter(|length| *length > 0);
    let total = total.ok_or(UploadError::Protocol("the header upload-length is missing or 0"))?;
    let plan = admit(service, &id, head).await?;
    let client = client(head);
    let wish = Wish { id: id.clone(), plan, total, client, resumable: true };
    let feed = service.uploads.begin(wish).await?;
    let upload = Arc::clone(&feed.upload);
    if let Some(name) = file_name(&head.headers) {
        upload.set_file(name);
    }
    let turn = Turn { current: CancellationToken::new(), last: Instant::now() };
    let resumable =
        Resumable { upload, feed: tokio::sync::Mutex::new(Some(feed)), turn: Mutex::new(turn) };
    // Whoever has the URL may go on with the upload.
    let token = uuid::Uuid::new_v4().simple().to_string();
    let location = format!("/upload/{id}/tus/{token}");
    service.pausing.table().insert(token, Arc::new(resumable));
    Ok((location, total))
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
            drop(resumable.upload.ended().await);
            service.pausing.table().remove(&token);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => refuse(&service, UploadError::Method, &head, body),
    })
}

/// How far it is. An upload that has failed says why.
async fn state(service: &UploadService, resumable: &Resumable) -> Response {
    // From now on nobody adds to what is told.
    resumable.take_turn();
    drop(resumable.feed.lock().await);
    let upload = &resumable.upload;
    if let Some(Err(error)) = upload.outcome() {
        return error.into_response();
    }
    let mut response = StatusCode::OK.into_response();
    put(&mut response, OFFSET, upload.received());
    put(&mut response, LENGTH, upload.total);
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
