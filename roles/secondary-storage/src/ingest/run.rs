//! The work of a download, from its turn to the listed object, and what is done when it fails.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::DownloadContext;
use super::error::IngestError;
use super::job::{Job, Phase, Publishing, Request};
use super::journal::{Note, properties_temporary, remove_leftovers};
use super::publish::{Publication, image_name, publish};
use super::transfer::attempt;
use super::turns::Turns;
use super::write::Written;
use crate::objects::inventory;
use crate::stores::{ObjectKind, Store, Work};
use disk_image::Sizes;

/// How long the store may take to let go of an ended download before that is told.
const LET_GO_LIMIT: Duration = Duration::from_secs(10);

/// Runs a job to its end; never fails, the outcome is in the job.
pub(super) async fn run(job: Arc<Job>, cx: DownloadContext, turns: Turns) {
    let mut guard = EndGuard { job: &job, armed: true };
    let mut work = Box::pin(work(&job, &cx, &turns));
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
    let outcome = end(&job, &cx, outcome).await;
    let seconds = job.started.elapsed().as_secs_f64();
    match outcome {
        Ok(sizes) => {
            let now = cx.host.clock.now();
            job.update(|report| {
                report.phase = Phase::Done;
                report.percent = 100;
                report.text = format!("Install completed successfully at {}", short_date(now));
                report.sizes = Some(sizes);
            });
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

async fn work(job: &Arc<Job>, cx: &DownloadContext, turns: &Turns) -> Result<Sizes, IngestError> {
    let _turn = match turns.take(job.request.claim()) {
        Ok(turn) => turn,
        Err(waiting) => {
            job.update(|report| {
                "waiting for another download to finish".clone_into(&mut report.text);
            });
            waiting.await.map_err(|_closed| IngestError::Aborted)?
        }
    };
    let store = cx.stores.open(&job.request.store, None).await?;
    let note = note_for(job)?;
    job.update(|report| {
        report.phase = Phase::Downloading;
        " ".clone_into(&mut report.text);
        let directory = &job.request.directory;
        let path = format!("{}/{directory}/{}", store.place(), note.temporary);
        report.temporary = Some(path);
    });
    write_note(job, cx, note.clone()).await?;
    let limit = cx.settings.get().total_timeout;
    let written = tokio::time::timeout(limit, passes(job, cx, &store, &note))
        .await
        .map_err(|_elapsed| IngestError::TotalTimeout(limit))??;
    install(job, cx, &store, note, written).await
}

/// One pass over the image, and others when its source has to begin again.
async fn passes(
    job: &Arc<Job>,
    cx: &DownloadContext,
    store: &Arc<Store>,
    note: &Note,
) -> Result<Written, IngestError> {
    let retries = cx.settings.get().limits.retries;
    let mut restarts = 0;
    loop {
        let reason = match attempt(job, cx, store, note).await {
            Ok(written) => return Ok(written),
            Err(IngestError::Source(reason)) if reason.can_begin_again(restarts > 0) => reason,
            Err(error) => return Err(error),
        };
        restarts += 1;
        if restarts > retries.count {
            return Err(reason.into());
        }
        tracing::info!(job = job.id, attempt = restarts, error = %reason, "download begins again");
        tokio::time::sleep(retries.delay(restarts)).await;
    }
}

fn note_for(job: &Job) -> Result<Note, IngestError> {
    // The name that the original's temporaries have, so that an operator knows what it is.
    let digits = job.id.parse::<uuid::Uuid>().map_or(0, |id| id.as_u64_pair().0);
    let temporary = format!("dnld{digits}tmp_");
    Ok(Note {
        store: job.request.store.clone(),
        directory: job.request.directory.clone(),
        volume: job.request.kind == ObjectKind::Volume,
        temporary: temporary.parse().map_err(|_bad| IngestError::Name(temporary.clone()))?,
        image: None,
    })
}

async fn write_note(job: &Job, cx: &DownloadContext, note: Note) -> Result<(), IngestError> {
    let (journal, id) = (cx.journal.clone(), job.id.clone());
    let work = move || journal.write(&id, &note);
    cx.tasks.blocking("note a download", work).await?.map_err(IngestError::Journal)
}

/// Checks the complete file and makes it an object of the store.
async fn install(
    job: &Arc<Job>,
    cx: &DownloadContext,
    store: &Arc<Store>,
    mut note: Note,
    written: Written,
) -> Result<Sizes, IngestError> {
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
    job.update(|report| report.warnings = warnings);
    note.image = Some(image.clone());
    write_note(job, cx, note.clone()).await?;
    let publishing =
        Publishing { unique_name: about.unique_name.clone(), image: image.clone(), sizes };
    *job.publishing.lock().unwrap_or_else(PoisonError::into_inner) = Some(publishing);
    let aside = properties_temporary(&job.id);
    let publication = Publication {
        kind: request.kind,
        directory: request.directory.clone(),
        temporary: note.temporary,
        image,
        aside: aside.map_err(|_bad| IngestError::Name(job.id.clone()))?,
        about,
        format: request.format,
        sizes,
        now: cx.host.clock.now(),
    };
    // Remembered first: from now on an empty place is not this store.
    cx.stores.remember_held(store).await?;
    publish(store, &job.work, publication).await?;
    Ok(sizes)
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
/// still under way could create something after the removal.
async fn end(
    job: &Arc<Job>,
    cx: &DownloadContext,
    outcome: Result<Sizes, IngestError>,
) -> Result<Sizes, IngestError> {
    if tokio::time::timeout(LET_GO_LIMIT, job.work.ended()).await.is_err() {
        tracing::warn!(job = job.id, "the store does not let go of an ended download");
        job.update(|report| {
            "waiting for the store to let go of the download".clone_into(&mut report.text);
        });
        job.work.ended().await;
    }
    let outcome = match outcome {
        // The store was late, the object is there: what is listed and whole is not a failure.
        Err(error) => was_published(job, cx).await.ok_or(error),
        Ok(sizes) => Ok(sizes),
    };
    if outcome.is_err()
        && let Err(error) = remove_remains(job, cx).await
    {
        // The note stays: the next start tries again.
        let error = bedrock::chain(&error);
        tracing::warn!(job = job.id, error, "cannot remove what a download left");
        return outcome;
    }
    let (journal, id) = (cx.journal.clone(), job.id.clone());
    let erased = cx.tasks.blocking("erase a note", move || journal.erase(&id)).await;
    if let Ok(Err(error)) = erased {
        let error = bedrock::chain(&error);
        tracing::warn!(job = job.id, error, "cannot erase a download's note");
    }
    outcome
}

/// The sizes of the object if the job's publication took effect after all.
async fn was_published(job: &Job, cx: &DownloadContext) -> Option<Sizes> {
    let Publishing { unique_name, image, sizes } = job.publishing()?;
    let Request { store, kind, directory, .. } = &job.request;
    let store = cx.stores.open(store, None).await.ok()?;
    let temporary = directory.join(note_for(job).ok()?.temporary);
    let work = Work::new();
    let left = store.run("look for a file", store.engine().kind(&work, temporary)).await.ok()?;
    let item = inventory::find(&store, *kind, directory).await.ok()??;
    let is_ours = item.unique_name == unique_name
        && item.install_path == directory.join(image).to_string()
        && u64::try_from(item.physical_size) == Ok(sizes.physical_size);
    (left.is_none() && is_ours).then_some(sizes)
}

async fn remove_remains(job: &Arc<Job>, cx: &DownloadContext) -> Result<(), IngestError> {
    if job.report().temporary.is_none() {
        return Ok(());
    }
    let mut note = note_for(job)?;
    note.image = job.publishing().map(|publishing| publishing.image);
    let store = cx.stores.open(&job.request.store, None).await?;
    Ok(remove_leftovers(&store, &job.id, &note).await?)
}
