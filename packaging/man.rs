//! Writes the manual pages of every command into a directory: `cargo run --features man --example man
//! -- DIR`. `cargo xtask package` calls it; the binary itself need not carry it.

use std::path::Path;
use std::process::ExitCode;

#[allow(clippy::print_stderr, reason = "a command line tool talks")]
fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("give the directory for the manual pages");
        return ExitCode::from(64);
    };
    let directory = Path::new(&directory);
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(quickcloud::cli::command(), directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write into {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
