//! `/uploads`: what browsers and other clients upload.
//!
//! | route | what |
//! |---|---|
//! | `GET /uploads` | all that run or ended lately, as in `/status` |
//! | `POST /uploads/{id}/cancel` | ends one and removes what there is of it; the server is told |

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use status_api::UploadStatus;

use super::refusal;
use crate::uploads::{UploadError, Uploads};

pub(super) fn routes(uploads: Uploads) -> Router {
    Router::new()
        .route("/uploads", get(list))
        .route("/uploads/{id}/cancel", post(cancel))
        .with_state(uploads)
}

async fn list(State(uploads): State<Uploads>) -> Json<Vec<UploadStatus>> {
    Json(uploads.status())
}

async fn cancel(State(uploads): State<Uploads>, Path(id): Path<String>) -> Response {
    let Some(upload) = uploads.running(&id) else {
        let text = format!("no upload {id:?} is under way");
        return refusal(StatusCode::NOT_FOUND, text);
    };
    tracing::info!(upload = upload.id, "upload cancelled, as an operator asked");
    upload.end(UploadError::Cancelled);
    drop(upload.ended().await);
    match uploads.status().into_iter().find(|status| status.upload == upload.id) {
        Some(status) => Json(status).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}
