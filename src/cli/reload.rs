//! `quickcloud reload`: the running process reads its configuration again; what came of it is shown.

use std::time::Duration;

use clap::Args;
use http_client::{Answer, Method};
use status_api::ReloadAnswer;

use super::admin::{AdminOptions, complain_of_client};
use super::check::complain_of_load;
use crate::exit::Outcome;
use crate::output::{complain, complain_of, say};
use crate::runtime;

/// Longer than all roles together may take.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct ReloadOptions {
    /// As JSON, as the process gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

pub(super) fn reload(options: &ReloadOptions) -> Outcome {
    let client = match options.admin.client(TIMEOUT) {
        Ok(client) => client,
        Err(error) => return complain_of_load(&error),
    };
    let runtime = match runtime::single_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    match runtime.block_on(client.fetch(Method::POST, "/reload", None)) {
        Ok(answer) => show(&answer, options.json),
        Err(error) => {
            complain_of_client(&error);
            Outcome::Failed
        }
    }
}

fn show(answer: &Answer, json: bool) -> Outcome {
    let Ok(outcome) = serde_json::from_slice::<ReloadAnswer>(&answer.body) else {
        let text = String::from_utf8_lossy(&answer.body);
        complain(&format!("error: {}: {}\n", answer.status, text.trim()));
        return Outcome::Failed;
    };
    let written = if json {
        say(&format!("{:#}\n", answer.value()))
    } else {
        complain(&complaints(&outcome));
        say(&text(&outcome))
    };
    let faulty = outcome.error.is_some() || !outcome.violations.is_empty();
    match written {
        Outcome::Clean if faulty => Outcome::Configuration,
        Outcome::Clean if !outcome.ok => Outcome::Failed,
        written => written,
    }
}

/// One line per thing and who it belongs to.
fn text(answer: &ReloadAnswer) -> String {
    if answer.error.is_some() || !answer.violations.is_empty() {
        return "nothing changed\n".to_owned();
    }
    let mut out = String::new();
    let own = std::iter::once(("supervisor", &answer.supervisor));
    let all = own.chain(answer.roles.iter().map(|role| (role.role.as_str(), &role.report)));
    for (who, report) in all {
        for what in &report.applied {
            out.push_str(&format!("{who:<10}  applied        {what}\n"));
        }
        for what in &report.needs_restart {
            out.push_str(&format!("{who:<10}  needs restart  {what}\n"));
        }
        for fault in &report.failed {
            out.push_str(&format!("{who:<10}  failed         {}\n", fault.what));
        }
    }
    if out.is_empty() { "nothing to change\n".to_owned() } else { out }
}

fn complaints(answer: &ReloadAnswer) -> String {
    let mut out = String::new();
    if let Some(error) = &answer.error {
        out.push_str(&format!("error: {error}\n"));
    }
    for found in &answer.violations {
        out.push_str(&format!(
            "error: {}: {}\n       {}\n",
            found.place, found.problem, found.remedy
        ));
    }
    let own = std::iter::once(&answer.supervisor);
    for fault in own.chain(answer.roles.iter().map(|role| &role.report)).flat_map(|r| &r.failed) {
        out.push_str(&format!("error: {}: {}\n", fault.what, fault.problem));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_client::StatusCode;
    use serde_json::json;

    fn check(document: &serde_json::Value, expected: Outcome, shown: &str, complained: &str) {
        let body = serde_json::to_vec(document).unwrap();
        let parsed: ReloadAnswer = serde_json::from_slice(&body).unwrap();
        assert_eq!((text(&parsed).as_str(), complaints(&parsed).as_str()), (shown, complained));
        let answer = Answer { status: StatusCode::OK, body: body.into() };
        assert_eq!(show(&answer, false), expected);
    }

    #[test]
    fn what_came_of_a_reload_is_told_and_decides_the_exit_code() {
        check(&json!({"ok": true}), Outcome::Clean, "nothing to change\n", "");
        check(
            &json!({"ok": true, "supervisor": {"applied": ["log.filter"]}, "roles": [
                {"role": "ss", "applied": ["a"], "needs_restart": ["b"], "failed": []}]}),
            Outcome::Clean,
            "supervisor  applied        log.filter\n\
             ss          applied        a\n\
             ss          needs restart  b\n",
            "",
        );
        check(
            &json!({"ok": false, "roles": [
                {"role": "ss", "failed": [{"what": "ca_file", "problem": "is gone"}]}]}),
            Outcome::Failed,
            "ss          failed         ca_file\n",
            "error: ca_file: is gone\n",
        );
        check(
            &json!({"ok": false, "violations": [{"place": "a", "problem": "p", "remedy": "r"}]}),
            Outcome::Configuration,
            "nothing changed\n",
            "error: a: p\n       r\n",
        );
    }
}
