//! One pass over an image: from a source's bytes to a complete temporary file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::DownloadContext;
use super::error::IngestError;
use super::job::Job;
use super::journal::Note;
use super::write::{self, Piece, WriterJob, WriterResult, Written};
use crate::sources::Chunks;
use crate::stores::{Lane, Store};

/// How long syncing the last bytes of a file may take.
const SYNC_LIMIT: Duration = Duration::from_secs(30 * 60);

/// One pass over the image, continued over broken connections.
pub(super) async fn attempt(
    job: &Arc<Job>,
    cx: &DownloadContext,
    store: &Arc<Store>,
    note: &Note,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<Written, IngestError> {
    job.received.store(0, Ordering::Relaxed);
    let (announced, chunks) = job.request.source.open().await?;
    let limit = job.request.limit;
    if announced.length.is_some_and(|length| length > limit) {
        return Err(IngestError::TooLarge { limit });
    }
    let expected = announced.length.or(announced.hint).unwrap_or(0);
    job.expected.store(expected, Ordering::Relaxed);
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
        .map_err(IngestError::Store)?;
    let (pieces, mut outcome) = write::start(WriterJob {
        file,
        format: job.request.format,
        expectation: job.request.expectation.clone(),
        coding: announced.coding,
        limit: job.request.decompressed_limit,
        permit: Arc::clone(permit),
        token: job.writing.token(),
    })
    .map_err(IngestError::Write)?;
    match pass_on(job, cx, chunks, &pieces).await {
        Ok(()) => {
            drop(pieces);
            let limit = cx.stall_timeout + SYNC_LIMIT;
            let result = tokio::time::timeout(limit, &mut outcome).await;
            result
                .map_err(|_elapsed| IngestError::StoreStalled(limit))?
                .map_err(|_gone| IngestError::Internal)?
        }
        Err(Interruption::WriterEnded) => Err(writer_error(outcome).await),
        Err(Interruption::Failed(error)) => Err(error),
    }
}

async fn writer_error(outcome: oneshot::Receiver<WriterResult>) -> IngestError {
    match outcome.await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => IngestError::Internal,
    }
}

enum Interruption {
    /// The writer gave up: it has the reason.
    WriterEnded,
    Failed(IngestError),
}

impl<E: Into<IngestError>> From<E> for Interruption {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Passes everything of a source on to the writer.
async fn pass_on(
    job: &Job,
    cx: &DownloadContext,
    mut chunks: Box<dyn Chunks>,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Interruption> {
    let limit = job.request.limit;
    while let Some(chunk) = chunks.next().await? {
        let length = chunk.len() as u64;
        let received = job.received().saturating_add(length);
        if received > limit {
            return Err(IngestError::TooLarge { limit }.into());
        }
        send(pieces, Piece::Data(chunk), cx.stall_timeout).await?;
        job.received.store(received, Ordering::Relaxed);
        cx.metrics.received(length);
    }
    send(pieces, Piece::End, cx.stall_timeout).await
}

/// Waits for the writer to take a piece; a store that takes none for a while has failed.
async fn send(
    pieces: &mpsc::Sender<Piece>,
    piece: Piece,
    stall: Duration,
) -> Result<(), Interruption> {
    match tokio::time::timeout(stall, pieces.send(piece)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_gone)) => Err(Interruption::WriterEnded),
        Err(_elapsed) => Err(IngestError::StoreStalled(stall).into()),
    }
}
