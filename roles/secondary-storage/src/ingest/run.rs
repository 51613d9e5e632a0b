//! The work of a download, from its turn to the listed object, and what is done when it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::DownloadContext;
use super::describe;
use super::entry::{Entered, enter, note_of, wait_for_others};
use super::error::IngestError;
use super::intake::{Intake, clean_up, settle};
use super::job::{Job, Phase, Report, Request};
use super::journal::take_back;
use super::publish::{Publishing, is_published};
use super::records::Outcome;
use super::several;
use super::transfer::{File, attempt, write_record};
use super::turns::Turns;
use super::write::Written;
use crate::objects::inventory;
use crate::sources::SourceError;
use crate::stores::Store;
use disk_image::Sizes;

/// How long the store may take to let go of an ended download before that is told.
const LET_GO_LIMIT: Duration = Duration::from_secs(10);

/// Runs a job to its end; never fails, the outcome is in the job.
pub(super) async fn run(job: Arc<Job>, cx: DownloadContext, turns: Turns) {
    let mut guard = EndGuard { job: &job, armed: true };
    if !job.recorded.is_cancelled() {
        write_record(&cx, &job).await;
        job.recorded.cancel();
    }
    let mut work = Box::pin(work(&job, &cx, &turns));
    let outcome = tokio::select! {
        outcome = &mut work => outcome,
        // What is being installed is there in a moment; stopping it half way gains nothing.
        () = job.cancel.cancelled() => match job.phase() {
            Phase::Installing => (&mut work).await,
            _ => Err(IngestError::Aborted),
        },
    };
    // Its connection, its writer and its turn end with it.
    drop(work);
    if job.is_suspended() && matches!(outcome, Err(IngestError::Aborted)) {
        suspend(&job, &cx).await;
    } else {
        end(&job, &cx, outcome).await;
    }
    guard.armed = false;
    job.let_go();
}

/// How long a failure waits to be told until nothing is left of it: whoever then begins anew finds
/// the place free. A store that is late already is not waited for.
fn patience(outcome: &Result<Sizes, IngestError>) -> Duration {
    match outcome {
        Err(IngestError::Store(error)) if error.is_late() => Duration::ZERO,
        Ok(_) | Err(_) => LET_GO_LIMIT,
    }
}

/// Tells how a job ended and removes what is left of a failed one. The server is told in time, the
/// place stays taken until the store has let go.
async fn end(job: &Arc<Job>, cx: &DownloadContext, outcome: Result<Sizes, IngestError>) {
    let failed = outcome.is_err();
    let mut leaving = Box::pin(leave(job, cx, failed));
    let left = match &outcome {
        // Whoever cancelled it is told when nothing of it happens any more.
        Err(IngestError::Aborted) => Some((&mut leaving).await),
        outcome => tokio::time::timeout(patience(outcome), &mut leaving).await.ok(),
    };
    if let Some(published) = left {
        return conclude(job, cx, published.map_or(outcome, Ok)).await;
    }
    conclude(job, cx, outcome).await;
    if let Some(sizes) = leaving.await.filter(|_sizes| failed) {
        conclude(job, cx, Ok(sizes)).await;
    }
}

/// How a job ended: for the log, for the figures, and for whoever asks.
async fn conclude(job: &Arc<Job>, cx: &DownloadContext, outcome: Result<Sizes, IngestError>) {
    let seconds = job.started.elapsed().as_secs_f64();
    match outcome {
        Ok(sizes) => {
            let now = cx.host.clock.now();
            finish(job, cx, |report| {
                report.phase = Phase::Done;
                report.percent = 100;
                report.text = format!("Install completed successfully at {}", short_date(now));
                report.sizes = Some(sizes);
            })
            .await;
            tracing::info!(
                job = job.id,
                path = job.report().install_path,
                bytes = job.received(),
                "download installed"
            );
            cx.metrics.downloaded("done", seconds);
        }
        Err(IngestError::Aborted) => {
            tracing::info!(job = job.id, "download aborted");
            cx.metrics.downloaded("aborted", seconds);
            finish(job, cx, |report| {
                report.phase = Phase::Aborted;
                report.text = IngestError::Aborted.to_string();
            })
            .await;
        }
        Err(error) => {
            let text = match &error {
                IngestError::Store(error) => {
                    let object = job.request.kind.name();
                    format!("cannot store {object} {}: {}", job.about().id, bedrock::chain(error))
                }
                error => error.to_string(),
            };
            tracing::warn!(job = job.id, url = %job.request.source, error = text, "download failed");
            cx.metrics.downloaded("failed", seconds);
            finish(job, cx, |report| {
                report.phase = Phase::Failed;
                report.text = text;
            })
            .await;
        }
    }
}

/// The end of a job: on disk first, then for everybody.
async fn finish(job: &Job, cx: &DownloadContext, change: impl FnOnce(&mut Report)) {
    let mut report = job.report();
    change(&mut report);
    let outcome = Outcome::of(&report, cx.host.clock.unix_ms());
    {
        let mut record = job.record();
        record.outcome = outcome;
        record.checkpoint = None;
    }
    if !job.forgotten.load(Ordering::Relaxed) {
        write_record(cx, job).await;
    }
    job.update(|shown| *shown = report);
}

/// Lets go of the store; what is there and what is on disk stays for the next run.
async fn suspend(job: &Job, cx: &DownloadContext) {
    job.work.ended().await;
    write_record(cx, job).await;
    tracing::info!(job = job.id, received = job.received(), "download goes on at the next start");
    job.update(|report| {
        report.phase = Phase::Suspended;
        "the storage host stops; the download goes on at its next start"
            .clone_into(&mut report.text);
    });
}

/// A job whose task is killed or panics must not look as if it still ran.
struct EndGuard<'a> {
    job: &'a Job,
    armed: bool,
}

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        self.job.let_go();
        if !self.job.phase().is_over() {
            self.job.update(|report| {
                report.phase = Phase::Failed;
                report.text = IngestError::Internal.to_string();
            });
        }
    }
}

async fn work(job: &Arc<Job>, cx: &DownloadContext, turns: &Turns) -> Result<Sizes, IngestError> {
    let store = open_store(job, cx).await?;
    let mut waited = job.follows;
    let _turn = loop {
        waited |= wait_for_others(job, cx, &store).await?;
        let turn = match turns.take(job.request.claim()) {
            Ok(turn) => turn,
            Err(waiting) => {
                job.update(|report| {
                    "waiting for another download to finish".clone_into(&mut report.text);
                });
                waiting.await.map_err(|_closed| IngestError::Aborted)?
            }
        };
        match enter(job, cx, &store, waited).await? {
            Entered::Ours => break turn,
            Entered::Done(sizes) => return Ok(sizes),
            Entered::Elsewhere => drop(turn),
        }
        tokio::time::sleep(cx.sharing.beat()).await;
    };
    if let Some(first) = job.request.image.as_ref().filter(|_first| !job.request.more.is_empty()) {
        return several::work(job, cx, &store, first).await;
    }
    if job.is_restored
        && let Some(sizes) = published_before(job, cx, &store).await?
    {
        return Ok(sizes);
    }
    let order = job.request.order();
    let mut intake = Intake::begin(cx, &store, &job.work, &job.id, order, 1).await?;
    let temporary = job.request.directory.join(intake.name_while(0)?);
    job.update(|report| {
        report.phase = Phase::Downloading;
        " ".clone_into(&mut report.text);
        report.temporary = Some(format!("{}/{temporary}", store.place()));
    });
    let limit = cx.settings.get().total_timeout;
    let written = tokio::time::timeout(limit, passes(job, cx, &intake, File::only(job)))
        .await
        .map_err(|_elapsed| IngestError::TotalTimeout(limit))??;
    let about = job.about().clone();
    intake.verify(&written)?;
    let image = match &job.request.image {
        Some(name) => name.clone(),
        None => intake.image_name(&about)?,
    };
    let checksum = written.checksum.as_ref().map(ToString::to_string);
    // From here on nothing has to be asked for again.
    job.record().checksum.clone_from(&checksum);
    write_record(cx, job).await;
    let install_path = job.request.directory.join(image.clone()).to_string();
    job.update(|report| {
        report.phase = Phase::Installing;
        "Download success, starting install ".clone_into(&mut report.text);
        report.checksum = checksum;
        report.install_path = install_path;
    });
    let ready = intake.check(written, image).await?;
    job.update(|report| {
        report.warnings.clone_from(&ready.warnings);
        report.ovf.clone_from(&ready.ovf);
    });
    let publishing = Publishing {
        unique_name: about.unique_name.clone(),
        install_path: ready.install_path.clone(),
        temporary,
        sizes: ready.sizes,
    };
    if !store.engine().is_flat() {
        job.publishes(publishing);
    }
    intake.publish(&ready, about).await?;
    Ok(ready.sizes)
}

/// What an earlier run of this process did with the complete image: it is an object, or its
/// publication is taken back.
async fn published_before(
    job: &Job,
    cx: &DownloadContext,
    store: &Store,
) -> Result<Option<Sizes>, IngestError> {
    let Some(note) = note_of(job, cx).await? else { return Ok(None) };
    if take_back(store, &note).await? {
        return Ok(None);
    }
    let Request { kind, directory, .. } = &job.request;
    let Some(item) = inventory::find(store, *kind, directory).await? else { return Ok(None) };
    let sizes = u64::try_from(item.virtual_size).ok().zip(u64::try_from(item.physical_size).ok());
    let is_it = item.unique_name == job.about().unique_name && !item.is_corrupted;
    let Some((virtual_size, physical_size)) = sizes.filter(|_sizes| is_it) else { return Ok(None) };
    let checksum = job.record().checksum.clone();
    let ovf = describe::of_object(&cx.tasks, store, &item, directory).await?;
    job.update(|report| {
        report.ovf = ovf;
        report.install_path = item.install_path;
        report.checksum = checksum.or_else(|| report.checksum.take());
    });
    Ok(Some(Sizes { virtual_size, physical_size }))
}

/// Opens the store. When the process has just started, its network may not be there yet: a download
/// that goes on waits for that a while.
async fn open_store(job: &Job, cx: &DownloadContext) -> Result<Arc<Store>, IngestError> {
    let (stores, url) = (&cx.stores, &job.request.store);
    if !job.is_restored {
        return Ok(stores.open(url, None).await?);
    }
    let told = |error: &str| {
        tracing::info!(job = job.id, error, "the store of a download is not there yet");
        job.update(|report| report.text = format!("waiting for its store: {error}"));
    };
    Ok(stores.open_patiently(url, None, told).await?)
}

/// One pass over the image, and others when its source has to begin again.
pub(super) async fn passes(
    job: &Arc<Job>,
    cx: &DownloadContext,
    intake: &Intake<'_>,
    file: File<'_>,
) -> Result<Written, IngestError> {
    let retries = cx.settings.get().limits.retries;
    let mut restarts = 0;
    loop {
        let had_begun = restarts > 0 || job.is_restored;
        let reason = match attempt(job, cx, intake, file).await {
            Ok(written) => return Ok(written),
            Err(IngestError::Source(reason)) if reason.can_begin_again(had_begun) => reason,
            Err(error) => return Err(error),
        };
        restarts += 1;
        if restarts > retries.count {
            return Err(reason.into());
        }
        if matches!(reason, SourceError::Restart(_)) {
            job.record().checkpoint = None;
        }
        tracing::info!(job = job.id, attempt = restarts, error = %reason, "download begins again");
        tokio::time::sleep(retries.delay(restarts)).await;
    }
}

/// `11/24/26, 1:28 AM`, in UTC.
fn short_date(now: std::time::SystemTime) -> String {
    jiff::Timestamp::try_from(now)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%-m/%-d/%y, %-I:%M %p")
        .to_string()
}

/// Waits until the store has let go of the job, then removes what is left of a failed one. On NFS a
/// file that is removed while open leaves a name behind, and with it the directory; and what is
/// still under way could create something after the removal. The sizes are those of an object that
/// is there all the same: the store was late, and what is listed and whole is not a failure.
async fn leave(job: &Arc<Job>, cx: &DownloadContext, failed: bool) -> Option<Sizes> {
    if tokio::time::timeout(LET_GO_LIMIT, job.work.ended()).await.is_err() {
        tracing::warn!(job = job.id, "the store does not let go of an ended download");
        if !job.phase().is_over() {
            job.update(|report| {
                "waiting for the store to let go of the download".clone_into(&mut report.text);
            });
        }
        job.work.ended().await;
    }
    let published = if failed { was_published(job, cx).await } else { None };
    if !failed || published.is_some() {
        settle(cx, &job.id).await;
    } else if let Err(error) = clean_up(cx, &job.id).await {
        // The note stays: the next start tries again.
        let error = bedrock::chain(&error);
        tracing::warn!(job = job.id, error, "cannot remove what a download left");
    }
    if let Ok(store) = cx.stores.open(&job.request.store, None).await {
        cx.sharing.end(&store, &job.id).await;
    }
    published
}

/// The sizes of the object if the job's publication took effect after all.
async fn was_published(job: &Job, cx: &DownloadContext) -> Option<Sizes> {
    let publishing = job.publishing()?;
    let Request { store, kind, directory, .. } = &job.request;
    let store = cx.stores.open(store, None).await.ok()?;
    let published = is_published(&store, *kind, directory, &publishing).await;
    published.is_ok_and(|published| published).then_some(publishing.sizes)
}
