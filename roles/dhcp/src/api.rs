//! REST on a Unix socket: validate, store, wait until it is served, report. Endpoints and bodies are
//! those of the crate `dhcp-api`.
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
use axum::routing::{self, MethodRouter};
use dhcp_api::operation::Operation;
use dhcp_api::problem::{Problem, ProblemKind};
use dhcp_api::resource::Source;
use dhcp_api::words::Invalid;
use role::TaskScope;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::desired::{Applied, Change, Precondition};
use crate::heard::Heard;
use crate::history::History;
use crate::observed::{Observed, Progress};
use crate::release::Releaser;
use crate::store::Store;
use crate::sync::runner::Handle;

mod collections;
mod desired;
mod events;
mod explain;
mod guard;
mod leases;
mod option_sets;
mod problem;
mod records;
mod reservations;
pub(crate) mod status;
mod subnets;
mod sync;
mod watching;
mod zones;

pub(crate) use guard::Gate;
use problem::{Refusal, invalid};

/// Of one resource.
const BODY: usize = 1024 * 1024;
/// Of a batch, and of everything.
const BATCH_BODY: usize = 64 * 1024 * 1024;
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
    sync: Option<Handle>,
    heard: Heard,
    history: History,
    tasks: TaskScope,
}

/// What the API shows of the rest of the role.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) sync: Option<Handle>,
    pub(crate) heard: Heard,
    pub(crate) history: History,
    pub(crate) dns: bool,
}

type Answer = Result<Response, Refusal>;

impl Api {
    pub(crate) fn new(
        store: Store,
        observed: watch::Receiver<Observed>,
        releaser: Releaser,
        parts: Parts,
        tasks: TaskScope,
    ) -> Self {
        let Parts { sync, heard, history, dns } = parts;
        Self { store, observed, releaser, dns, sync, heard, history, tasks }
    }

    /// Every endpoint of the list; with a gate, only for those whom it lets in.
    pub(crate) fn router(self, gate: Option<Gate>) -> Router {
        let mut router = Router::new();
        for operation in Operation::ALL {
            router = router.route(operation.path(), handler(*operation));
        }
        router = router
            .fallback(|| async { Refusal::new(ProblemKind::NotFound, "there is no such endpoint") })
            .method_not_allowed_fallback(|| async {
                let text = "the endpoint does not know this method";
                Refusal::new(ProblemKind::MethodNotAllowed, text)
            })
            .layer(DefaultBodyLimit::max(BODY));
        if let Some(gate) = gate {
            router = router.layer(middleware::from_fn_with_state(gate, guard::guard));
        }
        router.layer(middleware::from_fn(envelope)).with_state(self)
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

    /// Submits a change and answers when it is served. `show` makes the body after the change,
    /// `unserved` says what dnsmasq did not take of it.
    async fn write<T: Serialize>(
        &self,
        change: Change,
        headers: &HeaderMap,
        show: impl FnOnce(&Self) -> Option<(u64, T)>,
        unserved: impl FnOnce(&Observed) -> Option<String>,
    ) -> Answer {
        let (wait, conditions) = (wait(headers)?, preconditions(headers)?);
        let applied = self.store.submit(change, Source::Api, conditions).await?;
        let Applied { generation, created, .. } = applied;
        let mut progress = self.settle(generation, wait).await;
        if let (Progress::Applied, Some(text)) = (&progress, unserved(&self.observed.borrow())) {
            progress = Progress::Failed(text);
        }
        let location = HeaderValue::from_str(&format!("/v1/changes/{generation}"));
        let body = show(self);
        let status = match progress {
            Progress::Failed(error) => {
                let text = format!("stored, but not served: {error}");
                let problem = Problem::new(ProblemKind::ApplyFailed, text);
                return Err(Problem { generation: Some(generation), ..problem }.into());
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

    /// Submits a removal.
    async fn remove(&self, change: Change, headers: &HeaderMap) -> Answer {
        self.write(change, headers, |_| None::<(u64, Value)>, |_| None).await
    }
}

/// Who answers to an endpoint.
fn handler(operation: Operation) -> MethodRouter<Api> {
    use Operation as O;
    use routing::{delete, get, post, put};
    match operation {
        O::Healthz => get(status::healthz),
        O::Readyz => get(status::readyz),
        O::ShowStatus => get(status::status),
        O::ShowOpenApi => get(status::open_api),
        O::ShowConfig => get(status::config),
        O::ListChanges => get(status::changes),
        O::Events => get(events::events),
        O::Explain => get(explain::explain),
        O::Trace => get(watching::trace),
        O::Probe => post(watching::probe),
        O::SyncNow => post(sync::now),
        O::ShowChange => get(status::change),
        O::ListZones => get(zones::list),
        O::ShowZone => get(zones::show),
        O::PutZone => put(zones::put),
        O::DeleteZone => delete(zones::remove),
        O::ListSubnets => get(subnets::list),
        O::ShowSubnet => get(subnets::show),
        O::PutSubnet => put(subnets::put),
        O::DeleteSubnet => delete(subnets::remove),
        O::ListRanges => get(subnets::list_ranges),
        O::ShowRange => get(subnets::show_range),
        O::PutRange => put(subnets::put_range),
        O::DeleteRange => delete(subnets::remove_range),
        O::ListReservations => get(reservations::list),
        O::ShowReservationByMac => get(reservations::by_mac),
        O::ShowReservationByIp => get(reservations::by_address),
        O::ShowReservation => get(reservations::show),
        O::PutReservation => put(reservations::put),
        O::DeleteReservation => delete(reservations::remove),
        O::BatchReservations => post(reservations::batch).layer(DefaultBodyLimit::max(BATCH_BODY)),
        O::ShowDesired => get(desired::show),
        O::PutDesired => put(desired::put).layer(DefaultBodyLimit::max(BATCH_BODY)),
        O::ShowDocument => get(desired::show_document),
        O::PutDocument => put(desired::put_document).layer(DefaultBodyLimit::max(BATCH_BODY)),
        O::Validate => post(desired::validate).layer(DefaultBodyLimit::max(BATCH_BODY)),
        O::ListOptionSets => get(option_sets::list),
        O::ShowOptionSet => get(option_sets::show),
        O::PutOptionSet => put(option_sets::put),
        O::DeleteOptionSet => delete(option_sets::remove),
        O::ListRecords => get(records::list),
        O::ShowRecord => get(records::show),
        O::PutRecord => put(records::put),
        O::DeleteRecord => delete(records::remove),
        O::ListLeases => get(leases::list),
        O::DeleteLease => delete(leases::release),
    }
}

/// A JSON body with its entity tag.
fn tagged(status: StatusCode, revision: u64, body: &impl Serialize) -> Response {
    let mut response = (status, axum::Json(body)).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// `Prefer: wait=5`, `Prefer: respond-async`; other preferences are not ours (RFC 7240, 2).
fn wait(headers: &HeaderMap) -> Result<Duration, Refusal> {
    let lines = headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
    let mut wait = DEFAULT_WAIT;
    for preference in lines.flat_map(|line| line.split([',', ';'])).map(str::trim) {
        if preference.eq_ignore_ascii_case("respond-async") {
            wait = Duration::ZERO;
        } else if let Some(seconds) = preference.strip_prefix("wait=") {
            let seconds = seconds.parse().map_err(|_not_a_number| {
                let text = format!("Prefer: wait={seconds} is not a number of seconds");
                let problem = Problem::new(ProblemKind::Malformed, text);
                Refusal::from(problem.remedy("give wait=5 or respond-async"))
            })?;
            wait = LONGEST_WAIT.min(Duration::from_secs(seconds));
        }
    }
    Ok(wait)
}

/// `If-Match: "7"` and `If-None-Match: *`.
fn preconditions(headers: &HeaderMap) -> Result<Precondition, Refusal> {
    let bad = |name, remedy| {
        Refusal::new(ProblemKind::Malformed, format!("{name} is not understood; {remedy}"))
    };
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

/// A body as a JSON object.
fn json(body: Body) -> Result<Value, Refusal> {
    let body = body.map_err(|rejection| {
        let large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
        let kind = if large { ProblemKind::TooLarge } else { ProblemKind::Malformed };
        Refusal::new(kind, rejection.body_text())
    })?;
    let malformed = |text| Refusal::new(ProblemKind::Malformed, text);
    let value: Value = serde_json::from_slice(&body)
        .map_err(|error| malformed(format!("the body is not JSON: {error}")))?;
    if !value.is_object() {
        return Err(malformed("the body is not an object".to_owned()));
    }
    Ok(value)
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
        Err(_elapsed) => {
            Refusal::new(ProblemKind::Timeout, "the request took too long").into_response()
        }
    };
    let problem = response.extensions_mut().remove::<Refusal>();
    if let Some(problem) = problem.or_else(|| Refusal::unspoken(&response)) {
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
fn key<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Refusal>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| {
        let text = format!("{what} {text:?} does not exist: {error}");
        Refusal::new(ProblemKind::NotFound, text)
    })
}

/// The name of a resource that a request wants to exist.
fn new_key<T: std::str::FromStr<Err = Invalid>>(field: &str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|error| invalid(field, Value::from(text), error))
}

type Body = Result<Bytes, axum::extract::rejection::BytesRejection>;
type Context = State<Api>;

fn missing(what: &str, id: &(impl ToString + ?Sized)) -> Refusal {
    Refusal::new(ProblemKind::NotFound, format!("{what} {} does not exist", id.to_string()))
}
