//! Subnets and their ranges.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use dhcp_api::read;
use dhcp_api::resource::{Attachment, Range, Source, Subnet, SubnetStatus};
use dhcp_api::words::{Invalid, ResourceId};
use serde_json::Value;

use super::collections::{Paging, Removal, Window, query};
use super::problem::{Refusal, invalid};
use super::{Answer, Api, Body, Context, json, key, missing, new_key, tagged};
use crate::desired::{Change, DesiredState, SubnetState};
use crate::machine::addresses_of;
use crate::render::LineOwner;

impl Api {
    /// A subnet with its computed state.
    fn subnet(&self, state: &SubnetState) -> Subnet {
        let mut subnet = state.subnet.clone();
        let is_on_link = matches!(subnet.attachment, Some(Attachment::Interface { .. }));
        let is_ours = || {
            // What cannot be seen is not said; the role's condition says that it cannot.
            addresses_of(&self.releaser.interface).map_or(true, |addresses| {
                addresses.into_iter().any(|address| subnet.cidr.contains(address))
            })
        };
        if subnet.is_enabled() && is_on_link && !is_ours() {
            subnet.state = SubnetStatus::Unserved;
        }
        subnet
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
) -> Result<&'a SubnetState, Refusal> {
    state.zone(zone)?.subnets.get(id).ok_or_else(|| missing("subnet", id))
}

pub(super) async fn list(
    State(api): Context,
    Path(zone): Path<String>,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer {
    let window = Window::of_query(paging)?;
    let state = api.store.state();
    let subnets = state.zone(&key("zone", &zone)?)?.subnets.iter();
    let items = subnets.map(|(id, subnet)| (id.to_string(), api.subnet(subnet)));
    Ok(window.of(state.generation, items))
}

pub(super) async fn show(
    State(api): Context,
    Path((zone, subnet)): Path<(String, String)>,
) -> Answer {
    let state = api.store.state();
    let subnet = api.subnet(existing(&state, &key("zone", &zone)?, &key("subnet", &subnet)?)?);
    Ok(tagged(StatusCode::OK, subnet.meta.revision, &subnet))
}

pub(super) async fn put(
    State(api): Context,
    Path((zone, subnet)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (zone, id): (ResourceId, ResourceId) = (key("zone", &zone)?, new_key("id", &subnet)?);
    let subnet = Subnet::new(id.clone(), read::resource(&id, json(body)?)?, Source::Api);
    let subnet = completed(subnet, api.releaser.interface.as_str())
        .map_err(|misfit| invalid(misfit.0, misfit.1, misfit.2))?;
    let owner = LineOwner::Subnet(subnet.cidr);
    let change = Change::PutSubnet { zone: zone.clone(), subnet: Box::new(subnet) };
    let show = |api: &Api| {
        let subnet = api.subnet(find(&api.store.state(), &zone, &id)?);
        Some((subnet.meta.revision, subnet))
    };
    api.write(change, &headers, show, |observed| observed.rejected_line(owner)).await
}

/// A field that does not fit the configuration or the rest of the body.
type Misfit = Box<(&'static str, Value, Invalid)>;

/// A subnet of a request with everything that follows from the configuration.
pub(super) fn completed(mut subnet: Subnet, interface: &str) -> Result<Subnet, Misfit> {
    let given = subnet.attachment.clone();
    let attachment = attachment(given, interface)?;
    if subnet.attachment.as_ref() != Some(&attachment) {
        subnet.attachment = Some(attachment);
    }
    if let Some(gateway) = subnet.gateway.filter(|gateway| !subnet.cidr.has_host(*gateway)) {
        let reason = format!("is not a host address of {}", subnet.cidr);
        let remedy = "give a host address of the subnet, or null for no router";
        return Err(Box::new(("gateway", gateway.to_string().into(), Invalid { reason, remedy })));
    }
    Ok(subnet)
}

/// On the one interface that is served.
fn attachment(given: Option<Attachment>, interface: &str) -> Result<Attachment, Misfit> {
    let unusable = |reason: String, value: &str| {
        let remedy = "give the interface set as roles.dhcp.interface";
        Box::new(("attachment.name", Value::from(value), Invalid { reason, remedy }))
    };
    match given {
        None => {
            let name =
                interface.parse().map_err(|_| unusable("is missing".to_owned(), interface))?;
            Ok(Attachment::Interface { name })
        }
        Some(Attachment::Interface { name } | Attachment::Shared { name })
            if name.as_str() != interface =>
        {
            let reason = format!("is not {interface}, the interface that is served");
            Err(unusable(reason, name.as_str()))
        }
        Some(given) => Ok(given),
    }
}

pub(super) async fn remove(
    State(api): Context,
    Path((zone, subnet)): Path<(String, String)>,
    removal: Result<Query<Removal>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let (zone, subnet) = (key("zone", &zone)?, key("subnet", &subnet)?);
    let change = Change::DeleteSubnet { zone, subnet, cascade: query(removal)?.cascade };
    api.remove(change, &headers).await
}

pub(super) async fn list_ranges(
    State(api): Context,
    Path((zone, subnet)): Path<(String, String)>,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer {
    let window = Window::of_query(paging)?;
    let state = api.store.state();
    let subnet = existing(&state, &key("zone", &zone)?, &key("subnet", &subnet)?)?;
    let items = subnet.ranges.iter().map(|(id, range)| (id.to_string(), range));
    Ok(window.of(state.generation, items))
}

type RangePath = Path<(String, String, String)>;

pub(super) async fn show_range(
    State(api): Context,
    Path((zone, subnet, range)): RangePath,
) -> Answer {
    let state = api.store.state();
    let subnet = existing(&state, &key("zone", &zone)?, &key("subnet", &subnet)?)?;
    let id: ResourceId = key("range", &range)?;
    let range = subnet.ranges.get(&id).ok_or_else(|| missing("range", &id))?;
    Ok(tagged(StatusCode::OK, range.meta.revision, range))
}

pub(super) async fn put_range(
    State(api): Context,
    Path((zone, subnet, range)): RangePath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let zone: ResourceId = key("zone", &zone)?;
    let (subnet, id): (ResourceId, ResourceId) = (key("subnet", &subnet)?, new_key("id", &range)?);
    let range = Range::new(id.clone(), read::resource(&id, json(body)?)?, Source::Api);
    let change =
        Change::PutRange { zone: zone.clone(), subnet: subnet.clone(), range: Box::new(range) };
    let show = |api: &Api| {
        let range = find(&api.store.state(), &zone, &subnet)?.ranges.get(&id)?.clone();
        Some((range.meta.revision, range))
    };
    api.write(change, &headers, show, |_| None).await
}

pub(super) async fn remove_range(
    State(api): Context,
    Path((zone, subnet, range)): RangePath,
    headers: HeaderMap,
) -> Answer {
    let (zone, subnet) = (key("zone", &zone)?, key("subnet", &subnet)?);
    let change = Change::DeleteRange { zone, subnet, range: key("range", &range)? };
    api.remove(change, &headers).await
}
