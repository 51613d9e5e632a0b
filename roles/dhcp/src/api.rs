//! REST on a Unix socket: validate, store, wait until it is served, report.
//!
//! A write is durable before it is answered. By default the answer waits until the running dnsmasq
//! serves the change (`Prefer: wait=5`); when that takes longer, or dnsmasq is down, it is 202 and
//! the change is applied later, whatever happens in between.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use role::TaskScope;
use serde_json::Value;
use tokio::sync::watch;

use crate::desired::{Applied, Change, Precondition};
use crate::observed::{Observed, Progress};
use crate::release::Releaser;
use crate::store::Store;
use crate::value::Invalid;

mod collections;
mod draft;
mod fields;
mod leases;
mod problem;
mod records;
mod reservations;
pub(crate) mod status;
mod zones;

use problem::{Fault, Problem, Slug};

/// Of one resource.
const BODY: usize = 1024 * 1024;
/// Of a batch.
const BATCH_BODY: usize = 32 * 1024 * 1024;
/// For a whole request, the wait for dnsmasq included.
const REQUEST: Duration = Duration::from_secs(60);
const DEFAULT_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(50);

/// What handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    store: Store,
    observed: watch::Receiver<Observed>,
    releaser: Releaser,
    dns: bool,
    tasks: TaskScope,
}

type Answer = Result<Response, Problem>;

impl Api {
    pub(crate) const fn new(
        store: Store,
        observed: watch::Receiver<Observed>,
        releaser: Releaser,
        dns: bool,
        tasks: TaskScope,
    ) -> Self {
        Self { store, observed, releaser, dns, tasks }
    }

    /// Every endpoint below `/v1`.
    pub(crate) fn router(self) -> Router {
        let zone = Router::new()
            .route("/", get(zones::show).put(zones::put).delete(zones::remove))
            .route("/subnets", get(zones::list_subnets))
            .route(
                "/subnets/{subnet}",
                get(zones::show_subnet).put(zones::put_subnet).delete(zones::remove_subnet),
            )
            .route("/subnets/{subnet}/ranges", get(zones::list_ranges))
            .route(
                "/subnets/{subnet}/ranges/{range}",
                get(zones::show_range).put(zones::put_range).delete(zones::remove_range),
            )
            .route("/reservations", get(reservations::list))
            .route("/reservations/by-mac/{mac}", get(reservations::by_mac))
            .route("/reservations/by-ip/{ip}", get(reservations::by_address))
            .route(
                "/reservations/{reservation}",
                get(reservations::show).put(reservations::put).delete(reservations::remove),
            )
            .route("/records", get(records::list))
            .route(
                "/records/{name}/{kind}",
                get(records::show).put(records::put).delete(records::remove),
            )
            .route("/leases", get(leases::list))
            .route("/leases/{ip}", delete(leases::release));
        let batch = post(reservations::batch).layer(DefaultBodyLimit::max(BATCH_BODY));
        Router::new()
            .route("/v1/healthz", get(status::healthz))
            .route("/v1/readyz", get(status::readyz))
            .route("/v1/status", get(status::status))
            .route("/v1/instances/main/config", get(status::config))
            .route("/v1/changes/{id}", get(status::change))
            .route("/v1/zones", get(zones::list))
            .route("/v1/zones/{zone}/reservations:batch", batch)
            .nest("/v1/zones/{zone}", zone)
            .fallback(|| async { Problem::new(Slug::NotFound, "there is no such endpoint") })
            .method_not_allowed_fallback(|| async {
                Problem::new(Slug::MethodNotAllowed, "the endpoint does not know this method")
            })
            .layer(DefaultBodyLimit::max(BODY))
            .layer(middleware::from_fn(envelope))
            .with_state(self)
    }

    /// Waits until `generation` has come as far as it will for now.
    async fn settle(&self, generation: u64, wait: Duration) -> Progress {
        let mut observed = self.observed.clone();
        let settled = observed.wait_for(|o| o.progress(generation) != Progress::Pending);
        match tokio::time::timeout(wait, settled).await {
            Ok(Ok(observed)) => observed.progress(generation),
            // Too late, or the role stops; stored it is.
            Ok(Err(_)) | Err(_) => Progress::Pending,
        }
    }

    /// Submits a change and answers when it is served. `show` makes the body after the change.
    async fn write(
        &self,
        change: Change,
        conditions: Precondition,
        headers: &HeaderMap,
        show: impl FnOnce(&Self) -> Option<(u64, Value)>,
    ) -> Answer {
        let wait = wait(headers)?;
        let applied = self.store.submit(change, conditions).await?;
        let Applied { generation, created, .. } = applied;
        let progress = self.settle(generation, wait).await;
        let location = HeaderValue::from_str(&format!("/v1/changes/{generation}"));
        let body = show(self);
        let status = match progress {
            Progress::Failed(error) => {
                let text = format!("stored, but not served yet: {error}");
                return Err(Problem::new(Slug::ApplyFailed, text).with("generation", generation));
            }
            Progress::Pending | Progress::Waiting => StatusCode::ACCEPTED,
            Progress::Applied if body.is_none() => StatusCode::NO_CONTENT,
            Progress::Applied if created => StatusCode::CREATED,
            Progress::Applied => StatusCode::OK,
        };
        let mut response = match body {
            Some((revision, body)) => tagged(status, revision, &body),
            None => status.into_response(),
        };
        if status == StatusCode::ACCEPTED
            && let Ok(location) = location
        {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }
}

/// A JSON body with its entity tag.
fn tagged(status: StatusCode, revision: u64, body: &Value) -> Response {
    let mut response = (status, axum::Json(body)).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// `Prefer: wait=5`, `Prefer: respond-async`; other preferences are not ours (RFC 7240, 2).
fn wait(headers: &HeaderMap) -> Result<Duration, Problem> {
    let lines = headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
    let mut wait = DEFAULT_WAIT;
    for preference in lines.flat_map(|line| line.split([',', ';'])).map(str::trim) {
        if preference.eq_ignore_ascii_case("respond-async") {
            wait = Duration::ZERO;
        } else if let Some(seconds) = preference.strip_prefix("wait=") {
            let seconds = seconds.parse().map_err(|_not_a_number| {
                let text = format!("Prefer: wait={seconds} is no number of seconds");
                Problem::new(Slug::Malformed, text).with("remedy", "give wait=5 or respond-async")
            })?;
            wait = LONGEST_WAIT.min(Duration::from_secs(seconds));
        }
    }
    Ok(wait)
}

/// `If-Match: "7"` and `If-None-Match: *`.
fn preconditions(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let bad =
        |name, remedy| Problem::new(Slug::Malformed, format!("{name} is not understood; {remedy}"));
    let mut conditions = Precondition::default();
    if let Some(tag) = headers.get(header::IF_MATCH) {
        let text = tag.to_str().unwrap_or_default();
        let revision = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let revision = revision.and_then(|revision| revision.parse().ok());
        conditions.revision =
            Some(revision.ok_or_else(|| bad("If-Match", "give the ETag of the resource"))?);
    }
    if let Some(tag) = headers.get(header::IF_NONE_MATCH) {
        if tag != "*" {
            return Err(bad("If-None-Match", "give * to create only"));
        }
        conditions.absent = true;
    }
    Ok(conditions)
}

/// A body as JSON.
fn json(body: Result<Bytes, axum::extract::rejection::BytesRejection>) -> Result<Value, Problem> {
    let body = body.map_err(|rejection| {
        let slug = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Slug::TooLarge
        } else {
            Slug::Malformed
        };
        Problem::new(slug, rejection.body_text())
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::new(Slug::Malformed, format!("the body is not JSON: {error}")))
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Around every request: an id, a deadline, and the last fields of a problem.
async fn envelope(request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let usable =
        |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let id = given.filter(usable).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begun = tokio::time::Instant::now();
    let mut response = match tokio::time::timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => Problem::new(Slug::Timeout, "the request took too long").into_response(),
    };
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = problem.or_else(|| Problem::unspoken(&response)) {
        response = problem.complete(&path, &id);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let status = response.status().as_u16();
    tracing::debug!(%method, path, status, elapsed_ms, request_id = id, "answered");
    response
}

/// Text of a handler's parameter as a typed value; a path that cannot exist is not found.
fn key<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| {
        Problem::new(Slug::NotFound, format!("{what} {text:?} does not exist: {error}"))
    })
}

/// The name of a resource that a request wants to exist.
fn new_key<T: std::str::FromStr<Err = Invalid>>(field: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|Invalid { reason, remedy }| {
        let (field, value, remedy) = (field.to_owned(), Value::from(text), remedy.to_owned());
        Problem::faults(Slug::InvalidValue, &[Fault { field, value, reason, remedy }])
    })
}

type Body = Result<Bytes, axum::extract::rejection::BytesRejection>;
type Context = State<Api>;

fn missing(what: &str, id: &(impl ToString + ?Sized)) -> Problem {
    Problem::new(Slug::NotFound, format!("{what} {} does not exist", id.to_string()))
}

/// A resource that cannot be turned into JSON.
fn unshowable() -> Problem {
    Problem::new(Slug::Storage, "the resource cannot be shown")
}
