//! `/roles/<short>/…`: what a role's run publishes on the admin listener.
//!
//! A request is handled in the scope of that run and its answer is collected there, so that nothing
//! of a run outlives it and nothing a handler does harms the listener.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use http_front::Peer;
use tower::ServiceExt;

use super::{AdminState, is_local};
use crate::supervisor::board::RoleRow;

/// How long a handler may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer.
const ANSWER_LIMIT: usize = 8 << 20;

fn refusal(status: StatusCode, detail: String) -> Response {
    (status, Json(serde_json::json!({ "detail": detail }))).into_response()
}

/// Hands the request to the role named by the path.
pub(super) async fn dispatch(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    Path((role, rest)): Path<(String, String)>,
    mut request: Request,
) -> Response {
    if ![Method::GET, Method::HEAD].contains(request.method()) && !is_local(&peer) {
        let detail = "only a caller on this machine may change anything".to_owned();
        return refusal(StatusCode::FORBIDDEN, detail);
    }
    let Some(row) = state.board.rows().into_iter().find(|row| row.kind.short == role) else {
        return refusal(
            StatusCode::NOT_FOUND,
            format!("role {role:?} is not part of this process"),
        );
    };
    let Some(run) = row.run() else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, RoleRow::summary(&row));
    };
    let Some(router) = run.admin.router() else {
        return refusal(StatusCode::NOT_FOUND, format!("role {role} offers nothing here"));
    };
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    // As it came, not as the path was decoded.
    let prefix = format!("/roles/{role}");
    let below = request.uri().path().strip_prefix(&prefix).map(|path| format!("{path}{query}"));
    match below.and_then(|below| below.parse::<Uri>().ok()) {
        Some(below) => *request.uri_mut() = below,
        None => return refusal(StatusCode::BAD_REQUEST, format!("{rest:?} is not a path")),
    }
    // The parts of the path that this listener matched are none of the role's.
    request.extensions_mut().clear();
    request.extensions_mut().insert(peer);
    let work = async move {
        let response = match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await?.to_bytes();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head, body))
    };
    let working = run.tasks.spawn("admin request", work);
    let abort = working.abort_handle();
    let failed = |detail: &str| refusal(StatusCode::INTERNAL_SERVER_ERROR, detail.to_owned());
    match tokio::time::timeout(TIMEOUT, working).await {
        Ok(Ok(Some(Ok((head, body))))) => whole(head, body),
        Ok(Ok(Some(Err(error)))) => failed(&format!("the role's answer broke off: {error}")),
        Ok(Ok(None) | Err(_)) => failed("the request panicked, or the role ended meanwhile"),
        Err(_elapsed) => {
            abort.abort();
            refusal(StatusCode::GATEWAY_TIMEOUT, format!("nothing within {TIMEOUT:?}"))
        }
    }
}

fn whole(head: axum::http::response::Parts, body: Bytes) -> Response {
    Response::from_parts(head, Body::from(body))
}
