//! Figures, each with its goal: the size of the release binary here, the others in bench targets that
//! measure it from outside.

use anyhow::{Context, Result, bail};

use crate::run::{command, root, step};
use crate::setup;

/// From crates.io, for `bench move`.
const OBJECT_SERVER: &str = "s3s-fs@0.14.1";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let [area, rest @ ..] = arguments
        && area == "storage"
    {
        return storage(rest);
    }
    if let [area, rest @ ..] = arguments
        && area == "move"
    {
        return moves(rest);
    }
    setup::packages(setup::PEERS)?;
    if let [area, rest @ ..] = arguments
        && area == "console"
    {
        return of_binary("console", rest);
    }
    if let [area, rest @ ..] = arguments
        && area == "dhcp"
    {
        setup::packages(setup::DHCP_PEERS)?;
        return of_binary("dhcp", rest);
    }
    of_binary("figures", arguments)
}

/// The figures of secondary storage: of library calls, every bench target of its crate; of the
/// binary, its links and uploads.
fn storage(arguments: &[String]) -> Result<()> {
    setup::packages(setup::PEERS)?;
    let mut line = vec!["bench", "--locked", "-p", "secondary-storage", "--benches", "--"];
    line.extend(arguments.iter().map(String::as_str));
    step("cargo", &line)?;
    of_binary("links", arguments)
}

/// The figures of copies, with an object server and a client of it from the registries.
fn moves(arguments: &[String]) -> Result<()> {
    setup::packages(setup::MOVE_PEERS)?;
    setup::moto()?;
    let tools = root().join("target/s3s-fs");
    if !tools.join("bin/s3s-fs").exists() {
        let tools = tools.display().to_string();
        let line = ["install", "--locked", "--root", &tools, "--features", "binary", OBJECT_SERVER];
        step("cargo", &line)?;
    }
    let mut line = vec!["bench", "--locked", "-p", "secondary-storage", "--bench", "moves", "--"];
    line.extend(arguments.iter().map(String::as_str));
    step("cargo", &line)
}

/// A bench target of the root package, which measures the release binary from outside.
fn of_binary(target: &str, arguments: &[String]) -> Result<()> {
    step("cargo", &["build", "--release", "--locked", "--bin", "quickcloud"])?;
    let binary = root().join("target/release/quickcloud");
    let size = std::fs::metadata(&binary).context("cannot read the release binary")?.len();
    println!("release binary: {:.1} MiB (goal < 20 MiB)", mib(size));
    let mut line = vec!["bench", "--locked", "--bench", target, "--"];
    line.extend(arguments.iter().map(String::as_str));
    let status = command("cargo", &line).env("QUICKCLOUD_BINARY", &binary).status()?;
    if !status.success() {
        bail!("the bench target failed: {status}");
    }
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    // Sizes of binaries are far below 2^53.
    bytes as f64 / f64::from(1 << 20)
}
