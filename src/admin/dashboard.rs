//! The page at `/` of the admin listener: `/status` as people read it, live.
//!
//! It shows and changes nothing. `/events` is a stream of the documents that `/status` gives, one
//! when something changed and at least every few seconds.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use tokio::time::{Instant, sleep_until};

use super::{AdminState, status};
use crate::heartbeat;

/// Between two documents of a stream, at most and at least.
const SLOWEST: Duration = Duration::from_secs(2);
const FASTEST: Duration = Duration::from_millis(500);

/// Nothing from elsewhere is loaded, and no other page may show this one.
const POLICY: &str =
    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The page, its parts and its stream.
pub(super) fn routes() -> Router<AdminState> {
    let asset = |kind: &'static str, text: &'static str| {
        get(move || async move {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, text)
        })
    };
    let html = asset("text/html; charset=utf-8", include_str!("dashboard/index.html"));
    let script = asset("text/javascript; charset=utf-8", include_str!("dashboard/dashboard.js"));
    let style = asset(
        "text/css; charset=utf-8",
        concat!(include_str!("dashboard/base.css"), include_str!("dashboard/dashboard.css")),
    );
    Router::new()
        .route("/", html)
        .route("/dashboard.js", script)
        .route("/dashboard.css", style)
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .route("/events", get(events))
}

async fn events(State(state): State<AdminState>) -> Response {
    let changes = state.board.changed();
    let first = (state, changes, Instant::now());
    let stream = stream::unfold(first, |(state, mut changes, due)| async move {
        tokio::select! {
            () = sleep_until(due) => {}
            // A board that is gone changes no more; the time goes on.
            changed = changes.changed() => {
                let soon = due.min(Instant::now() + FASTEST);
                sleep_until(if changed.is_ok() { soon } else { due }).await;
            }
        }
        let links = heartbeat::table(&state.links);
        let document = status::document(&state.board, &links, state.addr);
        // What cannot be written is left out; the next one comes.
        let text = serde_json::to_string(&document).unwrap_or_default();
        let event: Result<Bytes, Infallible> = Ok(format!("data: {text}\n\n").into());
        Some((event, (state, changes, Instant::now() + SLOWEST)))
    });
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(stream)).into_response()
}
