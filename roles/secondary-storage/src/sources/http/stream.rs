//! The bytes of an image as they come from its server, continued over broken connections.

use bytes::Bytes;
use reqwest::header::HeaderValue;
use role::BoxFuture;

use super::{Body, Continued, HttpSource};
use crate::sources::Chunks;
use crate::sources::error::{SourceError, connect_text};

/// One pass over an image.
#[derive(Debug)]
pub(super) struct HttpChunks {
    source: HttpSource,
    body: Body,
    total: Option<u64>,
    validator: Option<HeaderValue>,
    received: u64,
    /// In a row, without a byte between them.
    failures: u32,
    /// What was received when the last connection began.
    before: u64,
}

impl Chunks for HttpChunks {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(self.advance())
    }
}

impl HttpChunks {
    pub(super) fn new(source: HttpSource, body: Body) -> Self {
        let (total, validator) = (body.total, body.validator.clone());
        Self { source, body, total, validator, received: 0, failures: 0, before: 0 }
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            let broken = match self.chunk().await {
                Ok(Some(bytes)) => {
                    self.received = self.received.saturating_add(bytes.len() as u64);
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(error) => error,
            };
            self.go_on(broken).await?;
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
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
            tokio::time::sleep(self.source.limits.retries.delay(self.failures)).await;
            let Some(validator) = self.validator.clone() else {
                return Err(SourceError::Restart(Box::new(error)));
            };
            error = match self.source.resume(self.received, &validator).await {
                Ok(Continued::Here(body)) => {
                    self.body = *body;
                    return Ok(());
                }
                Ok(Continued::FromStart) => return Err(SourceError::Restart(Box::new(error))),
                // The server is away for a moment: that counts as one more broken connection.
                Err(SourceError::Connect(reason)) => self.cut(reason),
                Err(error) => error,
            };
        }
    }

    fn cut(&self, reason: String) -> SourceError {
        SourceError::Cut { received: self.received, expected: self.total, reason }
    }
}
