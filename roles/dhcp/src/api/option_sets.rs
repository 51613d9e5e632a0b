//! Option sets: options under a name, for subnets and reservations of a zone.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use dhcp_api::read;
use dhcp_api::resource::{OptionSet, OptionSetContent, Source};
use dhcp_api::words::ResourceId;

use super::collections::{Paging, Window};
use super::{Answer, Api, Body, Context, json, key, new_key, tagged};
use crate::desired::Change;

pub(super) async fn list(
    State(api): Context,
    Path(zone): Path<String>,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer {
    let window = Window::of_query(paging)?;
    let state = api.store.state();
    let sets = state.zone(&key("zone", &zone)?)?.option_sets.iter();
    Ok(window.of(state.generation, sets.map(|(id, set)| (id.to_string(), set))))
}

type SetPath = Path<(String, String)>;

pub(super) async fn show(State(api): Context, Path((zone, set)): SetPath) -> Answer {
    let (zone, id): (_, ResourceId) = (key("zone", &zone)?, key("option set", &set)?);
    let state = api.store.state();
    let found = state.zone(&zone)?.option_sets.get(&id);
    let set = found.ok_or_else(|| super::missing("option set", &id))?;
    Ok(tagged(StatusCode::OK, set.meta.revision, set))
}

pub(super) async fn put(
    State(api): Context,
    Path((zone, set)): SetPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (zone, id): (ResourceId, ResourceId) = (key("zone", &zone)?, new_key("id", &set)?);
    let content: OptionSetContent = read::resource(&id, json(body)?)?;
    let set = Box::new(OptionSet::new(id.clone(), content, Source::Api));
    let change = Change::PutOptionSet { zone: zone.clone(), set };
    let show = |api: &Api| {
        let set = api.store.state().zones.get(&zone)?.option_sets.get(&id)?.clone();
        Some((set.meta.revision, set))
    };
    api.write(change, &headers, show, |_| None).await
}

pub(super) async fn remove(
    State(api): Context,
    Path((zone, set)): SetPath,
    headers: HeaderMap,
) -> Answer {
    let (zone, set) = (key("zone", &zone)?, key("option set", &set)?);
    api.remove(Change::DeleteOptionSet { zone, set }, &headers).await
}
