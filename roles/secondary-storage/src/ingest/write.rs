//! The threads of a download: one decompresses and writes, one computes the digest.
//!
//! Bytes arrive from the network as they come. They are hashed as downloaded and written as
//! decompressed; nothing is read again. Each download has threads of its own, so that one on a
//! store that hangs holds up nothing else; the download's permit ends with its threads.

use std::fs::File;
use std::io::{BufRead, Error, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::{Buf, Bytes};
use disk_image::{Format, HEAD_LEN, ImageError, Inspection, Kind};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::decompress::{BLOCK, InputBroken, decoded, decompress};
use super::digest::{Checksum, Expectation};
use super::error::IngestError;
use super::members::Ignored;
use crate::sources::Coding;

/// What the network side sends. A channel that closes without `End` is a broken download.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    End,
}

/// Pieces under way between network and disk, and again to the digest. A piece can have half a
/// megabyte, so this bounds the memory of a download to a few.
pub const PIECES: usize = 8;

/// The job of a writer.
#[derive(Debug)]
pub struct WriterJob {
    pub file: File,
    pub format: Format,
    pub expectation: Expectation,
    /// What the source put around its content.
    pub coding: Coding,
    /// Largest image after decompression.
    pub limit: u64,
    pub permit: Arc<OwnedSemaphorePermit>,
    /// Held until the file is closed.
    pub token: TaskTrackerToken,
}

/// A file completely written and synced.
#[derive(Debug)]
pub struct Written {
    pub inspection: Result<Inspection, ImageError>,
    pub checksum: Checksum,
    /// What followed the compressed data.
    pub ignored: Option<Ignored>,
}

pub type WriterResult = Result<Written, IngestError>;

/// Starts both threads.
pub fn start(
    job: WriterJob,
) -> std::io::Result<(mpsc::Sender<Piece>, oneshot::Receiver<WriterResult>)> {
    let (pieces, incoming) = mpsc::channel(PIECES);
    let (outcome, waiting) = oneshot::channel();
    let (digest_in, digest_queue) = sync_channel::<Bytes>(PIECES);
    let mut running = job.expectation.start();
    let hasher = std::thread::Builder::new().name("ss-digest".to_owned()).spawn(move || {
        while let Ok(bytes) = digest_queue.recv() {
            running.update(&bytes);
        }
        running.finish()
    })?;
    let span = tracing::Span::current();
    std::thread::Builder::new().name("ss-write".to_owned()).spawn(move || {
        let result = span.in_scope(|| write(job, incoming, digest_in, hasher));
        if outcome.send(result).is_err() {
            tracing::debug!("a download ended before its writer");
        }
    })?;
    Ok((pieces, waiting))
}

fn write(
    job: WriterJob,
    incoming: mpsc::Receiver<Piece>,
    digest: SyncSender<Bytes>,
    hasher: JoinHandle<Checksum>,
) -> WriterResult {
    let mut sink = Sink::new(job.file, job.format, job.limit);
    let out = &mut |block: &[u8]| sink.write(block);
    let mut pieces = Pieces { incoming, digest: None, current: Bytes::new(), ended: false };
    let ignored = match job.coding {
        Coding::Identity => {
            pieces.digest = Some(digest);
            decompress(pieces, out)?
        }
        coding => {
            let content =
                decoded(coding, pieces, job.limit).map_err(|_cut| IngestError::Aborted)?;
            decompress(Digested { content, digest, is_broken: false }, out)?
        }
    };
    sink.check_head()?;
    let inspection = sink.finish()?;
    let checksum = hasher.join().map_err(|_panic| IngestError::Internal)?;
    Ok(Written { inspection, checksum, ignored })
}

/// The pieces as a reader; each goes to the digest once, unless it is of what is inside them.
struct Pieces {
    incoming: mpsc::Receiver<Piece>,
    digest: Option<SyncSender<Bytes>>,
    current: Bytes,
    ended: bool,
}

fn gone<T>(_gone: T) -> Error {
    Error::other(InputBroken)
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.incoming.blocking_recv() {
                Some(Piece::Data(bytes)) => {
                    if let Some(digest) = &self.digest {
                        digest.send(bytes.clone()).map_err(gone)?;
                    }
                    self.current = bytes;
                }
                Some(Piece::End) => self.ended = true,
                None => return Err(gone(())),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount.min(self.current.len()));
    }
}

/// Decoded content on its way; each byte goes to the digest once.
struct Digested<R> {
    content: R,
    digest: SyncSender<Bytes>,
    is_broken: bool,
}

impl<R: BufRead> BufRead for Digested<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.is_broken { Err(gone(())) } else { self.content.fill_buf() }
    }

    fn consume(&mut self, amount: usize) {
        // What is consumed is in the buffer: nothing is waited for.
        let bytes = self
            .content
            .fill_buf()
            .map(|available| Bytes::copy_from_slice(available.get(..amount).unwrap_or(available)));
        self.is_broken |= bytes.is_ok_and(|bytes| self.digest.send(bytes).is_err());
        self.content.consume(amount);
    }
}

impl<R: BufRead> Read for Digested<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// The file being written: counted, bounded, its beginning judged as soon as it is there.
struct Sink {
    file: File,
    format: Format,
    limit: u64,
    length: u64,
    unsynced: u64,
    head: Vec<u8>,
    judged: bool,
}

/// Written data is pushed to the disk in steps, so that the end needs no minutes of syncing.
const SYNC_EVERY: u64 = 256 * 1024 * 1024;

impl Sink {
    const fn new(file: File, format: Format, limit: u64) -> Self {
        Self { file, format, limit, length: 0, unsynced: 0, head: Vec::new(), judged: false }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length > self.limit {
            return Err(IngestError::Bomb { limit: self.limit });
        }
        if self.head.len() < HEAD_LEN {
            let missing = HEAD_LEN - self.head.len();
            self.head.extend_from_slice(bytes.get(..missing).unwrap_or(bytes));
        }
        if self.head.len() >= HEAD_LEN {
            self.check_head()?;
        }
        self.file.write_all(bytes).map_err(IngestError::Write)?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data().map_err(IngestError::Write)?;
        }
        Ok(())
    }

    /// Judges the beginning once.
    fn check_head(&mut self) -> Result<(), IngestError> {
        if self.judged {
            return Ok(());
        }
        self.judged = true;
        let kind = Kind::of(&self.head);
        if self.format.admits(kind) { Ok(()) } else { Err(IngestError::Content(kind)) }
    }

    /// Judges the complete file; the outer error is one of the store.
    fn finish(self) -> Result<Result<Inspection, ImageError>, IngestError> {
        self.file.sync_all().map_err(IngestError::Write)?;
        let image = Image { file: &self.file, length: self.length };
        Ok(disk_image::inspect(self.format, &image))
    }
}

/// The written file, for its inspection.
struct Image<'a> {
    file: &'a File,
    length: u64,
}

impl disk_image::Source for Image<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(target, offset)
    }
}

/// Computes the digest of a file that is read from its beginning. Blocks.
pub fn digest(
    mut file: File,
    expectation: &Expectation,
    stop: &dyn Fn() -> bool,
) -> std::io::Result<Checksum> {
    let mut running = expectation.start();
    let mut block = vec![0_u8; BLOCK];
    loop {
        if stop() {
            return Err(Error::from(ErrorKind::Interrupted));
        }
        match file.read(&mut block)? {
            0 => return Ok(running.finish()),
            read => running.update(block.get(..read).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests;
