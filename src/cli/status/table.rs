//! The status document as a table for people.

use config_reader::format_duration;
use serde_json::Value;
use std::time::Duration;

const HEAD: [&str; 9] = [
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

/// One line per role, below it why it is not ready.
pub(super) fn render(document: &Value) -> String {
    let empty = Vec::new();
    let roles = document.get("roles").and_then(Value::as_array).unwrap_or(&empty);
    let rows: Vec<[String; 9]> = roles.iter().map(row).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = head_line(document);
    out.push_str(&line(&HEAD.map(str::to_owned), &widths));
    for row in &rows {
        out.push_str(&line(row, &widths));
    }
    for role in roles {
        for complaint in complaints(role) {
            out.push_str(&format!("\n{}: {complaint}", text(role, "role")));
        }
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

fn head_line(document: &Value) -> String {
    let up = document.get("uptime_ms").and_then(Value::as_u64).map_or_else(String::new, span);
    let ready = document.get("ready").and_then(Value::as_bool) == Some(true);
    let state = match text(document, "state").as_str() {
        "stopping" => "stopping",
        _ if ready => "ready",
        _ => "not ready",
    };
    let (version, pid) = (text(document, "version"), text(document, "pid"));
    format!("quickcloud {version}, pid {pid}, up {up}, {state}\n\n")
}

fn row(role: &Value) -> [String; 9] {
    let link = role.get("link").unwrap_or(&Value::Null);
    let ago = |key: &str| {
        link.get(key).and_then(Value::as_u64).map_or_else(dash, |ms| format!("{} ago", span(ms)))
    };
    let endpoint = text(link, "endpoint");
    let state = match (text(link, "state"), endpoint.as_str()) {
        (state, _) if state.is_empty() => dash(),
        (state, "") => state,
        (state, endpoint) => format!("{state} {endpoint}"),
    };
    let since = text(role, "since");
    let since = since.split_once('T').map_or(since.as_str(), |(_, time)| time);
    [
        text(role, "role"),
        text(role, "health"),
        since.split('.').next().unwrap_or(since).trim_end_matches('Z').to_owned() + "Z",
        text(role, "restarts"),
        state,
        or_dash(text(link, "host_id")),
        ago("last_ping_ago_ms"),
        ago("last_answer_ago_ms"),
        link.get("round_trip_ms")
            .and_then(Value::as_f64)
            .map_or_else(dash, |ms| format!("{ms:.1}ms")),
    ]
}

fn complaints(role: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let reason = text(role, "reason");
    if !reason.is_empty() {
        let retry = role.get("retry_in_ms").and_then(Value::as_u64);
        let retry = retry.map_or_else(String::new, |ms| format!("; again in {}", span(ms)));
        out.push(format!("{reason}{retry}"));
    }
    let link = role.get("link").unwrap_or(&Value::Null);
    let error = text(link, "last_error");
    if !error.is_empty() && !reason.contains(&error) {
        let retry = link.get("retry_in_ms").and_then(Value::as_u64);
        let retry = retry.map_or_else(String::new, |ms| format!("; again in {}", span(ms)));
        out.push(format!("link: {error}{retry}"));
    }
    out
}

fn line(cells: &[String; 9], widths: &[usize; 9]) -> String {
    let mut out = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        out.push_str(&format!("{cell:width$}  "));
    }
    format!("{}\n", out.trim_end())
}

/// The text of a field without quotes; nothing for null or absent.
fn text(object: &Value, key: &str) -> String {
    match object.get(key) {
        None | Some(Value::Null) => String::new(),
        // What the process or its peers say must not move the cursor.
        Some(Value::String(text)) => text.chars().filter(|c| !c.is_control()).collect(),
        Some(other) => other.to_string(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn or_dash(text: String) -> String {
    if text.is_empty() { dash() } else { text }
}

/// Milliseconds in a unit people read: 850ms, 42s, 17m, 5h, 3d.
fn span(ms: u64) -> String {
    const DAY: u64 = 86_400_000;
    let rounded = match ms {
        0..1000 => ms,
        1000..120_000 => ms / 1000 * 1000,
        120_000..7_200_000 => ms / 60_000 * 60_000,
        _ if ms < 2 * DAY => ms / 3_600_000 * 3_600_000,
        _ => return format!("{}d", ms / DAY),
    };
    if (60_000..120_000).contains(&rounded) {
        return format!("{}s", rounded / 1000);
    }
    format_duration(Duration::from_millis(rounded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_shows_role_link_and_reason() {
        let document = json!({
            "version": "0.1.0", "pid": 7, "uptime_ms": 61_000, "state": "running", "ready": false,
            "roles": [
                {"role": "ss", "health": "ready", "since": "2026-11-24T12:00:01.5Z", "restarts": 0,
                 "reason": null, "link": {"state": "attached", "endpoint": "10.0.0.5:8250",
                 "host_id": 12, "last_ping_ago_ms": 4200, "last_answer_ago_ms": 4100,
                 "round_trip_ms": 1.25, "last_error": null}},
                {"role": "dhcp", "health": "backoff", "since": "2026-11-24T12:00:02Z", "restarts": 3,
                 "reason": "no dnsmasq\u{1b}[2J", "retry_in_ms": 3000, "link": null},
            ],
        });
        let expected = "\
quickcloud 0.1.0, pid 7, up 61s, not ready

ROLE  HEALTH   SINCE      RESTARTS  LINK                    HOST ID  LAST PING  LAST ANSWER  ROUND TRIP
ss    ready    12:00:01Z  0         attached 10.0.0.5:8250  12       4s ago     4s ago       1.2ms
dhcp  backoff  12:00:02Z  3         -                       -        -          -            -

dhcp: no dnsmasq[2J; again in 3s
";
        assert_eq!(render(&document), expected);
    }

    #[test]
    fn times_are_short() {
        let spans: Vec<String> =
            [0, 999, 1999, 119_999, 120_000, 7_199_999, 7_200_000, 86_400_000 * 3].map(span).into();
        assert_eq!(spans, ["0s", "999ms", "1s", "119s", "2m", "119m", "2h", "3d"]);
    }
}
