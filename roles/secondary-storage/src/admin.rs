//! The role's routes on the admin listener, below `/roles/ss/`: what `quickcloud ss …` asks. One
//! submodule per subject. Callers from other machines only get to read.

mod jobs;
mod links;
mod stores;
mod uploads;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};

use crate::service::Assembled;

/// Everything one run offers.
pub fn router(parts: &Assembled) -> Router {
    Router::new()
        .merge(jobs::routes(parts.downloads.clone(), parts.moves.clone()))
        .merge(stores::routes(parts.stores.clone(), parts.surveys.clone()))
        .merge(links::routes(parts.links.clone(), parts.host.clone()))
        .merge(uploads::routes(parts.uploads.uploads.clone()))
}

/// Why something is not done, in the form of the admin API.
fn refusal(status: StatusCode, detail: impl Into<String>) -> Response {
    (status, Json(serde_json::json!({ "detail": detail.into() }))).into_response()
}
