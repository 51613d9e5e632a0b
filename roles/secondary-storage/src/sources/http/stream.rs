//! The bytes of an image as they come from its server, continued over broken connections.

use bytes::Bytes;
use role::BoxFuture;
use tokio::time::Instant;

use super::failure::connect_text;
use super::pace::Pace;
use super::{Body, Continued, HttpSource};
use crate::sources::error::SourceError;
use crate::sources::{Chunks, Coding, Continuation, Version};

/// One pass over an image.
#[derive(Debug)]
pub(super) struct HttpChunks {
    source: HttpSource,
    body: Body,
    version: Version,
    total: Option<u64>,
    received: u64,
    /// In a row, without a byte between them.
    failures: u32,
    /// What was received when the last connection began.
    before: u64,
    pace: Pace,
    /// Nothing named the version when it was continued.
    is_patched: bool,
    /// The connection broke after the last byte.
    is_complete: bool,
}

impl Chunks for HttpChunks {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(self.advance())
    }

    fn is_patched(&self) -> bool {
        self.is_patched
    }
}

impl HttpChunks {
    /// `received` bytes are there already; `body` is the rest.
    pub(super) fn new(source: HttpSource, body: Body, received: u64) -> Self {
        let (total, version) = (body.length.exact, body.version.clone());
        let pace = Pace::new(source.limits.min_rate);
        let is_patched = received > 0 && !version.is_named();
        Self {
            source,
            body,
            version,
            total,
            received,
            failures: 0,
            before: received,
            pace,
            is_patched,
            is_complete: false,
        }
    }

    pub(super) const fn source(&self) -> &HttpSource {
        &self.source
    }

    pub(super) const fn version(&self) -> &Version {
        &self.version
    }

    pub(super) const fn total(&self) -> Option<u64> {
        self.total
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    pub(super) const fn coding(&self) -> Coding {
        self.body.coding
    }

    pub(super) const fn has_ranges(&self) -> bool {
        self.body.ranges
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            let asked = Instant::now();
            let broken = match self.chunk().await {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => {
                    self.received = self.received.saturating_add(bytes.len() as u64);
                    self.pace.add(bytes.len() as u64, asked.elapsed())?;
                    return match self.total {
                        Some(announced) if self.received > announced => {
                            Err(SourceError::Surplus { announced })
                        }
                        Some(_) | None => Ok(Some(bytes)),
                    };
                }
                Err(error) => error,
            };
            self.go_on(broken).await?;
            // Breaking off and coming back takes time as well.
            self.pace.add(0, asked.elapsed())?;
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.is_complete {
            return Ok(None);
        }
        let stall = self.source.limits.stall_timeout;
        match tokio::time::timeout(stall, self.body.response.chunk()).await {
            Ok(Ok(Some(chunk))) => Ok(Some(chunk)),
            Ok(Ok(None)) => match self.total {
                Some(total) if self.received < total => {
                    Err(self.cut("the server closed it".to_owned()))
                }
                Some(_) | None => Ok(None),
            },
            Ok(Err(error)) => Err(self.cut(connect_text(&error))),
            Err(_elapsed) => Err(SourceError::Stalled {
                waited: stall,
                received: self.received,
                expected: self.total,
            }),
        }
    }

    /// Asks for the rest, again and again while that may help.
    async fn go_on(&mut self, mut error: SourceError) -> Result<(), SourceError> {
        loop {
            if !error.is_transient() {
                return Err(error);
            }
            self.failures = if self.received > self.before { 1 } else { self.failures + 1 };
            self.before = self.received;
            if self.failures > self.source.limits.retries.count {
                return Err(error);
            }
            tracing::info!(attempt = self.failures, %error, "download interrupted");
            tokio::time::sleep(self.source.limits.pause(self.failures, &error)).await;
            if !self.source.may_continue(&self.version) {
                return Err(SourceError::Restart(Box::new(error)));
            }
            error = match self.source.resume(self.received, None, &self.version).await {
                Ok(Continued::Here(body, part)) => {
                    let from = Continuation {
                        received: self.received,
                        length: self.total,
                        version: self.version.clone(),
                    };
                    if !self.source.fits(&from, &body, &part) {
                        tracing::info!("the image changed on its server, it begins again");
                        return Err(SourceError::Restart(Box::new(error)));
                    }
                    self.total = self.total.or(part.total);
                    self.is_patched |= !self.version.is_named();
                    self.body = *body;
                    return Ok(());
                }
                Ok(Continued::Complete) if self.total.is_none_or(|all| all == self.received) => {
                    self.is_complete = true;
                    return Ok(());
                }
                Ok(Continued::Complete | Continued::FromStart) => {
                    return Err(SourceError::Restart(Box::new(error)));
                }
                // The server is away for a moment: that counts as one more broken connection.
                Err(away @ (SourceError::Connect(_) | SourceError::Resolve { .. })) => {
                    self.cut(away.to_string())
                }
                Err(error) => error,
            };
        }
    }

    fn cut(&self, reason: String) -> SourceError {
        SourceError::Cut { received: self.received, expected: self.total, reason }
    }
}
