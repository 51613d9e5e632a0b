//! Everything of one source, in a zone or in all of them: read and replaced as a whole, and tried
//! without storing anything.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use dhcp_api::answer::{
    ContentsShown, DesiredAnswer, DesiredDifference, DesiredShown, DocumentShown, SubnetShown,
    ValidateAnswer, ZoneShown,
};
use dhcp_api::problem::Fault;
use dhcp_api::read::{self, Faults, Place};
use dhcp_api::record::Record;
use dhcp_api::resource::{Meta, OptionSet, Range, Reservation, Source, Subnet};
use dhcp_api::whole::{Contents, DesiredBody, DocumentBody, SubnetEntry, ZoneEntry};
use dhcp_api::words::{ResourceId, invalid};
use serde::Deserialize;
use serde_json::Value;

use super::collections::query;
use super::problem::fault;
use super::subnets::completed;
use super::{Answer, Api, Body, Context, json, key, tagged};
use crate::desired::{
    Change, ChangeError, Circumstances, DesiredState, Difference, Precondition, WholeChange,
    WholeSubnet, WholeZone, ZoneState,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    #[serde(default = "api")]
    source: Source,
}

const fn api() -> Source {
    Source::Api
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
}

/// What `source` has in a zone; subnets of others only if it has ranges there.
fn contents(zone: &ZoneState, source: Source) -> ContentsShown {
    let subnets = zone.subnets.values().filter_map(|kept| {
        let ranges: Vec<Range> =
            kept.ranges.values().filter(|range| range.meta.source == source).cloned().collect();
        let is_meant = kept.subnet.meta.source == source || !ranges.is_empty();
        is_meant.then(|| SubnetShown { subnet: kept.subnet.clone(), ranges })
    });
    ContentsShown {
        option_sets: of_source(zone.option_sets.values(), source, |kept| &kept.meta),
        subnets: subnets.collect(),
        reservations: of_source(zone.reservations.values(), source, |kept| &kept.meta),
        records: of_source(zone.records.values(), source, |kept| &kept.meta),
    }
}

fn of_source<'a, T: Clone + 'a>(
    all: impl Iterator<Item = &'a T>,
    source: Source,
    meta: impl Fn(&T) -> &Meta,
) -> Vec<T> {
    all.filter(|kept| meta(kept).source == source).cloned().collect()
}

pub(super) async fn show(
    State(api): Context,
    Path(zone): Path<String>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Answer {
    let Whose { source } = query(whose)?;
    let state = api.store.state();
    let zone = state.zone(&key("zone", &zone)?)?;
    let revision = state.generation;
    let shown = DesiredShown { source, revision, contents: contents(zone, source) };
    Ok(tagged(StatusCode::OK, revision, &shown))
}

/// Zones of the management server are shown for what the API has in them.
pub(super) async fn show_document(State(api): Context) -> Answer {
    let state = api.store.state();
    let zones = state.zones.values().filter_map(|kept| {
        let contents = contents(kept, Source::Api);
        let ContentsShown { option_sets, subnets, reservations, records } = &contents;
        let is_empty = option_sets.is_empty()
            && subnets.is_empty()
            && reservations.is_empty()
            && records.is_empty();
        let is_meant = kept.zone.meta.source == Source::Api || !is_empty;
        is_meant.then(|| ZoneShown { zone: kept.zone.clone(), contents })
    });
    let shown = DocumentShown { revision: state.generation, zones: zones.collect() };
    Ok(tagged(StatusCode::OK, state.generation, &shown))
}

pub(super) async fn put(
    State(api): Context,
    Path(zone): Path<String>,
    how: Result<Query<How>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let How { force, dry_run } = query(how)?;
    let zone: ResourceId = key("zone", &zone)?;
    let before = api.store.state();
    before.zone(&zone)?;
    let change = zone_change(&api, &before, &zone, read::whole(json(body)?)?, force)?;
    replace(&api, &before, change, Some(&zone), dry_run, &headers).await
}

pub(super) async fn put_document(
    State(api): Context,
    how: Result<Query<How>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let How { force, dry_run } = query(how)?;
    let before = api.store.state();
    let change = document_change(&api, &before, read::whole(json(body)?)?, force)?;
    replace(&api, &before, change, None, dry_run, &headers).await
}

async fn replace(
    api: &Api,
    before: &DesiredState,
    change: WholeChange,
    zone: Option<&ResourceId>,
    dry_run: bool,
    headers: &HeaderMap,
) -> Answer {
    let change = Change::Whole(Box::new(change));
    if dry_run {
        let after = rehearse(before, change)?;
        let answer = difference(before, &after, zone, true);
        return Ok(tagged(StatusCode::OK, before.generation, &answer));
    }
    let show = |api: &Api| {
        let after = api.store.state();
        Some((after.generation, difference(before, &after, zone, false)))
    };
    api.write(change, headers, show, |_| None).await
}

/// The state after a change that is not stored.
fn rehearse(before: &DesiredState, change: Change) -> Result<DesiredState, ChangeError> {
    let mut rehearsal = before.clone();
    let facts =
        Circumstances { now_ms: 0, local: crate::store::local_addresses().unwrap_or_default() };
    rehearsal.apply(change, Source::Api, Precondition::default(), &facts)?;
    Ok(rehearsal)
}

fn difference(
    before: &DesiredState,
    after: &DesiredState,
    zone: Option<&ResourceId>,
    dry_run: bool,
) -> DesiredAnswer {
    let [zones, option_sets, subnets, ranges, reservations, records] =
        Difference::between(before, after, zone).map(shown);
    let change = (after.generation != before.generation).then_some(after.generation);
    DesiredAnswer { dry_run, change, zones, option_sets, subnets, ranges, reservations, records }
}

fn shown(difference: Difference) -> DesiredDifference {
    let Difference { created, updated, deleted } = difference;
    DesiredDifference { created, updated, deleted }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfZone {
    zone: Option<String>,
}

/// Everything that is wrong with a document; with `zone`, with that of one zone.
pub(super) async fn validate(
    State(api): Context,
    of: Result<Query<OfZone>, QueryRejection>,
    body: Body,
) -> Answer {
    let zone: Option<ResourceId> = query(of)?.zone.map(|zone| key("zone", &zone)).transpose()?;
    let before = api.store.state();
    if let Some(zone) = &zone {
        before.zone(zone)?;
    }
    let tried = tried(&api, &before, zone.as_ref(), json(body)?);
    let answer = match tried {
        Ok(difference) => {
            ValidateAnswer { valid: true, problems: Vec::new(), difference: Some(difference) }
        }
        Err(problems) => ValidateAnswer { valid: false, problems, difference: None },
    };
    Ok((StatusCode::OK, axum::Json(answer)).into_response())
}

fn tried(
    api: &Api,
    before: &DesiredState,
    zone: Option<&ResourceId>,
    body: Value,
) -> Result<DesiredAnswer, Vec<Fault>> {
    let of_faults = |faults: Faults| faults.into_parts().1;
    // What would be held is shown in the difference.
    let change = match zone {
        Some(zone) => {
            let body = read::whole(body).map_err(of_faults)?;
            zone_change(api, before, zone, body, true)
        }
        None => document_change(api, before, read::whole(body).map_err(of_faults)?, true),
    };
    let change = Change::Whole(Box::new(change.map_err(of_faults)?));
    match rehearse(before, change) {
        Ok(after) => Ok(difference(before, &after, zone, true)),
        Err(ChangeError::Several(faults)) => {
            Err(faults.into_iter().map(|(place, error)| fault(&place, error)).collect())
        }
        Err(other) => Err(vec![fault(&Place::root(), other)]),
    }
}

/// The body for one zone as a change.
fn zone_change(
    api: &Api,
    state: &DesiredState,
    zone: &ResourceId,
    body: DesiredBody,
    force: bool,
) -> Result<WholeChange, Faults> {
    let mut faults = Faults::default();
    let place = Place::root();
    let known = state.zones.get(zone);
    let zone = wanted(api, known, zone.clone(), body.contents, place, &mut faults);
    let change = WholeChange { zones: vec![zone], every_zone: false, force };
    if faults.is_empty() { Ok(change) } else { Err(faults) }
}

/// A document as a change.
fn document_change(
    api: &Api,
    state: &DesiredState,
    body: DocumentBody,
    force: bool,
) -> Result<WholeChange, Faults> {
    let mut faults = Faults::default();
    let root = Place::root().member("zones");
    let mut zones: Vec<WholeZone> = Vec::with_capacity(body.zones.len());
    for (index, entry) in body.zones.into_iter().enumerate() {
        let ZoneEntry { id, source, zone, contents } = entry;
        let (place, known) = (root.entry(index), state.zones.get(&id));
        if zones.iter().any(|other| other.id == id) {
            let repeated = invalid("is listed twice", "list each zone once");
            faults.add(&place.member("id"), id.to_string().into(), repeated);
        }
        let is_foreign = source == Some(Source::Cloudstack);
        if is_foreign && known.is_none() {
            let remedy = "let the sync make it first, or take the source out to make it yours";
            let reason = "is a zone of the management server that is not there yet";
            faults.add(&place.member("id"), id.to_string().into(), invalid(reason, remedy));
        }
        let content = (!is_foreign).then_some(zone);
        let wanted = wanted(api, known, id, contents, place, &mut faults);
        zones.push(WholeZone { zone: content, ..wanted });
    }
    let change = WholeChange { zones, every_zone: true, force };
    if faults.is_empty() { Ok(change) } else { Err(faults) }
}

/// The contents of a zone; every fault at once.
fn wanted(
    api: &Api,
    known: Option<&ZoneState>,
    id: ResourceId,
    contents: Contents,
    place: Place,
    faults: &mut Faults,
) -> WholeZone {
    let Contents { option_sets, subnets, reservations, records } = contents;
    let sets = option_sets.into_iter();
    let option_sets = sets.map(|set| OptionSet::new(set.id, set.content, Source::Api)).collect();
    let at = place.member("subnets");
    let subnets: Vec<WholeSubnet> = subnets
        .into_iter()
        .enumerate()
        .filter_map(|(index, entry)| wanted_subnet(api, entry, &at.entry(index), faults))
        .collect();
    let known = known.into_iter().flat_map(|zone| zone.subnets.values());
    let known = known.map(|kept| (kept.subnet.id.clone(), kept.subnet.cidr));
    let listed = subnets.iter().map(|s| (s.subnet.id.clone(), s.subnet.cidr));
    let cidrs: Vec<_> = listed.chain(known).collect();
    let at = place.member("reservations");
    let mut placed = Vec::with_capacity(reservations.len());
    for (index, entry) in reservations.into_iter().enumerate() {
        let ipv4 = entry.body.ipv4;
        let holding = || cidrs.iter().find(|(_, cidr)| cidr.contains(ipv4));
        let subnet = entry.body.subnet.clone();
        match subnet.or_else(|| holding().map(|(id, _)| id.clone())) {
            Some(subnet) => {
                let content = entry.body.within(subnet);
                placed.push(Reservation::new(entry.id, content, Source::Api));
            }
            None => {
                let none = invalid("is in no subnet of the zone", "list the subnet, too");
                faults.add(&at.entry(index).member("ipv4"), ipv4.to_string().into(), none);
            }
        }
    }
    let record = |entry: dhcp_api::whole::RecordEntry| Record {
        name: entry.name,
        kind: entry.kind,
        values: entry.values,
        meta: Meta::new(Source::Api),
    };
    let records = records.into_iter().map(record).collect();
    WholeZone { id, place, zone: None, option_sets, subnets, reservations: placed, records }
}

fn wanted_subnet(
    api: &Api,
    entry: SubnetEntry,
    place: &Place,
    faults: &mut Faults,
) -> Option<WholeSubnet> {
    let SubnetEntry { id, source, content, ranges } = entry;
    let range =
        |entry: dhcp_api::whole::RangeEntry| Range::new(entry.id, entry.content, Source::Api);
    let ranges = ranges.map(|ranges| ranges.into_iter().map(range).collect());
    let is_foreign = source == Some(Source::Cloudstack);
    let subnet = Subnet::new(id, content, Source::Api);
    match completed(subnet, api.releaser.interface.as_str()) {
        Ok(subnet) => Some(WholeSubnet { subnet, is_foreign, ranges }),
        Err(misfit) => {
            let (field, value, invalid) = *misfit;
            faults.add(&place.within(field), value, invalid);
            None
        }
    }
}
