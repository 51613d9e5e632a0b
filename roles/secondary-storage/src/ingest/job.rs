//! One download as everybody sees it: what was asked, how far it is, how it ended. The work itself
//! is in [`super::run`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agent_protocol::storage::OVFInformationTO;
use bedrock::Secret;
use bedrock::net::Network;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ingest::digest::Expectation;
use crate::ingest::error::IngestError;
use crate::ingest::intake::{Content, Order, temporary_name};
use crate::ingest::publish::Publishing;
use crate::ingest::records::{Checkpoint, Record};
use crate::ingest::several::Further;
use crate::ingest::speed::Speed;
use crate::ingest::turns::Claim;
use crate::objects::inventory::Description;
use crate::sources::Source;
use crate::stores::{FileName, InstallPath, ObjectKind, StoreUrl, Work};
use disk_image::Sizes;

/// What is to be downloaded, and where to.
#[derive(Debug, Clone)]
pub struct Request {
    pub kind: ObjectKind,
    pub about: Description,
    /// Whose object it is.
    pub account: i64,
    pub content: Content,
    /// Name of the file, when that is not made of the object's name: several snapshots share a
    /// directory.
    pub image: Option<FileName>,
    pub source: Source,
    /// Further files of the same object. With them the directory is the object's own, and all or
    /// nothing is there.
    pub more: Vec<Further>,
    pub expectation: Expectation,
    /// The digest as the command gave it; echoed until one is computed.
    pub given_checksum: Option<String>,
    /// Largest download in bytes.
    pub limit: u64,
    /// Largest image after decompression.
    pub decompressed_limit: u64,
    /// How many times as long as what was received an image may be.
    pub decompression_ratio: u64,
    pub store: StoreUrl,
    /// The object's directory below the store's root.
    pub directory: InstallPath,
    /// The body of the command, to make the request of it again.
    pub command: Secret<String>,
    /// Private networks that the server allowed to be reached when it was accepted.
    pub sites: Vec<Network>,
}

impl Request {
    /// On whose behalf it runs.
    pub fn claim(&self) -> Claim {
        Claim { account: self.account, server: self.source.server() }
    }

    /// What is to become of the bytes.
    pub fn order(&self) -> Order {
        Order {
            kind: self.kind,
            content: self.content,
            directory: self.directory.clone(),
            expectation: self.expectation.clone(),
            hashes: Vec::new(),
            decompressed_limit: self.decompressed_limit,
            decompression_ratio: self.decompression_ratio,
            own_name: self.image.clone(),
        }
    }

    /// Whether both make the same thing of a store.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.store.key() == other.store.key()
            && self.directory == other.directory
            && self.image == other.image
    }

    /// What it makes: the object's directory, or the one file of several in a directory.
    pub fn place(&self) -> InstallPath {
        match &self.image {
            Some(image) => self.directory.join(image.clone()),
            None => self.directory.clone(),
        }
    }

    /// Whether a running job for `other` can serve this one: same bytes, same checks.
    pub fn is_same_download(&self, other: &Self) -> bool {
        self.source.is_same(&other.source)
            && self.content == other.content
            && self.image == other.image
            && self.more.len() == other.more.len()
            && self
                .more
                .iter()
                .zip(&other.more)
                .all(|(one, other)| one.name == other.name && one.source.is_same(&other.source))
            && self.expectation == other.expectation
            && self.limit == other.limit
    }
}

/// Station of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    Downloading,
    Installing,
    Done,
    Failed,
    Aborted,
    /// Stopped with the process; the next run goes on.
    Suspended,
}

impl Phase {
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Aborted | Self::Suspended)
    }
}

/// What a job says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    pub phase: Phase,
    pub percent: u8,
    /// For the user; one blank when there is nothing to say.
    pub text: String,
    /// Below the store's root: the directory, later the file.
    pub install_path: String,
    /// Absolute path of the temporary file.
    pub temporary: Option<String>,
    pub sizes: Option<Sizes>,
    pub checksum: Option<String>,
    /// What an operator may want to know about an image that is usable.
    pub warnings: Vec<String>,
    /// The machine that an OVA describes.
    pub ovf: Option<Arc<OVFInformationTO>>,
}

/// A job. Shared by its task, the table of jobs and whoever asks.
#[derive(Debug)]
pub struct Job {
    pub id: String,
    pub request: Request,
    pub started: Instant,
    pub cancel: CancellationToken,
    /// Replaced when a second command adopts the job.
    about: Mutex<Description>,
    report: watch::Sender<Report>,
    pub(super) received: AtomicU64,
    /// 0 while unknown.
    pub(super) expected: AtomicU64,
    speed: Mutex<Speed>,
    ended: Mutex<Option<Instant>>,
    /// Everything that the job does on its store.
    pub(super) work: Work,
    /// Cancelled once the store has let go of it: until then nothing else happens at its place. A
    /// failure may be told before that.
    let_go: CancellationToken,
    /// What is being made an object.
    publishing: Mutex<Option<Publishing>>,
    /// The server has forgotten it: it goes as soon as it is over.
    pub(super) forgotten: AtomicBool,
    /// It is stopped with the process, and goes on in the next run.
    pub(super) suspended: AtomicBool,
    /// Another host of the zone does it now.
    pub(super) lost: AtomicBool,
    /// Another host had taken it over when it began.
    pub(super) follows: bool,
    /// It was running when an earlier run of this process ended.
    pub(super) is_restored: bool,
    /// Cancelled once it is on record.
    pub(super) recorded: CancellationToken,
    record: Mutex<Record>,
}

impl Job {
    /// A new one.
    pub fn new(id: String, request: Request, now_unix_ms: i64) -> Self {
        let record = Record {
            command: request.command.clone(),
            accepted_unix_ms: now_unix_ms,
            internal_sites: request.sites.iter().map(ToString::to_string).collect(),
            checksum: None,
            checkpoint: None,
            outcome: None,
        };
        Self::made(id, request, record, false)
    }

    /// One of an earlier run of this process.
    pub fn restored(id: String, request: Request, record: Record) -> Self {
        let outcome = record.outcome.clone();
        let checkpoint = record.checkpoint.clone();
        let job = Self::made(id, request, record, true);
        job.recorded.cancel();
        if let Some(checkpoint) = checkpoint {
            job.received.store(checkpoint.received, Ordering::Relaxed);
            job.expected.store(checkpoint.length.unwrap_or(0), Ordering::Relaxed);
        }
        if let Some(outcome) = outcome {
            job.update(|report| *report = outcome.report());
            job.let_go();
        }
        job
    }

    /// The same, to wait for the host that does it now.
    pub(super) fn following(&self) -> Self {
        let record = Record { checkpoint: None, outcome: None, ..self.record().clone() };
        let mut request = self.request.clone();
        request.about = self.about().clone();
        let mut job = Self::made(self.id.clone(), request, record, false);
        job.follows = true;
        job
    }

    fn made(id: String, request: Request, record: Record, is_restored: bool) -> Self {
        let report = Report {
            phase: Phase::Waiting,
            percent: 0,
            text: " ".to_owned(),
            install_path: request.directory.to_string(),
            temporary: None,
            sizes: None,
            checksum: request.given_checksum.clone(),
            warnings: Vec::new(),
            ovf: None,
        };
        Self {
            id,
            about: Mutex::new(request.about.clone()),
            request,
            started: Instant::now(),
            cancel: CancellationToken::new(),
            report: watch::Sender::new(report),
            received: AtomicU64::default(),
            expected: AtomicU64::default(),
            speed: Mutex::new(Speed::new(Instant::now())),
            ended: Mutex::default(),
            work: Work::new(),
            let_go: CancellationToken::new(),
            publishing: Mutex::default(),
            forgotten: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            follows: false,
            is_restored,
            recorded: CancellationToken::new(),
            record: Mutex::new(record),
        }
    }

    /// What is kept of it on disk.
    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        self.record().checkpoint.clone()
    }

    /// Ends it so that the next run of this process goes on.
    pub(super) fn suspend(&self) {
        self.suspended.store(true, Ordering::SeqCst);
        self.cancel.cancel();
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::SeqCst)
    }

    pub(super) fn about(&self) -> MutexGuard<'_, Description> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory that several files are put together in.
    pub(super) fn staging(&self) -> Result<FileName, IngestError> {
        temporary_name(&self.id, 0)
    }

    pub(super) fn publishes(&self, publishing: Publishing) {
        *self.publishing.lock().unwrap_or_else(PoisonError::into_inner) = Some(publishing);
    }

    pub(super) fn publishing(&self) -> Option<Publishing> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A second command for the same download brings its own ids and texts.
    pub fn adopt(&self, request: Request) {
        *self.about() = request.about;
        self.record().command = request.command;
    }

    pub fn report(&self) -> Report {
        let mut report = self.report.borrow().clone();
        if !matches!(report.phase, Phase::Waiting | Phase::Done) && self.expected_or_received() {
            report.percent = self.percent();
        }
        report
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Counts bytes of the source, each once.
    pub(super) fn count(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.speed_now().add(bytes, Instant::now());
    }

    /// Bytes in each second, lately.
    pub fn speed(&self) -> u64 {
        self.speed_now().at(Instant::now())
    }

    fn speed_now(&self) -> MutexGuard<'_, Speed> {
        self.speed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Length of the download, when its source told it.
    pub fn expected(&self) -> Option<u64> {
        Some(self.expected.load(Ordering::Relaxed)).filter(|length| *length > 0)
    }

    /// Nothing is known of a job that ended in an earlier run but its report.
    fn expected_or_received(&self) -> bool {
        !self.is_restored || self.received() > 0
    }

    /// Of the expected length; of the limit while the length is unknown, as the original counts.
    fn percent(&self) -> u8 {
        let expected = self.expected.load(Ordering::Relaxed);
        let total = if expected == 0 { self.request.limit } else { expected };
        let percent = self.received().saturating_mul(100) / total.max(1);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }

    pub fn phase(&self) -> Phase {
        self.report.borrow().phase
    }

    /// When the job ended, if it did.
    pub fn ended(&self) -> Option<Instant> {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_modify(change);
        if self.phase().is_over() {
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Instant::now());
        }
    }

    /// Nothing of it happens any more.
    pub(super) fn let_go(&self) {
        self.let_go.cancel();
    }

    /// Whether something of it may still happen at its place.
    pub fn holds_place(&self) -> bool {
        !self.let_go.is_cancelled()
    }

    /// Waits until nothing of it happens any more, at most `limit`.
    pub async fn wait_for_place(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.let_go.cancelled()).await.is_ok()
    }

    /// Waits for the end, at most `limit`.
    pub async fn wait(&self, limit: Duration) -> bool {
        let mut report = self.report.subscribe();
        let over = report.wait_for(|report| report.phase.is_over());
        tokio::time::timeout(limit, over).await.is_ok()
    }
}
