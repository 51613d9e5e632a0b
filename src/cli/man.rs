//! `quickcloud man`: manual pages of every command, for packages.

use std::path::Path;

use clap::CommandFactory;

use super::Cli;
use crate::exit::Outcome;
use crate::output::{complain, say};

/// Writes one page per command into `directory`, which is made.
pub(super) fn man(directory: &Path) -> Outcome {
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    match written {
        Ok(()) => say(&format!("manual pages are in {}\n", directory.display())),
        Err(error) => {
            complain(&format!("error: cannot write into {}: {error}\n", directory.display()));
            Outcome::System
        }
    }
}
