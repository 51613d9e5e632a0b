//! DNS records besides those of reservations.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::collections::{Page, query};
use super::problem::{Problem, Slug};
use super::zones::{Paging, shown};
use super::{Answer, Api, Body, Context, draft, json, key, preconditions, tagged};
use crate::desired::{Change, DesiredState};
use crate::model::{Record, RecordType};
use crate::value::{RecordName, ResourceId};

/// A record, and what it costs to apply it.
fn record(record: &Record) -> Option<(u64, Value)> {
    let (revision, mut body) = shown(record)?;
    let applied_by = if record.kind.is_live() { "names" } else { "restart" };
    body.as_object_mut()?.insert("applied_by".to_owned(), json!(applied_by));
    Some((revision, body))
}

fn find<'a>(
    state: &'a DesiredState,
    zone: &ResourceId,
    name: &(RecordName, RecordType),
) -> Option<&'a Record> {
    state.zones.get(zone)?.records.get(name)
}

pub(super) async fn list(
    State(api): Context,
    Path(zone): Path<String>,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer {
    let Paging { limit, cursor } = query(paging)?;
    let state = api.store.state();
    // Ordered by the id they are paged by.
    let mut items: Vec<(String, Value)> = state
        .zone(&key("zone", &zone)?)?
        .records
        .values()
        .filter_map(|r| Some((format!("{}/{}", r.name, r.kind), record(r)?.1)))
        .collect();
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Page::new(limit, cursor)?.of(state.generation, items.into_iter()))
}

type RecordPath = Path<(String, String, String)>;

fn record_key(name: &str, kind: &str) -> Result<(RecordName, RecordType), Problem> {
    Ok((key("record", name)?, key("record type", kind)?))
}

pub(super) async fn show(State(api): Context, Path((zone, name, kind)): RecordPath) -> Answer {
    let (zone, id) = (key("zone", &zone)?, record_key(&name, &kind)?);
    let state = api.store.state();
    state.zone(&zone)?;
    let missing = || super::missing("record", &format!("{name} {kind}"));
    let found = find(&state, &zone, &id).ok_or_else(missing)?;
    let (revision, body) = record(found).ok_or_else(super::unshowable)?;
    Ok(tagged(StatusCode::OK, revision, &body))
}

pub(super) async fn put(
    State(api): Context,
    Path((zone, name, kind)): RecordPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    if !api.dns {
        let text = "DNS is not served; set roles.dhcp.dns to true";
        return Err(Problem::new(Slug::InvalidValue, text));
    }
    let zone: ResourceId = key("zone", &zone)?;
    let (name, kind) = record_key(&name, &kind)?;
    let new = Box::new(draft::record(name.clone(), kind, json(body)?)?);
    let change = Change::PutRecord { zone: zone.clone(), record: new };
    let show = |api: &Api| record(find(&api.store.state(), &zone, &(name, kind))?);
    api.write(change, preconditions(&headers)?, &headers, show).await
}

pub(super) async fn remove(
    State(api): Context,
    Path((zone, name, kind)): RecordPath,
    headers: HeaderMap,
) -> Answer {
    let (name, kind) = record_key(&name, &kind)?;
    let change = Change::DeleteRecord { zone: key("zone", &zone)?, name, kind };
    api.write(change, preconditions(&headers)?, &headers, |_| None).await
}
