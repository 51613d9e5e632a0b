//! The newcomer's first command: set up, build, run `quickcloud dev`.

use anyhow::{Result, bail};

use crate::run::{command, step};
use crate::setup;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let check = arguments.iter().any(|argument| argument == "--check");
    if let Err(error) = setup::packages(&[
        ("cc", "build-essential"),
        ("ip", "iproute2"),
        ("dnsmasq", "dnsmasq-base"),
    ]) {
        if check {
            return Err(error);
        }
        // The demo runs without dnsmasq, with the dhcp role degraded.
        println!("note: {error:#}");
    }
    step("cargo", &["build", "--bin", "quickcloud"])?;
    let mut line = vec!["run", "--quiet", "--bin", "quickcloud", "--", "dev"];
    if !check {
        line.push("--open");
    }
    line.extend(arguments.iter().map(String::as_str));
    let status = command("cargo", &line).status()?;
    if !status.success() {
        bail!("quickcloud dev ended with {status}");
    }
    Ok(())
}
