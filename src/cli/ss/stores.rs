//! `quickcloud ss stores|verify`: the stores of the running process, and what is on them.

use std::time::Duration;

use clap::Args;
use http_client::{Client, Method};
use status_api::{Finding, FindingKind, StoreStatus, VerifyReport};

use crate::cli::text::{or_dash, plain, size, table};
use crate::cli::view::{ChangeOptions, ViewOptions, change, view};
use crate::exit::Outcome;

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud ss stores
  quickcloud ss stores --watch
  quickcloud ss stores --json";

pub(super) const VERIFY_EXAMPLES: &str = "\
Examples:
  quickcloud ss verify
  quickcloud ss verify --repair
  quickcloud ss verify --store nfs://10.0.0.9/export/sec --json

Looks at every template, ISO and volume: files that are missing or too short, files that nobody
lists, and what unfinished downloads and uploads left. A repair removes the last, when nobody touched
it for a day; nothing else is ever removed.";

/// A look reads every directory of a store.
const TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyOptions {
    /// Remove what unfinished downloads and uploads left
    #[arg(long)]
    repair: bool,
    /// Only this store, by its URL; all that are ready otherwise
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    #[command(flatten)]
    change: ChangeOptions,
}

pub(super) fn stores(options: &ViewOptions) -> Outcome {
    view::<Vec<StoreStatus>>(options, "/roles/ss/stores", |stores| render(stores))
}

pub(super) fn verify(options: &VerifyOptions) -> Outcome {
    let asked = async |_client: &Client| {
        let mut path = format!("/roles/ss/verify?repair={}", options.repair);
        if let Some(store) = &options.store {
            path.push_str(&format!("&store={}", query(store)));
        }
        Ok((Method::POST, path))
    };
    change::<Vec<VerifyReport>>(&options.change, TIMEOUT, asked, |reports| found(reports))
}

/// Everything but letters and digits by number.
fn query(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn render(stores: &[StoreStatus]) -> String {
    if stores.is_empty() {
        return "no stores: none is configured, and the server has named none\n".to_owned();
    }
    let head = ["URL", "STATE", "USED", "CAPACITY", "DIRECTORY"];
    let rows = stores.iter().map(|store| {
        let bytes = |bytes: Option<u64>| or_dash(bytes.map(size));
        [
            plain(&store.url),
            store.state.to_string(),
            bytes(store.used_bytes),
            bytes(store.capacity_bytes),
            or_dash(store.directory.as_deref().map(plain)),
        ]
    });
    let mut out = table(&head, rows);
    for store in stores {
        let reason = store.reason.iter().map(|reason| plain(reason));
        let notes = store.notes.iter().map(|note| format!("note: {}", plain(note)));
        let orphans = store.orphans.filter(|orphans| *orphans > 0).map(|orphans| {
            format!("{orphans} found that are not whole or not listed: see quickcloud ss verify")
        });
        for line in reason.chain(notes).chain(orphans) {
            out.push_str(&format!("\n{}: {line}\n", plain(&store.url)));
        }
    }
    out
}

fn found(reports: &[VerifyReport]) -> String {
    if reports.is_empty() {
        return "no store is ready: see quickcloud ss stores\n".to_owned();
    }
    let mut out = String::new();
    for report in reports {
        let (url, objects) = (plain(&report.store), report.objects);
        out.push_str(&format!("{url}: {objects} objects, {}", size(report.object_bytes)));
        if let Some(error) = &report.error {
            out.push_str(&format!("; the look broke off: {}", plain(error)));
        }
        match report.found {
            0 => out.push_str(", all whole\n"),
            count => out.push_str(&format!("; {count} found\n")),
        }
        if !report.findings.is_empty() {
            let rows = report.findings.iter().map(|finding| {
                let done = if finding.repaired { "removed: " } else { "" };
                let text = format!("{done}{}", plain(&finding.text));
                [finding.kind.to_string(), plain(&finding.path), size(finding.bytes), text]
            });
            out.push_str(&table(&["FOUND", "PATH", "SIZE", "WHAT"], rows));
        }
        let told = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
        if report.found > told {
            out.push_str(&format!("and {} more\n", report.found - told));
        }
        let is_left =
            |finding: &Finding| finding.kind == FindingKind::Leftover && !finding.repaired;
        let left = report.findings.iter().filter(|finding| is_left(finding)).count();
        if left > 0 {
            let bytes = size(report.reclaimable_bytes);
            out.push_str(&format!(
                "quickcloud ss verify --repair removes {left} of them ({bytes})\n"
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn squeezed(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn stores_are_shown_with_what_is_wrong_with_them() {
        let stores: Vec<StoreStatus> = serde_json::from_value(json!([
            {"url": "nfs://h/a", "state": "ready", "directory": "/srv/a\u{1b}[2J",
             "capacity_bytes": 4096, "used_bytes": 1024, "notes": ["mounted read-only"],
             "orphans": 2},
            {"url": "nfs://h/b", "state": "failed", "reason": "no nfs here"},
        ]))
        .unwrap();
        let expected = "URL STATE USED CAPACITY DIRECTORY \
            nfs://h/a ready 1.0KiB 4.0KiB /srv/a[2J nfs://h/b failed - - - \
            nfs://h/a: note: mounted read-only \
            nfs://h/a: 2 found that are not whole or not listed: see quickcloud ss verify \
            nfs://h/b: no nfs here";
        assert_eq!(squeezed(&render(&stores)), expected);
        assert!(render(&[]).starts_with("no stores"));
    }

    #[test]
    fn findings_are_shown_with_the_way_out() {
        let reports: Vec<VerifyReport> = serde_json::from_value(json!([
            {"store": "nfs://h/a", "objects": 2, "object_bytes": 2048, "found": 2,
             "reclaimable_bytes": 1024, "repaired": 0, "findings": [
                {"kind": "leftover", "path": "volumes/2/9", "bytes": 1024, "text": "left"}]},
            {"store": "nfs://h/b", "objects": 0, "object_bytes": 0, "found": 0,
             "reclaimable_bytes": 0, "repaired": 0, "findings": []},
        ]))
        .unwrap();
        let expected = "nfs://h/a: 2 objects, 2.0KiB; 2 found FOUND PATH SIZE WHAT \
            leftover volumes/2/9 1.0KiB left and 1 more \
            quickcloud ss verify --repair removes 1 of them (1.0KiB) \
            nfs://h/b: 0 objects, 0B, all whole";
        assert_eq!(squeezed(&found(&reports)), expected);
        assert_eq!(query("nfs://h/a b&c"), "nfs%3A%2F%2Fh%2Fa%20b%26c");
    }
}
