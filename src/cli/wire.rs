//! `quickcloud wire decode`.

use std::path::Path;

use super::output::complain;
use crate::exit::Outcome;

pub(super) fn decode(_file: Option<&Path>, _json: bool) -> Outcome {
    complain("error: not wired up yet\n");
    Outcome::Failed
}
