//! Why a download failed. The text is the only thing the user sees, so it says what to do.

use std::time::Duration;

use disk_image::sniff::TORRENT;
use disk_image::{ImageError, Kind};

use crate::sources::SourceError;
use crate::stores::StoreError;

/// `Display` is the text for the user, causes included (it goes into one field of an answer).
/// Where the original's text is known it is kept, blanks and all: people search for it.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// One of several files.
    #[error("{name:?}: {}", error.to_string().trim())]
    SourceOf { name: String, error: SourceError },
    #[error("{0:?} cannot be the name of an image file: register it under another name")]
    Name(String),
    #[error("Download file size is too large: the limit is {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the decompressed image is too large: the limit is {limit} bytes")]
    Bomb { limit: u64 },
    #[error(
        "the image is more than {ratio} times as long as the {received} bytes that were received; if it is meant to be, set decompression_ratio higher"
    )]
    Ratio { ratio: u64, received: u64 },
    #[error("the download was not complete after {} seconds (download_timeout)", .0.as_secs())]
    TotalTimeout(Duration),
    #[error("Failed to install: Template content is unsupported, or mismatch between selected format and template content. Found  : {}{}", .0.name(), hint(*.0))]
    Content(Kind),
    #[error("Failed to install: the file is empty")]
    Empty,
    #[error("Failed to install: cannot decompress {what}: {reason}")]
    Decompress { what: &'static str, reason: String },
    #[error("Failed post download script: {0}")]
    Checksum(String),
    #[error("Failed post download script: The downloaded file {}", bedrock::chain(.0))]
    Image(ImageError),
    #[error("Failed post download script: {name:?} {}", bedrock::chain(error))]
    File { name: String, error: Box<ImageError> },
    #[error(
        "Failed post download script: {name:?} of the archive: {text}: its manifest is of another file, or it was damaged on the way"
    )]
    Manifest { name: String, text: String },
    #[error(
        "{directory} has {name:?} in it, which is not of this object: delete what is there, then try again"
    )]
    Occupied { directory: String, name: String },
    #[error("{0} takes objects of one file only")]
    OneFile(String),
    #[error("cannot start a thread for the download: {0}")]
    Thread(std::io::Error),
    #[error("{}", bedrock::chain(.0))]
    Store(Box<StoreError>),
    #[error("cannot agree with the other storage hosts on who does it: {}", bedrock::chain(.0))]
    Sharing(Box<crate::sharing::SharingError>),
    #[error(
        "another storage host took the download over and did not finish it: it failed there, or its object was deleted"
    )]
    Elsewhere,
    #[error("cannot record the download: {}", bedrock::chain(.0))]
    Journal(crate::state_file::StateError),
    #[error("{0} downloads are waiting already")]
    Busy(usize),
    #[error(
        "a former download to this place is still being stopped, because its store does not answer; try again later"
    )]
    StillEnding,
    #[error(transparent)]
    Task(#[from] role::tasks::BlockingError),
    #[error("the download was aborted")]
    Aborted,
    #[error("the download ended unexpectedly, see the log of the storage host")]
    Internal,
}

/// What to do about content of another kind.
fn hint(kind: Kind) -> &'static str {
    match kind {
        // What was around the image was taken off already.
        kind if kind.is_wrapper() => " inside another one: compress the image once",
        Kind::Tar => " (an OVA is one)",
        Kind::Foreign(TORRENT) => ", which names an image: give the URL of the image itself",
        _ => "",
    }
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}
