//! The body of a request, on its way into an upload.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use super::error::UploadError;
use super::multipart::{Event, Form};
use super::table::{Feed, Uploads};
use super::upload::Upload;
use crate::sources::http::HttpLimits;
use crate::sources::http::pace::Pace;

/// How much of a refused request is read, and for how long.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(15);
/// A client that sends nothing for so long has stopped sending.
const DRAIN_PAUSE: Duration = Duration::from_secs(5);

/// How a request carries its file.
#[derive(Debug)]
pub(super) enum Reader {
    Form(Box<Form>),
    /// The body is the file.
    Raw,
}

impl Reader {
    /// By the content type.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, UploadError> {
        let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let value = value.unwrap_or_default();
        if let Some(form) = Form::of_content_type(value) {
            return Ok(Self::Form(Box::new(form?)));
        }
        let kind = value.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/octet-stream") {
            return Ok(Self::Raw);
        }
        let text = format!(
            "its content type is {kind:?}: send multipart/form-data with one file, or the file itself as application/octet-stream"
        );
        Err(UploadError::NotAFile(text))
    }
}

/// Bytes of a client, with its time limits.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    body: &'a mut BodyDataStream,
    pace: Pace,
    limits: &'a HttpLimits,
    upload: &'a Upload,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(
        body: &'a mut BodyDataStream,
        limits: &'a HttpLimits,
        upload: &'a Upload,
    ) -> Self {
        Self { body, pace: Pace::new(limits.min_rate), limits, upload }
    }

    /// The next piece; `None` at the end of what was announced. An upload that ends meanwhile needs no
    /// more: [`UploadError::Lost`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, UploadError> {
        let stall = self.limits.stall_timeout;
        let asked = Instant::now();
        let next = tokio::select! {
            next = timeout(stall, self.body.next()) => next,
            _over = self.upload.ended() => return Err(UploadError::Lost),
        };
        let piece = match next.map_err(|_elapsed| UploadError::Stalled(stall))? {
            None => return Ok(None),
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                tracing::debug!(error = bedrock::chain(&error), "a request's body broke off");
                return Err(UploadError::Lost);
            }
        };
        let least = self.limits.min_rate.bytes_per_second;
        let kept = self.pace.add(piece.len() as u64, asked.elapsed());
        kept.map_err(|_slow| UploadError::Slow(least)).map(|()| Some(piece))
    }
}

/// Passes the first file of a request on, and reads the rest. Every `Err` but [`UploadError::Lost`]
/// is the reason why the upload ends; after that one the upload itself knows better, if it ended.
pub(super) async fn form(
    feed: &Feed,
    reader: Reader,
    body: &mut BodyDataStream,
    limits: &HttpLimits,
    uploads: &Uploads,
) -> Result<(), UploadError> {
    let mut incoming = Incoming::new(body, limits, &feed.upload);
    match reader {
        Reader::Raw => {
            while let Some(piece) = incoming.next().await? {
                pass(feed, piece, uploads).await?;
            }
            feed.end().await.map_err(|_ended| UploadError::Lost)
        }
        Reader::Form(form) => first_file(feed, *form, &mut incoming, uploads).await,
    }
}

async fn first_file(
    feed: &Feed,
    mut form: Form,
    incoming: &mut Incoming<'_>,
    uploads: &Uploads,
) -> Result<(), UploadError> {
    let (mut files, mut done) = (0, false);
    while let Some(piece) = incoming.next().await? {
        form.push(piece);
        while let Some(event) = form.next_event()? {
            match event {
                Event::File { name } => {
                    files += 1;
                    if files == 1 {
                        feed.upload.set_file(name);
                    }
                }
                Event::Data(bytes) if !done => pass(feed, bytes, uploads).await?,
                Event::FileEnd if !done => {
                    done = true;
                    // The end is said when the whole form is here: one that is cut is no upload.
                }
                // The rest is dropped, as the original does.
                Event::Data(_) | Event::FileEnd | Event::End => {}
            }
        }
    }
    form.finish()?;
    if !done {
        return Err(UploadError::NotAFile("the form has no file".to_owned()));
    }
    feed.end().await.map_err(|_ended| UploadError::Lost)
}

/// Counts and passes on; one byte beyond the limit ends the upload.
pub(super) async fn pass(feed: &Feed, bytes: Bytes, uploads: &Uploads) -> Result<(), UploadError> {
    let (limit, length) = (feed.upload.plan.limit, bytes.len() as u64);
    let received = feed.upload.received().saturating_add(length);
    if received > limit {
        return Err(UploadError::TooLarge { announced: feed.upload.total, limit });
    }
    feed.data(bytes, uploads).await.map_err(|_ended| UploadError::Lost)
}

/// Reads on for a while after a refusal: a client that is cut off while it sends does not see the
/// answer, and one that has sent all can use its connection again.
pub(super) async fn drain(rest: Body) {
    let mut rest = rest.into_data_stream();
    let reading = async {
        let mut left = DRAIN_BYTES;
        while let Ok(Some(Ok(piece))) = timeout(DRAIN_PAUSE, rest.next()).await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    if timeout(DRAIN_TIME, reading).await.is_err() {
        tracing::debug!("a client went on sending after a refusal");
    }
}
