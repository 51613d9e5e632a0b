//! `/stores`, `/verify`: the stores of this host, and what is on them.
//!
//! | route | what |
//! |---|---|
//! | `GET /stores` | all that are configured or were asked for, as in `/status` |
//! | `POST /verify?store=URL&repair=true` | looks at everything on one store, or on all that are ready |

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use status_api::StoreStatus;

use super::refusal;
use crate::stores::survey::Surveys;
use crate::stores::{StoreUrl, Stores};

pub(super) fn routes(stores: Stores, surveys: Surveys) -> Router {
    Router::new()
        .route("/stores", get(list).with_state(surveys.clone()))
        .route("/verify", post(verify).with_state((stores, surveys)))
}

async fn list(State(surveys): State<Surveys>) -> Json<Vec<StoreStatus>> {
    Json(surveys.status())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    store: Option<String>,
    #[serde(default)]
    repair: bool,
}

async fn verify(
    State((stores, surveys)): State<(Stores, Surveys)>,
    Query(wish): Query<Wish>,
) -> Response {
    let only = match wish.store.as_deref().map(str::parse::<StoreUrl>).transpose() {
        Ok(only) => only,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if let Some(url) = &only {
        let known = stores
            .status()
            .into_iter()
            .any(|store| store.url.parse::<StoreUrl>().is_ok_and(|other| other.key() == url.key()));
        if !known {
            return refusal(StatusCode::NOT_FOUND, format!("there is no store {url}"));
        }
        if let Err(error) = stores.open(url, None).await {
            return refusal(StatusCode::CONFLICT, bedrock::chain(&error));
        }
    }
    if wish.repair {
        tracing::info!("leftovers are removed, as an operator asked");
    }
    Json(surveys.look(only.as_ref(), wish.repair).await).into_response()
}
