//! Licences, sources and banned crates, by cargo-deny.
//!
//! It is installed below `target/` once, because a full build of it takes a minute or two. What it
//! says of licences, sources and bans depends on the tree alone and decides. Advisories appear
//! without anything of ours changing: they are shown and decide nothing.

use anyhow::Result;

use crate::run::{command, find, root, step};

/// Tested with deny.toml as it is.
const VERSION: &str = "0.20.2";

/// Runs it, or says why it cannot be run.
pub(crate) fn run() -> Result<()> {
    let tools = root().join("target/tools");
    let installed = tools.join("bin/cargo-deny");
    let program = match find("cargo-deny") {
        Some(found) => found,
        None if installed.is_file() => installed,
        None => {
            let root = tools.display().to_string();
            let mut install = command(
                "cargo",
                &["install", "cargo-deny", "--version", VERSION, "--locked", "--debug", "--quiet"],
            );
            install.args(["--root", &root]).env("CARGO_PROFILE_DEV_DEBUG", "0");
            println!("==> cargo install cargo-deny {VERSION} (once, a minute or two)");
            let status = install.status()?;
            if !status.success() {
                println!("<== licences are NOT checked: cargo-deny cannot be had from crates.io");
                return Ok(());
            }
            installed
        }
    };
    let program = program.display().to_string();
    let quiet = ["--log-level", "error", "--locked", "check"];
    step(&program, &[quiet.as_slice(), &["bans", "licenses", "sources"]].concat())?;
    if command(&program, &["fetch", "db"]).output().is_ok_and(|fetched| fetched.status.success()) {
        let advisories = [quiet.as_slice(), &["--disable-fetch", "advisories"]].concat();
        if let Err(error) = step(&program, &advisories) {
            println!("<== not decisive: {error:#}");
        }
    } else {
        println!("<== advisories are not shown: the database at github.com cannot be reached");
    }
    Ok(())
}
