//! `quickcloud import`: an original agent's files as a configuration of ours.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use role::RoleDescriptor;
use serde_json::json;

use super::check::complain_of_violations;
use crate::config::{self, Loaded, Sources};
use crate::exit::Outcome;
use crate::import::{self, Fate, Imported, Line, Request};
use crate::output::{complain, complain_of, say};

/// Beside the configuration, and where it is said to be when none is written.
const PASSWORD_FILE: &str = "agent.jks.password";
const DIRECTORY: &str = "/etc/quickcloud";

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud import /usr/local/cloud/systemvm/conf
  quickcloud import agent/conf zone=1 pod=1 host=10.0.0.5 guid=ConsoleProxy.1 -o site.toml
  quickcloud import ss/conf cp/conf --json
  quickcloud import agent/conf guid=SecondaryStorage.1 mount.path=/srv/sec \\
                    --store nfs://10.0.0.9/export/sec

The report goes to standard error: what was kept, what became another key, what has no place here
and why, what needs a look. Exit code 78 when the result is not a valid configuration.";

#[derive(Debug, Args)]
pub(super) struct ImportOptions {
    /// Directory with agent.properties, consoleproxy.properties, environment.properties or cmdline
    /// (also in conf below it); behind it boot arguments of that agent as KEY=VALUE
    #[arg(required = true, value_name = "DIR [KEY=VALUE…]")]
    inputs: Vec<String>,
    /// Write the configuration there, and the password of a key store beside it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file
    #[arg(long, requires = "output")]
    force: bool,
    /// URL of the store that lies at the agent's mount.path
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Configuration and report as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn import(options: &ImportOptions, registry: &[RoleDescriptor]) -> Outcome {
    let request = match Request::parse(&options.inputs, options.store.clone()) {
        Ok(request) => request,
        Err(problem) => {
            complain(&format!("error: {problem}\n"));
            return Outcome::Usage;
        }
    };
    let directory = options.output.as_deref().and_then(Path::parent);
    let directory = match directory {
        Some(path) if path.as_os_str().is_empty() => Path::new("."),
        Some(path) => path,
        None => Path::new(DIRECTORY),
    };
    let password_file = std::path::absolute(directory.join(PASSWORD_FILE));
    let password_file = password_file.unwrap_or_else(|_odd| directory.join(PASSWORD_FILE));
    let imported = match import::import(&request, &password_file) {
        Ok(imported) => imported,
        Err(error) => {
            complain_of(&error);
            return Outcome::Failed;
        }
    };
    let loaded = match config::load_table(&imported.table, &Sources::default(), registry) {
        Ok(loaded) => loaded,
        Err(error) => {
            complain_of(&error);
            return Outcome::Failed;
        }
    };
    finish(options, &request, &imported, &loaded, &password_file)
}

fn finish(
    options: &ImportOptions,
    request: &Request,
    imported: &Imported,
    loaded: &Loaded,
    password_file: &Path,
) -> Outcome {
    let text = document(request, imported);
    if !options.json {
        complain(&report(&imported.lines));
        if imported.password.is_some() && options.output.is_none() {
            let shown = password_file.display();
            complain(&format!(
                "note: write the value of keystore.passphrase into {shown}, closed to others\n"
            ));
        }
        complain_of_violations(loaded);
    }
    let valid = loaded.violations.is_empty();
    let written = match &options.output {
        Some(file) if valid => write(file, options.force, &text, imported, password_file),
        Some(file) if !options.json => {
            complain(&format!("{} is not written: the result is not valid\n", file.display()));
            Outcome::Clean
        }
        Some(_) => Outcome::Clean,
        None if options.json => Outcome::Clean,
        None => say(&text),
    };
    if options.json {
        let said = say(&format!("{:#}\n", as_json(&text, imported, loaded)));
        if said != Outcome::Clean {
            return said;
        }
    }
    match written {
        Outcome::Clean if !valid => Outcome::Configuration,
        written => written,
    }
}

fn write(
    file: &Path,
    force: bool,
    text: &str,
    imported: &Imported,
    password_file: &Path,
) -> Outcome {
    if !force && std::fs::symlink_metadata(file).is_ok() {
        complain(&format!("error: {} exists; --force replaces it\n", file.display()));
        return Outcome::Failed;
    }
    let put = |path: &Path, text: &str, mode| {
        bedrock::files::replace(path, text.as_bytes(), mode).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::NotFound => "; make its directory first",
                _ => "",
            };
            complain(&format!("error: cannot write {}: {error}{hint}\n", path.display()));
        })
    };
    let password = imported.password.as_ref();
    let result = password
        .map_or(Ok(()), |password| put(password_file, password.reveal(), 0o600))
        .and_then(|()| put(file, text, 0o640));
    if result.is_ok() { Outcome::Clean } else { Outcome::System }
}

/// The configuration with a head that says where it comes from.
fn document(request: &Request, imported: &Imported) -> String {
    let mut text = String::from("# Imported from an original agent by quickcloud import.\n");
    for agent in &request.agents {
        // A directory's name may hold whatever a file system allows.
        let shown = super::text::plain(&agent.directory.display().to_string());
        text.push_str(&format!("#   {shown}\n"));
    }
    text.push_str("# config/quickcloud.toml explains every key.\n\n");
    text.push_str(&imported.table.to_string());
    text
}

const fn word(fate: &Fate) -> &'static str {
    match fate {
        Fate::Kept { .. } => "kept",
        Fate::Mapped { .. } => "mapped",
        Fate::Ignored { .. } => "ignored",
        Fate::Doubtful { .. } => "look",
    }
}

/// A table, what needs a look last.
fn report(lines: &[Line]) -> String {
    let rank = |line: &&Line| match line.fate {
        Fate::Kept { .. } => 0,
        Fate::Mapped { .. } => 1,
        Fate::Ignored { .. } => 2,
        Fate::Doubtful { .. } => 3,
    };
    let mut sorted: Vec<&Line> = lines.iter().collect();
    sorted.sort_by_key(rank);
    let row = |line: &Line| {
        let end = match &line.fate {
            Fate::Kept { to, value } => format!("{to} = {value}"),
            Fate::Mapped { to, value, why } => format!("{to} = {value} ({why})"),
            Fate::Ignored { why } | Fate::Doubtful { why } => why.clone(),
        };
        [word(&line.fate).to_owned(), line.key.clone(), line.place.clone(), end]
            .map(|text| super::text::plain(&text))
    };
    let mut text = String::new();
    super::text::section(&mut text, &["FATE", "KEY", "FROM", "HERE"], sorted.into_iter().map(row));
    let count = |wanted: &str| lines.iter().filter(|line| word(&line.fate) == wanted).count();
    // Writing to a String cannot fail.
    writeln!(
        text,
        "\n{} kept, {} mapped, {} ignored, {} to look at",
        count("kept"),
        count("mapped"),
        count("ignored"),
        count("look")
    )
    .unwrap_or_default();
    text
}

fn as_json(text: &str, imported: &Imported, loaded: &Loaded) -> serde_json::Value {
    let lines: Vec<serde_json::Value> = imported
        .lines
        .iter()
        .map(|line| {
            let (to, value, why) = match &line.fate {
                Fate::Kept { to, value } => (Some(to), Some(value), None),
                Fate::Mapped { to, value, why } => (Some(to), Some(value), Some(why)),
                Fate::Ignored { why } | Fate::Doubtful { why } => (None, None, Some(why)),
            };
            json!({"fate": word(&line.fate), "key": line.key, "from": line.place,
                   "to": to, "value": value, "why": why})
        })
        .collect();
    let violations: Vec<String> = loaded.violations.iter().map(ToString::to_string).collect();
    json!({"ok": violations.is_empty(), "toml": text, "lines": lines, "violations": violations})
}
