//! The report's text against recorded ones, and the loop under a virtual clock.

use std::sync::Mutex;

use super::*;
use crate::sessions::{NewSession, Registered};
use serde_json::{Value, json};

fn sessions() -> Arc<Sessions> {
    Arc::new(Sessions::new(role::Host::system().clock, Arc::new(Metrics::default())))
}

fn enter(sessions: &Arc<Sessions>, number: usize) -> Registered {
    sessions.enter(NewSession {
        uuid: format!("0b9f6f0e-2f0c-4a57-8f5e-{number:012}"),
        key: format!("{number}"),
        vm: format!("7f6e3c1a-52b0-4d0e-9a39-{number:012}"),
        display_name: "vm".into(),
        client: [127, 0, 0, 1].into(),
        host: "192.0.2.21".into(),
        port: 5901,
        upstream: crate::upstream::Upstream::tcp("192.0.2.21", 5901).unwrap(),
        sid: "s".into(),
        owed: true,
    })
}

#[test]
fn an_idle_report_has_both_lists() {
    assert_eq!(load_info(&[], &[]), r#"{"connections":[],"removedSessions":[]}"#);
}

#[test]
fn a_connection_has_the_recorded_members_in_the_recorded_order() {
    let sessions = sessions();
    let held = enter(&sessions, 1);
    let text = load_info(&sessions.list(), &["x".into()]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let created = held.session.created_ms;
    assert_eq!(
        value,
        json!({"connections": [{"id": 1, "clientInfo": "", "host": "192.0.2.21", "port": 5901,
            "tag": "7f6e3c1a-52b0-4d0e-9a39-000000000001", "createTime": created, "lastUsedTime": created,
            "sessionUuid": "0b9f6f0e-2f0c-4a57-8f5e-000000000001"}], "removedSessions": ["x"]})
    );
    let keys: Vec<&String> = value["connections"][0].as_object().unwrap().keys().collect();
    let recorded =
        ["id", "clientInfo", "host", "port", "tag", "createTime", "lastUsedTime", "sessionUuid"];
    assert_eq!(keys, recorded);
}

#[test]
fn a_report_never_reaches_the_columns_size_and_always_counts_right() {
    let sessions = sessions();
    let mut held = Vec::new();
    let removed: Vec<String> =
        (0..256).map(|n| format!("0b9f6f0e-2f0c-4a57-8f5e-{n:012}")).collect();
    for count in [1, 100, 240, 400, 1000, 1500, 10_000] {
        while held.len() < count {
            held.push(enter(&sessions, held.len()));
        }
        let text = load_info(&sessions.list(), &removed);
        assert!(text.len() <= TEXT_LIMIT, "{count}: {}", text.len());
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["connections"].as_array().unwrap().len(), count);
        assert_eq!(value["removedSessions"].as_array().unwrap().len(), 256);
        let tagged = value["connections"][0].get("tag").is_some();
        assert_eq!(tagged, count <= 1000, "{count}");
    }
}

/// A server's half: closes each session once and rejects a report that names another.
#[derive(Default)]
struct Books {
    open: Mutex<std::collections::BTreeSet<String>>,
    reports: Mutex<Vec<Value>>,
    silent: Mutex<usize>,
}

impl ReportSink for Books {
    fn report(&self, load_info: String) -> BoxFuture<'_, ReportOutcome> {
        let value: Value = serde_json::from_str(&load_info).unwrap();
        self.reports.lock().unwrap().push(value.clone());
        let mut outcome = ReportOutcome::Accepted;
        for removed in value["removedSessions"].as_array().unwrap() {
            if !self.open.lock().unwrap().remove(removed.as_str().unwrap()) {
                outcome = ReportOutcome::Rejected("null pointer".into());
                break;
            }
        }
        let mut silent = self.silent.lock().unwrap();
        if *silent > 0 {
            *silent -= 1;
            outcome = ReportOutcome::Unknown("no answer".into());
        }
        Box::pin(async move { outcome })
    }
}

struct Loop {
    sessions: Arc<Sessions>,
    books: Arc<Books>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start() -> Loop {
    let (sessions, books, stop) =
        (sessions(), Arc::new(Books::default()), CancellationToken::new());
    let sink: Arc<dyn ReportSink> = books.clone();
    let task = tokio::spawn(run(Arc::clone(&sessions), sink, Arc::default(), stop.clone()));
    Loop { sessions, books, stop, task }
}

impl Loop {
    fn reports(&self) -> usize {
        self.books.reports.lock().unwrap().len()
    }

    async fn pass(&self, time: Duration) {
        sleep(time).await;
    }
}

#[tokio::test(start_paused = true)]
async fn reports_come_every_period_and_at_once_on_changes() {
    let running = start();
    running.pass(Duration::from_millis(15_100)).await;
    assert_eq!(running.reports(), 3);
    let held = enter(&running.sessions, 1);
    running.pass(Duration::from_millis(300)).await;
    assert_eq!(running.reports(), 4);
    running.books.open.lock().unwrap().insert(held.session.uuid.clone());
    drop(held);
    running.pass(Duration::from_millis(300)).await;
    assert_eq!(running.reports(), 5);
    assert_eq!(running.sessions.ledger.owed(), 0);
    assert_eq!(*running.books.open.lock().unwrap(), std::collections::BTreeSet::new());
}

#[tokio::test(start_paused = true)]
async fn every_end_is_closed_in_the_books_whatever_is_lost_or_poisoned() {
    let running = start();
    let held: Vec<Registered> = (0..40).map(|n| enter(&running.sessions, n)).collect();
    for session in &held {
        running.books.open.lock().unwrap().insert(session.session.uuid.clone());
    }
    // A denied session that is open in the books, and one the server never heard of.
    running.books.open.lock().unwrap().insert("denied".into());
    for doubtful in ["denied", "unknown"] {
        drop(crate::sessions::Asked::new(&running.sessions, doubtful.into()));
    }
    // A session that the server closed by itself poisons its batch.
    running.books.open.lock().unwrap().remove(&held[7].session.uuid);
    // And the answers to the next two reports are lost after the server acted on them.
    *running.books.silent.lock().unwrap() = 2;
    drop(held);
    running.pass(Duration::from_secs(60)).await;
    assert_eq!(*running.books.open.lock().unwrap(), std::collections::BTreeSet::new());
    assert_eq!(running.sessions.ledger.owed(), 0);
    let before = running.reports();
    running.pass(Duration::from_secs(21)).await;
    assert!(matches!(running.reports() - before, 4 | 5), "reports go on");
}

#[tokio::test(start_paused = true)]
async fn stopping_reports_what_is_owed_and_ends() {
    let running = start();
    let held = enter(&running.sessions, 1);
    running.books.open.lock().unwrap().insert(held.session.uuid.clone());
    running.pass(Duration::from_millis(10)).await;
    running.stop.cancel();
    drop(held);
    running.task.await.unwrap();
    assert!(running.books.open.lock().unwrap().is_empty());
}
