//! One file copied: by the kernel or the server where they can, else block by block, holes kept.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::MoveError;
use super::staging::Staging;
use crate::stores::{EngineError, InstallPath, LocalFile, Opened, Part, Store, StoreError, Work};

/// Zeros written at once.
const BLOCK: u64 = 1 << 20;
/// Blocks that are read ahead of the writer.
const AHEAD: usize = 4;
/// Zeros of this length become a hole, where files have holes.
const ZEROS: usize = 64 << 10;
/// Written data is pushed to the disk in steps, so that the end needs no minutes of syncing.
const SYNC_EVERY: u64 = 256 << 20;

const READ: &str = "read a file to copy";
const WRITE: &str = "write a copy";

/// Bytes that are done, holes included. Cloneable; clones share them.
#[derive(Debug, Clone)]
pub struct Progress {
    done: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
    started: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self { done: Arc::default(), total: Arc::default(), started: Instant::now() }
    }
}

impl Progress {
    pub fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub const fn started(&self) -> Instant {
        self.started
    }

    /// Done, and expected in all.
    pub fn figures(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// A file to be copied, as it was when it was opened.
#[derive(Debug)]
pub struct Original {
    store: Arc<Store>,
    path: InstallPath,
    file: Arc<dyn Opened>,
    work: Work,
}

impl Original {
    pub async fn open(store: &Arc<Store>, path: &InstallPath) -> Result<Self, MoveError> {
        let found = Self::find(store, path).await?;
        let (path, url) = (path.clone(), store.url().to_string());
        found.ok_or(MoveError::NotThere { path, store: url })
    }

    /// `None` when there is no such file.
    pub async fn find(store: &Arc<Store>, path: &InstallPath) -> Result<Option<Self>, MoveError> {
        let work = Work::new();
        let opening = store.engine().open(&work, path.clone());
        let file = store.run(READ, opening).await?;
        let (store, path) = (Arc::clone(store), path.clone());
        Ok(file.map(|file| Self { store, path, file: Arc::from(file), work }))
    }

    pub fn length(&self) -> u64 {
        self.file.length()
    }

    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub const fn path(&self) -> &InstallPath {
        &self.path
    }

    pub const fn file(&self) -> &Arc<dyn Opened> {
        &self.file
    }

    /// Fails when the file is not any more what it was when it was opened.
    pub async fn verify(&self) -> Result<(), MoveError> {
        let opening = self.store.engine().open(&self.work, self.path.clone());
        let again = self.store.run(READ, opening).await?;
        let same = again.is_some_and(|again| {
            again.length() == self.file.length() && again.modified() == self.file.modified()
        });
        if same { Ok(()) } else { Err(MoveError::Moving(self.path.clone())) }
    }
}

/// Copies a file to the `nth` place of a staging; it is complete and durable then, and the original
/// is still what it was.
pub async fn copy(
    original: &Original,
    staging: &Staging,
    nth: usize,
    progress: &Progress,
) -> Result<Box<dyn Opened>, MoveError> {
    let part = staging.create(nth).await?;
    let path = staging.files().get(nth).map(super::staging::Staged::target);
    let path = path.unwrap_or_else(|| original.path.clone());
    copy_to(original, staging.store(), part, &path, progress).await
}

/// The same into any file that was begun; `path` is its name for people.
pub async fn copy_to(
    original: &Original,
    store: &Arc<Store>,
    part: Box<dyn Part>,
    path: &InstallPath,
    progress: &Progress,
) -> Result<Box<dyn Opened>, MoveError> {
    let store = Arc::clone(store);
    let mut target = Target { store, part, length: 0, unsynced: 0, holes: true, kernel: true };
    let mut at = 0;
    while at < original.length() {
        let looking = original.file.data(at);
        let data = original.store.run(READ, looking).await?;
        let Some(data) = data else { break };
        progress.add(data.start.saturating_sub(at));
        target.skip_to(data.start).await?;
        target.take(original, data.clone(), progress).await?;
        at = data.end;
    }
    progress.add(original.length().saturating_sub(at));
    target.skip_to(original.length()).await?;
    let Target { store, part, .. } = target;
    let file = store.run(WRITE, part.finish()).await?;
    if file.length() != original.length() {
        let path = path.clone();
        let (found, expected) = (file.length(), original.length());
        return Err(MoveError::Length { path, found, expected });
    }
    original.verify().await?;
    Ok(file)
}

/// The copy being written.
struct Target {
    store: Arc<Store>,
    part: Box<dyn Part>,
    length: u64,
    unsynced: u64,
    /// Whether files have holes here, as far as is known.
    holes: bool,
    /// Whether the kernel copies, as far as is known.
    kernel: bool,
}

impl Target {
    /// Leaves a hole up to an offset.
    async fn skip_to(&mut self, offset: u64) -> Result<(), MoveError> {
        if self.holes && self.length < offset {
            let extending = self.part.extend(offset);
            match self.store.run(WRITE, extending).await {
                Ok(()) => self.length = offset,
                Err(error) if is_unsupported(&error) => self.holes = false,
                Err(error) => return Err(error.into()),
            }
        }
        while self.length < offset {
            let count = (offset - self.length).min(BLOCK);
            let zeros = vec![0; usize::try_from(count).unwrap_or(0)];
            self.write(zeros.into()).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), MoveError> {
        let count = bytes.len() as u64;
        let writing = self.part.write(self.length, bytes);
        self.store.run(WRITE, writing).await?;
        self.grown(count).await
    }

    async fn grown(&mut self, count: u64) -> Result<(), MoveError> {
        self.length += count;
        self.unsynced += count;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            let syncing = self.part.sync();
            self.store.run(WRITE, syncing).await?;
        }
        Ok(())
    }

    /// Takes a stretch of data over.
    async fn take(
        &mut self,
        original: &Original,
        data: Range<u64>,
        progress: &Progress,
    ) -> Result<(), MoveError> {
        let mut at = data.start;
        let local = original.file.local();
        while let Some(local) = local.as_ref().filter(|_local| self.kernel && at < data.end) {
            let copied = self.by_kernel(local, at..data.end).await?;
            progress.add(copied);
            self.kernel = copied > 0;
            at += copied;
        }
        let (file, end, block) =
            (Arc::clone(&original.file), data.end, original.file.stride().max(1));
        let ranges = stream::iter((0..).map(move |nth| at + nth * block))
            .take_while(move |start| std::future::ready(*start < end));
        let reads = ranges.map(move |start| file.read(start..(start + block).min(end)));
        let mut blocks = reads.buffered(AHEAD);
        while let Some(block) = blocks.next().await {
            let block = original.store.run(READ, Box::pin(std::future::ready(block))).await?;
            progress.add(block.len() as u64);
            self.write_sparse(block).await?;
        }
        Ok(())
    }

    async fn by_kernel(&mut self, local: &LocalFile, range: Range<u64>) -> Result<u64, MoveError> {
        let copying = self.part.copy_from(local, range);
        let copied = self.store.run(WRITE, copying).await?;
        self.grown(copied).await?;
        Ok(copied)
    }

    /// Writes a block, long zeros left out.
    async fn write_sparse(&mut self, mut block: Bytes) -> Result<(), MoveError> {
        while !block.is_empty() {
            let is_zero = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
            let zeros = block.chunks(ZEROS).take_while(|piece| self.holes && is_zero(piece));
            let zeros: usize = zeros.map(<[u8]>::len).sum();
            if zeros > 0 {
                drop(block.split_to(zeros));
                let end = self.length + zeros as u64;
                self.skip_to(end).await?;
                continue;
            }
            let data = block.chunks(ZEROS).take_while(|piece| !self.holes || !is_zero(piece));
            let data: usize = data.map(<[u8]>::len).sum();
            self.write(block.split_to(data)).await?;
        }
        Ok(())
    }
}

fn is_unsupported(error: &StoreError) -> bool {
    matches!(error, StoreError::Operation { source: EngineError::Io(error), .. }
        if error.kind() == std::io::ErrorKind::Unsupported)
}
