//! One pass over an image: from a source's bytes to a complete temporary file.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::DownloadContext;
use super::error::IngestError;
use super::intake::Intake;
use super::job::Job;
use super::write::{PIECES, Piece, Written};
use crate::sources::Chunks;

/// One pass over the image, continued over broken connections.
pub(super) async fn attempt(
    job: &Job,
    cx: &DownloadContext,
    intake: &Intake<'_>,
) -> Result<Written, IngestError> {
    let request = &job.request;
    job.received.store(0, Ordering::Relaxed);
    let (announced, chunks) = request.source.open().await?;
    let limit = request.limit;
    if announced.length.is_some_and(|length| length > limit) {
        return Err(IngestError::TooLarge { limit });
    }
    let expected = announced.length.or(announced.hint).unwrap_or(0);
    job.expected.store(expected, Ordering::Relaxed);
    let (pieces, incoming) = mpsc::channel(PIECES);
    let mut writing = Box::pin(intake.receive(0, announced.coding, incoming));
    let passing = pass_on(job, cx, chunks, pieces);
    tokio::select! {
        // Ends before the source does only when it fails: it has the reason.
        written = &mut writing => written,
        passed = passing => match passed {
            Ok(()) | Err(Interruption::WriterEnded) => writing.await,
            Err(Interruption::Failed(error)) => Err(error),
        },
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
    pieces: mpsc::Sender<Piece>,
) -> Result<(), Interruption> {
    let limit = job.request.limit;
    let stall = cx.settings.get().limits.stall_timeout;
    while let Some(chunk) = chunks.next().await? {
        let length = chunk.len() as u64;
        let received = job.received().saturating_add(length);
        if received > limit {
            return Err(IngestError::TooLarge { limit }.into());
        }
        send(&pieces, Piece::Data(chunk), stall).await?;
        job.count(length);
        cx.metrics.received(length);
    }
    send(&pieces, Piece::End, stall).await
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
