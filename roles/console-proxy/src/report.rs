//! The load report: its text, and the loop that sends it.
//!
//! The server stores the text in a column of 64 KiB and uses of it the number of connections and
//! each one's VM, so a report that would be too long gives up everything else first.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use role::BoxFuture;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::ledger::Settled;
use crate::metrics::Metrics;
use crate::sessions::{Session, Sessions};

/// How often the server hears from us, idle or not.
const PERIOD: Duration = Duration::from_secs(5);
/// Least distance of reports that changes cause.
const SPACING: Duration = Duration::from_millis(250);
/// Longest text of a report: the column holds 65 535 bytes.
const TEXT_LIMIT: usize = 60_000;

/// Sends a report to the management server.
pub(crate) trait ReportSink: Send + Sync + 'static {
    fn report(&self, load_info: String) -> BoxFuture<'_, ReportOutcome>;
}

/// What the server said to a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReportOutcome {
    Accepted,
    /// It answered that it failed; its words.
    Rejected(String),
    /// Not sent, or no answer.
    Unknown(String),
}

#[derive(Serialize)]
struct LoadInfo<'a> {
    connections: Vec<Connection<'a>>,
    #[serde(rename = "removedSessions")]
    removed: &'a [String],
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Connection<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_info: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_uuid: Option<&'a str>,
}

impl<'a> Connection<'a> {
    fn full(session: &'a Session) -> Self {
        Self {
            id: Some(session.id),
            client_info: Some(""),
            host: Some(&session.host),
            port: Some(session.port),
            tag: Some(&session.vm),
            create_time: Some(session.created_ms),
            last_used_time: Some(session.last_used_ms.load(Ordering::Relaxed)),
            session_uuid: Some(&session.uuid),
        }
    }

    fn tag_only(session: &'a Session) -> Self {
        Self { tag: Some(&session.vm), ..Self::default() }
    }
}

/// The text of a report. Every connection in full if that fits; else every connection with its
/// VM alone; else as many empty objects, since the server counts them.
pub(crate) fn load_info(sessions: &[Arc<Session>], removed: &[String]) -> String {
    let text =
        |connections| serde_json::to_string(&LoadInfo { connections, removed }).unwrap_or_default();
    let full = text(sessions.iter().map(|session| Connection::full(session)).collect());
    if full.len() <= TEXT_LIMIT {
        return full;
    }
    let tags = text(sessions.iter().map(|session| Connection::tag_only(session)).collect());
    if tags.len() <= TEXT_LIMIT {
        return tags;
    }
    text(sessions.iter().map(|_| Connection::default()).collect())
}

/// Reports until `stop` fires, then once more if an end is still owed. Never gives up.
pub(crate) async fn run(
    sessions: Arc<Sessions>,
    sink: Arc<dyn ReportSink>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut next = Instant::now() + PERIOD;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(next) => {}
            () = sessions.changed.notified() => {}
        }
        next = Instant::now() + PERIOD;
        send_all(&sessions, &*sink, &metrics).await;
        sleep(SPACING).await;
    }
    if sessions.ledger.owed() > 0 {
        send_all(&sessions, &*sink, &metrics).await;
    }
}

/// One ordinary report, then one for each ending that needs its own.
async fn send_all(sessions: &Sessions, sink: &dyn ReportSink, metrics: &Metrics) {
    let batch = sessions.ledger.batch();
    let more = batch.len();
    let outcome = send(sessions, &batch, sink, metrics).await;
    sessions.ledger.settle(batch, outcome);
    if outcome == Settled::Unknown {
        return;
    }
    let mut singles = 0;
    while singles < 256
        && let Some(session) = sessions.ledger.single()
    {
        singles += 1;
        let outcome = send(sessions, std::slice::from_ref(&session), sink, metrics).await;
        sessions.ledger.settle_single(session, outcome);
        if outcome == Settled::Unknown {
            return;
        }
    }
    if more > 0 && sessions.ledger.owed() > 0 {
        // More than one report could name: go on after the usual distance.
        sessions.changed.notify_one();
    }
}

async fn send(
    sessions: &Sessions,
    removed: &[String],
    sink: &dyn ReportSink,
    metrics: &Metrics,
) -> Settled {
    let outcome = sink.report(load_info(&sessions.list(), removed)).await;
    let (label, settled) = match &outcome {
        ReportOutcome::Accepted => ("accepted", Settled::Accepted),
        ReportOutcome::Rejected(reason) => {
            tracing::debug!(removed = removed.len(), reason, "load report rejected");
            ("rejected", Settled::Rejected)
        }
        ReportOutcome::Unknown(reason) => {
            tracing::debug!(removed = removed.len(), reason, "load report not acknowledged");
            ("unknown", Settled::Unknown)
        }
    };
    metrics.report(label);
    settled
}

#[cfg(test)]
mod tests;
