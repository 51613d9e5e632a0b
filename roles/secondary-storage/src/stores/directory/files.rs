//! Files of a store that is a directory: one that is written, with a thread of its own, and one that
//! is read.
//!
//! Now and then what was written is pushed to the disk while more is written, so that the end needs no
//! minutes. Only when the disk is a whole step behind is it waited for.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;

use super::pool::{Lane, Queue};
use super::{Shared, dir, sparse};
use crate::stores::ROOM_STEP;
use crate::stores::engine::{EngineError, LocalFile, Opened, Operation, Part, Piece, Threads};
use crate::stores::work::Owned;

/// How long syncing the last bytes of a file may take on a store that answers.
const SYNC_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A file with a thread of its own to write it.
pub(super) struct DirectoryPart {
    file: Arc<File>,
    thread: Queue,
    owner: Owned,
    shared: Arc<Shared>,
    /// Syncs beside the writing, from the first time on.
    syncs: Option<Queue>,
    /// A sync under way.
    syncing: Option<Operation<()>>,
}

impl std::fmt::Debug for DirectoryPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectoryPart").field("file", &self.file).finish_non_exhaustive()
    }
}

impl DirectoryPart {
    pub(super) fn new(file: File, thread: Queue, owner: Owned, shared: Arc<Shared>) -> Self {
        Self { file: Arc::new(file), thread, owner, shared, syncs: None, syncing: None }
    }

    fn run(
        &self,
        thread: &Queue,
        deadline: Duration,
        piece: impl FnOnce(&File) -> std::io::Result<()> + Send + 'static,
    ) -> Operation<()> {
        let (file, thread, owner) = (Arc::clone(&self.file), thread.clone(), self.owner.clone());
        Box::pin(async move { Ok(thread.run(owner, deadline, move || piece(&file)).await??) })
    }

    /// Syncing takes as long as the disk needs, which no deadline knows. So the store is asked
    /// something else meanwhile: one that does not answer that has died.
    pub(super) fn synced(
        &self,
        thread: &Queue,
        piece: impl FnOnce(&File) -> std::io::Result<()> + Send + 'static,
    ) -> Operation<()> {
        let (syncing, shared) = (self.run(thread, SYNC_LIMIT, piece), Arc::clone(&self.shared));
        let owner = self.owner.clone();
        Box::pin(async move {
            tokio::select! {
                biased;
                outcome = syncing => outcome,
                died = shared.died(owner) => Err(died),
            }
        })
    }

    /// Begins to sync what is written.
    fn begin_sync(&mut self) -> std::io::Result<Operation<()>> {
        let thread = match self.syncs.take() {
            Some(thread) => thread,
            None => Queue::start("ss-sync", 1)?,
        };
        let mut syncing = self.synced(&thread, File::sync_data);
        self.syncs = Some(thread);
        // The first look at it gives it to its thread.
        Ok(match (&mut syncing).now_or_never() {
            Some(outcome) => Box::pin(std::future::ready(outcome)),
            None => syncing,
        })
    }
}

impl Drop for DirectoryPart {
    fn drop(&mut self) {
        let pool = &self.shared.pool;
        let file = std::mem::replace(&mut self.file, pool.nothing());
        pool.close(file, self.owner.hold());
    }
}

impl Drop for DirectoryFile {
    fn drop(&mut self) {
        let pool = &self.shared.pool;
        let file = std::mem::replace(&mut self.file, pool.nothing());
        pool.close(file, self.owner.hold());
    }
}

impl Part for DirectoryPart {
    fn write(&mut self, offset: u64, bytes: Bytes) -> Operation<()> {
        let min_free = self.shared.min_free;
        self.run(&self.thread, self.shared.deadline, move |file| {
            let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            if offset / ROOM_STEP != end / ROOM_STEP {
                dir::keep_free(file, min_free)?;
            }
            file.write_all_at(&bytes, offset)
        })
    }

    fn extend(&mut self, length: u64) -> Operation<()> {
        self.run(&self.thread, self.shared.deadline, move |file| file.set_len(length))
    }

    fn copy_from(&mut self, source: &LocalFile, range: Range<u64>) -> Operation<u64> {
        let (target, source) = (Arc::clone(&self.file), Arc::clone(&source.file));
        let (thread, owner) = (self.thread.clone(), self.owner.clone());
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let min_free = shared.min_free;
            let piece = move || {
                dir::keep_free(&target, min_free)?;
                sparse::copy_range(&source, &target, range)
            };
            Ok(thread.run(owner, shared.deadline, piece).await??)
        })
    }

    fn sync(&mut self) -> Operation<()> {
        let before = self.syncing.take();
        match self.begin_sync() {
            Ok(syncing) => self.syncing = Some(syncing),
            Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
        }
        before.unwrap_or_else(|| Box::pin(std::future::ready(Ok(()))))
    }

    fn finish(mut self: Box<Self>) -> Operation<Box<dyn Opened>> {
        Box::pin(async move {
            if let Some(syncing) = self.syncing.take() {
                syncing.await?;
            }
            self.synced(&self.thread, File::sync_all).await?;
            let (file, owner) = (Arc::clone(&self.file), self.owner.clone());
            let shared = Arc::clone(&self.shared);
            let reader = Arc::clone(&file);
            let metadata = move || reader.metadata();
            let (lane, deadline) = (shared.pool.lane(Lane::Quick), shared.deadline);
            let metadata = lane.run(owner.clone(), deadline, metadata).await??;
            let (length, modified) = (metadata.len(), metadata.modified()?);
            Ok(Box::new(DirectoryFile { file, length, modified, owner, shared }) as _)
        })
    }
}

#[derive(Debug)]
pub(super) struct DirectoryFile {
    file: Arc<File>,
    length: u64,
    modified: SystemTime,
    owner: Owned,
    shared: Arc<Shared>,
}

impl DirectoryFile {
    pub(super) fn new(file: File, owner: Owned, shared: Arc<Shared>) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        let (length, modified) = (metadata.len(), metadata.modified()?);
        Ok(Self { file: Arc::new(file), length, modified, owner, shared })
    }
}

impl Opened for DirectoryFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn modified(&self) -> SystemTime {
        self.modified
    }

    fn read(&self, range: Range<u64>) -> Operation<Bytes> {
        let (file, owner, shared) =
            (Arc::clone(&self.file), self.owner.clone(), Arc::clone(&self.shared));
        Box::pin(async move {
            let read = move || {
                let length = usize::try_from(range.end.saturating_sub(range.start));
                let mut bytes = vec![0_u8; length.map_err(std::io::Error::other)?];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok::<_, std::io::Error>(Bytes::from(bytes))
            };
            Ok(shared.pool.lane(Lane::Serve).run(owner, shared.deadline, read).await??)
        })
    }

    fn data(&self, from: u64) -> Operation<Option<Range<u64>>> {
        let (file, length) = (Arc::clone(&self.file), self.length);
        let (owner, shared) = (self.owner.clone(), Arc::clone(&self.shared));
        Box::pin(async move {
            let look = move || sparse::next_data(&file, from, length);
            Ok(shared.pool.lane(Lane::Serve).run(owner, shared.deadline, look).await??)
        })
    }

    fn local(&self) -> Option<LocalFile> {
        let threads = Arc::new(Serving(Arc::clone(&self.shared)));
        Some(LocalFile { file: Arc::clone(&self.file), threads })
    }
}

/// The threads that read files for others. Whoever sends a file comes again and again, so there are
/// turns before the queue: it must not be full for those that come once.
#[derive(Debug)]
struct Serving(Arc<Shared>);

impl Threads for Serving {
    fn run(&self, owner: Owned, work: Piece) -> Operation<()> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let _turn =
                shared.pool.turns.acquire().await.map_err(|_closed| EngineError::Panicked)?;
            shared.pool.lane(Lane::Serve).run(owner, shared.deadline, work).await
        })
    }
}
