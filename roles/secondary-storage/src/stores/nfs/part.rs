//! Writing a file: bytes are sent without waiting for each other, kept until the server has made
//! them durable, and sent again when it lost them.
//!
//! A server answers most writes before they are on its disk, and names with each answer the life that
//! it is in (the verifier). COMMIT makes the bytes durable and names the life again. Bytes that were
//! answered in another life may be lost, so they are kept until a COMMIT of the same life, and
//! written anew after one of another. What is kept is bounded, for a file and for a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nfs3::procedures::{Commit, GetAttributes, SetAttributes, Stability, Verifier, Write, Written};
use role::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::client::Session;
use super::connection::Lane;
use super::error::NfsError;
use super::file::{Known, Reader, StoreFile};
use super::root::Root;
use crate::stores::ROOM_STEP;
use crate::stores::engine::{EngineError, Opened, Operation, Part};
use crate::stores::work::{Owned, Running};

/// What a file may keep whatever other files of the store do.
const OWN: usize = 1 << 20;
/// What a file may keep at most; a COMMIT is under way from half of it on.
const MOST: usize = 8 << 20;
/// Calls of one file that are under way at a time.
const AT_A_TIME: usize = 8;
/// What comes in pieces of so many bytes is sent as it is.
const ENOUGH: usize = 128 << 10;
/// Less is put together to so many, which copies it.
const GATHERED: usize = 256 << 10;
/// How often in a row a server may lose what it was sent.
const LOSSES: u8 = 10;

/// A file being written.
#[derive(Debug)]
pub(super) struct StorePart {
    commands: mpsc::Sender<Command>,
}

enum Command {
    Write { offset: u64, bytes: Bytes, taken: oneshot::Sender<Result<(), EngineError>> },
    Extend { length: u64, taken: oneshot::Sender<Result<(), EngineError>> },
    Sync { finish: bool, done: oneshot::Sender<Result<Option<Box<dyn Opened>>, EngineError>> },
}

/// Where the file is.
pub(super) struct Place {
    pub(super) session: Session,
    pub(super) root: Arc<Root>,
    pub(super) known: Known,
    pub(super) owner: Owned,
    /// Bytes that the file has already.
    pub(super) length: u64,
    /// Bytes of the store that nothing is written into.
    pub(super) min_free: u64,
}

impl StorePart {
    pub(super) fn start(place: Place) -> Self {
        let (commands, queue) = mpsc::channel(1);
        let Place { session, root, known, owner, length, min_free } = place;
        let tasks = session.client.target.tasks.clone();
        let writer = Writer {
            session,
            root,
            known: Arc::new(known),
            owner,
            kept: BTreeMap::new(),
            bytes: 0,
            gathered: BytesMut::new(),
            end: length,
            min_free,
            under_way: FuturesUnordered::new(),
            committing: false,
            losses: 0,
            failed: None,
        };
        tasks.spawn("nfs write", writer.run(queue));
        Self { commands }
    }

    async fn sync_now(
        commands: mpsc::Sender<Command>,
        finish: bool,
    ) -> Result<Option<Box<dyn Opened>>, EngineError> {
        let (done, outcome) = oneshot::channel();
        let sent = commands.send(Command::Sync { finish, done }).await;
        sent.map_err(|_ended| EngineError::Panicked)?;
        outcome.await.map_err(|_ended| EngineError::Panicked)?
    }
}

impl Part for StorePart {
    fn write(&mut self, offset: u64, bytes: Bytes) -> Operation<()> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (taken, outcome) = oneshot::channel();
            let sent = commands.send(Command::Write { offset, bytes, taken }).await;
            sent.map_err(|_ended| EngineError::Panicked)?;
            outcome.await.map_err(|_ended| EngineError::Panicked)?
        })
    }

    fn extend(&mut self, length: u64) -> Operation<()> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (taken, outcome) = oneshot::channel();
            let sent = commands.send(Command::Extend { length, taken }).await;
            sent.map_err(|_ended| EngineError::Panicked)?;
            outcome.await.map_err(|_ended| EngineError::Panicked)?
        })
    }

    fn sync(&mut self) -> Operation<()> {
        let commands = self.commands.clone();
        Box::pin(async move { Self::sync_now(commands, false).await.map(drop) })
    }

    fn finish(self: Box<Self>) -> Operation<Box<dyn Opened>> {
        Box::pin(async move {
            let file = Self::sync_now(self.commands, true).await?;
            file.ok_or(EngineError::Panicked)
        })
    }
}

/// Bytes that are not durable yet.
struct Kept {
    bytes: Bytes,
    state: State,
    /// Their share of what the store may keep; `None` from the file's own.
    share: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sent,
    /// Taken in this life of the server.
    Taken(Verifier),
    /// As [`State::Taken`], when the COMMIT under way was sent.
    Committing(Verifier),
}

enum Event {
    Written { offset: u64, outcome: Result<Written, NfsError> },
    Committed(Result<Verifier, NfsError>),
}

struct Writer {
    session: Session,
    root: Arc<Root>,
    known: Arc<Known>,
    owner: Owned,
    /// By offset.
    kept: BTreeMap<u64, Kept>,
    /// Bytes of all that is kept.
    bytes: usize,
    /// What is too little for a call of its own, at the file's end.
    gathered: BytesMut,
    /// Bytes that were taken over from the caller.
    end: u64,
    min_free: u64,
    under_way: FuturesUnordered<BoxFuture<'static, (Option<Running>, Event)>>,
    committing: bool,
    losses: u8,
    failed: Option<Arc<NfsError>>,
}

impl Writer {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Write { offset, bytes, taken }) => {
                        drop(taken.send(self.write(offset, bytes).await));
                    }
                    Some(Command::Extend { length, taken }) => {
                        drop(taken.send(self.extend(length).await));
                    }
                    Some(Command::Sync { finish, done }) => {
                        drop(done.send(self.sync(finish).await));
                    }
                    // Nobody wants the file any more: only what is under way is waited for.
                    None => break,
                },
                Some((_running, event)) = self.under_way.next() => self.handle(event),
            }
        }
        while self.under_way.next().await.is_some() {}
    }

    fn failure(&self) -> Option<EngineError> {
        let failed = self.failed.as_ref()?;
        let error = match **failed {
            NfsError::Stalled(limit) => NfsError::Stalled(limit),
            _ => NfsError::Shared(Arc::clone(failed)),
        };
        Some(error.of_engine(&self.session.client.place()))
    }

    fn content(&self, problem: &'static str) -> NfsError {
        NfsError::Content { subject: self.known.name().to_owned(), problem }
    }

    async fn write(&mut self, offset: u64, bytes: Bytes) -> Result<(), EngineError> {
        if offset != self.end {
            self.failed = Some(Arc::new(self.content("is written with a gap")));
        }
        self.end = self.end.saturating_add(bytes.len() as u64);
        if offset / ROOM_STEP != self.end / ROOM_STEP
            && let Err(error) = self.session.again().keep_free(&self.root, self.min_free).await
        {
            self.failed.get_or_insert_with(|| Arc::new(error));
        }
        if self.end > self.root.largest_file {
            let status = nfs3::Status::TOO_LARGE;
            let client = &self.session.client;
            self.failed = Some(Arc::new(client.refused("WRITE", self.known.name(), status)));
        }
        let size = usize::try_from(self.root.write_size).unwrap_or(usize::MAX).max(1);
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if self.gathered.is_empty() && bytes.len() >= size.min(ENOUGH) {
                let piece = bytes.split_to(size.min(bytes.len()));
                self.take(piece, bytes.len()).await?;
                continue;
            }
            let full = size.min(GATHERED);
            if self.gathered.is_empty() {
                self.gathered.reserve(full);
            }
            let room = full.saturating_sub(self.gathered.len());
            self.gathered.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
            bytes.advance(room.min(bytes.len()));
            if self.gathered.len() >= full {
                let piece = self.gathered.split().freeze();
                self.take(piece, bytes.len()).await?;
            }
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Leaves a hole up to `length`.
    async fn extend(&mut self, length: u64) -> Result<(), EngineError> {
        if !self.gathered.is_empty() {
            let piece = self.gathered.split().freeze();
            self.take(piece, 0).await?;
        }
        let running = self.owner.begin().ok_or(EngineError::GivenUp)?;
        let session = self.session.again();
        let make = |file| SetAttributes { file, mode: None, size: Some(length) };
        let set = self.known.call(&session, Lane::Quick, make).await;
        drop(running);
        set.map_err(|error| error.of_engine(&self.session.client.place()))?;
        self.end = length;
        Ok(())
    }

    /// Sends a piece that ends `after` bytes before the end, once there is room to keep it.
    async fn take(&mut self, piece: Bytes, after: usize) -> Result<(), EngineError> {
        let offset = self.end - (piece.len() + after) as u64;
        let share = loop {
            if let Some(error) = self.failure() {
                return Err(error);
            }
            if self.under_way.len() < AT_A_TIME
                && let Some(share) = self.room(piece.len())
            {
                break share;
            }
            if self.under_way.len() < AT_A_TIME {
                self.commit();
            }
            match self.under_way.next().await {
                Some((_running, event)) => self.handle(event),
                // Everything is durable, so the own share is free: not reached.
                None => break None,
            }
        };
        self.bytes += piece.len();
        let kept = Kept { bytes: piece.clone(), state: State::Sent, share };
        self.kept.insert(offset, kept);
        self.send(offset, piece);
        if self.bytes > MOST / 2 {
            self.commit();
        }
        Ok(())
    }

    /// Room to keep so many bytes; `None` when there is none now.
    fn room(&self, length: usize) -> Option<Option<OwnedSemaphorePermit>> {
        if self.bytes + length <= OWN {
            return Some(None);
        }
        if self.bytes + length > MOST {
            return None;
        }
        let kib = u32::try_from(length.div_ceil(1024)).ok()?;
        let shared = Arc::clone(&self.session.client.write_behind);
        shared.try_acquire_many_owned(kib).ok().map(Some)
    }

    fn send(&mut self, offset: u64, bytes: Bytes) {
        let running = self.owner.begin();
        let session = self.session.again();
        let known = Arc::clone(&self.known);
        self.under_way.push(Box::pin(async move {
            let make =
                |file| Write { file, offset, stability: Stability::Unstable, bytes: bytes.clone() };
            let outcome = match running {
                Some(_) => known.call(&session, Lane::Bulk, make).await,
                None => Err(NfsError::GivenUp),
            };
            (running, Event::Written { offset, outcome })
        }));
    }

    /// Asks the server to make durable what it has taken; one call at a time.
    fn commit(&mut self) {
        if self.committing {
            return;
        }
        let mut any = false;
        for kept in self.kept.values_mut() {
            if let State::Taken(verifier) = kept.state {
                kept.state = State::Committing(verifier);
                any = true;
            }
        }
        if !any {
            return;
        }
        self.committing = true;
        let running = self.owner.begin();
        let session = self.session.again();
        let known = Arc::clone(&self.known);
        self.under_way.push(Box::pin(async move {
            let outcome = known.call(&session, Lane::Bulk, Commit).await;
            (running, Event::Committed(outcome))
        }));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Written { offset, outcome: Ok(written) } => self.written(offset, written),
            Event::Committed(Ok(verifier)) => self.committed(verifier),
            Event::Written { outcome: Err(error), .. } | Event::Committed(Err(error)) => {
                self.committing = false;
                self.failed.get_or_insert_with(|| Arc::new(error));
            }
        }
    }

    fn written(&mut self, offset: u64, written: Written) {
        let Some(kept) = self.kept.get_mut(&offset) else { return };
        let count = usize::try_from(written.count).unwrap_or(usize::MAX);
        let length = kept.bytes.len();
        if count > length || (count == 0 && length > 0) {
            let problem = "is written wrongly: the server counts other bytes than it was sent";
            self.failed.get_or_insert_with(|| {
                let subject = self.known.name().to_owned();
                Arc::new(NfsError::Content { subject, problem })
            });
            return;
        }
        if count < length {
            // The rest is a piece of its own; both keep the share until the longer one is durable.
            let rest = kept.bytes.slice(count..);
            kept.bytes.truncate(count);
            let kib = rest.len() / 1024;
            let share = kept.share.as_mut().and_then(|share| share.split(kib));
            self.settle(offset, written);
            let at = offset + count as u64;
            self.kept.insert(at, Kept { bytes: rest.clone(), state: State::Sent, share });
            self.send(at, rest);
            return;
        }
        self.settle(offset, written);
    }

    /// The piece at `offset` was taken as a whole.
    fn settle(&mut self, offset: u64, written: Written) {
        if written.stability >= Stability::Data {
            self.release(offset);
        } else if let Some(kept) = self.kept.get_mut(&offset) {
            kept.state = State::Taken(written.verifier);
        }
    }

    fn release(&mut self, offset: u64) {
        if let Some(kept) = self.kept.remove(&offset) {
            self.bytes = self.bytes.saturating_sub(kept.bytes.len());
        }
    }

    /// Everything of the COMMIT's life is durable; the rest of what it was sent for is sent again.
    fn committed(&mut self, verifier: Verifier) {
        self.committing = false;
        let mut durable = Vec::new();
        let mut lost = Vec::new();
        for (offset, kept) in &mut self.kept {
            match kept.state {
                State::Committing(life) if life == verifier => durable.push(*offset),
                State::Committing(_) => {
                    kept.state = State::Sent;
                    lost.push((*offset, kept.bytes.clone()));
                }
                State::Sent | State::Taken(_) => {}
            }
        }
        for offset in durable {
            self.release(offset);
        }
        if lost.is_empty() {
            self.losses = 0;
            return;
        }
        self.losses += 1;
        if self.losses > LOSSES {
            let error = self.content("is lost by the server again and again before it is durable");
            self.failed.get_or_insert_with(|| Arc::new(error));
            return;
        }
        tracing::info!(
            file = self.known.name(),
            pieces = lost.len(),
            "the NFS server restarted, writing again"
        );
        for (offset, bytes) in lost {
            self.send(offset, bytes);
        }
    }

    /// Makes everything durable.
    async fn sync(&mut self, finish: bool) -> Result<Option<Box<dyn Opened>>, EngineError> {
        if !self.gathered.is_empty() {
            let piece = self.gathered.split().freeze();
            self.take(piece, 0).await?;
        }
        loop {
            if let Some(error) = self.failure() {
                return Err(error);
            }
            if self.under_way.is_empty() {
                if self.kept.is_empty() {
                    break;
                }
                self.commit();
            }
            match self.under_way.next().await {
                Some((_running, event)) => self.handle(event),
                None => break,
            }
        }
        if !finish {
            return Ok(None);
        }
        let session = self.session.again();
        let client = Arc::clone(&self.session.client);
        let known = Arc::clone(&self.known);
        let attributes = known.call(&session, Lane::Quick, GetAttributes).await;
        let attributes = attributes.map_err(|error| error.of_engine(&client.place()))?;
        if attributes.size != self.end {
            let error = self.content("has another length than was written");
            return Err(error.of_engine(&client.place()));
        }
        let (client, known) = (Arc::clone(&client), known.again());
        let reader = Arc::new(Reader::new(client, &self.root, known, &attributes));
        Ok(Some(Box::new(StoreFile { reader, owner: self.owner.clone() })))
    }
}
