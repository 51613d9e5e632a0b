//! Watching: what a client said and was told, and whether somebody else gives addresses.

use std::net::Ipv4Addr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use dhcp_api::answer::{ProbeAnswer, TraceAnswer, TraceLine};
use dhcp_api::problem::{Problem, ProblemKind};
use dhcp_api::words::MacAddress;
use serde::Deserialize;

use super::collections::query;
use super::problem::Refusal;
use super::{Answer, Context, key};
use crate::probe;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    #[serde(default)]
    after: u64,
}

/// Lines about a client: those that name it, or an address that is reserved for it.
pub(super) async fn trace(
    State(api): Context,
    Path(mac): Path<String>,
    after: Result<Query<After>, QueryRejection>,
) -> Answer {
    let After { after } = query(after)?;
    let mac: MacAddress = key("client", &mac)?;
    let state = api.store.state();
    let own = state.reservations().filter(|(_, kept)| kept.mac == mac);
    let addresses: Vec<Ipv4Addr> = own.map(|(_, kept)| kept.ipv4).collect();
    let (lines, next) = api.heard.about(mac, &addresses, after);
    let items = lines.into_iter().map(|line| {
        let age_ms = u64::try_from(line.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        TraceLine { number: line.number, age_ms, text: line.text }
    });
    Ok((StatusCode::OK, axum::Json(TraceAnswer { items: items.collect(), next })).into_response())
}

pub(super) async fn probe(State(api): Context) -> Answer {
    let interface = api.releaser.interface.clone();
    let seed = uuid::Uuid::new_v4().as_u64_pair().0.to_be_bytes();
    let probed = api.tasks.blocking("probe", move || probe::probe(&interface, seed)).await;
    let failed = |text: String| {
        let problem = Problem::new(ProblemKind::InstanceDown, format!("cannot ask: {text}"));
        Refusal::from(problem.remedy("run as root or with CAP_NET_RAW, on an interface that is up"))
    };
    let servers = probed
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    let interface = api.releaser.interface.to_string();
    Ok((StatusCode::OK, axum::Json(ProbeAnswer { interface, servers })).into_response())
}
