//! The documents of `/status` and `/readyz`.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use role::Health;
use serde_json::{Map, Value};
use status_api::{
    Details, LastError, LinkStatus, NotReady, ProcessState, ProcessStatus, Readiness, RoleStatus,
};

use crate::heartbeat::LinkRow;
use crate::supervisor::board::{Board, RoleRow, millis};

/// `/status`: the process, every role, and the one table of links.
pub fn document(board: &Board, links: &[LinkRow], addr: SocketAddr) -> ProcessStatus {
    let now = Instant::now();
    ProcessStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        state: if board.is_stopping() { ProcessState::Stopping } else { ProcessState::Running },
        ready: board.is_ready(),
        started_at: timestamp(board.started()),
        uptime_ms: millis(board.uptime()),
        admin_address: addr.to_string(),
        roles: board.rows().iter().map(role).collect(),
        links: links.iter().map(|row| link(row, now)).collect(),
    }
}

fn role(row: &RoleRow) -> RoleStatus {
    let retry_in_ms = match row.health {
        Health::Backoff { retry_in_ms, .. } => Some(retry_in_ms),
        _ => None,
    };
    RoleStatus {
        role: row.kind.short.to_owned(),
        title: row.kind.title.to_owned(),
        health: row.health.word(),
        reason: row.health.reason().map(str::to_owned),
        retry_in_ms,
        since: timestamp(row.since),
        restarts: row.restarts,
        consecutive_errors: row.consecutive_errors,
        last_error: row
            .last_error
            .as_ref()
            .map(|error| LastError { at: timestamp(error.at), text: error.text.clone() }),
        details: details(row.details()),
    }
}

/// What a role publishes, typed. An object that is not of the type its name stands for is put
/// aside, so that it spoils neither the document nor its readers.
fn details(published: Map<String, Value>) -> Details {
    let mut sound = Map::new();
    for (name, value) in published {
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        match serde_json::from_value::<Details>(Value::Object(alone)) {
            Ok(_typed) => sound.insert(name, value),
            Err(error) => {
                tracing::error!(name, %error, "a role publishes an object of another type");
                sound.insert(format!("{name} (malformed)"), value)
            }
        };
    }
    serde_json::from_value(Value::Object(sound)).unwrap_or_default()
}

fn link(row: &LinkRow, now: Instant) -> LinkStatus {
    let report = &row.report;
    let ago = |at: Option<Instant>| at.map(|at| millis(now.saturating_duration_since(at)));
    LinkStatus {
        role: row.role.short.to_owned(),
        state: report.state,
        guid: report.guid.clone(),
        endpoint: report.endpoint.clone(),
        peer: report.peer.map(|peer| peer.to_string()),
        host_id: report.host_id,
        ping_interval_ms: report.ping_interval.map(millis),
        last_ping_ago_ms: ago(report.last_ping),
        last_answer_ago_ms: ago(report.last_answer),
        round_trip_ms: report.round_trip.map(milliseconds),
        last_error: report.last_error.clone(),
        retry_in_ms: report.retry_at.map(|at| millis(at.saturating_duration_since(now))),
        in_flight: report.in_flight,
        certificate_expires: report
            .certificate_end
            .and_then(|end| jiff::Timestamp::from_second(end).ok())
            .map(|end| end.to_string()),
    }
}

/// Milliseconds with three decimals; round trips on a LAN are shorter than one.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// `/readyz`: whether every role is ready, and who is not.
pub fn readiness(board: &Board) -> Readiness {
    let not_ready: Vec<NotReady> = board
        .rows()
        .iter()
        .filter(|row| row.health != Health::Ready)
        .map(|row| NotReady {
            role: row.kind.short.to_owned(),
            health: row.health.word(),
            reason: row.health.reason().map(str::to_owned),
        })
        .collect();
    let stopping = board.is_stopping();
    Readiness { ready: not_ready.is_empty() && !stopping, stopping, not_ready }
}

fn timestamp(at: SystemTime) -> Option<String> {
    let at = jiff::Timestamp::try_from(at).ok()?.round(jiff::Unit::Millisecond).ok()?;
    Some(at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_of_another_type_spoils_nothing() {
        let published = json!({"stores": [{"url": "u", "state": "ready"}], "downloads": 3, "x": 1});
        let Value::Object(published) = published else { panic!() };
        let details = details(published);
        assert_eq!(details.stores.unwrap().len(), 1);
        assert_eq!(details.downloads, None);
        assert_eq!(details.other["downloads (malformed)"], 3);
        assert_eq!(details.other["x"], 1);
    }
}
