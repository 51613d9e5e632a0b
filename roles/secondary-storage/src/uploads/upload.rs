//! One upload as everybody sees it: how far it is, how it ended. The work itself is in
//! [`super::run`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::UploadError;
use super::plan::Plan;
use super::record::{Checkpoint, Completed, Resume};
use crate::ingest::progress::Progress;
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
    /// Cancelled once its bytes are wanted.
    pub(super) ready: CancellationToken,
    pub(super) work: Work,
    pub(super) progress: Progress,
    /// An earlier run of this process began it.
    pub(super) is_restored: bool,
    resume: Mutex<Option<Box<Resume>>>,
    /// Held while its record is written, so that none replaces a later one.
    pub(super) writing: Arc<tokio::sync::Mutex<()>>,
    received: AtomicU64,
    installing: AtomicBool,
    /// Another host has it.
    lost: AtomicBool,
    file: Mutex<Option<String>>,
    /// Why it has to end; the first reason counts.
    reason: Mutex<Option<UploadError>>,
    outcome: watch::Sender<Option<Outcome>>,
    /// Cancelled when it has ended and nothing of it is under way on its store any more.
    pub(super) gone: CancellationToken,
    /// The server knows that it failed, and it is not gone yet.
    told: AtomicBool,
}

/// What somebody wants to upload.
#[derive(Debug, Clone)]
pub struct Wish {
    pub id: String,
    pub plan: Plan,
    pub total: u64,
    pub client: Option<String>,
    /// Given when it can go on after a restart.
    pub resume: Option<Box<Resume>>,
}

impl Upload {
    pub(super) fn new(wish: Wish) -> Self {
        Self::made(wish, uuid::Uuid::new_v4().to_string(), false)
    }

    /// One of an earlier run of this process; how much of it is there is known when it is ready.
    pub(super) fn restored(wish: Wish, attempt: String) -> Self {
        let upload = Self::made(wish, attempt, true);
        let known = upload.checkpoint().map_or(0, |checkpoint| checkpoint.received);
        upload.received.store(known, Ordering::Relaxed);
        upload
    }

    fn made(wish: Wish, attempt: String, is_restored: bool) -> Self {
        let Wish { id, plan, total, client, resume } = wish;
        Self {
            id,
            attempt,
            plan,
            total,
            client,
            resumable: resume.is_some(),
            started: Instant::now(),
            cancel: CancellationToken::new(),
            ready: CancellationToken::new(),
            work: Work::new(),
            progress: Progress::default(),
            is_restored,
            resume: Mutex::new(resume),
            writing: Arc::default(),
            received: AtomicU64::default(),
            installing: AtomicBool::default(),
            lost: AtomicBool::default(),
            file: Mutex::default(),
            reason: Mutex::default(),
            outcome: watch::Sender::new(None),
            gone: CancellationToken::new(),
            told: AtomicBool::default(),
        }
    }

    /// Bytes of the file so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What a restored upload has; its bytes are wanted now.
    pub(super) fn begin_at(&self, received: u64) {
        self.received.store(received, Ordering::Relaxed);
        if received == 0
            && let Some(resume) = &mut *self.resume_now()
        {
            resume.checkpoint = None;
        }
        self.ready.cancel();
    }

    fn resume_now(&self) -> MutexGuard<'_, Option<Box<Resume>>> {
        self.resume.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it goes on with after a restart.
    pub(super) fn resume(&self) -> Option<Box<Resume>> {
        self.resume_now().clone()
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        self.resume_now().as_ref()?.checkpoint.clone()
    }

    /// Takes note of what is on the store; `false` when nothing is new.
    pub(super) fn take_note(&self) -> bool {
        let Some(mark) = self.progress.mark() else { return false };
        let mut resume = self.resume_now();
        let Some(resume) = &mut *resume else { return false };
        let known = resume.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.received);
        if mark.length <= known {
            return false;
        }
        let digest = mark.digest.to_string();
        resume.checkpoint = Some(Checkpoint { received: mark.length, digest });
        true
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

    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    pub(super) fn set_told(&self) {
        self.told.store(true, Ordering::SeqCst);
    }

    pub(super) fn finish(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.borrow().clone()
    }

    /// Waits for the end: the object is listed, or nothing is left of it unless its store is dead,
    /// see [`Upload::gone`].
    pub async fn ended(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        let ended = outcome.wait_for(Option::is_some).await;
        // The sender lives as long as the upload.
        ended.ok().and_then(|outcome| outcome.clone()).unwrap_or(Err(UploadError::Stopped))
    }
}
