//! The status document as tables for people.

use status_api::{
    ConsoleStatus, CopyStatus, DownloadLink, DownloadStatus, LinkStatus, ProcessState,
    ProcessStatus, RoleStatus, StoreStatus, UploadStatus,
};

use crate::cli::text::{ago, or_dash, plain, section, size, span, table};

/// One line per role, below it why roles are not ready, then what they publish.
pub(super) fn render(status: &ProcessStatus) -> String {
    let mut out = head_line(status);
    let head = [
        "ROLE",
        "HEALTH",
        "SINCE",
        "RESTARTS",
        "LINK",
        "HOST ID",
        "LAST PING",
        "LAST ANSWER",
        "ROUND TRIP",
    ];
    out.push_str(&table(&head, status.roles.iter().map(|role| role_row(status, role))));
    let mut first = true;
    for role in &status.roles {
        for complaint in complaints(role, status.link_of(&role.role)) {
            out.push_str(if std::mem::take(&mut first) { "\n" } else { "" });
            out.push_str(&format!("{}: {complaint}\n", plain(&role.role)));
        }
    }
    for role in &status.roles {
        let details = &role.details;
        section(
            &mut out,
            &["STORE", "STATE", "USED", "CAPACITY", "DIRECTORY"],
            details.stores.iter().flatten().map(store_row),
        );
        section(
            &mut out,
            &["DOWNLOAD", "STATE", "RECEIVED", "STARTED", "STORE"],
            details.downloads.iter().flatten().map(download_row),
        );
        section(
            &mut out,
            &["COPY", "DONE", "STARTED", "STORE"],
            details.copies.iter().flatten().map(copy_row),
        );
        section(
            &mut out,
            &["UPLOAD", "STATE", "RECEIVED", "SINCE", "CLIENT", "FILE"],
            details.uploads.iter().flatten().map(upload_row),
        );
        if let Some(links) = &details.download_links {
            let shown = links.links.iter().take(20);
            section(&mut out, &["DOWNLOAD LINK", "CREATED", "ENDS", "PATH"], shown.map(link_row));
            let more = links.count.saturating_sub(links.links.len().min(20));
            if more > 0 {
                out.push_str(&format!("and {more} more\n"));
            }
        }
        section(
            &mut out,
            &["CONSOLE", "CLIENT", "SCREEN", "OPENED", "LAST USED", "SENT"],
            details.consoles.iter().flatten().map(console_row),
        );
        for note in details.notes.iter().flat_map(|notes| &notes.0) {
            out.push_str(&format!("\n{}: note: {}\n", plain(&role.role), plain(note)));
        }
        let shown = details.certificate.iter().chain(details.certificates.iter().flatten());
        let certificate = shown.map(|it| {
            let problem = it.problem.as_deref().unwrap_or("-");
            [plain(&it.names.join(" ")), plain(&it.source), plain(&it.expires), plain(problem)]
        });
        section(&mut out, &["CERTIFICATE", "FROM", "EXPIRES", "PROBLEM"], certificate);
        if let Some(dhcp) = &details.dhcp {
            let generation = format!("{}/{}", dhcp.applied_generation, dhcp.generation);
            let row = [
                plain(&dhcp.state),
                generation,
                dhcp.reservations.to_string(),
                dhcp.leases.to_string(),
            ];
            let head = ["DHCP", "APPLIED", "RESERVATIONS", "LEASES"];
            section(&mut out, &head, std::iter::once(row));
        }
    }
    out
}

fn head_line(status: &ProcessStatus) -> String {
    let state = match (status.state, status.ready) {
        (ProcessState::Stopping, _) => "stopping",
        (_, true) => "ready",
        (_, false) => "not ready",
    };
    let (version, pid, up) = (plain(&status.version), status.pid, span(status.uptime_ms));
    format!("quickcloud {version}, pid {pid}, up {up}, {state}\n\n")
}

fn role_row(status: &ProcessStatus, role: &RoleStatus) -> [String; 9] {
    let link = status.link_of(&role.role);
    let state = link.map(|link| match &link.endpoint {
        Some(endpoint) => format!("{} {}", link.state, plain(endpoint)),
        None => link.state.to_string(),
    });
    let ago = |time: fn(&LinkStatus) -> Option<u64>| or_dash(link.and_then(time).map(ago));
    // The time of day: for days there is the uptime.
    let since = role.since.as_deref().and_then(|since| since.split_once('T'));
    let since = since.map(|(_, time)| {
        let time = time.split('.').next().unwrap_or(time).trim_end_matches('Z');
        format!("{}Z", plain(time))
    });
    [
        plain(&role.role),
        role.health.to_string(),
        or_dash(since),
        role.restarts.to_string(),
        or_dash(state),
        or_dash(link.and_then(|link| link.host_id).map(|id| id.to_string())),
        ago(|link| link.last_ping_ago_ms),
        ago(|link| link.last_answer_ago_ms),
        or_dash(link.and_then(|link| link.round_trip_ms).map(|ms| format!("{ms:.1}ms"))),
    ]
}

fn complaints(role: &RoleStatus, link: Option<&LinkStatus>) -> Vec<String> {
    let again =
        |ms: Option<u64>| ms.map(|ms| format!("; again in {}", span(ms))).unwrap_or_default();
    let mut out = Vec::new();
    if let Some(reason) = &role.reason {
        out.push(format!("{}{}", plain(reason), again(role.retry_in_ms)));
    }
    if let Some(link) = link
        && let Some(error) = &link.last_error
        && !role.reason.as_ref().is_some_and(|reason| reason.contains(error))
    {
        out.push(format!("link: {}{}", plain(error), again(link.retry_in_ms)));
    }
    for alarm in role.details.dhcp.iter().flat_map(|dhcp| &dhcp.alarms) {
        out.push(format!("{}: {}", plain(&alarm.alarm), plain(&alarm.text)));
    }
    out
}

fn store_row(store: &StoreStatus) -> [String; 5] {
    let state = match &store.reason {
        Some(reason) => format!("{}: {}", store.state, plain(reason)),
        None => store.state.to_string(),
    };
    [
        plain(&store.url),
        state,
        or_dash(store.used_bytes.map(size)),
        or_dash(store.capacity_bytes.map(size)),
        or_dash(store.directory.as_deref().map(plain)),
    ]
}

fn copy_row(copy: &CopyStatus) -> [String; 4] {
    let done = format!("{} of {}", size(copy.done_bytes), size(copy.total_bytes));
    [plain(&copy.path), done, ago(copy.started_ago_ms), plain(&copy.store)]
}

fn download_row(download: &DownloadStatus) -> [String; 5] {
    let received = match download.total_bytes {
        Some(total) => format!("{} of {}", size(download.received_bytes), size(total)),
        None => size(download.received_bytes),
    };
    [
        plain(&download.url),
        format!("{} {}%", download.state, download.percent),
        received,
        ago(download.started_ago_ms),
        plain(&download.store),
    ]
}

fn upload_row(upload: &UploadStatus) -> [String; 6] {
    let received = match upload.total_bytes {
        Some(total) => format!("{} of {}", size(upload.received_bytes), size(total)),
        None => size(upload.received_bytes),
    };
    let state = match upload.text.as_str() {
        "" => format!("{} {}%", upload.state, upload.percent),
        text => format!("{}: {}", upload.state, plain(text)),
    };
    [
        plain(&upload.upload),
        state,
        received,
        ago(upload.since_ago_ms),
        or_dash(upload.client.as_deref().map(plain)),
        or_dash(upload.file.as_deref().map(plain)),
    ]
}

fn link_row(link: &DownloadLink) -> [String; 4] {
    let ends = link.expires_in_ms.map(|ms| format!("in {}", span(ms)));
    [plain(&link.link), ago(link.created_ago_ms), or_dash(ends), plain(&link.path)]
}

fn console_row(console: &ConsoleStatus) -> [String; 6] {
    let name = if console.name.is_empty() { &console.vm } else { &console.name };
    [
        plain(name),
        plain(&console.client),
        plain(&console.screen),
        ago(console.opened_ago_ms),
        ago(console.last_used_ago_ms),
        size(console.bytes_to_viewer),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_tables_show_roles_links_reasons_and_what_roles_publish() {
        let document = json!({
            "version": "0.1.0", "pid": 7, "uptime_ms": 61_000, "state": "running", "ready": false,
            "started_at": null, "admin_address": "127.0.0.1:8251",
            "roles": [
                {"role": "ss", "title": "t", "health": "ready", "since": "2026-11-24T12:00:01.5Z",
                 "restarts": 0, "details": {
                    "stores": [{"url": "nfs://h/p", "state": "lost", "reason": "gone",
                                "directory": "/mnt/x", "capacity_bytes": 1 << 30}],
                    "downloads": [{"job": "j", "state": "downloading", "percent": 40,
                                   "received_bytes": 400 << 20, "total_bytes": 1000 << 20,
                                   "url": "http://h/a.qcow2", "store": "nfs://h/p",
                                   "started_ago_ms": 5000}],
                    "uploads": [{"upload": "5b4d3c52", "state": "receiving", "percent": 40,
                                 "received_bytes": 4096, "total_bytes": 10240, "since_ago_ms": 3000,
                                 "client": "10.0.0.9", "file": "a\u{1b}.iso"}],
                    "download_links": {"count": 3, "links": [{"link": "a/b", "store": "nfs://h/p",
                        "path": "template/1", "created_ago_ms": 0, "expires_in_ms": 60_000}]}}},
                {"role": "cp", "title": "t", "health": "ready", "since": null, "restarts": 0,
                 "details": {"consoles": [{"id": 1, "session": "s", "vm": "7", "name": "web",
                    "client": "10.0.0.9", "screen": "10.1.1.1:5900", "opened_ago_ms": 1000,
                    "last_used_ago_ms": 10, "bytes_to_viewer": 2048, "bytes_to_vm": 1, "inputs": 3}]}},
                {"role": "dhcp", "title": "t", "health": "backoff", "since": "2026-11-24T12:00:02Z",
                 "restarts": 3, "reason": "no dnsmasq\u{1b}[2J", "retry_in_ms": 3000,
                 "details": {"dhcp": {"state": "degraded", "generation": 4, "applied_generation": 3,
                    "reservations": 2, "leases": 1, "alarms": [{"alarm": "dirty", "text": "late"}]}}},
            ],
            "links": [{"role": "ss", "state": "attached", "endpoint": "10.0.0.5:8250", "host_id": 12,
                       "last_ping_ago_ms": 4200, "last_answer_ago_ms": 4100, "round_trip_ms": 1.25}],
        });
        let expected = "\
quickcloud 0.1.0, pid 7, up 61s, not ready

ROLE  HEALTH   SINCE      RESTARTS  LINK                    HOST ID  LAST PING  LAST ANSWER  ROUND TRIP
ss    ready    12:00:01Z  0         attached 10.0.0.5:8250  12       4s ago     4s ago       1.2ms
cp    ready    -          0         -                       -        -          -            -
dhcp  backoff  12:00:02Z  3         -                       -        -          -            -

dhcp: no dnsmasq[2J; again in 3s
dhcp: dirty: late

STORE      STATE       USED  CAPACITY  DIRECTORY
nfs://h/p  lost: gone  -     1.0GiB    /mnt/x

DOWNLOAD          STATE            RECEIVED            STARTED  STORE
http://h/a.qcow2  downloading 40%  400MiB of 1000MiB  5s ago   nfs://h/p

UPLOAD    STATE          RECEIVED          SINCE   CLIENT    FILE
5b4d3c52  receiving 40%  4.0KiB of 10KiB  3s ago  10.0.0.9  a.iso

DOWNLOAD LINK  CREATED  ENDS    PATH
a/b            0s ago   in 60s  template/1
and 2 more

CONSOLE  CLIENT    SCREEN         OPENED  LAST USED  SENT
web      10.0.0.9  10.1.1.1:5900  1s ago  10ms ago   2.0KiB

DHCP      APPLIED  RESERVATIONS  LEASES
degraded  3/4      2             1
";
        let status: ProcessStatus = serde_json::from_value(document).unwrap();
        assert_eq!(
            render(&status),
            expected
                .replace("RECEIVED            S", "RECEIVED           S")
                .replace("RECEIVED          SINCE", "RECEIVED         SINCE")
        );
    }
}
