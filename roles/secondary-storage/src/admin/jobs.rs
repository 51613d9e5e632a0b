//! `/jobs`: downloads by URL, and copies.
//!
//! | route | what |
//! |---|---|
//! | `GET /jobs` | all that run or ended lately, as in `/status` |
//! | `POST /jobs/{id}/retry` | does a download that failed or was cancelled again |
//! | `POST /jobs/{id}/cancel` | stops one and removes what there is of it |

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use status_api::{CopyStatus, DownloadState, DownloadStatus};

use super::refusal;
use crate::ingest::downloads::status_of;
use crate::ingest::{Downloads, Phase};
use crate::moving::Moves;

pub(super) fn routes(downloads: Downloads, moves: Moves) -> Router {
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/{id}/retry", post(retry))
        .route("/jobs/{id}/cancel", post(cancel))
        .with_state(Jobs { downloads, moves })
}

#[derive(Clone)]
struct Jobs {
    downloads: Downloads,
    moves: Moves,
}

async fn list(State(jobs): State<Jobs>) -> Json<Vec<DownloadStatus>> {
    let copies = jobs.moves.status().into_iter().map(as_job);
    Json(jobs.downloads.status().into_iter().chain(copies).collect())
}

/// A copy in the words of a download.
fn as_job(copy: CopyStatus) -> DownloadStatus {
    let (done, total) = (copy.done_bytes, copy.total_bytes);
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0).min(99);
    let seconds = copy.started_ago_ms / 1000;
    DownloadStatus {
        job: copy.job,
        state: DownloadState::Copying,
        percent: u8::try_from(percent).unwrap_or(99),
        received_bytes: done,
        total_bytes: (total > 0).then_some(total),
        bytes_per_second: done.checked_div(seconds),
        object: copy.path.clone(),
        url: copy.store.clone(),
        store: copy.store,
        path: copy.path,
        text: String::new(),
        warnings: Vec::new(),
        started_ago_ms: copy.started_ago_ms,
    }
}

fn unknown(id: &str) -> Response {
    refusal(StatusCode::NOT_FOUND, format!("there is no download or copy {id:?}"))
}

async fn retry(State(jobs): State<Jobs>, Path(id): Path<String>) -> Response {
    let Jobs { downloads, moves } = jobs;
    if moves.status().iter().any(|copy| copy.job == id) {
        return refusal(StatusCode::CONFLICT, "a copy is only begun again by the server");
    }
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

async fn cancel(State(jobs): State<Jobs>, Path(id): Path<String>) -> Response {
    let Jobs { downloads, moves } = jobs;
    if let Some(copy) = moves.cancel(&id) {
        tracing::info!(job = id, path = copy.path, "copy cancelled, as an operator asked");
        let state = DownloadState::Cancelled;
        return Json(DownloadStatus { state, ..as_job(copy) }).into_response();
    }
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
