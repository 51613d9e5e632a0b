//! Why nothing was moved.

use std::time::Duration;

use disk_image::ImageError;

use crate::state_file::StateError;
use crate::stores::path::PathError;
use crate::stores::{InstallPath, StoreError};

/// The text goes into the answer.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error(transparent)]
    Store(Box<StoreError>),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("cannot note what is about to be written")]
    Journal(#[from] StateError),
    /// The role stops, or work of it panicked.
    #[error(transparent)]
    Task(#[from] role::tasks::BlockingError),
    #[error("the store is still busy with another copy to {0}: try again")]
    Busy(InstallPath),
    #[error("a later command for {0} ended this one")]
    Overtaken(InstallPath),
    #[error("an operator of the storage host cancelled the copy to {0}")]
    Cancelled(InstallPath),
    #[error("timeout: it was not finished within {0:?}, as long as the server waits for it")]
    TimeOut(Duration),
    #[error("there is no file {path} in store {store}")]
    NotThere { path: InstallPath, store: String },
    #[error(
        "{0} changed while it was copied: nothing was kept of it, try again when it is at rest"
    )]
    Moving(InstallPath),
    #[error("{path} has {found} bytes after it was copied, its source has {expected}")]
    Length { path: InstallPath, found: u64, expected: u64 },
    #[error("the file {}", bedrock::chain(.0))]
    Image(ImageError),
    #[error("its parent {path} {}", bedrock::chain(.fault))]
    Parent { path: InstallPath, fault: ImageError },
    #[error("{0}")]
    Refused(String),
}

impl From<StoreError> for MoveError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}
