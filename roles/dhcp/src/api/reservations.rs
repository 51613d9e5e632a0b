//! Reservations: one NIC, one address.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};

use super::collections::{Page, query};
use super::problem::{Problem, Slug};
use super::zones::shown;
use super::{Answer, Api, Body, Context, draft, json, key, new_key, preconditions, tagged};
use crate::desired::{Change, DesiredState};
use crate::leases::Lease;
use crate::model::{Purpose, Reservation, Source};
use crate::value::{HostName, MacAddress, ResourceId};

/// Most entries of a batch, upserts and deletions together.
const BATCH: usize = 20_000;

/// Query of the collection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    mac: Option<String>,
    ip: Option<String>,
    hostname: Option<String>,
    subnet: Option<String>,
    source: Option<Source>,
    leased: Option<bool>,
    limit: Option<usize>,
    cursor: Option<String>,
}

impl Api {
    /// A reservation with what is known about it.
    fn reservation(
        &self,
        state: &DesiredState,
        zone: &ResourceId,
        reservation: &Reservation,
        leases: &[Lease],
    ) -> Option<(u64, Value)> {
        let (revision, mut body) = shown(reservation)?;
        let lease = lease_of(reservation, leases);
        let mut status = json!({
            "applied": self.observed.borrow().applied >= revision,
            "applied_generation": self.observed.borrow().applied,
            "leased": lease.is_some(),
            "lease_expires": lease.and_then(|lease| lease.expires),
        });
        if outside_reserved(state, zone, reservation) == Some(true) {
            let text = "the address lies outside every reserved range of its subnet";
            status.as_object_mut()?.insert("warning".to_owned(), json!(text));
        }
        body.as_object_mut()?.insert("status".to_owned(), status);
        Some((revision, body))
    }

    fn one(&self, zone: &ResourceId, id: &ResourceId, leases: &[Lease]) -> Option<(u64, Value)> {
        let state = self.store.state();
        let reservation = state.zones.get(zone)?.reservations.get(id)?;
        self.reservation(&state, zone, reservation, leases)
    }
}

fn lease_of<'a>(reservation: &Reservation, leases: &'a [Lease]) -> Option<&'a Lease> {
    leases.iter().find(|lease| lease.ipv4 == reservation.ipv4 && lease.mac == reservation.mac)
}

/// `None` when the subnet has no reserved range.
fn outside_reserved(
    state: &DesiredState,
    zone: &ResourceId,
    reservation: &Reservation,
) -> Option<bool> {
    let ranges = &state.zones.get(zone)?.subnets.get(&reservation.subnet)?.ranges;
    let mut reserved =
        ranges.values().filter(|range| range.purpose == Purpose::Reserved).peekable();
    reserved.peek()?;
    Some(!reserved.any(|range| range.contains(reservation.ipv4)))
}

pub(super) async fn list(
    State(api): Context,
    Path(zone): Path<String>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Answer {
    let filter = query(filter)?;
    let page = Page::new(filter.limit, filter.cursor)?;
    let id: ResourceId = key("zone", &zone)?;
    let mac: Option<MacAddress> = wanted("mac", filter.mac.as_deref())?;
    let address: Option<Ipv4Addr> = wanted("ip", filter.ip.as_deref())?;
    let hostname: Option<HostName> = wanted("hostname", filter.hostname.as_deref())?;
    let subnet: Option<ResourceId> = wanted("subnet", filter.subnet.as_deref())?;
    let leases = api.leases().await?;
    let state = api.store.state();
    let items = state
        .zone(&id)?
        .reservations
        .values()
        .filter(|r| mac.is_none_or(|mac| r.mac == mac))
        .filter(|r| address.is_none_or(|address| r.ipv4 == address))
        .filter(|r| hostname.as_ref().is_none_or(|name| r.names().any(|own| own == name)))
        .filter(|r| subnet.as_ref().is_none_or(|subnet| r.subnet == *subnet))
        .filter(|r| filter.source.is_none_or(|source| r.meta.source == source))
        .filter(|r| filter.leased.is_none_or(|leased| lease_of(r, &leases).is_some() == leased))
        .filter_map(|r| Some((r.id.to_string(), api.reservation(&state, &id, r, &leases)?.1)));
    Ok(page.of(state.generation, items))
}

/// A value to search for.
pub(super) fn wanted<T: std::str::FromStr>(
    field: &str,
    text: Option<&str>,
) -> Result<Option<T>, Problem>
where
    T::Err: std::fmt::Display,
{
    let bad = |text, error| Problem::new(Slug::Malformed, format!("{field} {text:?} {error}"));
    text.map(|text| text.parse().map_err(|error| bad(text, error))).transpose()
}

pub(super) async fn show(
    State(api): Context,
    Path((zone, reservation)): Path<(String, String)>,
) -> Answer {
    let (zone, id) = (key("zone", &zone)?, key("reservation", &reservation)?);
    api.store.state().zone(&zone)?;
    let leases = api.leases().await?;
    let found = api.one(&zone, &id, &leases);
    let (revision, body) = found.ok_or_else(|| super::missing("reservation", &id))?;
    Ok(tagged(StatusCode::OK, revision, &body))
}

pub(super) async fn by_mac(
    State(api): Context,
    Path((zone, mac)): Path<(String, String)>,
) -> Answer {
    let mac: MacAddress = key("reservation of MAC", &mac)?;
    first(&api, &zone, "reservation of MAC", &mac, |r| r.mac == mac).await
}

pub(super) async fn by_address(
    State(api): Context,
    Path((zone, address)): Path<(String, String)>,
) -> Answer {
    let address: Ipv4Addr = key("reservation of address", &address)?;
    first(&api, &zone, "reservation of address", &address, |r| r.ipv4 == address).await
}

async fn first(
    api: &Api,
    zone: &str,
    what: &'static str,
    wanted: &(impl ToString + Sync),
    is_it: impl Fn(&Reservation) -> bool + Send,
) -> Answer {
    let zone: ResourceId = key("zone", zone)?;
    let leases = api.leases().await?;
    let state = api.store.state();
    let found = state.zone(&zone)?.reservations.values().find(|r| is_it(r));
    let (revision, body) = found
        .and_then(|r| api.reservation(&state, &zone, r, &leases))
        .ok_or_else(|| super::missing(what, wanted))?;
    Ok(tagged(StatusCode::OK, revision, &body))
}

/// The subnet of a zone that holds an address.
fn subnet_of(state: &DesiredState, zone: &ResourceId, address: Ipv4Addr) -> Option<ResourceId> {
    let subnets = state.zones.get(zone)?.subnets.values();
    let mut holding = subnets.filter(|subnet| subnet.subnet.cidr.contains(address));
    holding.next().map(|subnet| subnet.subnet.id.clone())
}

pub(super) async fn put(
    State(api): Context,
    Path((zone, reservation)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let zone: ResourceId = key("zone", &zone)?;
    let id: ResourceId = new_key("id", &reservation)?;
    let state = api.store.state();
    state.zone(&zone)?;
    let subnet_of = |address| subnet_of(&state, &zone, address);
    let reservation = Box::new(draft::reservation(&id, json(body)?, subnet_of)?);
    let change = Change::PutReservation { zone: zone.clone(), reservation };
    let leases = api.leases().await?;
    let show = |api: &Api| api.one(&zone, &id, &leases);
    api.write(change, preconditions(&headers)?, &headers, show).await
}

pub(super) async fn remove(
    State(api): Context,
    Path((zone, reservation)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let (zone, reservation) = (key("zone", &zone)?, key("reservation", &reservation)?);
    let change = Change::DeleteReservation { zone, reservation };
    api.write(change, preconditions(&headers)?, &headers, |_| None).await
}

/// `{"upsert":[…],"delete":["id"…]}`: all of it or nothing, one reload, one result per entry.
pub(super) async fn batch(
    State(api): Context,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let zone: ResourceId = key("zone", &zone)?;
    let state = api.store.state();
    state.zone(&zone)?;
    let mut fields = super::fields::Fields::new(json(body)?, "")?;
    let (upsert, delete) = (fields.take("upsert"), fields.take("delete"));
    if !fields.boolean("atomic", true) {
        let text = "atomic false is not supported; send single requests instead";
        return Err(Problem::new(Slug::InvalidValue, text));
    }
    fields.finish()?;
    let (upsert, delete) = (entries("upsert", upsert)?, entries("delete", delete)?);
    if upsert.len() + delete.len() > BATCH {
        let text = format!("the batch has more than {BATCH} entries");
        return Err(Problem::new(Slug::LimitExceeded, text).with("limit", BATCH));
    }
    let subnet_of = |address| subnet_of(&state, &zone, address);
    let upsert = upsert.into_iter().enumerate();
    let upsert = upsert
        .map(|(index, entry)| draft::batch_entry(index, entry, subnet_of))
        .collect::<Result<Vec<_>, _>>()?;
    let delete = delete
        .iter()
        .enumerate()
        .map(|(index, id)| new_key(&format!("delete[{index}]"), id.as_str().unwrap_or_default()))
        .collect::<Result<Vec<ResourceId>, _>>()?;
    let upserted: Vec<ResourceId> = upsert.iter().map(|entry| entry.id.clone()).collect();
    let (before, deleted, target) = (Arc::clone(&state), delete.clone(), zone.clone());
    let change = Change::Batch { zone, upsert, delete };
    let show = |api: &Api| {
        let after = api.store.state();
        let results = results(&before, &after, &target, &upserted, &deleted);
        Some((after.generation, json!({"results": results})))
    };
    let mut response = api.write(change, preconditions(&headers)?, &headers, show).await?;
    if response.status() == StatusCode::CREATED {
        *response.status_mut() = StatusCode::OK;
    }
    Ok(response.into_response())
}

/// What became of every entry, in the order of the request.
fn results(
    before: &DesiredState,
    after: &DesiredState,
    zone: &ResourceId,
    upserted: &[ResourceId],
    deleted: &[ResourceId],
) -> Vec<Value> {
    let revision = |state: &DesiredState, id: &ResourceId| {
        Some(state.zones.get(zone)?.reservations.get(id)?.meta.revision)
    };
    let upserted = upserted.iter().map(|id| {
        let (old, new) = (revision(before, id), revision(after, id));
        let result = match old {
            None => "created",
            old if old == new => "unchanged",
            Some(_) => "updated",
        };
        json!({"id": id, "result": result, "revision": new})
    });
    let deleted = deleted.iter().map(|id| {
        let result = if revision(before, id).is_some() { "deleted" } else { "absent" };
        json!({"id": id, "result": result})
    });
    upserted.chain(deleted).collect()
}

fn entries(field: &str, value: Option<Value>) -> Result<Vec<Value>, Problem> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(entries)) => Ok(entries),
        Some(_) => Err(Problem::new(Slug::Malformed, format!("{field} is not a list"))),
    }
}
