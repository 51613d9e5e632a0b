//! `links`: the links of the zone, and taking one away.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use role::Host;
use status_api::DownloadLinksStatus;

use super::refusal;
use crate::links::{LinkError, LinkName, Links};

#[derive(Debug, Clone)]
struct Admin {
    links: Links,
    host: Host,
}

pub(super) fn routes(links: Links, host: Host) -> Router {
    Router::new()
        .route("/links", get(list))
        .route("/links/{directory}/{file}", delete(remove))
        .with_state(Admin { links, host })
}

fn failed(error: &LinkError) -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, bedrock::chain(error))
}

/// Read from the stores, so that those of other hosts are there, too.
async fn list(State(admin): State<Admin>) -> Response {
    let now = admin.host.clock.unix_ms();
    match admin.links.sweep(now).await {
        Ok(_ended) => {
            let links = admin.links.shown(now);
            Json(DownloadLinksStatus { count: links.len(), links }).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn remove(
    State(admin): State<Admin>,
    Path((directory, file)): Path<(String, String)>,
) -> Response {
    let name = match LinkName::new(&directory, &file) {
        Ok(name) => name,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match admin.links.remove(&name, admin.host.clock.unix_ms()).await {
        Ok(Some(target)) => {
            tracing::info!(link = %name, path = %target.path, "link removed by an operator");
            Json(serde_json::json!({ "link": name.to_string(), "path": target.path.to_string() }))
                .into_response()
        }
        Ok(None) => refusal(StatusCode::NOT_FOUND, format!("there is no link {name}")),
        Err(error) => failed(&error),
    }
}
