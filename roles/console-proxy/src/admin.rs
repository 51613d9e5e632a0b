//! What an operator may do with consoles: routes below `/roles/cp/` of the admin API.
//!
//! | route | what |
//! |---|---|
//! | `GET /consoles` | the open ones |
//! | `POST /consoles/{id}/end` | ends one for good; `{"message": "…"}` is what its viewer reads |
//! | `POST /consoles/{id}/view-only` | `{"on": true}`: its viewer may only watch |
//! | `POST /consoles/{id}/message` | `{"text": "…"}` is shown on its page |
//! | `POST /consoles/{id}/screenshot` | what its VM shows now, as PNG |
//! | `GET /recordings` | the recordings that are there |
//! | `POST /recordings/{name}/replay` | a link that shows one in the page, once |
//!
//! Whoever changes or sees something is on this machine: the listener lets nobody else POST.

mod png;
mod screenshot;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use status_api::{ConsoleStatus, RecordingStatus, ReplayLink};

use crate::context::ConsoleContext;
use crate::control::ToPage;
use crate::sessions::Session;
use crate::web;

/// Longest text for a viewer, in letters.
const WORDS: usize = 500;

pub(crate) fn router(context: Arc<ConsoleContext>) -> Router {
    Router::new()
        .route("/consoles", get(list))
        .route("/consoles/{id}/end", post(end))
        .route("/consoles/{id}/view-only", post(view_only))
        .route("/consoles/{id}/message", post(message))
        .route("/consoles/{id}/screenshot", post(screenshot))
        .route("/recordings", get(recordings))
        .route("/recordings/{name}/replay", post(replay))
        .fallback(nothing)
        .with_state(context)
}

/// Why something is not done.
enum Refused {
    Unknown(String),
    Missing(String),
    Body(serde_json::Error),
    Conflict(String),
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::Unknown(id) => {
                let remedy = "`quickcloud cp sessions` shows the open ones";
                (StatusCode::NOT_FOUND, format!("no console {id} is open; {remedy}"))
            }
            Self::Missing(detail) => (StatusCode::NOT_FOUND, detail),
            Self::Body(error) => {
                (StatusCode::BAD_REQUEST, format!("the body is not what is wanted: {error}"))
            }
            Self::Conflict(detail) => (StatusCode::CONFLICT, detail),
        };
        (status, Json(json!({ "detail": detail }))).into_response()
    }
}

fn find(context: &ConsoleContext, id: &str) -> Result<Arc<Session>, Refused> {
    let unknown = || Refused::Unknown(id.chars().filter(|c| !c.is_control()).take(20).collect());
    let number = id.parse().map_err(|_odd| unknown())?;
    context.sessions.find(number).ok_or_else(unknown)
}

fn body<T: DeserializeOwned>(text: &str) -> Result<T, Refused> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    serde_json::from_str(text).map_err(Refused::Body)
}

/// A text for a page: one line, bounded.
fn words(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(WORDS).collect::<String>().trim().to_owned()
}

async fn nothing(uri: Uri) -> Response {
    let detail = format!("the console proxy has nothing at {}", uri.path());
    (StatusCode::NOT_FOUND, Json(json!({ "detail": detail }))).into_response()
}

async fn list(State(context): State<Arc<ConsoleContext>>) -> Json<Vec<ConsoleStatus>> {
    Json(context.sessions.status())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ending {
    message: Option<String>,
}

async fn end(
    State(context): State<Arc<ConsoleContext>>,
    Path(id): Path<String>,
    text: String,
) -> Result<Json<ConsoleStatus>, Refused> {
    let session = find(&context, &id)?;
    let Ending { message } = body(&text)?;
    let message = message.map(|text| words(&text)).filter(|text| !text.is_empty());
    context.sessions.ledger.revoke(&session.uuid);
    context.audit.record("ended", &session, message.as_deref());
    session.kick(message);
    Ok(Json(session.status()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Watching {
    on: bool,
}

async fn view_only(
    State(context): State<Arc<ConsoleContext>>,
    Path(id): Path<String>,
    text: String,
) -> Result<Json<ConsoleStatus>, Refused> {
    let session = find(&context, &id)?;
    let Watching { on } = body(&text)?;
    if session.upstream().is_ticket() {
        let detail = "browser and ESXi host talk to each other here: what is typed cannot be told";
        return Err(Refused::Conflict(detail.to_owned()));
    }
    session.view_only.store(on, Ordering::Relaxed);
    session.tell(ToPage::ViewOnly { on });
    context.audit.record(if on { "view_only" } else { "may_type" }, &session, None);
    Ok(Json(session.status()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notice {
    text: String,
}

async fn message(
    State(context): State<Arc<ConsoleContext>>,
    Path(id): Path<String>,
    text: String,
) -> Result<Json<ConsoleStatus>, Refused> {
    let session = find(&context, &id)?;
    let Notice { text } = body(&text)?;
    let text = words(&text);
    if text.is_empty() {
        return Err(Refused::Conflict("there is nothing to say".to_owned()));
    }
    context.audit.record("message", &session, Some(&text));
    if !session.tell(ToPage::Notice { text }) {
        let detail = "its viewer does not show messages, or is not connected at the moment";
        return Err(Refused::Conflict(detail.to_owned()));
    }
    Ok(Json(session.status()))
}

async fn screenshot(
    State(context): State<Arc<ConsoleContext>>,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let session = find(&context, &id)?;
    context.audit.record("screenshot", &session, None);
    let picture = screenshot::take(&context, &session).await.map_err(Refused::Conflict)?;
    Ok(([(CONTENT_TYPE, "image/png")], picture).into_response())
}

async fn recordings(
    State(context): State<Arc<ConsoleContext>>,
) -> Result<Json<Vec<RecordingStatus>>, Refused> {
    let shown = Arc::clone(&context.recordings);
    if shown.config.is_none() {
        let detail =
            "consoles are not recorded: roles.console_proxy.recordings_directory is not set";
        return Err(Refused::Conflict(detail.to_owned()));
    }
    let list = context.tasks.blocking("recordings", move || shown.list()).await;
    match list {
        Ok(Ok(list)) => Ok(Json(list)),
        Ok(Err(error)) => Err(Refused::Conflict(format!("cannot list the recordings: {error}"))),
        Err(error) => Err(Refused::Conflict(error.to_string())),
    }
}

async fn replay(
    State(context): State<Arc<ConsoleContext>>,
    Path(name): Path<String>,
) -> Result<Json<ReplayLink>, Refused> {
    let (shown, wanted) = (Arc::clone(&context.recordings), name.clone());
    let path = context.tasks.blocking("recordings", move || shown.path(&wanted)).await;
    let Some(path) = path.ok().flatten() else {
        let name: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
        let remedy = "`quickcloud cp recordings` shows those that are there";
        return Err(Refused::Missing(format!("there is no recording {name}; {remedy}")));
    };
    let Some(token) = context.replays.issue(&name, path) else {
        let detail = "too many recordings are being shown; try again in two minutes";
        return Err(Refused::Conflict(detail.to_owned()));
    };
    context.audit.replayed(&name);
    let path = format!("{}?autoconnect=true&token={token}", web::PAGE_PATH);
    Ok(Json(ReplayLink { path }))
}
