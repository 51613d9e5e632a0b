//! The documents of `/status` and `/readyz`.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use role::Health;
use serde_json::{Map, Value, json};

use crate::heartbeat::LinkRow;
use crate::supervisor::board::{Board, RoleRow, millis, reason, word};

/// `/status`: the process, every role, and the one table of links.
pub fn document(board: &Board, links: &[LinkRow], addr: SocketAddr) -> Value {
    let now = Instant::now();
    let roles: Vec<Value> = board
        .rows()
        .iter()
        .map(|row| {
            let link = links.iter().find(|link| link.role == row.kind);
            role(row, link.map(|link| link_row(link, now)))
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "state": if board.is_stopping() { "stopping" } else { "running" },
        "ready": board.is_ready(),
        "started_at": timestamp(board.started()),
        "uptime_ms": millis(board.uptime()),
        "admin_address": addr.to_string(),
        "roles": roles,
        "links": links.iter().map(|link| link_row(link, now)).collect::<Vec<_>>(),
    })
}

fn role(row: &RoleRow, link: Option<Value>) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("role", row.kind.short.into());
    put("title", row.kind.title.into());
    put("health", word(&row.health).into());
    put("reason", reason(&row.health).into());
    if let Health::Backoff { retry_in_ms, .. } = row.health {
        put("retry_in_ms", retry_in_ms.into());
    }
    put("since", timestamp(row.since));
    put("restarts", row.restarts.into());
    put("consecutive_errors", row.consecutive_errors.into());
    let last_error = row
        .last_error
        .as_ref()
        .map_or(Value::Null, |error| json!({"at": timestamp(error.at), "text": error.text}));
    put("last_error", last_error);
    put("link", link.unwrap_or(Value::Null));
    put("details", Value::Object(row.details()));
    Value::Object(object)
}

fn link_row(row: &LinkRow, now: Instant) -> Value {
    let report = &row.report;
    let ago = |at: Option<Instant>| at.map(|at| millis(now.saturating_duration_since(at)));
    json!({
        "role": row.role.short,
        "state": report.state,
        "endpoint": report.endpoint,
        "peer": report.peer.map(|peer| peer.to_string()),
        "host_id": report.host_id,
        "ping_interval_ms": report.ping_interval.map(millis),
        "last_ping_ago_ms": ago(report.last_ping),
        "last_answer_ago_ms": ago(report.last_answer),
        "round_trip_ms": report.round_trip.map(milliseconds),
        "last_error": report.last_error,
        "retry_in_ms": report.retry_at.map(|at| millis(at.saturating_duration_since(now))),
        "in_flight": report.in_flight,
    })
}

/// Milliseconds with three decimals; round trips on a LAN are shorter than one.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

/// `/readyz`: whether every role is ready, and who is not.
pub fn readiness(board: &Board) -> (bool, Value) {
    let rows = board.rows();
    let waiting: Vec<Value> = rows
        .iter()
        .filter(|row| row.health != Health::Ready)
        .map(|row| {
            json!({
                "role": row.kind.short,
                "health": word(&row.health),
                "reason": reason(&row.health),
            })
        })
        .collect();
    let ready = waiting.is_empty() && !board.is_stopping();
    (ready, json!({"ready": ready, "stopping": board.is_stopping(), "not_ready": waiting}))
}

fn timestamp(at: SystemTime) -> Value {
    jiff::Timestamp::try_from(at)
        .ok()
        .and_then(|at| at.round(jiff::Unit::Millisecond).ok())
        .map_or(Value::Null, |at| at.to_string().into())
}
