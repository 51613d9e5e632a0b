//! `POST /v1/sync`: the management server's book, now.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use dhcp_api::answer::{Alarm, SyncAnswer};
use dhcp_api::problem::{Problem, ProblemKind};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::collections::query;
use super::problem::Refusal;
use super::{Answer, Context};
use crate::sync::runner::Command;

/// Long listings go on behind the answer.
const WAIT: Duration = Duration::from_secs(50);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn now(State(api): Context, how: Result<Query<How>, QueryRejection>) -> Answer {
    let How { force, dry_run } = query(how)?;
    let Some(sync) = &api.sync else {
        let problem = Problem::new(ProblemKind::SyncOff, "no sync is configured");
        return Err(problem.remedy("fill in [roles.dhcp.sync] and restart").into());
    };
    let (answer, outcome) = oneshot::channel();
    let stopping = || Refusal::new(ProblemKind::InstanceDown, "the role is stopping");
    let command = Command::Now { force, dry_run, answer };
    sync.commands.send(command).await.map_err(|_closed| stopping())?;
    let Ok(outcome) = tokio::time::timeout(WAIT, outcome).await else {
        return Ok(StatusCode::ACCEPTED.into_response());
    };
    let outcome = outcome.map_err(|_dropped| stopping())?;
    let outcome = outcome.map_err(|text| Refusal::new(ProblemKind::SyncFailed, text))?;
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let notes = outcome.notes.into_iter().map(|note| Alarm {
        alarm: note.kind,
        text: note.text,
        generation: None,
        count: None,
    });
    let body = SyncAnswer {
        dry_run,
        complete: outcome.complete,
        upsert: outcome.upsert,
        delete: outcome.delete,
        absent: count(outcome.absent),
        held: count(outcome.held),
        notes: notes.collect(),
    };
    Ok((StatusCode::OK, axum::Json(body)).into_response())
}
