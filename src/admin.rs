//! The admin listener: `/livez`, `/readyz`, `/status`, `/metrics`, `/log-filter`, `/reload`, and
//! below `/roles/` what the roles publish; at `/` a page that shows it. Its bodies are the types of `status-api`.
//!
//! It asks for no password: it listens on a loopback address unless the operator says otherwise,
//! and whatever changes anything is refused to callers from elsewhere even then.

mod dashboard;
mod metrics;
mod roles;
pub mod status;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use http_front::{BindError, HttpLimits, Listener, Peer};
use role::{Heartbeat, TaskScope};
use tokio_util::sync::CancellationToken;

use crate::heartbeat::{self, HEALTHY};
use crate::reload::ReloadHandle;
use crate::supervisor::board::{Board, millis};
use crate::telemetry::LogHandle;

/// Name of the file in the state directory that tells `status` where we listen.
pub const ADDRESS_FILE: &str = "admin.addr";
/// The longest log filter taken.
const FILTER_LIMIT: usize = 4096;

/// What the handlers look at.
#[derive(Debug, Clone)]
pub(crate) struct AdminState {
    pub(crate) board: Board,
    pub(crate) links: Heartbeat,
    pub(crate) addr: SocketAddr,
    /// `None` when this process has no subscriber of its own.
    pub(crate) log: Option<LogHandle>,
    /// `None` when the configuration comes from nowhere.
    pub(crate) reload: Option<ReloadHandle>,
}

/// Binds the listener.
pub(crate) async fn bind(addr: SocketAddr) -> Result<(Listener, SocketAddr), BindError> {
    let listener = Listener::tcp(addr).await?;
    let local = listener.local_addr().unwrap_or(addr);
    Ok((listener, local))
}

/// Serves until `stop` fires.
pub(crate) async fn serve(
    listener: Listener,
    state: AdminState,
    tasks: TaskScope,
    stop: CancellationToken,
) {
    let limits = HttpLimits {
        connections: 64,
        header_timeout: Duration::from_secs(10),
        drain: Duration::from_millis(500),
        ..HttpLimits::default()
    };
    http_front::serve(listener, router(state), limits, tasks, stop).await;
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(show_status))
        .route("/metrics", get(show_metrics))
        .route("/log-filter", get(show_filter).put(replace_filter))
        .route("/reload", post(reload))
        .layer(DefaultBodyLimit::max(FILTER_LIMIT))
        .route("/roles/{role}/{*rest}", any(roles::dispatch))
        .merge(dashboard::routes())
        .with_state(state)
}

/// The supervisor's loop and the heartbeat go round.
async fn livez(State(state): State<AdminState>) -> Response {
    let silent = state.board.silent_for();
    if silent < HEALTHY {
        return "ok\n".into_response();
    }
    let text = format!("supervisor silent for {} ms\n", millis(silent));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let body = status::readiness(&state.board);
    let code = if body.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(body)).into_response()
}

async fn show_status(State(state): State<AdminState>) -> Response {
    let links = heartbeat::table(&state.links);
    Json(status::document(&state.board, &links, state.addr)).into_response()
}

async fn show_metrics(State(state): State<AdminState>) -> Response {
    match metrics::render(&state.board, &heartbeat::table(&state.links)) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn show_filter(State(state): State<AdminState>) -> Response {
    match &state.log {
        Some(log) => format!("{}\n", log.filter()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn replace_filter(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Response {
    if !is_local(&peer) {
        let text = "only a caller on this machine may change the log filter\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let Some(log) = &state.log else { return StatusCode::NOT_FOUND.into_response() };
    let text = String::from_utf8_lossy(&body);
    match log.replace_filter(text.trim()) {
        Ok(()) => {
            tracing::info!(filter = text.trim(), "log filter changed");
            format!("{}\n", log.filter()).into_response()
        }
        Err(error) => {
            let text = format!("{}\n", bedrock::chain(&error));
            (StatusCode::UNPROCESSABLE_ENTITY, text).into_response()
        }
    }
}

/// Reads the configuration again. The body says what came of it, also when the status is 422.
async fn reload(State(state): State<AdminState>, Extension(peer): Extension<Peer>) -> Response {
    if !is_local(&peer) {
        let text = "only a caller on this machine may reload the configuration\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let Some(handle) = &state.reload else {
        let text = "this process has no configuration to read again\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    match handle.reload().await {
        Some(answer) if answer.ok => Json(answer).into_response(),
        Some(answer) => (StatusCode::UNPROCESSABLE_ENTITY, Json(answer)).into_response(),
        None => {
            let text = "too many reloads wait already, or the process stops\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

fn is_local(peer: &Peer) -> bool {
    match peer {
        Peer::Tcp { remote, .. } => remote.ip().to_canonical().is_loopback(),
        Peer::Unix => true,
    }
}

/// The file that says where we listen; removed when dropped.
#[derive(Debug)]
pub(crate) struct AddressFile {
    path: PathBuf,
    text: String,
}

impl AddressFile {
    /// Writes the file whole or not at all.
    pub(crate) fn write(directory: &Path, addr: SocketAddr) -> std::io::Result<Self> {
        let path = directory.join(ADDRESS_FILE);
        let temporary = directory.join(format!("{ADDRESS_FILE}.{}", std::process::id()));
        let text = format!("{addr}\n");
        std::fs::write(&temporary, &text)?;
        std::fs::rename(&temporary, &path)?;
        Ok(Self { path, text })
    }

    /// The address a running process left in `directory`.
    pub(crate) fn read(directory: &Path) -> Option<SocketAddr> {
        std::fs::read_to_string(directory.join(ADDRESS_FILE)).ok()?.trim().parse().ok()
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        // Another process may have taken the directory over meanwhile; its file stays.
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the address file");
        }
    }
}

#[cfg(test)]
mod tests;
