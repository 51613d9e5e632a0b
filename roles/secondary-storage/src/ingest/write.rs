//! From pieces of a download to a complete file of a store.
//!
//! Bytes arrive from the source as they come. They are hashed as downloaded and written as
//! decompressed; nothing is read again but what the inspection looks at. Hashing and decompressing
//! have a thread each; how a store writes is the store's business.
//!
//! ```text
//! pieces ─▶ decompress (thread) ─ blocks ─▶ Sink ─▶ Part of the store
//!               └──▶ digest (thread)
//! ```

use std::cell::Cell;
use std::io::{BufRead, Error, Read};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use disk_image::{Format, HEAD_LEN, ImageError, Inspection, Kind};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::decompress::{Beside, InputBroken, Shared, decoded, decompress, pass};
use super::digest::{Checksum, Computed, Digests, Expectation, Queues};
use super::error::IngestError;
use super::intake::Content;
use super::progress::Progress;
use crate::sources::Coding;
use crate::stores::{Opened, Part, Store};

/// What the source's side sends. A channel that closes without `End` is a broken download.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    End,
}

/// Pieces under way between source and decompression. What is under way of all downloads is most of
/// this process's memory: a few more would not make them faster.
pub const PIECES: usize = 3;
/// Blocks under way to the store.
const BLOCKS: usize = 2;
/// A shorter piece is put together with others that wait: each write costs a thread a turn.
const SMALL: usize = 32 * 1024;

/// What is to become of the pieces.
#[derive(Debug)]
pub struct Target {
    pub store: Arc<Store>,
    pub part: Box<dyn Part>,
    pub content: Content,
    pub expectation: Expectation,
    /// Further digests.
    pub hashes: Vec<Expectation>,
    /// What the source put around its content.
    pub coding: Coding,
    /// Largest image after decompression.
    pub limit: u64,
    /// How many times as long as what was received an image may be.
    pub ratio: u64,
    pub begun: Option<Begun>,
    /// Told how far the file is.
    pub progress: Progress,
}

/// What is in the part already, of a file that is written as it is received.
#[derive(Debug)]
pub struct Begun {
    pub length: u64,
    /// Its first bytes, as many as the kind of an image is told by.
    pub head: Vec<u8>,
    pub digests: Computed,
}

/// A file completely written and durable.
#[derive(Debug)]
pub struct Written {
    pub inspection: Result<Inspection, ImageError>,
    /// `None` when nobody asked for a digest.
    pub checksum: Option<Checksum>,
    /// In the order they were asked for.
    pub hashes: Vec<Checksum>,
    /// What was found around the image.
    pub beside: Option<Beside>,
    /// The file, open for reading.
    pub file: Arc<dyn Opened>,
}

/// Writes everything and judges the complete file.
pub async fn write(target: Target, pieces: mpsc::Receiver<Piece>) -> Result<Written, IngestError> {
    let Target { store, part, content, expectation, coding, limit, ratio, begun, progress, .. } =
        target;
    let wanted = target.hashes;
    let mut sink = Sink::new(Arc::clone(&store), part, content, limit, progress.clone());
    let is_rest = begun.is_some();
    let computed = match begun {
        Some(begun) => sink.go_on(begun),
        None => Computed::new(&expectation, &wanted),
    };
    let digests = Digests::start(computed, progress).map_err(IngestError::Thread)?;
    let queues = digests.queues();
    let (out, mut blocks) = mpsc::channel(BLOCKS);
    let bounds = Bounds { format: content.format(), limit, ratio };
    let unpack = move || {
        if is_rest {
            pass_rest(pieces, queues, &out)
        } else {
            unpack(coding, bounds, pieces, queues, &out)
        }
    };
    let unpacked = on_thread("ss-decompress", unpack)?;
    while let Some(block) = blocks.recv().await {
        sink.write(block).await?;
    }
    let beside = unpacked.await.map_err(|_died| IngestError::Internal)??;
    sink.check_head()?;
    let digested = async { digests.finish().await.ok_or(IngestError::Internal) };
    let ((checksum, hashes), (inspection, file)) = if store.engine().is_flat() {
        // The file has its name as soon as it is whole: other bytes never get it.
        let found = digested.await?;
        let first = found.0.iter().map(|first| (&expectation, first));
        for (expectation, found) in first.chain(wanted.iter().zip(&found.1)) {
            expectation.verify(found).map_err(IngestError::Checksum)?;
        }
        (found, sink.finish().await?)
    } else {
        let judged = sink.finish().await?;
        (digested.await?, judged)
    };
    Ok(Written { inspection, checksum, hashes, beside, file })
}

/// Runs `work` on a thread of its own.
pub(super) fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, IngestError> {
    let (done, outcome) = oneshot::channel();
    let span = tracing::Span::current();
    let work = move || {
        if done.send(span.in_scope(work)).is_err() {
            tracing::debug!("a download ended before one of its threads");
        }
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(IngestError::Thread)?;
    Ok(outcome)
}

/// What an image inside something else may be.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// `None`: nothing is taken off.
    format: Option<Format>,
    limit: u64,
    ratio: u64,
}

/// Images shorter than this may be any times as long as what was received: an empty disk is.
const RATIO_FREE: u64 = 4 << 30;

/// Whether so many bytes of an image are too many for those that were received.
fn is_inflated(given: u64, received: u64, ratio: u64) -> bool {
    given > RATIO_FREE && given / received.max(1) > ratio
}

/// Takes the image out of what it was sent in. Blocks.
fn unpack(
    coding: Coding,
    bounds: Bounds,
    incoming: mpsc::Receiver<Piece>,
    digests: Queues,
    out: &mpsc::Sender<Bytes>,
) -> Result<Option<Beside>, IngestError> {
    let Bounds { format, limit, ratio } = bounds;
    let received = Rc::new(Cell::new(0_u64));
    let mut given = 0_u64;
    let arrived = Rc::clone(&received);
    let out = &mut |block: Bytes| {
        given = given.saturating_add(block.len() as u64);
        if is_inflated(given, arrived.get(), ratio) {
            return Err(IngestError::Ratio { ratio, received: arrived.get() });
        }
        // The other end went away: it has the reason.
        out.blocking_send(block).map_err(|_gone| IngestError::Aborted)
    };
    let mut pieces = Pieces {
        incoming,
        digests: Queues::default(),
        current: Bytes::new(),
        received,
        ended: false,
    };
    match coding {
        Coding::Identity => {
            pieces.digests = digests;
            decompress(pieces, format, out)
        }
        coding => {
            let content = decoded(coding, pieces, limit).map_err(|_cut| IngestError::Aborted)?;
            decompress(Digested { content, digests, is_broken: false }, format, out)
        }
    }
}

/// Passes the rest of a file on that is written as it is received. Blocks.
fn pass_rest(
    incoming: mpsc::Receiver<Piece>,
    digests: Queues,
    out: &mpsc::Sender<Bytes>,
) -> Result<Option<Beside>, IngestError> {
    let out = &mut |block: Bytes| out.blocking_send(block).map_err(|_gone| IngestError::Aborted);
    let received = Rc::default();
    let pieces = Pieces { incoming, digests, current: Bytes::new(), received, ended: false };
    pass(pieces, out)?;
    Ok(None)
}

/// The pieces as a reader; each goes to the digest once, unless it is of what is inside them.
struct Pieces {
    incoming: mpsc::Receiver<Piece>,
    digests: Queues,
    current: Bytes,
    received: Rc<Cell<u64>>,
    ended: bool,
}

fn gone<T>(_gone: T) -> Error {
    Error::other(InputBroken)
}

impl Pieces {
    fn arrived(&self, bytes: &Bytes) -> std::io::Result<()> {
        self.digests.send(bytes).map_err(gone)?;
        self.received.set(self.received.get() + bytes.len() as u64);
        Ok(())
    }
}

impl Shared for Pieces {
    fn shared(&mut self) -> std::io::Result<Option<Bytes>> {
        if self.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let first = std::mem::take(&mut self.current);
        let mut gathered = BytesMut::new();
        while first.len().max(gathered.len()) < SMALL && !self.ended {
            match self.incoming.try_recv() {
                Ok(Piece::Data(bytes)) => {
                    self.arrived(&bytes)?;
                    if gathered.is_empty() {
                        gathered.reserve(first.len() + bytes.len());
                        gathered.extend_from_slice(&first);
                    }
                    gathered.extend_from_slice(&bytes);
                }
                Ok(Piece::End) => self.ended = true,
                // None waits; whether more comes is seen the next time.
                Err(_) => break,
            }
        }
        Ok(Some(if gathered.is_empty() { first } else { gathered.freeze() }))
    }
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
                    self.arrived(&bytes)?;
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
    digests: Queues,
    is_broken: bool,
}

impl<R: BufRead> Shared for Digested<R> {
    fn shared(&mut self) -> std::io::Result<Option<Bytes>> {
        let bytes = Bytes::copy_from_slice(self.fill_buf()?);
        self.digests.send(&bytes).map_err(gone)?;
        self.content.consume(bytes.len());
        Ok((!bytes.is_empty()).then_some(bytes))
    }
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
        self.is_broken |= bytes.is_ok_and(|bytes| self.digests.send(&bytes).is_err());
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

type Judgement = Result<Inspection, ImageError>;

/// The file being written: counted, bounded, its beginning judged as soon as it is there.
struct Sink {
    store: Arc<Store>,
    part: Box<dyn Part>,
    content: Content,
    limit: u64,
    length: u64,
    unsynced: u64,
    head: Vec<u8>,
    judged: bool,
    progress: Progress,
}

/// Written data is pushed to the disk in steps, so that the end needs no minutes of syncing.
const SYNC_EVERY: u64 = 128 * 1024 * 1024;
/// Completes "cannot …" when the store fails.
const WRITE: &str = "write a file";

impl Sink {
    fn new(
        store: Arc<Store>,
        part: Box<dyn Part>,
        content: Content,
        limit: u64,
        progress: Progress,
    ) -> Self {
        let (length, unsynced, head, judged) = (0, 0, Vec::new(), false);
        Self { store, part, content, limit, length, unsynced, head, judged, progress }
    }

    /// Takes over what is in the part.
    fn go_on(&mut self, begun: Begun) -> Computed {
        self.length = begun.length;
        self.head = begun.head;
        self.progress.begins_with(&self.head);
        self.progress.written(self.length);
        begun.digests
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), IngestError> {
        let (offset, count) = (self.length, bytes.len() as u64);
        self.length = offset.saturating_add(count);
        if self.length > self.limit {
            return Err(IngestError::Bomb { limit: self.limit });
        }
        if self.head.len() < HEAD_LEN {
            let missing = HEAD_LEN - self.head.len();
            self.head.extend_from_slice(bytes.get(..missing).unwrap_or(&bytes));
        }
        if self.head.len() >= HEAD_LEN {
            self.check_head()?;
        }
        self.progress.begins_with(&self.head);
        let writing = self.part.write(offset, bytes);
        self.store.run(WRITE, writing).await?;
        self.progress.written(self.length);
        self.unsynced += count;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            let syncing = self.part.sync();
            self.store.run(WRITE, syncing).await?;
        }
        Ok(())
    }

    /// Judges the beginning once.
    fn check_head(&mut self) -> Result<(), IngestError> {
        if self.judged {
            return Ok(());
        }
        self.judged = true;
        if self.head.is_empty() && self.content.format().is_some() {
            return Err(IngestError::Empty);
        }
        let kind = Kind::of(&self.head);
        if self.content.format().is_none_or(|format| format.admits(kind)) {
            Ok(())
        } else {
            Err(IngestError::Content(kind))
        }
    }

    /// Judges the complete file; the outer error is one of the store.
    async fn finish(self) -> Result<(Judgement, Arc<dyn Opened>), IngestError> {
        let Self { store, part, content, .. } = self;
        let file: Arc<dyn Opened> = Arc::from(store.run(WRITE, part.finish()).await?);
        let image = Image { file: Arc::clone(&file), runtime: Handle::current() };
        let inspect = move || match content {
            Content::Image(format) => disk_image::inspect(format, &image),
            Content::Files => disk_image::describe(&image),
        };
        let judged = on_thread("ss-inspect", inspect)?.await;
        Ok((judged.map_err(|_died| IngestError::Internal)?, file))
    }
}

/// The written file, for its inspection on a thread.
struct Image {
    file: Arc<dyn Opened>,
    runtime: Handle,
}

impl disk_image::Source for Image {
    fn length(&self) -> u64 {
        self.file.length()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        let range = offset..offset.saturating_add(target.len() as u64);
        let bytes = self.runtime.block_on(self.file.read(range)).map_err(Error::other)?;
        let exact = bytes.get(..target.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(exact);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
