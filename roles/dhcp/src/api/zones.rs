//! Zones.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use dhcp_api::read;
use dhcp_api::resource::{Source, Zone};
use dhcp_api::words::ResourceId;

use super::collections::{Paging, Removal, Window, query};
use super::{Answer, Api, Body, Context, json, key, new_key, tagged};
use crate::desired::Change;

pub(super) async fn list(
    State(api): Context,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer {
    let window = Window::of_query(paging)?;
    let state = api.store.state();
    let items = state.zones.values().map(|zone| (zone.zone.id.to_string(), &zone.zone));
    Ok(window.of(state.generation, items))
}

pub(super) async fn show(State(api): Context, Path(zone): Path<String>) -> Answer {
    let state = api.store.state();
    let zone = &state.zone(&key("zone", &zone)?)?.zone;
    Ok(tagged(StatusCode::OK, zone.meta.revision, zone))
}

pub(super) async fn put(
    State(api): Context,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let id: ResourceId = new_key("id", &zone)?;
    let zone = Zone::new(id.clone(), read::resource(&id, json(body)?)?, Source::Api);
    let show = |api: &Api| {
        let zone = api.store.state().zones.get(&id)?.zone.clone();
        Some((zone.meta.revision, zone))
    };
    api.write(Change::PutZone(Box::new(zone)), &headers, show, |_| None).await
}

pub(super) async fn remove(
    State(api): Context,
    Path(zone): Path<String>,
    removal: Result<Query<Removal>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let change = Change::DeleteZone { zone: key("zone", &zone)?, cascade: query(removal)?.cascade };
    api.remove(change, &headers).await
}
