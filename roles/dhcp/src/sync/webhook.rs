//! The server's webhook: a bell, not a message. What it says is verified and then only decides
//! where to look; every fact is asked for over the API.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bedrock::Secret;
use bedrock::files::read_secret;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use http_front::{HttpLimits, Listener};
use serde::Deserialize;
use sha2::Sha256;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::config::WebhookConfig;
use super::machine::Wake;
use super::runner::Command;
use crate::metrics::Metrics;

/// Events are a few hundred bytes.
const BODY: usize = 64 * 1024;
/// The address may come later than we do.
const AGAIN: Duration = Duration::from_secs(10);
const SIGNATURE: &str = "x-cs-signature";

/// An event, as far as it matters. Everything may be missing.
#[derive(Debug, Default, Deserialize)]
struct Told {
    #[serde(default)]
    event: String,
    entity: Option<String>,
    entityuuid: Option<String>,
    #[serde(rename = "VirtualMachine")]
    machine: Option<String>,
}

/// Where an event says to look; `None` for one that is about nothing here.
pub fn wake_of(body: &[u8]) -> Option<Wake> {
    let told: Told = serde_json::from_slice(body).unwrap_or_default();
    let entity = told.entityuuid.filter(|_| told.entity.as_deref() == Some("VirtualMachine"));
    let machine: Option<Uuid> = told.machine.or(entity).and_then(|id| id.parse().ok());
    let starts = |prefixes: &[&str]| prefixes.iter().any(|p| told.event.starts_with(p));
    match (told.event.as_str(), machine) {
        ("VM.CREATE" | "VM.START", Some(id)) => Some(Wake::Starting(id)),
        ("NET.IPASSIGN", machine) => Some(Wake::Soon(machine)),
        _ if starts(&["VM.", "NIC."]) => Some(machine.map_or(Wake::Anything, Wake::Changed)),
        _ if starts(&["NETWORK.", "VLAN.IP.RANGE.", "POD.", "ZONE.EDIT"]) => Some(Wake::Anything),
        _ => None,
    }
}

/// Whether `signature` is that of `body`, compared in constant time.
pub(crate) fn is_signed(body: &[u8], signature: &str, secret: &Secret<String>) -> bool {
    let Ok(given) = STANDARD.decode(signature) else { return false };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()) else {
        return false;
    };
    mac.update(body);
    mac.verify_slice(&given).is_ok()
}

#[derive(Debug, Clone)]
struct Receiver {
    secret: Secret<String>,
    commands: mpsc::Sender<Command>,
    metrics: Metrics,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let signature = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
    if !is_signed(&body, signature.unwrap_or_default(), &receiver.secret) {
        receiver.metrics.webhook("refused");
        tracing::warn!("a webhook without the right signature was refused");
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match wake_of(&body) {
        None => receiver.metrics.webhook("ignored"),
        Some(wake) => {
            receiver.metrics.webhook("taken");
            // When many wait already, one look sees this, too.
            if receiver.commands.try_send(Command::Wake(wake)).is_err() {
                tracing::debug!(?wake, "a wake-up came while many wait");
            }
        }
    }
    // The server takes exactly this for success.
    (StatusCode::OK, axum::Json(serde_json::json!({}))).into_response()
}

/// Listens for as long as the role runs; while it cannot, the sync goes on without.
pub(crate) async fn serve(
    config: WebhookConfig,
    commands: mpsc::Sender<Command>,
    metrics: Metrics,
    cx: role::RoleContext,
) {
    let opening = async {
        loop {
            match open(&config, &cx).await {
                Ok(both) => return both,
                Err(text) => {
                    tracing::warn!(error = text, "no webhook is received");
                    cx.health.set_condition("webhook", format!("no webhook is received: {text}"));
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let Some((secret, listener)) = cx.shutdown.run_until_cancelled(opening).await else { return };
    cx.health.clear_condition("webhook");
    let receiver = Receiver { secret, commands, metrics };
    let limits = HttpLimits { connections: 32, ..HttpLimits::default() };
    http_front::serve(listener, router(receiver), limits, cx.tasks.clone(), cx.shutdown.clone())
        .await;
}

async fn open(
    config: &WebhookConfig,
    cx: &role::RoleContext,
) -> Result<(Secret<String>, Listener), String> {
    let path = config.secret_file.clone();
    let secret = cx.tasks.blocking("webhook secret", move || read_secret(&path)).await;
    let secret = secret.map_err(|error| bedrock::chain(&error))??;
    let listener = Listener::tcp(config.listen).await.map_err(|error| bedrock::chain(&error))?;
    Ok((secret, listener))
}

fn router(receiver: Receiver) -> Router {
    Router::new()
        .route("/v1/webhooks/cloudstack", post(receive))
        .route("/v1/webhooks/cloudstack/{zone}", post(receive))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_recorded_vector() {
        let secret = Secret::new("whsecret".to_owned());
        let body = br#"{"event":"VM.START","status":"Completed","entity":"VirtualMachine"}"#;
        let signature = "KthekLnKy7VyTDp75le8MuY9XGskA6TYUqNUJfJdvg8=";
        assert!(is_signed(body, signature, &secret));
        assert!(!is_signed(b"{}", signature, &secret));
        assert!(!is_signed(body, "", &secret));
        assert!(!is_signed(body, "not base64", &secret));
        assert!(!is_signed(body, signature, &Secret::new("other".to_owned())));
    }

    #[test]
    fn events_say_where_to_look_and_nothing_else() {
        let id = Uuid::from_u128(7);
        let check =
            |body: String, expected| assert_eq!(wake_of(body.as_bytes()), expected, "{body}");
        let event = |event: &str, more: &str| format!("{{\"event\":\"{event}\"{more}}}");
        let vm =
            format!(",\"entity\":\"VirtualMachine\",\"entityuuid\":\"{id}\",\"ip\":\"6.6.6.6\"");
        check(event("VM.START", &vm), Some(Wake::Starting(id)));
        check(event("VM.CREATE", ""), Some(Wake::Anything));
        check(
            event("VM.UPDATE", &format!(",\"VirtualMachine\":\"{id}\"")),
            Some(Wake::Changed(id)),
        );
        check(event("VM.WHATEVER", ",\"VirtualMachine\":\"../etc\""), Some(Wake::Anything));
        check(event("NET.IPASSIGN", ""), Some(Wake::Soon(None)));
        check(event("VLAN.IP.RANGE.CREATE", ""), Some(Wake::Anything));
        check(event("TEST.WEBHOOK", ""), None);
        check("{ \"CloudStack\": \"works!\" }".to_owned(), None);
        check("not JSON".to_owned(), None);
    }
}
