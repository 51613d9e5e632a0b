//! `/jobs`: downloads by URL.
//!
//! | route | what |
//! |---|---|
//! | `GET /jobs` | all that run or ended lately, as in `/status` |
//! | `POST /jobs/{id}/retry` | does one that failed or was cancelled again |
//! | `POST /jobs/{id}/cancel` | stops one and removes what there is of it |

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use status_api::DownloadStatus;

use super::refusal;
use crate::ingest::downloads::status_of;
use crate::ingest::{Downloads, Phase};

pub(super) fn routes(downloads: Downloads) -> Router {
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/{id}/retry", post(retry))
        .route("/jobs/{id}/cancel", post(cancel))
        .with_state(downloads)
}

async fn list(State(downloads): State<Downloads>) -> Json<Vec<DownloadStatus>> {
    Json(downloads.status())
}

fn unknown(id: &str) -> Response {
    refusal(StatusCode::NOT_FOUND, format!("there is no download {id:?}"))
}

async fn retry(State(downloads): State<Downloads>, Path(id): Path<String>) -> Response {
    let Some(job) = downloads.get(&id) else { return unknown(&id) };
    match job.phase() {
        Phase::Failed | Phase::Aborted => {}
        Phase::Done => return refusal(StatusCode::CONFLICT, "the download is complete"),
        Phase::Waiting | Phase::Downloading | Phase::Installing | Phase::Suspended => {
            return refusal(StatusCode::CONFLICT, "the download runs; cancel it first");
        }
    }
    match downloads.restart(&id).await {
        Some(Ok(job)) => {
            tracing::info!(job = job.id, "download begins again, as an operator asked");
            Json(status_of(&job)).into_response()
        }
        Some(Err(error)) => refusal(StatusCode::CONFLICT, error.to_string()),
        None => unknown(&id),
    }
}

async fn cancel(State(downloads): State<Downloads>, Path(id): Path<String>) -> Response {
    let Some(job) = downloads.get(&id) else { return unknown(&id) };
    if job.phase().is_over() {
        return refusal(StatusCode::CONFLICT, "the download is over already");
    }
    tracing::info!(job = job.id, "download cancelled, as an operator asked");
    match downloads.abort(&id).await {
        Some(job) => Json(status_of(&job)).into_response(),
        None => unknown(&id),
    }
}
