//! Reservations: one NIC, one address.

use std::net::Ipv4Addr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use dhcp_api::answer::{
    BatchAnswer, BatchOutcome, BatchResult, ReservationAnswer, ReservationStatus,
};
use dhcp_api::problem::{Problem, ProblemKind};
use dhcp_api::read::{self, Faults, Place};
use dhcp_api::request::{BatchBody, MOST_BATCHED, ReservationBody};
use dhcp_api::resource::{Purpose, Reservation, Source};
use dhcp_api::words::{HostName, MacAddress, ResourceId, invalid};
use serde::Deserialize;

use super::collections::{Window, query};
use super::problem::Refusal;
use super::{Answer, Api, Body, Context, json, key, new_key, tagged};
use crate::desired::{Change, DesiredState};
use crate::leases::{Lease, Leases};
use crate::render::LineOwner;

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
        leases: &Leases,
    ) -> ReservationAnswer {
        let lease = lease_of(reservation, leases);
        let observed = self.observed.borrow();
        let rejected = observed.rejected_line(LineOwner::Reservation(reservation.ipv4));
        let is_served = observed.applied >= reservation.meta.revision && rejected.is_none();
        let mut warnings: Vec<String> = rejected.into_iter().collect();
        if outside_reserved(state, zone, reservation) == Some(true) {
            let text = "the address lies outside every reserved range of its subnet";
            warnings.push(text.to_owned());
        }
        let status = ReservationStatus {
            applied: is_served,
            applied_generation: observed.applied,
            leased: lease.is_some(),
            lease_expires: lease.and_then(|lease| lease.expires),
            warnings,
        };
        ReservationAnswer { reservation: reservation.clone(), status }
    }

    fn one(
        &self,
        zone: &ResourceId,
        id: &ResourceId,
        leases: &Leases,
    ) -> Option<(u64, ReservationAnswer)> {
        let state = self.store.state();
        let reservation = state.zones.get(zone)?.reservations.get(id)?;
        Some((reservation.meta.revision, self.reservation(&state, zone, reservation, leases)))
    }
}

fn lease_of<'a>(reservation: &Reservation, leases: &'a Leases) -> Option<&'a Lease> {
    leases.get(&reservation.ipv4).filter(|lease| lease.mac == reservation.mac)
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
    let page = Window::new(filter.limit, filter.cursor)?;
    let id: ResourceId = key("zone", &zone)?;
    let mac: Option<MacAddress> = wanted("mac", filter.mac.as_deref())?;
    let address: Option<Ipv4Addr> = wanted("ip", filter.ip.as_deref())?;
    let hostname: Option<HostName> = wanted("hostname", filter.hostname.as_deref())?;
    let subnet: Option<ResourceId> = wanted("subnet", filter.subnet.as_deref())?;
    let leases = api.leases_by_address().await?;
    let (state, behind) = (api.store.state(), page.clone());
    let items = state
        .zone(&id)?
        .reservations
        .values()
        .filter(|r| behind.is_after(r.id.as_str()))
        .filter(|r| mac.is_none_or(|mac| r.mac == mac))
        .filter(|r| address.is_none_or(|address| r.ipv4 == address))
        .filter(|r| hostname.as_ref().is_none_or(|name| r.names().any(|own| own == name)))
        .filter(|r| subnet.as_ref().is_none_or(|subnet| r.subnet == *subnet))
        .filter(|r| filter.source.is_none_or(|source| r.meta.source == source))
        .filter(|r| filter.leased.is_none_or(|leased| lease_of(r, &leases).is_some() == leased))
        .map(|r| (r.id.to_string(), api.reservation(&state, &id, r, &leases)));
    Ok(page.of(state.generation, items))
}

/// A value to search for.
pub(super) fn wanted<T: std::str::FromStr>(
    field: &str,
    text: Option<&str>,
) -> Result<Option<T>, Refusal>
where
    T::Err: std::fmt::Display,
{
    let bad =
        |text, error| Refusal::new(ProblemKind::Malformed, format!("{field} {text:?} {error}"));
    text.map(|text| text.parse().map_err(|error| bad(text, error))).transpose()
}

pub(super) async fn show(
    State(api): Context,
    Path((zone, reservation)): Path<(String, String)>,
) -> Answer {
    let (zone, id) = (key("zone", &zone)?, key("reservation", &reservation)?);
    api.store.state().zone(&zone)?;
    let leases = api.leases_by_address().await?;
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
    let leases = api.leases_by_address().await?;
    let state = api.store.state();
    let found = state.zone(&zone)?.reservations.values().find(|r| is_it(r));
    let found = found.ok_or_else(|| super::missing(what, wanted))?;
    let answer = api.reservation(&state, &zone, found, &leases);
    Ok(tagged(StatusCode::OK, found.meta.revision, &answer))
}

/// The subnet of a zone that holds an address.
fn subnet_of(state: &DesiredState, zone: &ResourceId, address: Ipv4Addr) -> Option<ResourceId> {
    let subnets = state.zones.get(zone)?.subnets.values();
    let mut holding = subnets.filter(|subnet| subnet.subnet.cidr.contains(address));
    holding.next().map(|subnet| subnet.subnet.id.clone())
}

/// A body as a reservation; one without a subnet is in the one that holds its address.
fn placed(
    state: &DesiredState,
    zone: &ResourceId,
    id: ResourceId,
    body: ReservationBody,
    place: &Place,
    faults: &mut Faults,
) -> Option<Reservation> {
    let subnet = body.subnet.clone().or_else(|| subnet_of(state, zone, body.ipv4));
    if subnet.is_none() {
        let none = invalid("is in no subnet of the zone", "create the subnet first");
        faults.add(&place.member("ipv4"), body.ipv4.to_string().into(), none);
    }
    Some(Reservation::new(id, body.within(subnet?), Source::Api))
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
    let (body, mut faults) = (read::resource(&id, json(body)?)?, Faults::default());
    let Some(reservation) = placed(&state, &zone, id.clone(), body, &Place::root(), &mut faults)
    else {
        return Err(faults.into());
    };
    let owner = LineOwner::Reservation(reservation.ipv4);
    let change = Change::PutReservation { zone: zone.clone(), reservation: Box::new(reservation) };
    let leases = api.leases_by_address().await?;
    let show = |api: &Api| api.one(&zone, &id, &leases);
    api.write(change, &headers, show, |observed| observed.rejected_line(owner)).await
}

pub(super) async fn remove(
    State(api): Context,
    Path((zone, reservation)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let (zone, reservation) = (key("zone", &zone)?, key("reservation", &reservation)?);
    api.remove(Change::DeleteReservation { zone, reservation }, &headers).await
}

/// `{"upsert":[…],"delete":["id"…]}`: all of it or nothing, one reload, one result per entry.
pub(super) async fn batch(
    State(api): Context,
    Path(zone): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let zone: ResourceId = key("zone", &zone)?;
    let before = api.store.state();
    before.zone(&zone)?;
    let BatchBody { upsert, delete, .. } = read::whole(json(body)?)?;
    if upsert.len() + delete.len() > MOST_BATCHED {
        let text = format!("the batch has more than {MOST_BATCHED} entries");
        let limit = u64::try_from(MOST_BATCHED).ok();
        return Err(Problem { limit, ..Problem::new(ProblemKind::LimitExceeded, text) }.into());
    }
    let (root, mut faults) = (Place::root().member("upsert"), Faults::default());
    let upsert: Vec<Reservation> = upsert
        .into_iter()
        .enumerate()
        .filter_map(|(index, entry)| {
            placed(&before, &zone, entry.id, entry.body, &root.entry(index), &mut faults)
        })
        .collect();
    if !faults.is_empty() {
        return Err(faults.into());
    }
    let upserted: Vec<ResourceId> = upsert.iter().map(|entry| entry.id.clone()).collect();
    let deleted = delete.clone();
    let owners: Vec<LineOwner> =
        upsert.iter().map(|entry| LineOwner::Reservation(entry.ipv4)).collect();
    let change = Change::Batch { zone: zone.clone(), upsert, delete };
    let show = |api: &Api| {
        let after = api.store.state();
        let results = results(&before, &after, &zone, &upserted, &deleted);
        Some((after.generation, BatchAnswer { results }))
    };
    let unserved = |observed: &crate::observed::Observed| {
        owners.iter().find_map(|owner| observed.rejected_line(*owner))
    };
    let mut response = api.write(change, &headers, show, unserved).await?;
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
) -> Vec<BatchResult> {
    let revision = |state: &DesiredState, id: &ResourceId| {
        Some(state.zones.get(zone)?.reservations.get(id)?.meta.revision)
    };
    let upserted = upserted.iter().map(|id| {
        let (old, new) = (revision(before, id), revision(after, id));
        let result = match old {
            None => BatchOutcome::Created,
            old if old == new => BatchOutcome::Unchanged,
            Some(_) => BatchOutcome::Updated,
        };
        BatchResult { id: id.clone(), result, revision: new }
    });
    let deleted = deleted.iter().map(|id| {
        let was_there = revision(before, id).is_some();
        let result = if was_there { BatchOutcome::Deleted } else { BatchOutcome::Absent };
        BatchResult { id: id.clone(), result, revision: None }
    });
    upserted.chain(deleted).collect()
}
