//! Who saw which screen: a line of JSON per event, for those who have to be able to tell later.
//!
//! ```text
//! {"time":"2026-11-28T04:00:00Z","event":"opened","session":"…","vm":"…","name":"vm1","client":"10.0.0.9","screen":"10.0.0.21:5901"}
//! {…,"event":"closed","reason":"viewer_closed","duration_ms":61000,"bytes_to_viewer":…,"bytes_to_vm":…,"inputs":…}
//! {…,"event":"refused","reason":"denied","client":"10.0.0.9","vm":"…"}
//! {…,"event":"recorded","text":"FILE"}   {"time":…,"event":"replayed","text":"FILE"}
//! {…,"event":"ended" | "view_only" | "may_type" | "message" | "screenshot","text":"…"}
//! ```
//!
//! The file is opened anew for every batch, so that it can be rotated by renaming it.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use role::TaskScope;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::sessions::Session;
use crate::token::ConsoleToken;

/// Lines that wait for the disk; more are lost, and that is told.
const WAITING: usize = 4096;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    path: Option<PathBuf>,
    waiting: Mutex<(Vec<u8>, usize)>,
    written: Notify,
}

#[derive(Serialize, Default)]
struct Line<'a> {
    time: String,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vm: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    screen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(flatten)]
    traffic: Option<Traffic>,
}

#[derive(Serialize)]
struct Traffic {
    duration_ms: i64,
    bytes_to_viewer: u64,
    bytes_to_vm: u64,
    inputs: u64,
}

impl Audit {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    fn push(&self, line: &Line<'_>) {
        if self.path.is_none() {
            return;
        }
        let Ok(text) = serde_json::to_vec(line) else { return };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.1 >= WAITING {
            drop(waiting);
            tracing::error!(event = line.event, "the disk is too slow for the audit log");
            return;
        }
        waiting.0.extend_from_slice(&text);
        waiting.0.push(b'\n');
        waiting.1 += 1;
        drop(waiting);
        self.written.notify_one();
    }

    fn line<'a>(event: &'a str, session: &'a Session) -> Line<'a> {
        Line {
            time: jiff::Timestamp::now().to_string(),
            event,
            session: Some(&session.uuid),
            vm: Some(&session.vm),
            name: Some(&session.display_name),
            client: Some(session.client),
            screen: Some(session.upstream().to_string()),
            ..Line::default()
        }
    }

    /// Something that happened to a console.
    pub(crate) fn record(&self, event: &str, session: &Session, text: Option<&str>) {
        self.push(&Line { text, ..Self::line(event, session) });
    }

    /// A console that ended.
    pub(crate) fn closed(&self, session: &Session, reason: &str) {
        let status = session.status();
        let traffic = Traffic {
            duration_ms: i64::try_from(status.opened_ago_ms).unwrap_or(i64::MAX),
            bytes_to_viewer: status.bytes_to_viewer,
            bytes_to_vm: status.bytes_to_vm,
            inputs: status.inputs,
        };
        let line = Self::line("closed", session);
        self.push(&Line { reason: Some(reason), traffic: Some(traffic), ..line });
    }

    /// A console that did not open.
    pub(crate) fn refused(&self, reason: &str, client: IpAddr, token: Option<&ConsoleToken>) {
        self.push(&Line {
            time: jiff::Timestamp::now().to_string(),
            event: "refused",
            reason: Some(reason),
            client: Some(client),
            session: token.and_then(|token| token.session.as_deref()),
            vm: token.map(|token| token.vm.as_str()),
            name: token.map(|token| token.display_name.as_str()),
            ..Line::default()
        });
    }

    /// An operator was given a link to a recording.
    pub(crate) fn replayed(&self, name: &str) {
        let time = jiff::Timestamp::now().to_string();
        self.push(&Line { time, event: "replayed", text: Some(name), ..Line::default() });
    }

    /// Writes what is pushed, until `stop` and once more after it.
    pub(crate) async fn keep(self: Arc<Self>, tasks: TaskScope, stop: CancellationToken) {
        let Some(path) = self.path.clone() else { return };
        loop {
            let stopping = tokio::select! {
                () = self.written.notified() => false,
                () = stop.cancelled() => true,
            };
            let (lines, _) =
                std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            let file = path.clone();
            let outcome = tasks.blocking("audit log", move || append(&file, &lines)).await;
            if let Ok(Err(error)) = outcome {
                let path = path.display();
                tracing::error!(%path, %error, "lines of the audit log are lost");
            }
            if stopping {
                return;
            }
        }
    }
}

fn append(path: &Path, lines: &[u8]) -> std::io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)?.write_all(lines)
}
