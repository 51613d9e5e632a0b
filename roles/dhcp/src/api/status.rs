//! What is served: health, status, progress of changes, the rendered files.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::collections::query;
use super::problem::{Problem, Slug};
use super::{Answer, Context, key};
use crate::desired::SOFT_RESERVATIONS;
use crate::observed::{Observed, Phase, Progress};

/// The process is alive and the API answers.
pub(super) async fn healthz() -> Response {
    (StatusCode::OK, axum::Json(json!({"status": "ok"}))).into_response()
}

/// dnsmasq serves.
pub(super) async fn readyz(State(api): Context) -> Answer {
    let phase = api.observed.borrow().instance.phase;
    match phase {
        Phase::Serving => {
            Ok((StatusCode::OK, axum::Json(json!({"status": "ready"}))).into_response())
        }
        _ => Err(Problem::new(Slug::InstanceDown, "dnsmasq does not serve")),
    }
}

pub(super) async fn status(State(api): Context) -> Response {
    let generation = api.store.state().generation;
    let body = brief(generation, &api.observed.borrow());
    (StatusCode::OK, axum::Json(body)).into_response()
}

/// The status object, here and in the process's `/status`.
pub(crate) fn brief(generation: u64, observed: &Observed) -> Value {
    let instance = &observed.instance;
    let dirty = observed.applied < generation;
    let alarms = alarms(observed);
    let state = match instance.phase {
        Phase::Starting => "starting",
        Phase::Stopped => "stopped",
        Phase::Serving if alarms.is_empty() => "ready",
        Phase::Serving | Phase::Down => "degraded",
    };
    json!({
        "state": state,
        "generation": generation,
        "applied_generation": observed.applied,
        "applied_at": observed.applied_at,
        "dirty": dirty,
        "instances": [{
            "name": "main",
            "pid": instance.pid,
            "version": instance.version,
            "state": instance.phase,
            "runs_as": instance.runs_as,
            "restarts": instance.restarts,
            "last_exit": instance.last_exit,
            "uptime_s": instance.started.map(|started| started.elapsed().as_secs()),
            // No reloadable line carries a tag, so every version survives the signal.
            "reload_mode": "sighup",
            "reservations": observed.reservations,
            "leases": observed.leases,
            "last_apply": observed.last_apply,
        }],
        "sync": {"enabled": false},
        "alarms": alarms,
    })
}

fn alarms(observed: &Observed) -> Vec<Value> {
    let mut alarms = Vec::new();
    if let Some(reason) = &observed.instance.reason {
        alarms.push(json!({"alarm": "instance-down", "text": reason}));
    }
    if let Some((generation, error)) = &observed.error {
        alarms.push(json!({"alarm": "apply-failed", "generation": generation, "text": error}));
    }
    if observed.no_interface {
        let text = "the interface to serve does not exist";
        alarms.push(json!({"alarm": "interface-missing", "text": text}));
    }
    for subnet in &observed.unserved {
        let text = format!("the interface has no address in {subnet}; its guests get no answer");
        alarms.push(json!({"alarm": "subnet-unserved", "text": text}));
    }
    for line in &observed.rejected {
        alarms.push(json!({"alarm": "reservation-rejected", "text": line}));
    }
    if observed.conflicts > 0 {
        alarms.push(json!({"alarm": "lease-conflict", "count": observed.conflicts}));
    }
    if observed.reservations > SOFT_RESERVATIONS {
        alarms.push(json!({"alarm": "instance-over-soft-limit", "count": observed.reservations}));
    }
    alarms
}

/// How far a change has come; its id is the generation it made.
pub(super) async fn change(State(api): Context, Path(id): Path<String>) -> Answer {
    let id: u64 = key("change", &id)?;
    if id > api.store.state().generation {
        return Err(super::missing("change", &id));
    }
    let (state, error) = match api.observed.borrow().progress(id) {
        Progress::Applied => ("applied", None),
        Progress::Pending => ("applying", None),
        Progress::Waiting => ("stored", None),
        Progress::Failed(error) => ("failed", Some(error)),
    };
    let body = json!({"id": id, "state": state, "error": error});
    Ok((StatusCode::OK, axum::Json(body)).into_response())
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
    let failed = |error: &dyn std::error::Error| Problem::new(Slug::Storage, bedrock::chain(error));
    let disk = read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let text = match file {
        File::Main => disk.main,
        File::Opts => disk.options,
        File::Names => disk.names,
        File::Hosts => {
            disk.base.map(|base| disk.deltas.into_values().fold(base, |all, more| all + &more))
        }
    };
    text.map(IntoResponse::into_response).ok_or_else(|| super::missing("file", &"rendered"))
}
