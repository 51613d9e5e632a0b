//! The work of an upload, from its admission to the listed object, and what is done when it fails.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::storage::OVFInformationTO;
use disk_image::Sizes;
use tokio::sync::mpsc;

use super::error::UploadError;
use super::quota;
use super::record::{Checkpoint, Completed};
use super::table::Uploads;
use super::upload::{Outcome, Upload};
use crate::ingest::describe;
use crate::ingest::intake::{Incoming, Intake, clean_up, settle};
use crate::ingest::journal::{Note, take_back};
use crate::ingest::publish::{Publishing, is_published};
use crate::ingest::write::Piece;
use crate::ingest::{DownloadContext, IngestError, resume};
use crate::objects::inventory::{self, Item};
use crate::stores::{InstallPath, Store};

/// Between two looks at how far an upload is, to keep it on disk.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Runs an upload to its end; never fails, the outcome is in the upload and its record.
pub(super) async fn run(uploads: Uploads, upload: Arc<Upload>, pieces: mpsc::Receiver<Piece>) {
    let guard = EndGuard { uploads: &uploads, upload: &upload, armed: true };
    let cx = uploads.context();
    let (outcome, published) = attempt(&uploads, &upload, pieces).await;
    let mut leaving = Box::pin(leave(&uploads, &upload, outcome.clone(), published));
    let patience = cx.settings.get().cancel_limit;
    let outcome = match tokio::time::timeout(patience, &mut leaving).await {
        Ok(outcome) => outcome,
        Err(_late) => {
            tracing::warn!(upload = upload.id, "the store does not let go of an ended upload");
            // Client and server are told in time; its place stays taken until then.
            upload.finish(outcome);
            leaving.await
        }
    };
    let seconds = upload.started.elapsed().as_secs_f64();
    match &outcome {
        Ok(completed) => {
            let (bytes, path) = (upload.received(), &completed.install_path);
            tracing::info!(upload = upload.id, %path, bytes, "upload installed");
            uploads.metrics().ended("done", seconds);
        }
        Err(UploadError::Suspended) => {
            let received = upload.received();
            tracing::info!(upload = upload.id, received, "upload goes on at the next start");
            uploads.metrics().ended("suspended", seconds);
        }
        Err(error) => {
            tracing::warn!(upload = upload.id, error = %error, "upload failed");
            uploads.metrics().ended("failed", seconds);
        }
    }
    // What is suspended stays this host's, for its next start.
    if !matches!(outcome, Err(UploadError::Suspended))
        && let Ok(store) = cx.stores.open(&upload.plan.store, None).await
    {
        cx.sharing.end(&store, &upload.attempt).await;
    }
    guard.disarm();
    uploads.close(&upload, outcome);
}

/// An upload whose task is killed or panics must not look as if it still ran.
struct EndGuard<'a> {
    uploads: &'a Uploads,
    upload: &'a Arc<Upload>,
    armed: bool,
}

impl EndGuard<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.uploads.metrics().ended("failed", self.upload.started.elapsed().as_secs_f64());
            self.uploads.close(self.upload, Err(UploadError::Stopped));
        }
    }
}

/// What is being made an object, and where.
type Published = (Arc<Store>, Publishing, Option<Arc<OVFInformationTO>>);

/// Waits until the store has let go of the upload, then keeps or removes what is there and writes
/// down how it ended: well, when its publication took effect although it seemed to have failed.
async fn leave(
    uploads: &Uploads,
    upload: &Arc<Upload>,
    outcome: Outcome,
    published: Option<Published>,
) -> Outcome {
    let cx = uploads.context();
    // On NFS a file that is removed while open leaves a name behind.
    upload.work.ended().await;
    let outcome = match (outcome, published) {
        (Err(error), Some(published)) => took_effect(upload, published).await.ok_or(error),
        (outcome, _) => outcome,
    };
    match &outcome {
        Ok(_) => {
            // Before the note goes: a crash in between finds one of them.
            uploads.remember(upload, &outcome).await;
            settle(cx, &upload.attempt).await;
        }
        Err(UploadError::Suspended) => {
            upload.take_note();
            uploads.remember_progress(upload).await;
        }
        Err(_) => {
            if let Err(error) = clean_up(cx, &upload.attempt).await {
                // The note stays: the next start tries again.
                let error = bedrock::chain(&error);
                tracing::warn!(upload = upload.id, error, "cannot remove what an upload left");
            }
            uploads.remember(upload, &outcome).await;
        }
    }
    outcome
}

/// What an upload became whose publication took effect.
async fn took_effect(upload: &Upload, published: Published) -> Option<Completed> {
    let (store, publishing, ovf) = published;
    let plan = &upload.plan;
    let done = is_published(&store, plan.kind, &plan.directory, &publishing).await;
    let Publishing { install_path, sizes, .. } = publishing;
    done.is_ok_and(|done| done).then(|| Completed::new(install_path, sizes, ovf))
}

/// The upload itself, and what it was about to publish.
async fn attempt(
    uploads: &Uploads,
    upload: &Arc<Upload>,
    pieces: mpsc::Receiver<Piece>,
) -> (Outcome, Option<Published>) {
    let mut publishing = None;
    let mut work = Box::pin(work(uploads, upload, pieces, &mut publishing));
    let outcome = tokio::select! {
        outcome = &mut work => outcome,
        // What is being installed is there in a moment; stopping it half way gains nothing.
        () = upload.cancel.cancelled() => {
            if upload.is_installing() {
                (&mut work).await
            } else {
                Err(UploadError::Lost)
            }
        }
        never = keep(uploads, upload) => match never {},
    };
    // Its writer ends with it.
    drop(work);
    // Whoever closed the way in knows why.
    let outcome = outcome.map_err(|error| match error {
        UploadError::Lost => upload.reason().unwrap_or(UploadError::Lost),
        error => error,
    });
    (outcome, publishing)
}

/// Keeps on disk how far a resumable upload is, now and then.
async fn keep(uploads: &Uploads, upload: &Upload) -> Infallible {
    if !upload.resumable {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(CHECKPOINT_EVERY).await;
        if upload.take_note() {
            uploads.remember_progress(upload).await;
        }
    }
}

async fn work(
    uploads: &Uploads,
    upload: &Arc<Upload>,
    pieces: mpsc::Receiver<Piece>,
    publishing: &mut Option<Published>,
) -> Outcome {
    let (plan, cx) = (&upload.plan, uploads.context());
    let format = plan.format.extension().to_ascii_uppercase();
    let failed = |error: IngestError| UploadError::of_ingest(&error, &format);
    let store = if upload.is_restored {
        let store = store_again(upload, cx).await.map_err(failed)?;
        uploads.claim(upload, &store).await?;
        if let Some(completed) = published_before(upload, cx, &store).await.map_err(failed)? {
            return Ok(completed);
        }
        store
    } else {
        admit(uploads, upload, cx).await?
    };
    let mut intake =
        Intake::begin(cx, &store, &upload.work, &upload.attempt, plan.order(upload.resumable), 1)
            .await
            .map_err(failed)?;
    let temporary = plan.directory.join(intake.temporary(0).map_err(failed)?);
    let begun = match upload.checkpoint().filter(|_known| upload.is_restored) {
        Some(Checkpoint { received, digest }) => {
            let known = (received, digest.as_str());
            resume::begun(&upload.attempt, cx, &intake, known, &[]).await.map_err(failed)?
        }
        None => None,
    };
    let progress = upload.progress.clone();
    upload.begin_at(begun.as_ref().map_or(0, |(_, begun)| begun.length));
    if let Some((_, begun)) = &begun {
        progress.receives(&begun.head);
    }
    let incoming = Incoming { begun, progress, ..Incoming::default() };
    let written = intake.receive_announced(0, incoming, pieces).await.map_err(failed)?;
    upload.set_installing();
    intake.verify(&written).map_err(failed)?;
    let image = match &plan.image {
        Some(image) => image.clone(),
        None => intake.image_name(&plan.about).map_err(failed)?,
    };
    let ready = intake.check(written, image).await.map_err(failed)?;
    let install_path = ready.install_path.clone();
    *publishing = Some((
        Arc::clone(&store),
        Publishing {
            unique_name: plan.about.unique_name.clone(),
            install_path: install_path.clone(),
            temporary,
            sizes: ready.sizes,
        },
        ready.ovf.clone(),
    ));
    intake.publish(&ready, plan.about.clone()).await.map_err(failed)?;
    Ok(Completed::new(install_path, ready.sizes, ready.ovf))
}

/// The store of an upload that goes on. When the process has just started, its network may not be
/// there yet.
async fn store_again(upload: &Upload, cx: &DownloadContext) -> Result<Arc<Store>, IngestError> {
    let (url, version) = (&upload.plan.store, upload.plan.nfs_version.as_deref());
    let told = |error: &str| {
        tracing::info!(upload = upload.id, error, "the store of an upload is not there yet");
    };
    Ok(cx.stores.open_patiently(url, version, told).await?)
}

/// What an earlier run of this process did with the complete file: it is an object, or its
/// publication is taken back.
async fn published_before(
    upload: &Upload,
    cx: &DownloadContext,
    store: &Store,
) -> Result<Option<Completed>, IngestError> {
    let (journal, id) = (cx.journal.clone(), upload.attempt.clone());
    let read = cx.tasks.blocking("read a note", move || journal.read(&id)).await?;
    let Some(note) = read.map_err(IngestError::Journal)? else { return Ok(None) };
    if take_back(store, &note).await? {
        return Ok(None);
    }
    listed(cx, store, &note).await
}

/// The object that a note ended in.
pub(super) async fn listed(
    cx: &DownloadContext,
    store: &Store,
    note: &Note,
) -> Result<Option<Completed>, IngestError> {
    let Some(item) = inventory::find(store, note.kind, &note.directory).await? else {
        return Ok(None);
    };
    completed(cx, store, item, &note.directory).await
}

/// What an upload became that is listed.
pub(super) async fn completed(
    cx: &DownloadContext,
    store: &Store,
    item: Item,
    directory: &InstallPath,
) -> Result<Option<Completed>, IngestError> {
    let ovf = describe::of_object(&cx.tasks, store, &item, directory).await?;
    let sizes = u64::try_from(item.virtual_size).ok().zip(u64::try_from(item.physical_size).ok());
    let sizes = sizes.map(|(virtual_size, physical_size)| Sizes { virtual_size, physical_size });
    let path = item.install_path.parse().ok();
    Ok(path.zip(sizes).map(|(path, sizes)| Completed::new(path, sizes, ovf)))
}

/// What can be known before the first byte: the store is there, the place is free, the file fits.
async fn admit(
    uploads: &Uploads,
    upload: &Arc<Upload>,
    cx: &DownloadContext,
) -> Result<Arc<Store>, UploadError> {
    let plan = &upload.plan;
    let broken = |error| UploadError::of_ingest(&IngestError::from(error), "");
    let store = cx.stores.open(&plan.store, plan.nfs_version.as_deref()).await.map_err(broken)?;
    // First: what is refused from here on is the end of the upload, which all hosts are told.
    uploads.claim(upload, &store).await?;
    if !upload.fits(plan.limit) {
        return Err(UploadError::TooLarge { announced: upload.total, limit: plan.limit });
    }
    let there = inventory::find(&store, plan.kind, &plan.directory).await.map_err(broken)?;
    if there.is_some() {
        return Err(UploadError::Used("its object is on the store".to_owned()));
    }
    if let Some(limit) = plan.quota {
        let on_store = quota::usage(&store, plan.account).await.map_err(broken)?;
        let used = on_store.saturating_add(uploads.under_way(plan.account, &upload.id));
        if !upload.fits(limit.saturating_sub(used)) {
            return Err(UploadError::Quota { announced: upload.total, limit, used });
        }
    }
    uploads.remember_start(upload).await?;
    Ok(store)
}

/// What a form has around its file, generously.
const FORM: u64 = 64 * 1024;

impl Upload {
    /// Whether what was announced can be a file of so many bytes. The bytes themselves are counted
    /// when they come.
    fn fits(&self, limit: u64) -> bool {
        let around = if self.resumable { 0 } else { FORM };
        self.total <= limit.saturating_add(around)
    }
}
