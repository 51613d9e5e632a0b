//! The work of a download, from its turn to the listed object, and what is done when it fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::DownloadContext;
use super::error::IngestError;
use super::job::{Job, Phase};
use super::journal::{Note, remove_leftovers};
use super::publish::{Publication, image_name, publish};
use super::transfer::attempt;
use super::write::Written;
use crate::stores::{Lane, ObjectKind, Store, StoreError};

/// How long a writer may take to notice that its download has ended.
const WRITER_LIMIT: Duration = Duration::from_secs(10);

/// Runs a job to its end; never fails, the outcome is in the job.
pub(super) async fn run(job: Arc<Job>, cx: DownloadContext, slots: Arc<Semaphore>) {
    let mut guard = EndGuard { job: &job, armed: true };
    let mut work = Box::pin(work(&job, &cx, &slots));
    let outcome = tokio::select! {
        outcome = &mut work => outcome,
        // What is being installed is there in a moment; stopping it half way gains nothing.
        () = job.cancel.cancelled() => match job.phase() {
            Phase::Installing => (&mut work).await,
            _ => Err(IngestError::Aborted),
        },
    };
    // Its connection and its writer end with it.
    drop(work);
    guard.armed = false;
    clean_up(&job, &cx, outcome.is_ok()).await;
    let seconds = job.started.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => {
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
            job.update(|report| {
                report.phase = Phase::Aborted;
                report.text = IngestError::Aborted.to_string();
            });
        }
        Err(error) => {
            let text = error.to_string();
            tracing::warn!(job = job.id, url = %job.request.source, error = text, "download failed");
            cx.metrics.downloaded("failed", seconds);
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
                report.text = IngestError::Internal.to_string();
            });
        }
    }
}

async fn work(
    job: &Arc<Job>,
    cx: &DownloadContext,
    slots: &Arc<Semaphore>,
) -> Result<(), IngestError> {
    let permit = match Arc::clone(slots).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_none) => {
            job.update(|report| {
                "waiting for another download to finish".clone_into(&mut report.text);
            });
            Arc::clone(slots).acquire_owned().await.map_err(|_closed| IngestError::Aborted)?
        }
    };
    let permit = Arc::new(permit);
    let store = cx.stores.open(&job.request.store, None).await.map_err(IngestError::Store)?;
    let note = note_for(job);
    job.update(|report| {
        report.phase = Phase::Downloading;
        " ".clone_into(&mut report.text);
        let directory = &job.request.directory;
        let path = store.root().join(directory.to_string()).join(&note.temporary);
        report.temporary = Some(path.display().to_string());
    });
    write_note(job, cx, note.clone()).await?;
    let mut restarts = 0;
    let written = loop {
        let reason = match attempt(job, cx, &store, &note, &permit).await {
            Ok(written) => break written,
            Err(IngestError::Source(reason)) if reason.can_begin_again(restarts > 0) => reason,
            Err(error) => return Err(error),
        };
        restarts += 1;
        if restarts > cx.retries.count {
            return Err(reason.into());
        }
        tracing::info!(job = job.id, attempt = restarts, error = %reason, "download begins again");
        tokio::time::sleep(cx.retries.delay(restarts)).await;
    };
    install(job, cx, &store, note, written).await
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

async fn write_note(job: &Job, cx: &DownloadContext, note: Note) -> Result<(), IngestError> {
    let (journal, id) = (cx.journal.clone(), job.id.clone());
    let work = move || journal.write(&id, &note);
    let written = cx.tasks.blocking("note a download", work).await;
    written.map_err(|_stopped| IngestError::Aborted)?.map_err(IngestError::Journal)
}

/// Checks the complete file and makes it an object of the store.
async fn install(
    job: &Arc<Job>,
    cx: &DownloadContext,
    store: &Arc<Store>,
    mut note: Note,
    written: Written,
) -> Result<(), IngestError> {
    let request = &job.request;
    request.expectation.verify(&written.checksum).map_err(IngestError::Checksum)?;
    let about = job.about().clone();
    let image = image_name(&about.unique_name, request.format, cx.host.clock.unix_ms())
        .map_err(|_bad| IngestError::Name(about.unique_name.clone()))?;
    let install_path = request.directory.join(image.clone()).to_string();
    job.update(|report| {
        report.phase = Phase::Installing;
        "Download success, starting install ".clone_into(&mut report.text);
        report.checksum = Some(written.checksum.to_string());
        report.install_path = install_path;
    });
    let inspection = written.inspection.map_err(IngestError::Image)?;
    let sizes = inspection.sizes;
    let notice = inspection.notice.map(|notice| notice.to_string());
    let warnings: Vec<String> =
        notice.into_iter().chain(written.ignored.map(|ignored| ignored.to_string())).collect();
    for warning in &warnings {
        tracing::warn!(job = job.id, warning, "the downloaded file is odd, it is installed");
    }
    note.image = Some(image.to_string());
    write_note(job, cx, note.clone()).await?;
    let now = cx.host.clock.now();
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
        .map_err(IngestError::Store)?;
    job.update(|report| {
        report.phase = Phase::Done;
        report.percent = 100;
        report.text = format!("Install completed successfully at {}", short_date(now));
        report.sizes = Some(sizes);
        report.warnings = warnings;
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

/// Removes the temporary of a job that failed, then its note. The writer lets go of the file first:
/// on NFS a file that is removed while open leaves a name behind, and with it the directory.
async fn clean_up(job: &Arc<Job>, cx: &DownloadContext, done: bool) {
    job.writing.close();
    if tokio::time::timeout(WRITER_LIMIT, job.writing.wait()).await.is_err() {
        tracing::warn!(job = job.id, "the writer of a download does not end");
    }
    let (journal, id) = (cx.journal.clone(), job.id.clone());
    if !done && let Err(error) = remove_remains(job, cx).await {
        // The note stays: the next start tries again.
        tracing::warn!(
            job = job.id,
            error = bedrock::chain(&error),
            "cannot remove what a download left"
        );
        return;
    }
    let erased = cx.tasks.blocking("erase a note", move || journal.erase(&id)).await;
    if let Ok(Err(error)) = erased {
        tracing::warn!(
            job = job.id,
            error = bedrock::chain(&error),
            "cannot erase a download's note"
        );
    }
}

async fn remove_remains(job: &Arc<Job>, cx: &DownloadContext) -> Result<(), StoreError> {
    let report = job.report();
    if report.temporary.is_none() {
        return Ok(());
    }
    let mut note = note_for(job);
    if report.phase == Phase::Installing {
        let image = report.install_path.rsplit('/').next();
        note.image = image.map(str::to_owned);
    }
    let store = cx.stores.open(&job.request.store, None).await?;
    let (id, gate) = (job.id.clone(), Arc::clone(&job.gate));
    store
        .run("remove leftovers", Lane::Quick, move |root| {
            let _gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
            remove_leftovers(root, &id, &note)
        })
        .await
}
