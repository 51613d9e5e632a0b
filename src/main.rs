//! The binary. Everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    quickcloud::cli::main(quickcloud::registry::ROLES).into()
}
