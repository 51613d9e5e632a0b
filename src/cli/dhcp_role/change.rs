//! Changes: single reservations and leases, and the sync.

use dhcp_api::answer::SyncAnswer;
use dhcp_api::operation::Operation;
use http_client::{Client, Method};
use serde_json::{Value, json};

use super::target::{Problem, path, typed};
use super::{EdithostsOptions, OneOptions, PutOptions, ReleaseOptions, SyncOptions};
use crate::cli::text::plain;
use crate::exit::Outcome;
use crate::output::say;

async fn write(client: &Client, path: &str, body: &Value) -> Result<Value, Problem> {
    Ok(client.call::<Value>(Method::PUT, path, Some(body)).await?)
}

pub(super) fn put(options: &PutOptions) -> Outcome {
    options.target.ask(async |client| {
        let zone = options.target.zone(&client).await?;
        let path = path(Operation::PutReservation, &[&zone, &options.id])?;
        let body = json!({
            "mac": options.mac,
            "ipv4": options.ip,
            "hostname": options.name,
            "default_route": !options.no_default_route,
        });
        let answer = write(&client, &path, &body).await?;
        let served = answer.pointer("/status/applied").and_then(Value::as_bool) == Some(true);
        let state = if served { "served" } else { "stored, served when dnsmasq is" };
        Ok(say(&format!("{} gets {}: {state}\n", plain(&options.mac), options.ip)))
    })
}

pub(super) fn rm(options: &OneOptions) -> Outcome {
    options.target.ask(async |client| {
        let zone = options.target.zone(&client).await?;
        let path = path(Operation::DeleteReservation, &[&zone, &options.id])?;
        client.call::<Value>(Method::DELETE, &path, None::<&()>).await?;
        Ok(say(&format!("{} is gone\n", plain(&options.id))))
    })
}

pub(super) fn release(options: &ReleaseOptions) -> Outcome {
    options.target.ask(async |client| {
        let zone = options.target.zone(&client).await?;
        let mut path = path(Operation::DeleteLease, &[&zone, &options.ip.to_string()])?;
        if let Some(mac) = &options.mac {
            path.push_str(&format!("?mac={}", super::target::escaped(mac)));
        }
        client.call::<Value>(Method::DELETE, &path, None::<&()>).await?;
        Ok(say(&format!("{} is released\n", options.ip)))
    })
}

pub(super) fn sync(options: &SyncOptions) -> Outcome {
    options.target.ask(async |client| {
        let (force, dry_run) = (options.force, options.dry_run);
        let path = path(Operation::SyncNow, &[])?;
        let path = format!("{path}?force={force}&dry_run={dry_run}");
        let document = client.call::<Value>(Method::POST, &path, None::<&()>).await?;
        if document.is_null() {
            return Ok(say("the listing goes on; quickcloud dhcp status says what came of it\n"));
        }
        if options.json {
            return Ok(say(&format!("{document:#}\n")));
        }
        Ok(say(&render(&typed(document)?)))
    })
}

fn render(answer: &SyncAnswer) -> String {
    let would = if answer.dry_run { "would be " } else { "" };
    let mut out = format!(
        "{} {would}changed, {} {would}removed, {} missing once, {} held\n",
        answer.upsert.len(),
        answer.delete.len(),
        answer.absent,
        answer.held
    );
    if !answer.complete {
        out.push_str("the listing was not complete: nothing is removed on account of it\n");
    }
    if answer.held > 0 {
        out.push_str("too many are missing to be believed: --force removes them\n");
    }
    for (sign, ids) in [('+', &answer.upsert), ('-', &answer.delete)] {
        ids.iter().take(50).for_each(|id| out.push_str(&format!("{sign} {id}\n")));
        if let Some(more) = ids.len().checked_sub(50).filter(|more| *more > 0) {
            out.push_str(&format!("{sign} and {more} more\n"));
        }
    }
    for note in &answer.notes {
        out.push_str(&format!("note: {}\n", plain(&note.text)));
    }
    out
}

/// Exit code 75 is what CloudStack's callers take for "try again".
pub(super) fn edithosts(options: &EdithostsOptions) -> Outcome {
    let failed = |problem: &Problem| match problem.is_absent() {
        true => Outcome::InUse,
        false => Outcome::Failed,
    };
    let work = async |client: Client| {
        let zone = options.target.zone(&client).await?;
        // One entry per MAC, as the scripts have it.
        let id = format!("edithosts:{}", options.mac.to_ascii_lowercase());
        let path = path(Operation::PutReservation, &[&zone, &id])?;
        let body = json!({"mac": options.mac, "ipv4": options.ip, "hostname": options.name});
        write(&client, &path, &body).await?;
        Ok(Outcome::Clean)
    };
    options.target.talk(work, failed)
}
