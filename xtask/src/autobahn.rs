//! The Autobahn test suite, from PyPI, against the WebSocket crate's frames.
//!
//! Not part of `cargo xtask test`: it needs a Python 2.7, for which the suite is written, and PyPI. The
//! rules that it looks at are tests of the crate as well.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::run::{command, find, root, step};

/// Later ones differ in their packaging alone.
const SUITE: &str = "autobahntestsuite==0.8.2";
/// Names a Python 2.7 that is not in PATH.
const PYTHON: &str = "PYTHON2";
/// What a case may come to. A server that speaks no extension implements no case of compression,
/// and one that looks at a text when it is whole is not strict about when.
const GOOD: [&str; 4] = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"];

/// Ends the echo server.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub(crate) fn run(cases: &[String]) -> Result<()> {
    let folder = root().join("target/autobahn");
    std::fs::create_dir_all(&folder)?;
    let Some(python) = python() else {
        bail!(
            "the suite needs Python 2.7 with pip: put python2.7 into PATH, or its path into {PYTHON}"
        );
    };
    let modules = folder.join("modules");
    if !modules.join("autobahntestsuite").exists() {
        let target = modules.display().to_string();
        step(&python, &["-m", "pip", "install", "-q", "--target", &target, SUITE])?;
        // A package of packages, of which pip makes none in a folder like this.
        std::fs::write(modules.join("zope/__init__.py"), "")?;
    }
    let server = ["build", "--release", "--locked", "-p", "websocket", "--example", "echo"];
    step("cargo", &server)?;
    let mut echo = command("target/release/examples/echo", &[]);
    let mut echo = Server(echo.stdout(Stdio::piped()).spawn().context("cannot start the server")?);
    let mut port = String::new();
    let stdout = echo.0.stdout.take().context("the server has no output")?;
    BufReader::new(stdout).read_line(&mut port)?;
    let cases = if cases.is_empty() { vec!["*".to_owned()] } else { cases.to_vec() };
    let spec = json!({
        "outdir": folder.join("report"),
        "servers": [{"agent": "quickcloud", "url": format!("ws://127.0.0.1:{}", port.trim())}],
        "cases": cases,
        // Compression is never negotiated.
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    });
    let file = folder.join("spec.json");
    std::fs::write(&file, spec.to_string())?;
    let run = "from autobahntestsuite.wstest import run; run()";
    let file = file.display().to_string();
    let mut suite = command(&python, &["-c", run, "-m", "fuzzingclient", "-s", &file]);
    let status = suite.env("PYTHONPATH", &modules).status().context("cannot start the suite")?;
    if !status.success() {
        bail!("the suite failed: {status}");
    }
    judge(&std::fs::read_to_string(folder.join("report/index.json"))?)
}

fn python() -> Option<String> {
    let given = std::env::var(PYTHON).ok().filter(|path| !path.is_empty());
    given.or_else(|| find("python2.7").map(|path| path.display().to_string()))
}

/// Counts what the suite found; fails on anything that is not good.
fn judge(index: &str) -> Result<()> {
    let index: Value = serde_json::from_str(index).context("the suite's index is not JSON")?;
    let cases = index.get("quickcloud").and_then(Value::as_object);
    let cases = cases.context("the suite says nothing of our server")?;
    let mut bad = Vec::new();
    for (case, outcome) in cases {
        for behaviour in ["behavior", "behaviorClose"] {
            let word = outcome.get(behaviour).and_then(Value::as_str).unwrap_or("missing");
            if !GOOD.contains(&word) {
                bad.push(format!("{case}: {behaviour} is {word}"));
            }
        }
    }
    if !bad.is_empty() {
        bail!("{} of {} cases: {}", bad.len(), cases.len(), bad.join(", "));
    }
    println!("autobahn: {} cases, every one as it should be", cases.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn a_case_that_is_not_good_is_named() {
        let index = |word: &str| {
            format!(r#"{{"quickcloud":{{"1.1.1":{{"behavior":"{word}","behaviorClose":"OK"}}}}}}"#)
        };
        assert!(judge(&index("OK")).is_ok() && judge(&index("NON-STRICT")).is_ok());
        let error = judge(&index("FAILED")).unwrap_err().to_string();
        assert_eq!(error, "1 of 1 cases: 1.1.1: behavior is FAILED");
        assert!(judge("{}").is_err());
    }
}
