//! What the role serves, as tables.

use dhcp_api::answer::{ExplainAnswer, LeaseAnswer, Phase, ReservationAnswer, RoleState, Status};
use dhcp_api::operation::Operation;
use http_client::Method;
use serde_json::Value;

use super::target::{View, all, escaped, path, typed};
use super::{ConfigOptions, ExplainOptions, LeasesOptions, ReservationsOptions};
use crate::cli::text::{or_dash, plain, section, span, table};
use crate::exit::Outcome;
use crate::output::say;

pub(super) fn status(view: &View) -> Outcome {
    let fetch = async |client: &http_client::Client| {
        Ok(client.get::<Value>(&path(Operation::ShowStatus, &[])?).await?)
    };
    view.show(fetch, |document| Ok(render_status(&typed(document)?)))
}

fn render_status(status: &Status) -> String {
    let state = match status.state {
        RoleState::Starting => "starting",
        RoleState::Ready => "ready",
        RoleState::Degraded => "degraded",
        RoleState::Stopped => "stopped",
    };
    let served = match status.dirty {
        false => format!("generation {} is served", status.generation),
        true => format!("generation {} of {}", status.applied_generation, status.generation),
    };
    let mut out = format!("{state}, {served}\n");
    let rows = status.instances.iter().map(|instance| {
        let phase = match instance.state {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Down => "down",
            Phase::Stopped => "stopped",
        };
        [
            plain(&instance.name),
            phase.to_owned(),
            or_dash(instance.pid.map(|pid| pid.to_string())),
            or_dash(instance.version.as_deref().map(plain)),
            or_dash(instance.uptime_s.map(|seconds| span(seconds * 1000))),
            instance.restarts.to_string(),
            instance.reservations.to_string(),
            instance.leases.to_string(),
        ]
    });
    let head = ["DNSMASQ", "STATE", "PID", "VERSION", "UP", "RESTARTS", "RESERVATIONS", "LEASES"];
    section(&mut out, &head, rows);
    let sync = &status.sync;
    let row = [
        or_dash(sync.zone.as_deref().map(plain)),
        sync.reservations.to_string(),
        or_dash(sync.last_success.map(|at| at.to_string())),
        or_dash(sync.stale_seconds.map(|seconds| span(seconds * 1000))),
        or_dash(sync.listing_ms.map(span)),
        sync.held_deletes.to_string(),
        sync.calls.to_string(),
    ];
    let head = ["SYNC OF", "RESERVATIONS", "LAST LISTING", "AGE", "TOOK", "HELD", "CALLS"];
    section(&mut out, &head, std::iter::once(row).filter(|_| sync.enabled));
    if let Some(error) = &sync.last_error {
        out.push_str(&format!("last error: {}\n", plain(error)));
    }
    let rows = status.alarms.iter().map(|alarm| {
        let word = serde_json::to_value(alarm.alarm).unwrap_or_default();
        let count = alarm.count.map(|count| format!("{count} ")).unwrap_or_default();
        [plain(word.as_str().unwrap_or_default()), plain(&format!("{count}{}", alarm.text))]
    });
    section(&mut out, &["ALARM", "WHAT"], rows);
    out
}

pub(super) fn reservations(options: &ReservationsOptions) -> Outcome {
    let view = &options.view;
    let fetch = async |client: &http_client::Client| {
        let zone = view.target.zone(client).await?;
        let mut path = path(Operation::ListReservations, &[&zone])?;
        let filters = [
            ("mac", options.mac.clone()),
            ("ip", options.ip.map(|ip| ip.to_string())),
            ("hostname", options.name.clone()),
            ("source", options.source.clone()),
            ("leased", options.unleased.then(|| "false".to_owned())),
        ];
        let mut joint = '?';
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("{joint}{name}={}", escaped(&value)));
                joint = '&';
            }
        }
        Ok(Value::Array(all(client, &path).await?))
    };
    view.show(fetch, |document| {
        let mut rows: Vec<ReservationAnswer> = typed(document)?;
        rows.sort_by_key(|answer| answer.reservation.ipv4);
        let rows = rows.iter().map(|answer| {
            let reservation = &answer.reservation;
            let lease = match (answer.status.leased, answer.status.applied) {
                (true, _) => "leased",
                (false, true) => "free",
                (false, false) => "not served",
            };
            let source = serde_json::to_value(reservation.meta.source).unwrap_or_default();
            [
                reservation.ipv4.to_string(),
                reservation.mac.to_string(),
                or_dash(reservation.hostname.as_ref().map(ToString::to_string)),
                lease.to_owned(),
                plain(source.as_str().unwrap_or_default()),
                reservation.subnet.to_string(),
                reservation.id.to_string(),
            ]
        });
        Ok(table(&["ADDRESS", "MAC", "NAME", "LEASE", "SOURCE", "SUBNET", "ID"], rows))
    })
}

pub(super) fn leases(options: &LeasesOptions) -> Outcome {
    let view = &options.view;
    let fetch = async |client: &http_client::Client| {
        let zone = view.target.zone(client).await?;
        let mut path = path(Operation::ListLeases, &[&zone])?;
        if options.conflicts {
            path.push_str("?conflict=true");
        }
        Ok(Value::Array(all(client, &path).await?))
    };
    view.show(fetch, |document| {
        let rows: Vec<LeaseAnswer> = typed(document)?;
        let rows = rows.iter().map(|lease| {
            let owner = match &lease.reservation {
                Some(id) => id.to_string(),
                None => "CONFLICT: nobody's reservation".to_owned(),
            };
            [
                lease.ipv4.to_string(),
                lease.mac.to_string(),
                or_dash(lease.hostname.as_deref().map(plain)),
                lease.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
                owner,
            ]
        });
        Ok(table(&["ADDRESS", "MAC", "NAME", "ENDS", "RESERVATION"], rows))
    })
}

pub(super) fn explain(options: &ExplainOptions) -> Outcome {
    options.target.ask(async |client| {
        let path = path(Operation::Explain, &[&options.who])?;
        let document: Value = client.get(&path).await?;
        let answer: ExplainAnswer = typed(document.clone())?;
        let written = match options.json {
            true => say(&format!("{document:#}\n")),
            false => say(&render_explanation(&answer)),
        };
        Ok(if written == Outcome::Clean && !answer.served { Outcome::Failed } else { written })
    })
}

fn render_explanation(answer: &ExplainAnswer) -> String {
    let verdict = if answer.served { "is served" } else { "is not served" };
    let mut out = format!("{} {verdict}\n", plain(&answer.who));
    for line in &answer.reasons {
        out.push_str(&format!("  {}\n", plain(line)));
    }
    out
}

pub(super) fn config(options: &ConfigOptions) -> Outcome {
    options.target.ask(async |client| {
        let path = format!("{}?file={}", path(Operation::ShowConfig, &[])?, options.file);
        let answer = client.fetch(Method::GET, &path, None).await?;
        if !answer.status.is_success() {
            let detail = answer.value();
            let detail = detail.get("detail").and_then(Value::as_str).unwrap_or("is not there");
            return Err(super::target::Problem::Zone(detail.to_owned()));
        }
        Ok(say(&String::from_utf8_lossy(&answer.body)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_short_and_says_what_is_wrong() {
        let document = json!({
            "state": "degraded", "generation": 7, "applied_generation": 6, "applied_at": null,
            "dirty": true,
            "instances": [{"name": "main", "pid": 12, "version": "2.90", "state": "serving",
                "runs_as": "dnsmasq", "restarts": 0, "last_exit": null, "uptime_s": 61,
                "reload_mode": "sighup", "reservations": 3, "leases": 2, "last_apply": null}],
            "sync": {"enabled": true, "zone": "z1", "last_success": null, "stale_seconds": 5,
                "last_error": "cannot connect\u{1b}[2J", "held_deletes": 0, "reservations": 3,
                "listing_ms": 12, "calls": 40},
            "alarms": [{"alarm": "lease-conflict", "text": "leases", "count": 2}],
        });
        let text = render_status(&serde_json::from_value(document).unwrap());
        assert!(text.starts_with("degraded, generation 6 of 7\n"), "{text}");
        assert!(text.contains("last error: cannot connect[2J\n"), "{text}");
        assert!(text.contains("lease-conflict  2 leases\n"), "{text}");
    }
}
