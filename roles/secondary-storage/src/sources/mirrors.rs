//! One content on several web servers: the next one is asked when one fails.
//!
//! Servers name versions each in its own way, so a content that was begun at one mirror is continued
//! at another only when a digest of the whole will be compared; else it begins again there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use role::BoxFuture;

use super::error::SourceError;
use super::{Chunks, Continuation, Hash, HttpSource, Opening, Version};

/// The mirrors of one content, the best first.
#[derive(Debug, Clone)]
pub struct MirrorSource {
    mirrors: Arc<[HttpSource]>,
    /// Length of the content, when that is known beforehand.
    length: Option<u64>,
    hashes: Vec<Hash>,
    /// How many of the first mirrors have failed. Kept when the content has to begin again.
    failed: Arc<AtomicUsize>,
}

impl MirrorSource {
    /// `length` and `hashes` are what is known of the content beforehand; `failed` counts the mirrors
    /// that have failed, from the first on.
    pub fn new(
        mirrors: Vec<HttpSource>,
        length: Option<u64>,
        hashes: Vec<Hash>,
        failed: Arc<AtomicUsize>,
    ) -> Self {
        let is_judged = |mirror: &HttpSource| mirror.is_judged || !hashes.is_empty();
        let mirrors = mirrors.into_iter();
        let mirrors =
            mirrors.map(|mirror| HttpSource { is_judged: is_judged(&mirror), ..mirror }).collect();
        Self { mirrors, length, hashes, failed }
    }

    pub(super) fn mirrors(&self) -> &[HttpSource] {
        &self.mirrors
    }

    fn is_judged(&self) -> bool {
        self.mirrors.first().is_some_and(|mirror| mirror.is_judged)
    }

    /// The first mirror that gives the content, from where it was left off if that is possible.
    pub(super) async fn open(&self, from: Option<&Continuation>) -> Result<Opening, SourceError> {
        // Whatever the other mirror called its version: the digest judges.
        let unnamed = from.filter(|_from| self.is_judged()).map(|from| Continuation {
            version: Version { coding: from.version.coding.clone(), ..Version::default() },
            ..from.clone()
        });
        let from = unnamed.as_ref().or(from);
        let mut opening = self.any(from, None).await?;
        opening.announced.hashes.clone_from(&self.hashes);
        let received = opening.from;
        let length = self.length.or(opening.announced.length);
        opening.announced.length = length;
        let coding = opening.announced.version.coding.clone();
        let chunks = MirrorChunks {
            source: self.clone(),
            inner: opening.chunks,
            coding,
            received,
            length,
            is_patched: false,
        };
        Ok(Opening { chunks: Box::new(chunks), ..opening })
    }

    /// `last` is why the mirror before failed.
    async fn any(
        &self,
        from: Option<&Continuation>,
        last: Option<SourceError>,
    ) -> Result<Opening, SourceError> {
        let mut reasons: Vec<SourceError> = last.into_iter().collect();
        loop {
            let Some(mirror) = self.mirrors.get(self.failed.load(Ordering::Relaxed)) else {
                // Whoever asks anew finds all of them.
                self.failed.store(0, Ordering::Relaxed);
                return Err(Self::none(reasons));
            };
            let reason = match mirror.open(from).await {
                Ok(opening) => match (self.length, opening.announced.length) {
                    (Some(length), Some(announced)) if length != announced => {
                        SourceError::OtherLength { length, announced }
                    }
                    _ => return Ok(opening),
                },
                Err(error) => error,
            };
            tracing::info!(mirror = %mirror.url, error = %reason, "a mirror does not give the image");
            reasons.push(reason);
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One reason stands for itself.
    fn none(mut reasons: Vec<SourceError>) -> SourceError {
        match (reasons.pop(), reasons.is_empty()) {
            (Some(only), true) => only,
            (last, _) => {
                let all = reasons.iter().chain(&last).map(|reason| reason.to_string());
                let all: Vec<String> = all.map(|text| text.trim().to_owned()).collect();
                SourceError::NoMirror(all.join("; "))
            }
        }
    }
}

#[derive(Debug)]
struct MirrorChunks {
    source: MirrorSource,
    inner: Box<dyn Chunks>,
    coding: Vec<String>,
    received: u64,
    length: Option<u64>,
    is_patched: bool,
}

impl Chunks for MirrorChunks {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(self.advance())
    }

    fn is_patched(&self) -> bool {
        self.is_patched || self.inner.is_patched()
    }
}

impl MirrorChunks {
    async fn advance(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            let error = match self.inner.next().await {
                Ok(Some(bytes)) => {
                    self.received = self.received.saturating_add(bytes.len() as u64);
                    return match self.length {
                        Some(announced) if self.received > announced => {
                            Err(SourceError::Surplus { announced })
                        }
                        Some(_) | None => Ok(Some(bytes)),
                    };
                }
                Ok(None) => match self.length {
                    Some(length) if self.received < length => {
                        SourceError::OtherLength { length, announced: self.received }
                    }
                    Some(_) | None => return Ok(None),
                },
                Err(error) => error,
            };
            self.go_on(error).await?;
        }
    }

    /// At the next mirror.
    async fn go_on(&mut self, error: SourceError) -> Result<(), SourceError> {
        // The image changed at this mirror: it has the new one whole.
        let is_gone = !matches!(error, SourceError::Restart(_));
        let failed = &self.source.failed;
        if is_gone {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        if failed.load(Ordering::Relaxed) >= self.source.mirrors.len() {
            failed.store(0, Ordering::Relaxed);
            return Err(error);
        }
        if !is_gone || !self.source.is_judged() || self.length.is_none() {
            return Err(match error {
                restart @ SourceError::Restart(_) => restart,
                other => SourceError::Restart(Box::new(other)),
            });
        }
        let from = Continuation {
            received: self.received,
            length: self.length,
            version: Version { coding: self.coding.clone(), ..Version::default() },
        };
        let text = error.to_string();
        let opening = self.source.any(Some(&from), Some(error)).await?;
        if opening.from != self.received {
            return Err(SourceError::Restart(Box::new(SourceError::Lost(text))));
        }
        self.inner = opening.chunks;
        self.is_patched = true;
        Ok(())
    }
}
