//! What is served: health, status, progress of changes, the rendered files.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dhcp_api::answer::{
    Alarm, AlarmKind, ChangeAnswer, ChangeList, ChangeState, Instance, Liveness, Phase, ReloadMode,
    RoleState, Status, Sync,
};
use dhcp_api::problem::ProblemKind;
use serde::Deserialize;

use super::collections::{Window, query};
use super::problem::Refusal;
use super::{Answer, Api, Context, key};
use crate::desired::{DesiredState, SOFT_RESERVATIONS};
use crate::observed::{Observed, Progress};
use crate::sync::SyncState;

/// Alarms of one kind that are shown.
const MOST_ALARMS: usize = 32;
/// So long dnsmasq keeps a declined address back.
const DECLINED: Duration = Duration::from_mins(10);
/// Without a listing for so long an operator should know.
const STALE: Duration = Duration::from_mins(10);

/// The process is alive and the API answers.
pub(super) async fn healthz() -> Response {
    (StatusCode::OK, axum::Json(Liveness::Ok)).into_response()
}

/// dnsmasq serves.
pub(super) async fn readyz(State(api): Context) -> Answer {
    let phase = api.observed.borrow().instance.phase;
    match phase {
        Phase::Serving => Ok((StatusCode::OK, axum::Json(Liveness::Ready)).into_response()),
        Phase::Starting | Phase::Down | Phase::Stopped => {
            Err(Refusal::new(ProblemKind::InstanceDown, "dnsmasq does not serve"))
        }
    }
}

/// The document of this API.
pub(super) async fn open_api() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], dhcp_api::OPENAPI).into_response()
}

pub(super) async fn status(State(api): Context) -> Response {
    (StatusCode::OK, axum::Json(now(&api))).into_response()
}

/// The status as it is.
pub(super) fn now(api: &Api) -> Status {
    let sync = api.sync.as_ref().map(|sync| sync.state.borrow().clone());
    brief(&api.store.state(), &api.observed.borrow(), sync.as_ref())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HowMany {
    limit: Option<usize>,
}

/// The last changes.
pub(super) async fn changes(
    State(api): Context,
    how_many: Result<Query<HowMany>, QueryRejection>,
) -> Answer {
    let limit = Window::new(query(how_many)?.limit, None)?.limit();
    let items = api.history.newest(limit);
    Ok((StatusCode::OK, axum::Json(ChangeList { items })).into_response())
}

/// The status object, here and in the process's `/status`.
pub(crate) fn brief(
    desired: &DesiredState,
    observed: &Observed,
    sync: Option<&SyncState>,
) -> Status {
    let instance = &observed.instance;
    let mut alarms = alarms(desired, observed);
    alarms.extend(sync.into_iter().flat_map(sync_alarms));
    let is_well = alarms.iter().all(|alarm| is_remark(alarm.alarm));
    let state = match instance.phase {
        Phase::Starting => RoleState::Starting,
        Phase::Stopped => RoleState::Stopped,
        Phase::Serving if is_well => RoleState::Ready,
        Phase::Serving | Phase::Down => RoleState::Degraded,
    };
    Status {
        state,
        generation: desired.generation,
        applied_generation: observed.applied,
        applied_at: observed.applied_at,
        dirty: observed.applied < desired.generation,
        instances: vec![Instance {
            name: "main".to_owned(),
            pid: instance.pid,
            version: instance.version.clone(),
            state: instance.phase,
            runs_as: instance.runs_as.clone(),
            restarts: instance.restarts,
            last_exit: instance.last_exit.clone(),
            uptime_s: instance.started.map(|started| started.elapsed().as_secs()),
            // No reloadable line carries a tag, so every version survives the signal.
            reload_mode: ReloadMode::Sighup,
            reservations: count(observed.reservations),
            leases: count(observed.leases),
            last_apply: observed.last_apply.clone(),
        }],
        sync: sync.map(shown).unwrap_or_default(),
        alarms,
    }
}

/// Alarms that are worth a look and take nothing from anybody.
const fn is_remark(kind: AlarmKind) -> bool {
    matches!(
        kind,
        AlarmKind::HostnameChanged | AlarmKind::DuplicateHostname | AlarmKind::ClockJumped
    )
}

/// Time since the last listing that was taken over.
fn stale(sync: &SyncState) -> Duration {
    sync.last_success.map_or(sync.started, |(_, at)| at).elapsed()
}

fn shown(sync: &SyncState) -> Sync {
    Sync {
        enabled: true,
        zone: sync.zone.clone(),
        last_success: sync.last_success.map(|(stamp, _)| stamp),
        stale_seconds: Some(stale(sync).as_secs()),
        last_error: sync.last_error.clone(),
        held_deletes: count(sync.held),
        reservations: count(sync.reservations),
        listing_ms: sync.full_ms,
        calls: sync.calls,
    }
}

fn sync_alarms(sync: &SyncState) -> Vec<Alarm> {
    let alarm = |alarm, text| Alarm { alarm, text, generation: None, count: None };
    let mut alarms = Vec::new();
    if stale(sync) >= STALE {
        let minutes = stale(sync).as_secs() / 60;
        let why = sync.last_error.as_deref().unwrap_or("no listing came to an end");
        let text = format!(
            "nothing was heard of the management server for {minutes} minutes, what was known is \
             served: {why}"
        );
        alarms.push(alarm(AlarmKind::SyncStale, text));
    }
    if sync.held > 0 {
        let text = "reservations are missing in the management server's listing, too many to be \
                    believed: look at the rights of the user of the API, or confirm with POST \
                    /v1/sync?force=true";
        let held = Some(count(sync.held));
        alarms.push(Alarm { count: held, ..alarm(AlarmKind::MassDeleteHeld, text.to_owned()) });
    }
    alarms.extend(sync.notes.iter().map(|note| alarm(note.kind, note.text.clone())));
    alarms
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn alarms(desired: &DesiredState, observed: &Observed) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let mut alarm = |alarm, text: String| {
        alarms.push(Alarm { alarm, text, generation: None, count: None });
    };
    if let Some(reason) = &observed.instance.reason {
        alarm(AlarmKind::InstanceDown, reason.clone());
    }
    if let Some(text) = &observed.restored {
        alarm(AlarmKind::StateRestored, text.clone());
    }
    if observed.no_interface {
        let text = "the interface to serve does not exist";
        alarm(AlarmKind::InterfaceMissing, text.to_owned());
    }
    for subnet in &observed.unserved {
        let text = format!("the interface has no address in {subnet}; its guests get no answer");
        alarm(AlarmKind::SubnetUnserved, text);
    }
    for rejection in &observed.rejected {
        alarm(AlarmKind::ReservationRejected, rejection.line.clone());
    }
    for line in &observed.dropped {
        alarm(AlarmKind::OptionDropped, line.clone());
    }
    for kept in desired.quarantine.iter().take(MOST_ALARMS) {
        alarm(AlarmKind::Quarantined, format!("{}: {}", kept.place, kept.reason));
    }
    let withheld = desired.standings().withheld;
    for ((zone, name, kind), reason) in withheld.iter().chain(&observed.refused).take(MOST_ALARMS) {
        alarm(AlarmKind::RecordWithheld, format!("zones/{zone}/records/{name} {kind}: {reason}"));
    }
    for (address, at) in &observed.declined {
        if at.elapsed() < DECLINED {
            let text = format!(
                "{address} was declined by its client: something else on the wire uses it. dnsmasq gives \
                 it to nobody for ten minutes, or until the next reload; look who has it (arping)"
            );
            alarm(AlarmKind::DeclinedAddress, text);
        }
    }
    if let Some(text) = &observed.clock_jump {
        alarm(AlarmKind::ClockJumped, text.clone());
    }
    if let (Some((_, error)), Some(poisoned)) = (&observed.error, &observed.rolled_back) {
        let (alarm, generation) = (AlarmKind::GenerationPoisoned, Some(poisoned.generation));
        alarms.push(Alarm { alarm, text: error.clone(), generation, count: None });
    } else if let Some((generation, error)) = &observed.error {
        let (generation, text) = (Some(*generation), error.clone());
        alarms.push(Alarm { alarm: AlarmKind::ApplyFailed, text, generation, count: None });
    }
    let mut counted = |alarm, text: &str, count| {
        alarms.push(Alarm { alarm, text: text.to_owned(), generation: None, count: Some(count) });
    };
    if observed.conflicts > 0 {
        let text = "leases that are not a reservation";
        counted(AlarmKind::LeaseConflict, text, count(observed.conflicts));
    }
    if observed.reservations > SOFT_RESERVATIONS {
        let text = "reservations, more than one dnsmasq serves well";
        counted(AlarmKind::InstanceOverSoftLimit, text, count(observed.reservations));
    }
    alarms
}

/// How far a change has come; its id is the generation it made.
pub(super) async fn change(State(api): Context, Path(id): Path<String>) -> Answer {
    let id: u64 = key("change", &id)?;
    if id > api.store.state().generation {
        return Err(super::missing("change", &id));
    }
    let observed = api.observed.borrow().clone();
    let (state, error) = match observed.progress(id) {
        Progress::Applied => (ChangeState::Applied, None),
        Progress::Pending => (ChangeState::Applying, None),
        Progress::Waiting => (ChangeState::Stored, None),
        Progress::Failed(error) if observed.rolled_back.is_some() => {
            (ChangeState::RolledBack, Some(error))
        }
        Progress::Failed(error) => (ChangeState::Failed, Some(error)),
    };
    Ok((StatusCode::OK, axum::Json(ChangeAnswer { id, state, error })).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    file: File,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum File {
    #[default]
    Main,
    Hosts,
    Opts,
    Names,
}

/// A rendered file as it is on disk; additions since the last reload stand behind the base.
pub(super) async fn config(
    State(api): Context,
    which: Result<Query<Which>, QueryRejection>,
) -> Answer {
    let file = query(which)?.file;
    let layout = api.releaser.layout.clone();
    let read = api.tasks.blocking("files", move || crate::files::read(&layout)).await;
    let failed =
        |error: &dyn std::error::Error| Refusal::new(ProblemKind::Storage, bedrock::chain(error));
    let disk = read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let text = match file {
        File::Main => disk.main,
        File::Opts => disk.options,
        File::Names => disk
            .names
            .map(|base| disk.name_deltas.into_values().fold(base, |all, more| all + &more)),
        File::Hosts => {
            disk.base.map(|base| disk.deltas.into_values().fold(base, |all, more| all + &more))
        }
    };
    text.map(IntoResponse::into_response).ok_or_else(|| super::missing("file", &"rendered"))
}
