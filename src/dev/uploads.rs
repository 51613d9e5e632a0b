//! What the page does to upload a file: it asks the server for a signed order, as the UI does, and
//! posts the file to the storage role itself.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use bedrock::chain;
use management_server::{ManagementServer, UploadParameters};
use serde::Deserialize;
use serde_json::{Value, json};

use super::page::{Form, Refusal, form, image};

/// The route of the page's form.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(server: ManagementServer) -> Router<S> {
    Router::new().route("/api/uploads", post(announce)).with_state(server)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Announcement {
    name: String,
    format: String,
    kind: Option<String>,
}

async fn announce(
    State(server): State<ManagementServer>,
    wanted: Form<Announcement>,
) -> Result<Json<Value>, Refusal> {
    let Announcement { name, format, kind } = form(wanted)?;
    let wanted = image(name, String::new(), &format, kind.as_deref(), None)?;
    let announced = server.announce_upload(wanted);
    let (_, parameters) =
        announced.map_err(|error| Refusal(StatusCode::BAD_GATEWAY, chain(&error)))?;
    let UploadParameters { post_url, metadata, expires, signature, .. } = parameters;
    Ok(Json(json!({
        "url": post_url,
        "headers": { "x-metadata": metadata, "x-expires": expires, "x-signature": signature },
    })))
}
