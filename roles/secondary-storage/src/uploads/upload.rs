//! One upload as everybody sees it: how far it is, how it ended. The work itself is in
//! [`super::run`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::UploadError;
use super::plan::Plan;
use super::record::Completed;
use crate::stores::Work;

/// How an upload ended.
pub type Outcome = Result<Completed, UploadError>;

/// An upload under way. Shared by its task, the table, its client's requests and whoever asks.
#[derive(Debug)]
pub struct Upload {
    /// The object's UUID.
    pub id: String,
    /// Names this attempt in the ingest's journal.
    pub attempt: String,
    pub plan: Plan,
    /// Bytes announced: of the request's body, or of a resumable upload's file.
    pub total: u64,
    pub client: Option<String>,
    pub resumable: bool,
    pub started: Instant,
    pub cancel: CancellationToken,
    pub(super) work: Work,
    received: AtomicU64,
    installing: AtomicBool,
    /// Another host has it.
    lost: AtomicBool,
    file: Mutex<Option<String>>,
    /// Why it has to end; the first reason counts.
    reason: Mutex<Option<UploadError>>,
    outcome: watch::Sender<Option<Outcome>>,
}

/// What somebody wants to upload.
#[derive(Debug, Clone)]
pub struct Wish {
    pub id: String,
    pub plan: Plan,
    pub total: u64,
    pub client: Option<String>,
    pub resumable: bool,
}

impl Upload {
    pub(super) fn new(wish: Wish) -> Self {
        let Wish { id, plan, total, client, resumable } = wish;
        Self {
            id,
            attempt: uuid::Uuid::new_v4().to_string(),
            plan,
            total,
            client,
            resumable,
            started: Instant::now(),
            cancel: CancellationToken::new(),
            work: Work::new(),
            received: AtomicU64::default(),
            installing: AtomicBool::default(),
            lost: AtomicBool::default(),
            file: Mutex::default(),
            reason: Mutex::default(),
            outcome: watch::Sender::new(None),
        }
    }

    /// Bytes of the file so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Of what was announced; 100 is said only by the end.
    pub fn percent(&self) -> u8 {
        let percent = self.received().saturating_mul(100) / self.total.max(1);
        u8::try_from(percent.min(99)).unwrap_or(99)
    }

    /// All bytes are here.
    pub fn is_installing(&self) -> bool {
        self.installing.load(Ordering::Relaxed)
    }

    pub(super) fn set_installing(&self) {
        self.installing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    pub(super) fn set_lost(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }

    /// The file's name on the client's machine.
    pub fn file(&self) -> Option<String> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_file(&self, name: String) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
    }

    /// Ends it, for this reason unless there is one already. What is being installed is installed.
    pub fn end(&self, reason: UploadError) {
        self.set_reason(reason);
        self.cancel.cancel();
    }

    pub(super) fn set_reason(&self, reason: UploadError) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    pub(super) fn reason(&self) -> Option<UploadError> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn finish(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.borrow().clone()
    }

    /// Waits for the end: the object is listed, or nothing is left of it.
    pub async fn ended(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        let ended = outcome.wait_for(Option::is_some).await;
        // The sender lives as long as the upload.
        ended.ok().and_then(|outcome| outcome.clone()).unwrap_or(Err(UploadError::Stopped))
    }
}
