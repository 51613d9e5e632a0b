//! `quickcloud status`: asks the running process and shows its answer as tables.

mod table;

use status_api::ProcessStatus;

use super::view::{ViewOptions, view};
use crate::exit::Outcome;

pub(super) fn status(options: &ViewOptions) -> Outcome {
    view::<ProcessStatus>(options, "/status", table::render)
}
