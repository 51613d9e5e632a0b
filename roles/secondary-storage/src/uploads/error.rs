//! Why an upload is refused or fails: one text for the browser and for the management server.

use std::time::Duration;

use axum::http::StatusCode;

use super::multipart::FormError;
use super::order::OrderError;
use crate::ingest::IngestError;

/// `Display` is the text for the user. Where the original's text is known ours begins with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    #[error("only post requests are allowed here")]
    Method,
    #[error("{0:?} is not the id of an upload")]
    Id(String),
    #[error("{0:?} is no path of an upload: post to /upload/ and the id, as postURL has it")]
    Path(String),
    #[error(
        "content length is not set in the request or has invalid value. Send the whole length: chunked uploads are not taken"
    )]
    Length,
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("the upload cannot be carried out: {0}")]
    Plan(String),
    #[error("The one time post url is already used: {0}")]
    Used(String),
    #[error("{0} uploads are under way, and this host takes no more at once; try again later")]
    Busy(usize),
    #[error(
        "Maximum file upload size exceeded. Content Length received: {announced} bytes. Maximum allowed size: {limit} bytes."
    )]
    TooLarge { announced: u64, limit: u64 },
    #[error(
        "the secondary storage limit of the account would be exceeded: {limit} bytes are allowed, {used} are in use, the file has {announced}"
    )]
    Quota { announced: u64, limit: u64, used: u64 },
    #[error("received entity is not a file: {0}")]
    NotAFile(String),
    #[error("file receive failed or connection closed prematurely.")]
    Lost,
    #[error("file receive failed: the client sent nothing for {} seconds", .0.as_secs())]
    Stalled(Duration),
    #[error("file receive failed: the client sent less than {0} bytes per second (min_rate)")]
    Slow(u64),
    #[error("the upload paused for more than {} seconds (upload_pause)", .0.as_secs())]
    Paused(Duration),
    #[error("the upload was cancelled")]
    Cancelled,
    /// By the server or an operator.
    #[error("Upload Entity aborted")]
    Aborted,
    #[error("the storage host stopped in the middle of the upload; upload it again")]
    Stopped,
    #[error("the storage host stops; the upload goes on when it is back")]
    Suspended,
    #[error("the storage host started a moment ago and reads what it has of the upload; ask again")]
    NotReady,
    #[error("it is too late to give the upload up: it is complete")]
    Late,
    /// What the way into the store ended with.
    #[error("{text}")]
    Ingest { status: StatusCode, code: &'static str, text: String },
    #[error(
        "there is no such upload here; it may have ended, this host may have restarted, or it began at another storage host and goes on only there"
    )]
    Unknown,
    #[error("the upload has {actual} bytes here, not {given}: ask for the offset and go on there")]
    Offset { actual: u64, given: u64 },
    #[error("{0}")]
    Protocol(&'static str),
    #[error("the upload cannot be recorded: {0}")]
    Record(String),
}

impl UploadError {
    /// Of the answer. The original's refusals are 400 and 500 without a rule; the classes are kept.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Id(_)
            | Self::Length
            | Self::Plan(_)
            | Self::Used(_)
            | Self::TooLarge { .. }
            | Self::Quota { .. }
            | Self::Lost
            | Self::Slow(_)
            | Self::Paused(_)
            | Self::Protocol(_) => StatusCode::BAD_REQUEST,
            Self::Order(OrderError::NoKey)
            | Self::Busy(_)
            | Self::Stopped
            | Self::Suspended
            | Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::Order(_) => StatusCode::BAD_REQUEST,
            Self::NotAFile(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Cancelled | Self::Aborted => StatusCode::GONE,
            Self::Ingest { status, .. } => *status,
            Self::Unknown | Self::Path(_) => StatusCode::NOT_FOUND,
            Self::Offset { .. } | Self::Late => StatusCode::CONFLICT,
            Self::Record(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A stable word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Id(_) => "id",
            Self::Path(_) => "path",
            Self::Length => "length",
            Self::Order(error) => match error {
                OrderError::Missing => "missing_headers",
                OrderError::TooLong => "header_too_long",
                OrderError::NoKey => "no_key",
                OrderError::Signature => "signature",
                OrderError::Expiry(_) => "expiry",
                OrderError::Expired(_) => "expired",
                OrderError::Metadata => "metadata",
                OrderError::OtherUpload(_) => "other_upload",
            },
            Self::Plan(_) => "order",
            Self::Used(_) => "used",
            Self::Busy(_) => "busy",
            Self::TooLarge { .. } => "too_large",
            Self::Quota { .. } => "quota",
            Self::NotAFile(_) => "not_a_file",
            Self::Lost => "lost",
            Self::Stalled(_) => "stalled",
            Self::Slow(_) => "slow",
            Self::Paused(_) => "paused",
            Self::Cancelled | Self::Aborted => "aborted",
            Self::Stopped => "stopped",
            Self::Suspended => "suspended",
            Self::NotReady => "not_ready",
            Self::Late => "complete",
            Self::Ingest { code, .. } => code,
            Self::Unknown => "unknown",
            Self::Offset { .. } => "offset",
            Self::Protocol(_) => "protocol",
            Self::Record(_) => "record",
        }
    }

    /// In the words of an upload: the ingest's own texts are those of a download.
    pub(super) fn of_ingest(error: &IngestError, format: &str) -> Self {
        let bad = |code, text| Self::Ingest { status: StatusCode::BAD_REQUEST, code, text };
        match error {
            IngestError::Aborted => Self::Lost,
            IngestError::Content(kind) => bad(
                "content",
                format!(
                    "File type mismatch between uploaded file and selected format. Selected file format: {format}. Received: {}",
                    kind.name()
                ),
            ),
            IngestError::Image(error) => {
                bad("image", format!("The uploaded file {}", bedrock::chain(error)))
            }
            IngestError::Checksum(text) => {
                bad("checksum", format!("Checksum failed, not proceeding with install: {text}"))
            }
            IngestError::Decompress { what, reason } => {
                bad("compressed", format!("cannot decompress {what}: {reason}"))
            }
            IngestError::Bomb { .. } | IngestError::Ratio { .. } => {
                bad("too_large_inside", error.to_string())
            }
            IngestError::Manifest { name, text } => bad(
                "manifest",
                format!(
                    "{name:?} of the archive: {text}: its manifest is of another file, or it was damaged on the way"
                ),
            ),
            IngestError::Name(_) => bad("name", error.to_string()),
            IngestError::Store(_) => Self::Ingest {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "store",
                text: error.to_string(),
            },
            _ => Self::Ingest {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                code: "internal",
                text: error.to_string(),
            },
        }
    }
}

impl From<FormError> for UploadError {
    fn from(error: FormError) -> Self {
        Self::NotAFile(error.to_string())
    }
}
