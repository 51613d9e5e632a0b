//! DNS records besides those of reservations.

use std::collections::BTreeMap;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use dhcp_api::answer::{AppliedBy, RecordAnswer, RecordStatus};
use dhcp_api::problem::ProblemKind;
use dhcp_api::record::{Record, RecordType};
use dhcp_api::resource::{Meta, Source};
use dhcp_api::words::{RecordName, ResourceId};

use super::collections::{Paging, Window};
use super::problem::Refusal;
use super::{Answer, Api, Body, Context, json, key, new_key, tagged};
use crate::desired::{Change, RecordKey, Standings};

/// What is known about records.
struct Known {
    standings: Standings,
    /// Those dnsmasq refused when it was asked.
    refused: BTreeMap<RecordKey, String>,
}

impl Known {
    fn of(api: &Api) -> Self {
        let standings = api.store.state().standings();
        Self { standings, refused: api.observed.borrow().refused.clone() }
    }

    /// A record, how it stands, and what it costs to apply it.
    fn answer(&self, zone: &ResourceId, record: &Record) -> RecordAnswer {
        let key = (zone.clone(), record.name.clone(), record.kind);
        let unserved = self.standings.withheld.get(&key).or_else(|| self.refused.get(&key));
        let warning = unserved.or_else(|| self.standings.warned.get(&key)).cloned();
        let is_live = record.kind.is_live();
        RecordAnswer {
            record: record.clone(),
            applied_by: if is_live { AppliedBy::Names } else { AppliedBy::Restart },
            status: RecordStatus { served: unserved.is_none(), warning },
        }
    }
}

pub(super) async fn list(
    State(api): Context,
    Path(zone): Path<String>,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Answer {
    let window = Window::of_query(paging)?;
    let state = api.store.state();
    let (id, known) = (key("zone", &zone)?, Known::of(&api));
    // Ordered by the id they are paged by.
    let by_id: BTreeMap<String, &Record> = state
        .zone(&id)?
        .records
        .values()
        .map(|record| (format!("{}/{}", record.name, record.kind), record))
        .collect();
    let items = by_id.into_iter().map(|(key, record)| (key, known.answer(&id, record)));
    Ok(window.of(state.generation, items))
}

type RecordPath = Path<(String, String, String)>;

pub(super) async fn show(State(api): Context, Path((zone, name, kind)): RecordPath) -> Answer {
    let zone = key("zone", &zone)?;
    let id: (RecordName, RecordType) = (key("record", &name)?, key("record type", &kind)?);
    let state = api.store.state();
    let found = state.zone(&zone)?.records.get(&id);
    let record = found.ok_or_else(|| super::missing("record", &format!("{name} {kind}")))?;
    let answer = Known::of(&api).answer(&zone, record);
    Ok(tagged(StatusCode::OK, record.meta.revision, &answer))
}

pub(super) async fn put(
    State(api): Context,
    Path((zone, name, kind)): RecordPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    if !api.dns {
        let text = "DNS is not served; set roles.dhcp.dns to true";
        return Err(Refusal::new(ProblemKind::InvalidValue, text));
    }
    let zone: ResourceId = key("zone", &zone)?;
    let (name, kind): (RecordName, _) = (new_key("name", &name)?, key("record type", &kind)?);
    let record = Record::read(name.clone(), kind, json(body)?, Meta::new(Source::Api))?;
    let id = (zone.clone(), name, kind);
    let change = Change::PutRecord { zone, record: Box::new(record) };
    let show = |api: &Api| {
        let state = api.store.state();
        let record = state.zones.get(&id.0)?.records.get(&(id.1.clone(), id.2))?;
        Some((record.meta.revision, Known::of(api).answer(&id.0, record)))
    };
    api.write(change, &headers, show, |observed| observed.refused.get(&id).cloned()).await
}

pub(super) async fn remove(
    State(api): Context,
    Path((zone, name, kind)): RecordPath,
    headers: HeaderMap,
) -> Answer {
    let (name, kind) = (key("record", &name)?, key("record type", &kind)?);
    let change = Change::DeleteRecord { zone: key("zone", &zone)?, name, kind };
    api.remove(change, &headers).await
}
