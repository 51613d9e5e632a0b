//! Plans and states for people and scripts.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::super::text::plain;
use super::say_or_write;
use crate::exit::Outcome;
use crate::output::say;
use crate::zone::act::calls;
use crate::zone::look::Seen;
use crate::zone::state::State;
use crate::zone::{Action, Step};

/// A plan: its steps, and the statements of those that are SQL.
pub(in crate::cli) fn plan(seen: &Seen, steps: &[Step], json: bool, sql: Option<&Path>) -> Outcome {
    if json {
        return say(&format!("{:#}\n", as_json(seen, steps)));
    }
    let mut text = head(seen);
    for (number, step) in (1..).zip(steps) {
        render(&mut text, number, step, seen.zone.id);
    }
    let open = steps.iter().filter(|step| !step.done).count();
    // Writing to a String cannot fail.
    writeln!(text, "\n{} steps, {open} to do", steps.len()).unwrap_or_default();
    let said = say(&text);
    let statements = statements(steps);
    if said != Outcome::Clean || statements.is_empty() {
        return said;
    }
    say_or_write(&statements, sql)
}

fn head(seen: &Seen) -> String {
    let zone = &seen.zone;
    let state = zone.allocation_state.as_deref().unwrap_or("unknown");
    format!("zone {} ({}, {state})\n\n", plain(&zone.name), plain(&zone.network_type))
}

fn render(text: &mut String, number: usize, step: &Step, zone: uuid::Uuid) {
    let mark = if step.done { "done" } else { step.action.by() };
    let change = match (step.done, step.now.is_empty()) {
        (true, _) => step.then.clone(),
        (false, true) => format!("→ {}", step.then),
        (false, false) => format!("{} → {}", step.now, step.then),
    };
    writeln!(text, "{number:>2}. [{mark:>6}] {}: {}", plain(&step.what), plain(&change))
        .unwrap_or_default();
    if step.done {
        return;
    }
    let calls = calls(&step.action, zone).join("\n");
    for (name, lines) in [("why", &step.why), ("call", &calls), ("undo", &step.undo)] {
        for (index, line) in lines.lines().enumerate() {
            let name = if index == 0 { name } else { "" };
            writeln!(text, "              {name:<5}{}", plain(line)).unwrap_or_default();
        }
    }
}

/// All SQL that is to be run, each block with what takes it back.
fn statements(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps.iter().filter(|step| !step.done) {
        let Action::Sql { statements, undo } = &step.action else { continue };
        let undo: String = undo.lines().map(|line| format!("--   {line}\n")).collect();
        let what = plain(&step.what);
        text.push_str(&format!("\n-- {what}\n{statements}-- to take it back:\n{undo}"));
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\n-- For the server's database, schema cloud: mysql cloud < FILE. Make a backup first.\n{text}"
    )
}

fn as_json(seen: &Seen, steps: &[Step]) -> serde_json::Value {
    let list: Vec<serde_json::Value> = steps
        .iter()
        .map(|step| {
            let (sql, undo_sql) = match &step.action {
                Action::Sql { statements, undo } => (Some(statements), Some(undo)),
                _ => (None, None),
            };
            let file = match &step.action {
                Action::File { text, .. } => Some(text),
                _ => None,
            };
            json!({
                "what": step.what, "by": step.action.by(), "done": step.done, "now": step.now,
                "then": step.then, "why": step.why, "undo": step.undo, "sql": sql,
                "calls": calls(&step.action, seen.zone.id),
                "undo_sql": undo_sql, "file": file,
            })
        })
        .collect();
    let done = steps.iter().all(|step| step.done);
    json!({"zone": seen.zone.name, "id": seen.zone.id.to_string(), "done": done, "steps": list})
}

/// Who serves, and what is wrong.
pub(super) fn state(seen: &Seen, found: &State, json: bool) -> Outcome {
    let (storage, consoles) = (found.storage.word(), found.consoles.word());
    if json {
        let findings: Vec<serde_json::Value> = found
            .findings
            .iter()
            .map(|f| json!({"name": f.name, "problem": f.problem, "remedy": f.remedy}))
            .collect();
        let document = json!({
            "zone": seen.zone.name, "id": seen.zone.id.to_string(), "ok": findings.is_empty(),
            "storage": storage, "consoles": consoles, "findings": findings,
        });
        return say(&format!("{document:#}\n"));
    }
    let mut text = head(seen);
    writeln!(text, "storage   {storage}\nconsoles  {consoles}").unwrap_or_default();
    for finding in &found.findings {
        let (problem, remedy) = (plain(&finding.problem), plain(&finding.remedy));
        writeln!(text, "\n{}: {problem}\n    {remedy}", finding.name).unwrap_or_default();
    }
    say(&text)
}
