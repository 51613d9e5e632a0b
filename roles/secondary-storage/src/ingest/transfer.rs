//! One pass over an image: from a source's bytes to a complete temporary file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use super::digest::Expectation;
use super::error::IngestError;
use super::intake::{Incoming, Intake};
use super::job::Job;
use super::progress::Progress;
use super::records::Checkpoint;
use super::write::{PIECES, Piece, Written};
use super::{DownloadContext, resume};
use crate::sources::{Announced, Chunks, Nothing, Opening, Source, SourceError};

/// Longest piece that is passed on: what is under way is bounded by the number of pieces, and a
/// connection may give half a megabyte at once, which is cut into equal ones.
const PIECE: usize = 128 << 10;
/// Between two looks at how far a download is, to keep it on disk.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Which of a job's files a pass is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) nth: usize,
    pub(super) source: &'a Source,
    /// Bytes of the files before it.
    pub(super) before: u64,
}

impl<'a> File<'a> {
    pub(super) fn only(job: &'a Job) -> Self {
        Self { nth: 0, source: &job.request.source, before: 0 }
    }
}

/// One pass over a file, continued over broken connections, and at first where an earlier run of
/// this process was.
pub(super) async fn attempt(
    job: &Arc<Job>,
    cx: &DownloadContext,
    intake: &Intake<'_>,
    file: File<'_>,
) -> Result<Written, IngestError> {
    let File { nth, source, before } = file;
    let request = &job.request;
    let checkpoint = job.checkpoint();
    let Opening { announced, from, chunks } = match &checkpoint {
        Some(checkpoint) => match checkpoint.complete() {
            Some(announced) => {
                Opening { announced, from: checkpoint.received, chunks: Box::new(Nothing) }
            }
            None => source.open(Some(&checkpoint.continuation())).await?,
        },
        None => source.open(None).await?,
    };
    let limit = request.limit;
    if announced.length.is_some_and(|length| before.saturating_add(length) > limit) {
        return Err(IngestError::TooLarge { limit });
    }
    if request.more.is_empty() {
        let expected = announced.length.or(announced.hint).unwrap_or(0);
        job.expected.store(expected, Ordering::Relaxed);
    }
    let hashes: Vec<Expectation> = announced.hashes.iter().map(Expectation::of).collect();
    let mut begun = None;
    if let Some(checkpoint) = checkpoint {
        if from == checkpoint.received {
            let known = (checkpoint.received, checkpoint.digest.as_str());
            begun = resume::begun(&job.id, cx, intake, known, &hashes).await?;
        }
        if begun.is_none() {
            job.record().checkpoint = None;
            if from > 0 {
                // The source gives the rest of what is not here.
                return Err(SourceError::Restart(Box::new(SourceError::Left)).into());
            }
        }
    }
    job.received.store(before.saturating_add(from), Ordering::Relaxed);
    let progress = Progress::default();
    if let Some((_, begun)) = &begun {
        progress.receives(&begun.head);
    }
    let incoming = Incoming { coding: announced.coding, hashes, begun, progress: progress.clone() };
    if from > 0 {
        tracing::info!(job = job.id, from, "download goes on where it was");
    }
    let (pieces, receiving) = mpsc::channel(PIECES);
    let mut writing = Box::pin(intake.receive_announced(nth, incoming, receiving));
    let state = Passing { job, cx, progress: &progress, announced: &announced };
    // However it ends: what has come so far is worth a note.
    let _note = LastNote(state);
    let passing = pass_on(state, chunks, pieces);
    let (written, is_patched) = tokio::select! {
        // Ends before the source does only when it fails: it has the reason.
        written = &mut writing => (written, false),
        passed = passing => match passed {
            Ok(is_patched) => (writing.await, is_patched),
            Err(Interruption::WriterEnded) => (writing.await, false),
            Err(Interruption::Failed(error)) => (Err(error), false),
        },
        never = keep(state) => match never {},
    };
    match written {
        // Parts of two versions, perhaps: the whole from one place is worth a try.
        Ok(Written { checksum: Some(found), .. })
            if is_patched && request.expectation.verify(&found).is_err() =>
        {
            Err(SourceError::Restart(Box::new(SourceError::Patched)).into())
        }
        Err(IngestError::Checksum(_)) if is_patched => {
            Err(SourceError::Restart(Box::new(SourceError::Patched)).into())
        }
        written => written,
    }
}

/// A pass under way.
#[derive(Clone, Copy)]
struct Passing<'a> {
    job: &'a Arc<Job>,
    cx: &'a DownloadContext,
    progress: &'a Progress,
    announced: &'a Announced,
}

impl Passing<'_> {
    /// Takes note of how far the download is; `false` when nothing is new.
    fn take_note(self) -> bool {
        let Self { job, progress, announced, .. } = self;
        // Several files begin again with the first.
        let can_go_on = job.request.more.is_empty()
            && (announced.version.is_named() || job.request.expectation.is_given());
        let mark = progress.mark().filter(|_mark| can_go_on);
        let Some(mark) = mark else { return false };
        let mut record = job.record();
        if record.checkpoint.as_ref().is_some_and(|known| known.received >= mark.length) {
            return false;
        }
        record.checkpoint = Some(Checkpoint::new(&mark, announced));
        true
    }
}

/// Takes a note at the end of a pass.
struct LastNote<'a>(Passing<'a>);

impl Drop for LastNote<'_> {
    fn drop(&mut self) {
        self.0.take_note();
    }
}

/// Keeps on disk how far the download is, now and then.
async fn keep(state: Passing<'_>) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(CHECKPOINT_EVERY).await;
        if state.take_note() {
            write_record(state.cx, state.job).await;
        }
    }
}

/// Keeps a job on disk. One that cannot be kept is lost with the process, which is no reason to lose
/// it now.
pub(super) async fn write_record(cx: &DownloadContext, job: &Job) {
    let (records, id, record) = (cx.records.clone(), job.id.clone(), job.record().clone());
    let written = cx.tasks.blocking("record a job", move || records.write_soon(&id, &record)).await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(job = job.id, error = bedrock::chain(&error), "cannot record a job");
        }
        Err(error) => {
            tracing::debug!(job = job.id, error = bedrock::chain(&error), "a job is not recorded");
        }
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

/// Passes everything of a source on to the writer; says whether a digest has to judge the parts.
async fn pass_on(
    state: Passing<'_>,
    mut chunks: Box<dyn Chunks>,
    pieces: mpsc::Sender<Piece>,
) -> Result<bool, Interruption> {
    let Passing { job, cx, .. } = state;
    let limit = job.request.limit;
    while let Some(chunk) = chunks.next().await? {
        let length = chunk.len() as u64;
        let received = job.received().saturating_add(length);
        if received > limit {
            return Err(IngestError::TooLarge { limit }.into());
        }
        state.progress.receives(&chunk);
        let mut rest = chunk;
        let size = rest.len().div_ceil(rest.len().div_ceil(PIECE).max(1));
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(size));
            send(&pieces, Piece::Data(piece)).await?;
        }
        job.count(length);
        cx.metrics.received(length);
    }
    send(&pieces, Piece::End).await?;
    Ok(chunks.is_patched())
}

/// Waits for the writer to take a piece. Every step of the writer on its store has a deadline.
async fn send(pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<(), Interruption> {
    pieces.send(piece).await.map_err(|_gone| Interruption::WriterEnded)
}
