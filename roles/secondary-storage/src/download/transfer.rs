//! One pass over an image: from the server's bytes to a complete temporary file, continued over
//! broken connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::error::{self, DownloadError};
use super::fetch::{Body, Continued};
use super::job::Job;
use super::journal::Note;
use super::run::Workshop;
use super::writer::{self, Piece, WriterJob, WriterResult, Written};
use crate::store::{Lane, Store};

/// How long syncing the last bytes of a file may take.
const SYNC_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How a pass ended, if it did not fail for good.
pub(super) enum Attempt {
    Written(Written),
    /// Broken off where it cannot be continued.
    FromStart(DownloadError),
}

/// One pass over the image, continued over broken connections.
pub(super) async fn attempt(
    job: &Arc<Job>,
    shop: &Workshop,
    store: &Arc<Store>,
    note: &Note,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<Attempt, DownloadError> {
    job.received.store(0, Ordering::Relaxed);
    let body = job.request.fetch.start().await?;
    let (directory, temporary, modes) =
        (job.request.directory.clone(), note.temporary.clone(), store.modes());
    let file = store
        .run("create a file", Lane::Quick, move |root| {
            let create = || {
                let dir = root.create_all(&directory, modes)?;
                dir.remove_file(&temporary)?;
                dir.create_file(&temporary, modes)
            };
            // A job that ended in the same directory may remove it, empty, between two steps.
            create().or_else(|_gone| create())
        })
        .await
        .map_err(DownloadError::Store)?;
    let taken = Arc::new(AtomicU64::default());
    let (pieces, mut outcome) = writer::start(WriterJob {
        file,
        format: job.request.format,
        expectation: job.request.expectation.clone(),
        limit: job.request.decompressed_limit,
        taken: Arc::clone(&taken),
        permit: Arc::clone(permit),
        token: job.writing.token(),
    })
    .map_err(DownloadError::Write)?;
    let mut transfer = Transfer { job, shop, pieces, total: None, validator: None };
    match transfer.all(body).await {
        Ok(()) => {
            drop(transfer);
            let limit = job.request.fetch.limits.stall_timeout + SYNC_LIMIT;
            let result = tokio::time::timeout(limit, &mut outcome).await;
            result
                .map_err(|_elapsed| DownloadError::StoreStalled(limit))?
                .map_err(|_gone| DownloadError::Internal)?
                .map(Attempt::Written)
        }
        Err(Interruption::WriterEnded) => Err(writer_error(outcome).await),
        Err(Interruption::FromStart(reason)) => Ok(Attempt::FromStart(reason)),
        Err(Interruption::Failed(error)) => Err(error),
    }
}

async fn writer_error(outcome: oneshot::Receiver<WriterResult>) -> DownloadError {
    match outcome.await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => DownloadError::Internal,
    }
}

enum Interruption {
    /// The writer gave up: it has the reason.
    WriterEnded,
    FromStart(DownloadError),
    Failed(DownloadError),
}

struct Transfer<'a> {
    job: &'a Job,
    shop: &'a Workshop,
    pieces: mpsc::Sender<Piece>,
    total: Option<u64>,
    validator: Option<reqwest::header::HeaderValue>,
}

impl Transfer<'_> {
    /// Passes everything on, continuing after broken connections.
    async fn all(&mut self, first: Body) -> Result<(), Interruption> {
        self.validator.clone_from(&first.validator);
        self.expect(first.total, first.hint)?;
        let mut body = Ok(first);
        let mut failures = 0;
        loop {
            let before = self.job.received();
            let broken = match body {
                Ok(body) => match self.pass(body).await {
                    Ok(()) => return self.send(Piece::End).await,
                    Err(interruption) => interruption,
                },
                Err(error) => Interruption::Failed(error),
            };
            let error = match broken {
                Interruption::Failed(error) if error.is_transient() => error,
                other => return Err(other),
            };
            failures = if self.job.received() > before { 1 } else { failures + 1 };
            if failures > self.shop.retries {
                return Err(Interruption::Failed(error));
            }
            tracing::info!(job = self.job.id, attempt = failures, error = %error, "download interrupted");
            tokio::time::sleep(self.shop.delay(failures)).await;
            let Some(validator) = self.validator.clone() else {
                return Err(Interruption::FromStart(error));
            };
            body = match self.job.request.fetch.resume(self.job.received(), &validator).await {
                Ok(Continued::Here(body)) => Ok(*body),
                Ok(Continued::FromStart) => return Err(Interruption::FromStart(error)),
                // The server is away for a moment: that counts as one more broken connection.
                Err(DownloadError::Connect(reason)) => Err(self.cut(reason)),
                Err(error) => Err(error),
            };
        }
    }

    fn expect(&mut self, total: Option<u64>, hint: Option<u64>) -> Result<(), Interruption> {
        let limit = self.job.request.limit;
        if total.is_some_and(|total| total > limit) {
            return Err(Interruption::Failed(DownloadError::TooLarge { limit }));
        }
        self.total = total;
        self.job.expected.store(total.or(hint).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    fn cut(&self, reason: String) -> DownloadError {
        DownloadError::Cut { received: self.job.received(), expected: self.total, reason }
    }

    /// One response body to its end.
    async fn pass(&self, mut body: Body) -> Result<(), Interruption> {
        let stall = self.job.request.fetch.limits.stall_timeout;
        let limit = self.job.request.limit;
        loop {
            let chunk = match tokio::time::timeout(stall, body.response.chunk()).await {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => {
                    let reason = error::connect_text(&error);
                    return Err(Interruption::Failed(self.cut(reason)));
                }
                Err(_elapsed) => {
                    return Err(Interruption::Failed(DownloadError::Stalled {
                        waited: stall,
                        received: self.job.received(),
                        expected: self.total,
                    }));
                }
            };
            let Some(chunk) = chunk else { break };
            let received = self.job.received().saturating_add(chunk.len() as u64);
            if received > limit {
                return Err(Interruption::Failed(DownloadError::TooLarge { limit }));
            }
            let length = chunk.len() as u64;
            self.send(Piece::Data(chunk)).await?;
            self.job.received.store(received, Ordering::Relaxed);
            self.shop.metrics.received(length);
        }
        match self.total {
            Some(total) if self.job.received() < total => {
                Err(Interruption::Failed(self.cut("the server closed it".to_owned())))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Waits for the writer to take a piece; a store that takes none for a while has failed.
    async fn send(&self, piece: Piece) -> Result<(), Interruption> {
        let stall = self.job.request.fetch.limits.stall_timeout;
        match tokio::time::timeout(stall, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Interruption::WriterEnded),
            Err(_elapsed) => Err(Interruption::Failed(DownloadError::StoreStalled(stall))),
        }
    }
}
