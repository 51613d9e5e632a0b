//! `…/desired`: everything of one source in a zone, read and replaced as a whole.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use dhcp_api::answer::{DesiredAnswer, DesiredDifference, DesiredShown};
use dhcp_api::read::{self, Faults, Place};
use dhcp_api::record::Record;
use dhcp_api::request::DesiredBody;
use dhcp_api::resource::{Meta, Reservation, Source, Subnet};
use dhcp_api::words::{ResourceId, invalid};
use serde::Deserialize;

use super::collections::query;
use super::problem::Refusal;
use super::subnets::completed;
use super::{Answer, Api, Body, Context, json, key, tagged};
use crate::desired::{Change, Circumstances, DesiredState, Difference, Precondition, WholeChange};

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

pub(super) async fn show(
    State(api): Context,
    Path(zone): Path<String>,
    whose: Result<Query<Whose>, QueryRejection>,
) -> Answer {
    let Whose { source } = query(whose)?;
    let state = api.store.state();
    let zone = state.zone(&key("zone", &zone)?)?;
    let subnets = zone.subnets.values().map(|kept| &kept.subnet);
    let shown = DesiredShown {
        source,
        revision: state.generation,
        subnets: subnets.filter(|s| s.meta.source == source).cloned().collect(),
        reservations: zone
            .reservations
            .values()
            .filter(|r| r.meta.source == source)
            .cloned()
            .collect(),
        records: zone.records.values().filter(|r| r.meta.source == source).cloned().collect(),
    };
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
    let change = wanted(&api, &before, &zone, read::whole(json(body)?)?, force)?;
    let mut rehearsal = DesiredState::clone(&before);
    let facts =
        Circumstances { now_ms: 0, local: crate::store::local_addresses().unwrap_or_default() };
    let none = Precondition::default();
    rehearsal.apply(change.clone(), Source::Api, none, &facts)?;
    let difference = |dry_run, after: &DesiredState| {
        let [subnets, reservations, records] =
            Difference::between(&before, after, &zone).map(shown);
        let change = (after.generation != before.generation).then_some(after.generation);
        DesiredAnswer { dry_run, change, subnets, reservations, records }
    };
    if dry_run {
        return Ok((StatusCode::OK, axum::Json(difference(true, &rehearsal))).into_response());
    }
    let show = |api: &Api| {
        let after = api.store.state();
        Some((after.generation, difference(false, &after)))
    };
    api.write(change, &headers, show, |_| None).await
}

fn shown(difference: Difference) -> DesiredDifference {
    let Difference { created, updated, deleted } = difference;
    DesiredDifference { created, updated, deleted }
}

/// The body as a change; every fault at once.
fn wanted(
    api: &Api,
    state: &DesiredState,
    zone: &ResourceId,
    body: DesiredBody,
    force: bool,
) -> Result<Change, Refusal> {
    let mut subnets = Vec::with_capacity(body.subnets.len());
    for entry in body.subnets {
        let subnet = Subnet::new(entry.id, entry.content, Source::Api);
        subnets.push(completed(subnet, api.releaser.interface.as_str())?);
    }
    let known = state.zones.get(zone).into_iter().flat_map(|zone| zone.subnets.values());
    let known = known.map(|kept| (kept.subnet.id.clone(), kept.subnet.cidr));
    let cidrs: Vec<_> = subnets.iter().map(|s| (s.id.clone(), s.cidr)).chain(known).collect();
    let (root, mut faults) = (Place::root().member("reservations"), Faults::default());
    let mut reservations = Vec::with_capacity(body.reservations.len());
    for (index, entry) in body.reservations.into_iter().enumerate() {
        let ipv4 = entry.body.ipv4;
        let holding = cidrs.iter().find(|(_, cidr)| cidr.contains(ipv4)).map(|(id, _)| id.clone());
        match entry.body.subnet.clone().or(holding) {
            Some(subnet) => {
                let content = entry.body.within(subnet);
                reservations.push(Reservation::new(entry.id, content, Source::Api));
            }
            None => {
                let none = invalid("is in no subnet of the zone", "list the subnet, too");
                faults.add(&root.entry(index).member("ipv4"), ipv4.to_string().into(), none);
            }
        }
    }
    if !faults.is_empty() {
        return Err(faults.into());
    }
    let record = |entry: dhcp_api::request::RecordEntry| Record {
        name: entry.name,
        kind: entry.kind,
        values: entry.values,
        meta: Meta::new(Source::Api),
    };
    let records = body.records.into_iter().map(record).collect();
    let zone = zone.clone();
    Ok(Change::Whole(Box::new(WholeChange { zone, subnets, reservations, records, force })))
}
