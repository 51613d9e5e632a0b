//! Figures, each with its goal: the size of the release binary here, the others in bench targets that
//! measure it from outside.

use anyhow::{Context, Result, bail};

use crate::run::{command, root, step};
use crate::setup;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let [area, rest @ ..] = arguments
        && area == "storage"
    {
        return storage(rest);
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
