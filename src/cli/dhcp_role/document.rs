//! Everything of the API in one file: written, tried, taken back.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use dhcp_api::answer::{DesiredAnswer, ValidateAnswer};
use dhcp_api::operation::Operation;
use dhcp_api::problem::{Fault, Problem as Refusal};
use http_client::{Answer, Client, Method};
use serde_json::Value;

use super::target::{Problem, Target, path, typed};
use crate::cli::text::plain;
use crate::exit::Outcome;
use crate::output::{complain, say};

/// Of a file, and of an answer: more than 50,000 reservations.
const LARGEST: u64 = 64 << 20;
/// Lines of a difference that are shown.
const MOST_LINES: usize = 200;

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud dhcp export > zone.json
  quickcloud dhcp validate zone.json
  quickcloud dhcp apply zone.json --dry-run
  quickcloud dhcp apply zone.json

The file holds zones with their option sets, subnets, ranges, reservations and records, as JSON, or
as TOML when its name ends in .toml. What the management server owns is not in it: the sync brings
it back. Exit code 0 when the file is taken, 1 when something is wrong with it.";

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportOptions {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ValidateOptions {
    /// The file; - is the standard input
    file: PathBuf,
    /// As JSON, as the role gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ApplyOptions {
    /// The file; - is the standard input
    file: PathBuf,
    /// Say what would come of it, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Even if many reservations go
    #[arg(long)]
    force: bool,
    /// As JSON, as the role gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// The file as JSON, whatever it is written in.
fn read(file: &Path) -> Result<Value, Problem> {
    let name = file.display();
    let failed =
        |error: &dyn std::fmt::Display| Problem::Zone(format!("cannot read {name}: {error}"));
    let mut text = String::new();
    let source: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(|error| failed(&error))?),
    };
    source.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST) {
        return Err(failed(&"it is larger than 64 MiB; put reservations in batches"));
    }
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
        return toml::from_str(&text).map_err(|error| failed(&error));
    }
    serde_json::from_str(&text).map_err(|error| failed(&format!("it is not JSON: {error}")))
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<Answer, Problem> {
    let body = body.to_string().into_bytes();
    Ok(client.fetch(method, path, Some(body.into())).await?)
}

pub(super) fn export(options: &ExportOptions) -> Outcome {
    options.target.ask(async |client| {
        let client = client.answer_limit(LARGEST);
        let document: Value = client.get(&path(Operation::ShowDocument, &[])?).await?;
        Ok(say(&format!("{document:#}\n")))
    })
}

pub(super) fn validate(options: &ValidateOptions) -> Outcome {
    options.target.ask(async |client| {
        let client = client.answer_limit(LARGEST);
        let body = read(&options.file)?;
        let answer = send(&client, Method::POST, &path(Operation::Validate, &[])?, &body).await?;
        if !answer.status.is_success() {
            return Ok(refused(&answer));
        }
        let document = answer.value();
        let answer: ValidateAnswer = typed(document.clone())?;
        let written = match (options.json, &answer.difference) {
            (true, _) => say(&format!("{document:#}\n")),
            (false, Some(difference)) => say(&render(difference, "would be ")),
            (false, None) => say(&faults(&answer.problems)),
        };
        Ok(if written == Outcome::Clean && !answer.valid { Outcome::Failed } else { written })
    })
}

pub(super) fn apply(options: &ApplyOptions) -> Outcome {
    options.target.ask(async |client| {
        let client = client.answer_limit(LARGEST);
        let body = read(&options.file)?;
        let (force, dry_run) = (options.force, options.dry_run);
        let path = path(Operation::PutDocument, &[])?;
        let path = format!("{path}?force={force}&dry_run={dry_run}");
        let answer = send(&client, Method::PUT, &path, &body).await?;
        if !answer.status.is_success() {
            return Ok(refused(&answer));
        }
        let document = answer.value();
        if options.json {
            return Ok(say(&format!("{document:#}\n")));
        }
        let difference: DesiredAnswer = typed(document)?;
        let mut text = render(&difference, if dry_run { "would be " } else { "" });
        if difference.change.is_some() && !dry_run {
            let is_served = answer.status != http_client::StatusCode::ACCEPTED;
            text.push_str(if is_served { "served\n" } else { "stored, served when dnsmasq is\n" });
        }
        Ok(say(&text))
    })
}

/// What the role refuses, with every fault.
fn refused(answer: &Answer) -> Outcome {
    match serde_json::from_slice::<Refusal>(&answer.body) {
        Ok(refusal) => {
            let remedy = refusal.remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
            complain(&format!(
                "error: {}{remedy}\n{}",
                plain(&refusal.detail),
                faults(&refusal.errors)
            ));
        }
        Err(_other) => complain(&format!("error: the role answers {}\n", answer.status)),
    }
    Outcome::Failed
}

fn faults(faults: &[Fault]) -> String {
    let mut out = String::new();
    for fault in faults {
        let field = if fault.field.is_empty() { "the file" } else { &fault.field };
        let text = format!("{field}: {}; {}", fault.reason, fault.remedy);
        out.push_str(&format!("{}\n", plain(&text)));
    }
    out
}

/// `+` comes, `~` changes, `-` goes; then the sums.
fn render(difference: &DesiredAnswer, would: &str) -> String {
    let mut lines = Vec::new();
    let (mut created, mut updated, mut deleted) = (0, 0, 0);
    for (kind, ids) in difference.kinds() {
        for (sign, ids) in [('+', &ids.created), ('~', &ids.updated), ('-', &ids.deleted)] {
            lines.extend(ids.iter().map(|id| format!("{sign} {kind} {}\n", plain(id))));
        }
        created += ids.created.len();
        updated += ids.updated.len();
        deleted += ids.deleted.len();
    }
    if lines.is_empty() {
        return "nothing differs\n".to_owned();
    }
    let mut out: String = lines.iter().take(MOST_LINES).map(String::as_str).collect();
    if let Some(more) = lines.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
        out.push_str(&format!("… and {more} more\n"));
    }
    out.push_str(&format!(
        "{created} {would}made, {updated} {would}changed, {deleted} {would}removed\n"
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcp_api::answer::DesiredDifference;

    #[test]
    fn a_difference_names_what_comes_changes_and_goes() {
        let none = DesiredDifference::default;
        let ids = |created: &[&str], deleted: &[&str]| DesiredDifference {
            created: created.iter().map(|id| (*id).to_owned()).collect(),
            updated: Vec::new(),
            deleted: deleted.iter().map(|id| (*id).to_owned()).collect(),
        };
        let mut difference = DesiredAnswer {
            dry_run: true,
            change: Some(7),
            zones: none(),
            option_sets: ids(&["z1/pxe"], &[]),
            subnets: none(),
            ranges: none(),
            reservations: ids(&["z1/a\u{1b}[2J"], &["z1/b"]),
            records: none(),
        };
        let text = render(&difference, "would be ");
        let expected = "+ option set z1/pxe\n+ reservation z1/a[2J\n- reservation z1/b\n\
            2 would be made, 0 would be changed, 1 would be removed\n";
        assert_eq!(text, expected);
        difference.reservations = none();
        difference.option_sets = none();
        assert_eq!(render(&difference, ""), "nothing differs\n");
    }

    #[test]
    fn a_file_is_json_or_toml() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let toml = write("zone.toml", "[[zones]]\nid = \"z1\"\ndomain = \"cs.example\"\n");
        let json = write("zone.json", "{\"zones\":[{\"id\":\"z1\",\"domain\":\"cs.example\"}]}");
        assert_eq!(read(&toml).unwrap(), read(&json).unwrap());
        let broken = write("broken.json", "{");
        assert!(read(&broken).unwrap_err().text().contains("it is not JSON"));
        let absent = read(Path::new("/nonexistent/zone.json")).unwrap_err().text();
        assert!(absent.starts_with("cannot read /nonexistent/zone.json: "), "{absent}");
    }
}
