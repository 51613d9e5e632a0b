//! Everything CI checks, in the order in which it tells most per second.

use anyhow::Result;

use crate::run::step;
use crate::{demo, deny, page, setup, tidy};

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    if !quick {
        setup::run()?;
    }
    step("cargo", &["fmt", "--all", "--", "--check"])?;
    tidy::run()?;
    step(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"],
    )?;
    step(
        "cargo",
        &[
            "clippy",
            "--no-default-features",
            "--features=man",
            "--lib",
            "--bins",
            "--examples",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    step("cargo", &["test", "--workspace", "--locked", "--quiet"])?;
    if quick {
        return Ok(());
    }
    step("cargo", &["build", "-p", "quickcloud-fuzz", "--locked", "--quiet"])?;
    deny::run()?;
    page::run(&[])?;
    demo::run(&["--check".to_owned()])
}
