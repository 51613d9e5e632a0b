//! `quickcloud dev`: everything in one process, with an embedded management server.

use crate::cli::DevOptions;
use crate::exit::Outcome;

/// Runs until interrupted, or with `--check` to the end of the check.
pub fn run(_options: DevOptions) -> Outcome {
    tracing::error!("this build has no embedded management server yet");
    Outcome::Failed
}
