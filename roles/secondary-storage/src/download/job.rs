//! One download: its state, and the work from the first request to the listed object.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use role::{Host, TaskScope};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::error::DownloadError;
use super::fetch::{Body, Continued, Fetch};
use super::install::{Publication, image_name, publish};
use super::journal::{Journal, Note, remove_leftovers};
use super::writer::{self, Piece, WriterJob, WriterResult, Written};
use crate::checksum::Expectation;
use crate::format::{self, Format, Sizes};
use crate::inventory::Description;
use crate::metrics::Metrics;
use crate::store::{InstallPath, Lane, ObjectKind, Store, StoreError, StoreUrl, Stores};

/// What is to be downloaded, and where to.
#[derive(Debug, Clone)]
pub struct Request {
    pub kind: ObjectKind,
    pub about: Description,
    pub format: Format,
    pub fetch: Fetch,
    pub expectation: Expectation,
    /// The digest as the command gave it; echoed until one is computed.
    pub given_checksum: Option<String>,
    /// Largest download in bytes.
    pub limit: u64,
    /// Largest image after decompression.
    pub decompressed_limit: u64,
    pub store: StoreUrl,
    /// The object's directory below the store's root.
    pub directory: InstallPath,
}

impl Request {
    /// Whether a running job for `other` can serve this one: same bytes, same checks.
    pub fn is_same_download(&self, other: &Self) -> bool {
        self.fetch.source == other.fetch.source
            && self.format == other.format
            && self.expectation == other.expectation
            && self.limit == other.limit
            && self.fetch.follow_redirects == other.fetch.follow_redirects
    }
}

/// Station of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Waiting,
    Downloading,
    Installing,
    Done,
    Failed,
    Aborted,
}

impl Phase {
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Aborted)
    }
}

/// What a job says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    received: AtomicU64,
    /// 0 while unknown.
    expected: AtomicU64,
    ended: Mutex<Option<Instant>>,
    /// See [`Publication::gate`].
    gate: Arc<Mutex<()>>,
}

impl Job {
    pub fn new(id: String, request: Request) -> Self {
        let report = Report {
            phase: Phase::Waiting,
            percent: 0,
            text: " ".to_owned(),
            install_path: request.directory.to_string(),
            temporary: None,
            sizes: None,
            checksum: request.given_checksum.clone(),
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
            ended: Mutex::default(),
            gate: Arc::default(),
        }
    }

    fn about(&self) -> MutexGuard<'_, Description> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A second command for the same download brings its own ids and texts.
    pub fn adopt(&self, about: Description) {
        *self.about() = about;
    }

    pub fn report(&self) -> Report {
        let mut report = self.report.borrow().clone();
        if report.phase != Phase::Waiting && report.phase != Phase::Done {
            report.percent = self.percent();
        }
        report
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
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

    fn update(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_modify(change);
        if self.phase().is_over() {
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Instant::now());
        }
    }

    /// Waits for the end, at most `limit`.
    pub async fn wait(&self, limit: Duration) -> bool {
        let mut report = self.report.subscribe();
        let over = report.wait_for(|report| report.phase.is_over());
        tokio::time::timeout(limit, over).await.is_ok()
    }
}

/// What all jobs of this host share.
#[derive(Debug, Clone)]
pub struct Workshop {
    pub stores: Stores,
    pub host: Host,
    pub tasks: TaskScope,
    pub journal: Journal,
    pub metrics: Arc<Metrics>,
    pub retries: u32,
    pub retry_delay: Duration,
}

impl Workshop {
    /// Grows with each failure in a row.
    fn delay(&self, failures: u32) -> Duration {
        let factor = 1_u32 << failures.saturating_sub(1).min(10);
        self.retry_delay.saturating_mul(factor).min(LONGEST_RETRY_DELAY)
    }
}

/// How long syncing the last bytes of a file may take.
const SYNC_LIMIT: Duration = Duration::from_secs(30 * 60);
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Runs a job to its end; never fails, the outcome is in the job.
pub async fn run(job: Arc<Job>, shop: Workshop, slots: Arc<Semaphore>) {
    let mut guard = EndGuard { job: &job, armed: true };
    let mut work = Box::pin(work(&job, &shop, &slots));
    let outcome = tokio::select! {
        outcome = &mut work => outcome,
        // What is being installed is there in a moment; stopping it half way gains nothing.
        () = job.cancel.cancelled() => match job.phase() {
            Phase::Installing => work.await,
            _ => Err(DownloadError::Aborted),
        },
    };
    guard.armed = false;
    clean_up(&job, &shop, outcome.is_ok()).await;
    let seconds = job.started.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => {
            tracing::info!(
                job = job.id,
                path = job.report().install_path,
                bytes = job.received(),
                "download installed"
            );
            shop.metrics.downloaded("done", seconds);
        }
        Err(DownloadError::Aborted) => {
            tracing::info!(job = job.id, "download aborted");
            shop.metrics.downloaded("aborted", seconds);
            job.update(|report| {
                report.phase = Phase::Aborted;
                report.text = DownloadError::Aborted.to_string();
            });
        }
        Err(error) => {
            let text = error.to_string();
            tracing::warn!(job = job.id, url = %job.request.fetch.source, error = text, "download failed");
            shop.metrics.downloaded("failed", seconds);
            job.update(|report| {
                report.phase = Phase::Failed;
                report.text = text;
            });
        }
    }
}

/// A job whose task is killed or panics must not look as if it still ran.
struct EndGuard<'a> {
    job: &'a Job,
    armed: bool,
}

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.job.update(|report| {
                report.phase = Phase::Failed;
                report.text = DownloadError::Internal.to_string();
            });
        }
    }
}

async fn work(
    job: &Arc<Job>,
    shop: &Workshop,
    slots: &Arc<Semaphore>,
) -> Result<(), DownloadError> {
    let permit = match Arc::clone(slots).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_none) => {
            job.update(|report| {
                "waiting for another download to finish".clone_into(&mut report.text);
            });
            Arc::clone(slots).acquire_owned().await.map_err(|_closed| DownloadError::Aborted)?
        }
    };
    let permit = Arc::new(permit);
    let store = shop.stores.open(&job.request.store, None).await.map_err(DownloadError::Store)?;
    let note = note_for(job);
    job.update(|report| {
        report.phase = Phase::Downloading;
        " ".clone_into(&mut report.text);
        let directory = &job.request.directory;
        let path = store.root().join(directory.to_string()).join(&note.temporary);
        report.temporary = Some(path.display().to_string());
    });
    write_note(job, shop, note.clone()).await?;
    let mut restarts = 0;
    let written = loop {
        let reason = match attempt(job, shop, &store, &note, &permit).await {
            Ok(Attempt::Written(written)) => break written,
            Ok(Attempt::FromStart(reason)) => reason,
            // Refused at the first try is an answer; refused later, the server is restarting.
            Err(error @ DownloadError::Connect(_)) if restarts > 0 => error,
            Err(error) => return Err(error),
        };
        restarts += 1;
        if restarts > shop.retries {
            return Err(reason);
        }
        tracing::info!(job = job.id, attempt = restarts, error = %reason, "download begins again");
        tokio::time::sleep(shop.delay(restarts)).await;
    };
    install(job, shop, &store, note, written).await
}

fn note_for(job: &Job) -> Note {
    // The name that the original's temporaries have, so that an operator knows what it is.
    let digits = job.id.parse::<uuid::Uuid>().map_or(0, |id| id.as_u64_pair().0);
    Note {
        store: job.request.store.to_string(),
        directory: job.request.directory.to_string(),
        volume: job.request.kind == ObjectKind::Volume,
        temporary: format!("dnld{digits}tmp_"),
        image: None,
    }
}

async fn write_note(job: &Job, shop: &Workshop, note: Note) -> Result<(), DownloadError> {
    let (journal, id) = (shop.journal.clone(), job.id.clone());
    let work = move || journal.write(&id, &note);
    let written = shop.tasks.blocking("note a download", work).await;
    written.map_err(|_stopped| DownloadError::Aborted)?.map_err(DownloadError::Journal)
}

enum Attempt {
    Written(Written),
    /// Broken off where it cannot be continued.
    FromStart(DownloadError),
}

/// One pass over the image, continued over broken connections.
async fn attempt(
    job: &Arc<Job>,
    shop: &Workshop,
    store: &Arc<Store>,
    note: &Note,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<Attempt, DownloadError> {
    job.received.store(0, Ordering::Relaxed);
    let body = job.request.fetch.start().await?;
    let (directory, temporary, modes) =
        (job.request.directory.clone(), note.temporary.clone(), store.modes());
    let file = store
        .run("create a file", Lane::Quick, move |root| {
            let create = || {
                let dir = root.create_all(&directory, modes)?;
                dir.remove_file(&temporary)?;
                dir.create_file(&temporary, modes)
            };
            // A job that ended in the same directory may remove it, empty, between two steps.
            create().or_else(|_gone| create())
        })
        .await
        .map_err(DownloadError::Store)?;
    let taken = Arc::new(AtomicU64::default());
    let (pieces, mut outcome) = writer::start(WriterJob {
        file,
        format: job.request.format,
        expectation: job.request.expectation.clone(),
        limit: job.request.decompressed_limit,
        taken: Arc::clone(&taken),
        permit: Arc::clone(permit),
    })
    .map_err(DownloadError::Write)?;
    let mut transfer = Transfer { job, shop, pieces, total: None, validator: None };
    match transfer.all(body).await {
        Ok(()) => {
            drop(transfer);
            let limit = job.request.fetch.limits.stall_timeout + SYNC_LIMIT;
            let result = tokio::time::timeout(limit, &mut outcome).await;
            result
                .map_err(|_elapsed| DownloadError::StoreStalled(limit))?
                .map_err(|_gone| DownloadError::Internal)?
                .map(Attempt::Written)
        }
        Err(Interruption::WriterEnded) => Err(writer_error(outcome).await),
        Err(Interruption::FromStart(reason)) => Ok(Attempt::FromStart(reason)),
        Err(Interruption::Failed(error)) => Err(error),
    }
}

async fn writer_error(outcome: oneshot::Receiver<WriterResult>) -> DownloadError {
    match outcome.await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => DownloadError::Internal,
    }
}

enum Interruption {
    /// The writer gave up: it has the reason.
    WriterEnded,
    FromStart(DownloadError),
    Failed(DownloadError),
}

struct Transfer<'a> {
    job: &'a Job,
    shop: &'a Workshop,
    pieces: mpsc::Sender<Piece>,
    total: Option<u64>,
    validator: Option<reqwest::header::HeaderValue>,
}

impl Transfer<'_> {
    /// Passes everything on, continuing after broken connections.
    async fn all(&mut self, first: Body) -> Result<(), Interruption> {
        self.validator.clone_from(&first.validator);
        self.expect(first.total, first.hint)?;
        let mut body = Ok(first);
        let mut failures = 0;
        loop {
            let before = self.job.received();
            let broken = match body {
                Ok(body) => match self.pass(body).await {
                    Ok(()) => return self.send(Piece::End).await,
                    Err(interruption) => interruption,
                },
                Err(error) => Interruption::Failed(error),
            };
            let error = match broken {
                Interruption::Failed(error) if error.is_transient() => error,
                other => return Err(other),
            };
            failures = if self.job.received() > before { 1 } else { failures + 1 };
            if failures > self.shop.retries {
                return Err(Interruption::Failed(error));
            }
            tracing::info!(job = self.job.id, attempt = failures, error = %error, "download interrupted");
            tokio::time::sleep(self.shop.delay(failures)).await;
            let Some(validator) = self.validator.clone() else {
                return Err(Interruption::FromStart(error));
            };
            body = match self.job.request.fetch.resume(self.job.received(), &validator).await {
                Ok(Continued::Here(body)) => Ok(*body),
                Ok(Continued::FromStart) => return Err(Interruption::FromStart(error)),
                // The server is away for a moment: that counts as one more broken connection.
                Err(DownloadError::Connect(reason)) => Err(self.cut(reason)),
                Err(error) => Err(error),
            };
        }
    }

    fn expect(&mut self, total: Option<u64>, hint: Option<u64>) -> Result<(), Interruption> {
        let limit = self.job.request.limit;
        if total.is_some_and(|total| total > limit) {
            return Err(Interruption::Failed(DownloadError::TooLarge { limit }));
        }
        self.total = total;
        self.job.expected.store(total.or(hint).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, reason: String) -> DownloadError {
        DownloadError::Cut { received: self.job.received(), expected: self.total, reason }
    }

    /// One response body to its end.
    async fn pass(&self, mut body: Body) -> Result<(), Interruption> {
        let stall = self.job.request.fetch.limits.stall_timeout;
        let limit = self.job.request.limit;
        loop {
            let chunk = match tokio::time::timeout(stall, body.response.chunk()).await {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => {
                    let reason = super::error::connect_text(&error);
                    return Err(Interruption::Failed(self.cut(reason)));
                }
                Err(_elapsed) => {
                    return Err(Interruption::Failed(DownloadError::Stalled {
                        waited: stall,
                        received: self.job.received(),
                        expected: self.total,
                    }));
                }
            };
            let Some(chunk) = chunk else { break };
            let received = self.job.received().saturating_add(chunk.len() as u64);
            if received > limit {
                return Err(Interruption::Failed(DownloadError::TooLarge { limit }));
            }
            let length = chunk.len() as u64;
            self.send(Piece::Data(chunk)).await?;
            self.job.received.store(received, Ordering::Relaxed);
            self.shop.metrics.received(length);
        }
        match self.total {
            Some(total) if self.job.received() < total => {
                Err(Interruption::Failed(self.cut("the server closed it".to_owned())))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits for the writer to take a piece; a store that takes none for a while has failed.
    async fn send(&self, piece: Piece) -> Result<(), Interruption> {
        let stall = self.job.request.fetch.limits.stall_timeout;
        match tokio::time::timeout(stall, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Interruption::WriterEnded),
            Err(_elapsed) => Err(Interruption::Failed(DownloadError::StoreStalled(stall))),
        }
    }
}

/// Checks the complete file and makes it an object of the store.
async fn install(
    job: &Arc<Job>,
    shop: &Workshop,
    store: &Arc<Store>,
    mut note: Note,
    written: Written,
) -> Result<(), DownloadError> {
    let request = &job.request;
    request.expectation.verify(&written.checksum).map_err(DownloadError::Checksum)?;
    let about = job.about().clone();
    let image = image_name(&about.unique_name, request.format, shop.host.clock.unix_ms()).map_err(
        |_bad| DownloadError::Url {
            url: about.unique_name.clone(),
            reason: "its name cannot be a file name",
        },
    )?;
    let install_path = request.directory.join(image.clone()).to_string();
    job.update(|report| {
        report.phase = Phase::Installing;
        "Download success, starting install ".clone_into(&mut report.text);
        report.checksum = Some(written.checksum.to_string());
        report.install_path = install_path;
    });
    let sizes = format::inspect(request.format, &written.head, &written.tail, written.length)
        .map_err(DownloadError::Format)?;
    note.image = Some(image.to_string());
    write_note(job, shop, note.clone()).await?;
    let now = shop.host.clock.now();
    let abandoned = Arc::new(AtomicBool::new(false));
    let publication = Publication {
        job: job.id.clone(),
        kind: request.kind,
        directory: request.directory.clone(),
        temporary: note.temporary,
        image,
        about,
        format: request.format,
        sizes,
        now,
        modes: store.modes(),
        abandoned: Arc::clone(&abandoned),
        gate: Arc::clone(&job.gate),
    };
    let _abandon = Abandon(abandoned);
    let holder = Arc::clone(store);
    store
        .run("install", Lane::Quick, move |root| {
            // Remembered first: from now on an empty directory is not this store.
            holder.remember_held().map_err(std::io::Error::other)?;
            publish(root, &publication)
        })
        .await
        .map_err(DownloadError::Store)?;
    job.update(|report| {
        report.phase = Phase::Done;
        report.percent = 100;
        report.text = format!("Install completed successfully at {}", short_date(now));
        report.sizes = Some(sizes);
    });
    Ok(())
}

/// Tells a publication that nobody waits for it: on a timeout, and when the job is cancelled.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `11/24/26, 1:28 AM`, in UTC.
fn short_date(now: std::time::SystemTime) -> String {
    jiff::Timestamp::try_from(now)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%-m/%-d/%y, %-I:%M %p")
        .to_string()
}

/// Removes the temporary of a job that failed, then its note.
async fn clean_up(job: &Arc<Job>, shop: &Workshop, done: bool) {
    let (journal, id) = (shop.journal.clone(), job.id.clone());
    if !done && let Err(error) = remove_remains(job, shop).await {
        // The note stays: the next start tries again.
        tracing::warn!(
            job = job.id,
            error = role::chain(&error),
            "cannot remove what a download left"
        );
        return;
    }
    let erased = shop.tasks.blocking("erase a note", move || journal.erase(&id)).await;
    if let Ok(Err(error)) = erased {
        tracing::warn!(job = job.id, error = role::chain(&error), "cannot erase a download's note");
    }
}

async fn remove_remains(job: &Arc<Job>, shop: &Workshop) -> Result<(), StoreError> {
    let report = job.report();
    if report.temporary.is_none() {
        return Ok(());
    }
    let mut note = note_for(job);
    if report.phase == Phase::Installing {
        let image = report.install_path.rsplit('/').next();
        note.image = image.map(str::to_owned);
    }
    let store = shop.stores.open(&job.request.store, None).await?;
    let (id, gate) = (job.id.clone(), Arc::clone(&job.gate));
    store
        .run("remove leftovers", Lane::Quick, move |root| {
            let _gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
            remove_leftovers(root, &id, &note)
        })
        .await
}
