//! Zones, subnets and ranges.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::collections::{Page, query};
use super::{Answer, Api, Body, Context, draft, json, key, new_key, preconditions, tagged};
use crate::desired::{Change, DesiredState, SubnetState};
use crate::machine::addresses_of;
use crate::model::{Attachment, Resource};
use crate::value::ResourceId;

/// Query of a collection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    pub(super) limit: Option<usize>,
    pub(super) cursor: Option<String>,
}

/// Query of a removal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    #[serde(default)]
    cascade: bool,
}

/// A resource as it is kept, with its revision.
pub(super) fn shown<R: Resource + serde::Serialize>(resource: &R) -> Option<(u64, Value)> {
    let value = serde_json::to_value(resource).ok()?;
    Some((resource.meta().revision, value))
}

pub(super) async fn list(
    State(api): Context,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer {
    let Paging { limit, cursor } = query(paging)?;
    let state = api.store.state();
    let items = state
        .zones
        .values()
        .filter_map(|zone| Some((zone.zone.id.to_string(), shown(&zone.zone)?.1)));
    Ok(Page::new(limit, cursor)?.of(state.generation, items))
}

pub(super) async fn show(State(api): Context, Path(zone): Path<String>) -> Answer {
    let state = api.store.state();
    let (revision, body) =
        shown(&state.zone(&key("zone", &zone)?)?.zone).ok_or_else(super::unshowable)?;
    Ok(tagged(StatusCode::OK, revision, &body))
}

pub(super) async fn put(
    State(api): Context,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let id: ResourceId = new_key("id", &zone)?;
    let zone = draft::zone(id.clone(), json(body)?)?;
    let conditions = preconditions(&headers)?;
    let show = |api: &Api| shown(&api.store.state().zones.get(&id)?.zone);
    api.write(Change::PutZone(Box::new(zone)), conditions, &headers, show).await
}

pub(super) async fn remove(
    State(api): Context,
    Path(zone): Path<String>,
    removal: Result<Query<Removal>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let change = Change::DeleteZone { zone: key("zone", &zone)?, cascade: query(removal)?.cascade };
    api.write(change, preconditions(&headers)?, &headers, |_| None).await
}

impl Api {
    /// A subnet with its computed state.
    fn subnet(&self, state: &SubnetState) -> Option<(u64, Value)> {
        let subnet = &state.subnet;
        let (revision, mut body) = shown(subnet)?;
        let served = match subnet.attachment {
            Attachment::Interface { .. } => addresses_of(&self.releaser.interface)
                .into_iter()
                .any(|address| subnet.cidr.contains(address)),
            Attachment::Shared { .. } | Attachment::Relay { .. } => true,
        };
        let state = match (subnet.enabled, served) {
            (false, _) => "disabled",
            (true, true) => "active",
            (true, false) => "unserved",
        };
        let fields = body.as_object_mut()?;
        fields.shift_remove("enabled");
        fields.insert("state".to_owned(), json!(state));
        Some((revision, body))
    }
}

fn find<'a>(
    state: &'a DesiredState,
    zone: &ResourceId,
    id: &ResourceId,
) -> Option<&'a SubnetState> {
    state.zones.get(zone)?.subnets.get(id)
}

fn existing<'a>(
    state: &'a DesiredState,
    zone: &ResourceId,
    id: &ResourceId,
) -> Result<&'a SubnetState, super::Problem> {
    let zone = state.zone(zone)?;
    zone.subnets.get(id).ok_or_else(|| super::missing("subnet", id))
}

pub(super) async fn list_subnets(
    State(api): Context,
    Path(zone): Path<String>,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer {
    let Paging { limit, cursor } = query(paging)?;
    let state = api.store.state();
    let items = state
        .zone(&key("zone", &zone)?)?
        .subnets
        .iter()
        .filter_map(|(id, subnet)| Some((id.to_string(), api.subnet(subnet)?.1)));
    Ok(Page::new(limit, cursor)?.of(state.generation, items))
}

pub(super) async fn show_subnet(
    State(api): Context,
    Path((zone, subnet)): Path<(String, String)>,
) -> Answer {
    let state = api.store.state();
    let subnet = existing(&state, &key("zone", &zone)?, &key("subnet", &subnet)?)?;
    let (revision, body) = api.subnet(subnet).ok_or_else(super::unshowable)?;
    Ok(tagged(StatusCode::OK, revision, &body))
}

pub(super) async fn put_subnet(
    State(api): Context,
    Path((zone, subnet)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (zone, id): (ResourceId, ResourceId) = (key("zone", &zone)?, new_key("id", &subnet)?);
    let interface = api.releaser.interface.as_str();
    let subnet = Box::new(draft::subnet(id.clone(), interface, json(body)?)?);
    let conditions = preconditions(&headers)?;
    let change = Change::PutSubnet { zone: zone.clone(), subnet };
    let show = |api: &Api| api.subnet(find(&api.store.state(), &zone, &id)?);
    api.write(change, conditions, &headers, show).await
}

pub(super) async fn remove_subnet(
    State(api): Context,
    Path((zone, subnet)): Path<(String, String)>,
    removal: Result<Query<Removal>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let (zone, subnet) = (key("zone", &zone)?, key("subnet", &subnet)?);
    let change = Change::DeleteSubnet { zone, subnet, cascade: query(removal)?.cascade };
    api.write(change, preconditions(&headers)?, &headers, |_| None).await
}

pub(super) async fn list_ranges(
    State(api): Context,
    Path((zone, subnet)): Path<(String, String)>,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer {
    let Paging { limit, cursor } = query(paging)?;
    let state = api.store.state();
    let subnet = existing(&state, &key("zone", &zone)?, &key("subnet", &subnet)?)?;
    let items =
        subnet.ranges.iter().filter_map(|(id, range)| Some((id.to_string(), shown(range)?.1)));
    Ok(Page::new(limit, cursor)?.of(state.generation, items))
}

type RangePath = Path<(String, String, String)>;

pub(super) async fn show_range(
    State(api): Context,
    Path((zone, subnet, range)): RangePath,
) -> Answer {
    let state = api.store.state();
    let subnet = existing(&state, &key("zone", &zone)?, &key("subnet", &subnet)?)?;
    let id: ResourceId = key("range", &range)?;
    let range = subnet.ranges.get(&id).ok_or_else(|| super::missing("range", &id))?;
    let (revision, body) = shown(range).ok_or_else(super::unshowable)?;
    Ok(tagged(StatusCode::OK, revision, &body))
}

pub(super) async fn put_range(
    State(api): Context,
    Path((zone, subnet, range)): RangePath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let zone: ResourceId = key("zone", &zone)?;
    let (subnet, id): (ResourceId, ResourceId) = (key("subnet", &subnet)?, new_key("id", &range)?);
    let range = Box::new(draft::range(id.clone(), json(body)?)?);
    let change = Change::PutRange { zone: zone.clone(), subnet: subnet.clone(), range };
    let show = |api: &Api| shown(find(&api.store.state(), &zone, &subnet)?.ranges.get(&id)?);
    api.write(change, preconditions(&headers)?, &headers, show).await
}

pub(super) async fn remove_range(
    State(api): Context,
    Path((zone, subnet, range)): RangePath,
    headers: HeaderMap,
) -> Answer {
    let (zone, subnet) = (key("zone", &zone)?, key("subnet", &subnet)?);
    let change = Change::DeleteRange { zone, subnet, range: key("range", &range)? };
    api.write(change, preconditions(&headers)?, &headers, |_| None).await
}
