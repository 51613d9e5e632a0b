//! An image over several connections at once, for servers that give each of them little.
//!
//! The answer to the first request gives the beginning; from there on parts are asked for, several at
//! a time, and put together in their order. Only a server that announces ranges is asked so, and only
//! with something that names the version. What waits for its turn is in memory, so the host has a
//! bound on all parts under way. A server that refuses so many connections gives the rest over one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use role::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::failure::connect_text;
use super::pace::Pace;
use super::stream::HttpChunks;
use super::{Continued, HttpSource};
use crate::sources::error::SourceError;
use crate::sources::{Chunks, Continuation, Version};

/// Bytes of one part.
const PART: u64 = 2 << 20;
/// A shorter image comes over one connection.
const WORTH: u64 = 32 << 20;
/// Parts that all downloads of this host may have in memory.
const PARTS: usize = 8;
/// Between two looks at how fast parts come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many connections a download may have. Clones share the bound of the host.
#[derive(Debug, Clone)]
pub struct Parallel {
    count: usize,
    parts: Arc<Semaphore>,
}

impl Parallel {
    /// The most connections of one download.
    pub const MOST: usize = PARTS;

    pub fn new(count: usize) -> Self {
        Self { count: count.clamp(1, Self::MOST), parts: Arc::new(Semaphore::new(PARTS)) }
    }

    /// The right to have so many parts in memory; `None` when it is not worth it, or others have it.
    fn take(&self, left: u64) -> Option<OwnedSemaphorePermit> {
        if self.count < 2 || left < WORTH {
            return None;
        }
        let count = u32::try_from(self.count).unwrap_or(1);
        Arc::clone(&self.parts).try_acquire_many_owned(count).ok()
    }
}

/// The bytes of a part, as they came.
type Part = VecDeque<Bytes>;

/// One pass over an image.
#[derive(Debug)]
pub(super) struct RangedChunks {
    source: HttpSource,
    /// One connection that gives everything up to where the parts begin; the beginning, or the rest.
    plain: Option<HttpChunks>,
    parts_begin: u64,
    version: Version,
    total: u64,
    received: u64,
    /// The first byte that no part was asked for.
    next: u64,
    underway: FuturesOrdered<BoxFuture<'static, Result<Part, SourceError>>>,
    /// Parts that are there, the first one being given.
    ready: VecDeque<Part>,
    connections: usize,
    /// Bytes that came for parts since the last look.
    came: Arc<AtomicU64>,
    pace: Pace,
    /// Why no parts are asked for any more.
    refused: Option<SourceError>,
    _right: OwnedSemaphorePermit,
}

impl RangedChunks {
    /// Gives the connection back when one is enough.
    pub(super) fn new(first: HttpChunks) -> Result<Self, Box<HttpChunks>> {
        let parallel = first.source().limits.parallel.clone();
        let received = first.received();
        let can = first.has_ranges() && first.version().is_named();
        let Some(total) = first.total().filter(|_total| can) else { return Err(Box::new(first)) };
        let Some(right) = parallel.take(total.saturating_sub(received)) else {
            return Err(Box::new(first));
        };
        tracing::debug!(connections = parallel.count, "the image comes over several connections");
        Ok(Self {
            source: first.source().clone(),
            version: first.version().clone(),
            total,
            received,
            parts_begin: received.saturating_add(PART),
            next: received.saturating_add(PART),
            underway: FuturesOrdered::new(),
            ready: VecDeque::new(),
            connections: parallel.count,
            came: Arc::default(),
            pace: Pace::new(first.source().limits.min_rate),
            refused: None,
            plain: Some(first),
            _right: right,
        })
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            self.ask();
            let left = self.parts_begin.saturating_sub(self.received);
            if left > 0 && self.plain.is_some() {
                let mut chunk = self.next_of_plain().await?.ok_or(SourceError::Internal)?;
                chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                return Ok(Some(self.count(chunk)));
            }
            self.plain = None;
            match self.ready.front_mut().map(VecDeque::pop_front) {
                Some(Some(chunk)) => return Ok(Some(self.count(chunk))),
                Some(None) => drop(self.ready.pop_front()),
                None => {
                    if let Some(error) = self.refused.take() {
                        self.alone(&error).await?;
                    } else if let Some(part) = self.wait().await? {
                        self.came(part)?;
                    } else {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The next bytes of the one connection; parts come meanwhile.
    async fn next_of_plain(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Self { plain: Some(plain), underway, .. } = self else { return Ok(None) };
        let mut parts = Vec::new();
        let mut next = plain.next();
        let chunk = loop {
            tokio::select! {
                biased;
                chunk = &mut next => break chunk,
                Some(part) = underway.next() => parts.push(part),
            }
        };
        drop(next);
        for part in parts {
            self.came(part)?;
        }
        chunk
    }

    /// The next part. A server that gives each connection next to nothing is too slow.
    async fn wait(&mut self) -> Result<Option<Result<Part, SourceError>>, SourceError> {
        loop {
            let asked = Instant::now();
            let next = tokio::time::timeout(LOOK_EVERY, self.underway.next()).await;
            self.pace.add(self.came.swap(0, Ordering::Relaxed), asked.elapsed())?;
            if let Ok(part) = next {
                return Ok(part);
            }
        }
    }

    /// Takes a part over. After one that failed no other is asked for: servers have limits on the
    /// connections of one client.
    fn came(&mut self, part: Result<Part, SourceError>) -> Result<(), SourceError> {
        match part {
            Ok(part) => self.ready.push_back(part),
            Err(error @ SourceError::Restart(_)) => return Err(error),
            Err(error) => {
                self.underway = FuturesOrdered::new();
                self.next = self.total;
                self.refused = Some(error);
            }
        }
        Ok(())
    }

    /// Goes on over one connection.
    async fn alone(&mut self, error: &SourceError) -> Result<(), SourceError> {
        tracing::info!(%error, "parts are not given any more, the rest comes over one connection");
        let from = self.continuation(self.received);
        let mut failures = 0;
        let rest = loop {
            let away = match self.source.ask_for_rest(&from).await {
                Ok(rest) => break rest,
                // It was there: it is away for a moment.
                Err(away @ (SourceError::Connect(_) | SourceError::Resolve { .. })) => {
                    SourceError::Lost(away.to_string())
                }
                Err(error) => error,
            };
            self.source.again(&mut failures, away).await?;
        };
        let changed = || SourceError::Restart(Box::new(SourceError::Patched));
        self.plain = Some(rest.ok_or_else(changed)?);
        self.parts_begin = self.total;
        Ok(())
    }

    fn continuation(&self, received: u64) -> Continuation {
        Continuation { received, length: Some(self.total), version: self.version.clone() }
    }

    fn count(&mut self, chunk: Bytes) -> Bytes {
        self.received = self.received.saturating_add(chunk.len() as u64);
        chunk
    }

    /// Asks for parts while there is room for them.
    fn ask(&mut self) {
        while self.next < self.total && self.underway.len() + self.ready.len() < self.connections {
            let end = self.next.saturating_add(PART).min(self.total);
            let from = self.continuation(self.next);
            let (source, came) = (self.source.clone(), Arc::clone(&self.came));
            self.underway.push_back(Box::pin(async move { source.part(from, end, &came).await }));
            self.next = end;
        }
    }
}

impl Chunks for RangedChunks {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(self.advance())
    }
}

impl HttpSource {
    /// The bytes from where `from` says up to `end`; continues over broken connections.
    async fn part(
        &self,
        mut from: Continuation,
        end: u64,
        came: &AtomicU64,
    ) -> Result<Part, SourceError> {
        let (mut failures, mut chunks) = (0, Part::new());
        loop {
            let before = from.received;
            match self.fill(&mut from, end, &mut chunks, came).await {
                Ok(()) => return Ok(chunks),
                Err(error) => {
                    if from.received > before {
                        failures = 0;
                    }
                    self.again(&mut failures, error).await?;
                }
            }
        }
    }

    async fn fill(
        &self,
        from: &mut Continuation,
        end: u64,
        chunks: &mut Part,
        came: &AtomicU64,
    ) -> Result<(), SourceError> {
        let changed = || SourceError::Restart(Box::new(SourceError::Patched));
        let mut body = match self.resume(from.received, Some(end), &from.version).await? {
            Continued::Here(body, part) if self.fits(from, &body, &part) => body,
            Continued::Here(..) | Continued::Complete | Continued::FromStart => {
                return Err(changed());
            }
        };
        let stall = self.limits.stall_timeout;
        while from.received < end {
            let (received, expected) = (from.received, from.length);
            let cut = |reason| SourceError::Cut { received, expected, reason };
            let chunk = tokio::time::timeout(stall, body.response.chunk()).await;
            let chunk = chunk
                .map_err(|_elapsed| SourceError::Stalled { waited: stall, received, expected })?
                .map_err(|error| cut(connect_text(&error)))?
                .ok_or_else(|| cut("the server closed it".to_owned()))?;
            // A server may send more than was asked for.
            let left = usize::try_from(end - received).unwrap_or(usize::MAX);
            let chunk = chunk.slice(..left.min(chunk.len()));
            from.received = received.saturating_add(chunk.len() as u64);
            came.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            chunks.push_back(chunk);
        }
        Ok(())
    }
}
