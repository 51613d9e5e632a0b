//! `quickcloud check`: steps one to three of a start, without the start.

use std::fmt::Write as _;
use std::path::Path;

use config_reader::Violation;
use futures_util::future::join_all;
use nix::unistd::{AccessFlags, access};
use role::{DoctorFinding, Host, PreflightError, Reach, RoleDescriptor};
use serde_json::{Value, json};

use super::CheckOptions;
use crate::config::{self, Config, LoadError, Loaded, effective};
use crate::doctor::{self, Answer};
use crate::exit::Outcome;
use crate::output::{complain, complain_of, say};
use crate::process::own_resources;
use crate::supervisor::conflicts::{self, Conflict};
use crate::supervisor::preflight::{Preflight, preflight};

/// Everything found; empty lists are good news.
#[derive(Debug, Default)]
struct Findings {
    conflicts: Vec<Conflict>,
    /// Who lacks it, and what.
    machine: Vec<(String, PreflightError)>,
    /// One of them is a fault of the configuration.
    misconfigured: bool,
    /// Works, but not as it should.
    warnings: Vec<(String, PreflightError)>,
}

pub(super) fn check(options: CheckOptions, registry: &[RoleDescriptor]) -> Outcome {
    let json = options.json;
    let loaded = match config::load(&options.sources.sources(), registry) {
        Ok(loaded) => loaded,
        Err(error) if json => {
            let document = json!({"ok": false, "error": bedrock::chain(&error)});
            say(&format!("{document}\n"));
            return outcome_of_load(&error);
        }
        Err(error) => return complain_of_load(&error),
    };
    let findings = match &loaded.config {
        Some(config) => match examine(config) {
            Ok(findings) => findings,
            Err(error) => {
                complain_of(&error);
                return Outcome::System;
            }
        },
        None => Findings::default(),
    };
    let outcome = judge(&loaded, &findings);
    let written =
        if json { print_json(&loaded, &findings) } else { print_text(&loaded, &findings) };
    if written == Outcome::Clean { outcome } else { written }
}

fn judge(loaded: &Loaded, findings: &Findings) -> Outcome {
    let misconfigured = findings.misconfigured || !findings.conflicts.is_empty();
    if misconfigured || !loaded.violations.is_empty() {
        Outcome::Configuration
    } else if !findings.machine.is_empty() {
        Outcome::Unavailable
    } else {
        Outcome::Clean
    }
}

fn examine(config: &Config) -> std::io::Result<Findings> {
    let host = Host::system();
    let runtime = crate::runtime::single_threaded()?;
    let ends =
        runtime.block_on(join_all(config.roles.iter().map(|role| preflight(&role.spec, &host))));
    let mut misconfigured = false;
    let mut machine: Vec<(String, PreflightError)> =
        state_directory(&config.supervisor.state_directory)
            .map(|finding| ("supervisor".to_owned(), finding))
            .into_iter()
            .collect();
    for (role, end) in config.roles.iter().zip(ends) {
        let findings = match end {
            Preflight::Passed => Vec::new(),
            Preflight::Misconfigured(findings) => {
                misconfigured = true;
                findings
            }
            Preflight::Lacking(findings) => findings,
            Preflight::Broken(problem) => {
                vec![PreflightError { problem, remedy: "report this as a bug".to_owned() }]
            }
        };
        let role = role.spec.kind().short;
        machine.extend(findings.into_iter().map(|finding| (role.to_owned(), finding)));
    }
    let remedy = "raise supervisor.shutdown_grace or lower management.drain_timeout";
    let mut warnings: Vec<(String, PreflightError)> = config
        .short_graces()
        .into_iter()
        .map(|(role, problem)| {
            (role.short.to_owned(), PreflightError { problem, remedy: remedy.to_owned() })
        })
        .collect();
    for Answer { role, check, finding } in
        runtime.block_on(doctor::ask(&config.roles, &host, Reach::Machine))
    {
        let named = |problem: String| format!("{check}: {problem}");
        match finding {
            DoctorFinding::Good(_) => {}
            DoctorFinding::Skipped(why) => {
                let remedy = "the other checks were made".to_owned();
                warnings.push((role.to_owned(), PreflightError { problem: named(why), remedy }));
            }
            DoctorFinding::Warning { problem, remedy } => {
                warnings
                    .push((role.to_owned(), PreflightError { problem: named(problem), remedy }));
            }
            // The preflight may have found it too.
            DoctorFinding::Fault { problem, .. }
                if machine.iter().any(|(_, found)| found.problem == problem) => {}
            DoctorFinding::Fault { problem, remedy } => {
                machine.push((role.to_owned(), PreflightError { problem: named(problem), remedy }));
            }
        }
    }
    let conflicts = conflicts::find(&config.specs(), &own_resources(config));
    Ok(Findings { conflicts, machine, misconfigured, warnings })
}

/// The directory is there and writable, or could be made.
pub(super) fn state_directory(directory: &Path) -> Option<PreflightError> {
    // Absent is only what the kernel calls so; a directory that hides its content is not.
    let looked = directory.ancestors().map(|path| (path, std::fs::metadata(path)));
    let is_absent = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let (existing, metadata) =
        looked.into_iter().find(|(_, metadata)| !metadata.as_ref().is_err_and(is_absent))?;
    let problem = if let Err(error) = &metadata {
        format!("{} cannot be looked at: {error}", existing.display())
    } else if !metadata.is_ok_and(|metadata| metadata.is_dir()) {
        format!("{} is not a directory", existing.display())
    } else if access(existing, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        format!("{} is not writable for this user", existing.display())
    } else {
        return None;
    };
    let remedy = "make it a writable directory or set supervisor.state_directory".to_owned();
    Some(PreflightError { problem, remedy })
}

fn print_text(loaded: &Loaded, findings: &Findings) -> Outcome {
    let mut text = String::from("# effective configuration\n");
    text.push_str(&effective::to_toml(&loaded.effective));
    for table in &loaded.unread {
        text.push_str(&format!("# [{table}] is not read: its role is not asked for\n"));
    }
    let written = say(&text);
    complain_of_violations(loaded);
    let mut complaints = String::new();
    for conflict in &findings.conflicts {
        complaints.push_str(&format!("error: {conflict}\n"));
    }
    for (who, finding) in &findings.machine {
        complaints
            .push_str(&format!("error: {who}: {}\n       {}\n", finding.problem, finding.remedy));
    }
    for (who, finding) in &findings.warnings {
        complaints.push_str(&format!(
            "warning: {who}: {}\n         {}\n",
            finding.problem, finding.remedy
        ));
    }
    complain(&complaints);
    written
}

fn print_json(loaded: &Loaded, findings: &Findings) -> Outcome {
    let violations: Vec<Value> = loaded
        .violations
        .iter()
        .map(|found| {
            json!({
                "place": found.place,
                "problem": found.problem,
                "remedy": found.remedy,
                "source": source(loaded, found),
            })
        })
        .collect();
    let conflicts: Vec<String> = findings.conflicts.iter().map(ToString::to_string).collect();
    let list = |findings: &[(String, PreflightError)]| -> Vec<Value> {
        findings
            .iter()
            .map(|(who, finding)| {
                json!({"role": who, "problem": finding.problem, "remedy": finding.remedy})
            })
            .collect()
    };
    let document = json!({
        "ok": judge(loaded, findings) == Outcome::Clean,
        "violations": violations,
        "conflicts": conflicts,
        "findings": list(&findings.machine),
        "warnings": list(&findings.warnings),
        "not_read": loaded.unread,
        "effective": effective::tree(&loaded.effective),
        "derived": effective::derived(&loaded.effective),
    });
    say(&format!("{document:#}\n"))
}

/// Whether `--set` gave the value; nothing for the file.
fn source(loaded: &Loaded, found: &Violation) -> Option<&'static str> {
    let from_set = |key: &String| {
        found
            .place
            .strip_prefix(key.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    loaded.set.iter().any(from_set).then_some("--set")
}

/// Prints every violation with place and remedy.
pub(super) fn complain_of_violations(loaded: &Loaded) {
    let mut text = String::new();
    for found in &loaded.violations {
        let place = match source(loaded, found) {
            Some(source) => format!("{} (from {source})", found.place),
            None => found.place.clone(),
        };
        // Writing to a String cannot fail.
        writeln!(text, "error: {place}: {}\n       {}", found.problem, found.remedy)
            .unwrap_or_default();
    }
    complain(&text);
}

/// Prints why there is no configuration at all.
pub(super) fn complain_of_load(error: &LoadError) -> Outcome {
    complain_of(error);
    outcome_of_load(error)
}

const fn outcome_of_load(error: &LoadError) -> Outcome {
    match error {
        LoadError::Usage(_) => Outcome::Usage,
        LoadError::Unreadable { .. } | LoadError::Syntax { .. } | LoadError::Import(_) => {
            Outcome::Configuration
        }
        LoadError::Password { .. } => Outcome::System,
    }
}
