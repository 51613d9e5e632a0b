//! Watching a client live, and looking for other servers.

use std::time::Duration;

use clap::Args;
use dhcp_api::answer::{ExplainAnswer, ProbeAnswer, TraceAnswer, TraceLine};
use dhcp_api::operation::Operation;
use http_client::Method;
use jiff::{SignedDuration, Zoned};
use serde_json::Value;

use super::target::{Target, path, typed};
use crate::cli::text::plain;
use crate::exit::Outcome;
use crate::output::{complain, say};

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud dhcp trace 1e:00:28:00:01:63
  quickcloud dhcp trace 1e:00:28:00:01:63 --once

What was said lately comes first, then what is said now, until interrupted.";

pub(super) const PROBE_EXAMPLES: &str = "\
Examples:
  quickcloud dhcp probe

Exit code 0 when nobody else answers, 1 when somebody does.";

/// Between two looks.
const AGAIN: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(in crate::cli) struct TraceOptions {
    /// The client's MAC address
    mac: String,
    /// Only what was said until now
    #[arg(long)]
    once: bool,
    /// As JSON, one line of the log each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ProbeOptions {
    /// As JSON, as the role gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn trace(options: &TraceOptions) -> Outcome {
    options.target.ask(async |client| {
        if !options.json {
            let path = path(Operation::Explain, &[&options.mac])?;
            let answer: ExplainAnswer = client.get(&path).await?;
            let verdict = if answer.served { "is served" } else { "is not served" };
            // Apart from the lines, which may go into a file.
            complain(&format!("{} {verdict}\n", plain(&answer.who)));
        }
        let path = path(Operation::Trace, &[&options.mac])?;
        let mut after = 0;
        loop {
            let answer: TraceAnswer = client.get(&format!("{path}?after={after}")).await?;
            // A process that was started anew counts from the beginning.
            after = answer.next;
            let text: String = answer.items.iter().map(|line| shown(line, options.json)).collect();
            let written = say(&text);
            if options.once || written != Outcome::Clean {
                return Ok(written);
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}

fn shown(line: &TraceLine, json: bool) -> String {
    if json {
        return serde_json::to_string(line).map(|text| text + "\n").unwrap_or_default();
    }
    let age = SignedDuration::from_millis(i64::try_from(line.age_ms).unwrap_or(i64::MAX));
    let at = Zoned::now().checked_sub(age).unwrap_or_else(|_too_long_ago| Zoned::now());
    format!("{} {}\n", at.strftime("%H:%M:%S%.3f"), plain(&line.text))
}

pub(super) fn probe(options: &ProbeOptions) -> Outcome {
    options.target.ask(async |client| {
        let path = path(Operation::Probe, &[])?;
        let document: Value = client.call(Method::POST, &path, None::<&()>).await?;
        let answer: ProbeAnswer = typed(document.clone())?;
        let text = if options.json { format!("{document:#}\n") } else { render(&answer) };
        let written = say(&text);
        let alone = answer.servers.is_empty();
        Ok(if written == Outcome::Clean && !alone { Outcome::Failed } else { written })
    })
}

fn render(answer: &ProbeAnswer) -> String {
    let interface = plain(&answer.interface);
    if answer.servers.is_empty() {
        return format!("nobody else answers on {interface}\n");
    }
    let line = |server: &dhcp_api::answer::OtherServer| {
        let called = server.server_id.map(|id| format!(", called {id}")).unwrap_or_default();
        format!("{}{called}, offers {} on {interface}\n", server.ip, server.offers)
    };
    answer.servers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcp_api::answer::OtherServer;

    #[test]
    fn other_servers_are_named_with_what_they_offer() {
        let mut answer = ProbeAnswer { interface: "br0".to_owned(), servers: Vec::new() };
        assert_eq!(render(&answer), "nobody else answers on br0\n");
        answer.servers.push(OtherServer {
            ip: [10, 0, 0, 9].into(),
            server_id: Some([10, 0, 0, 1].into()),
            offers: [10, 0, 0, 50].into(),
        });
        assert_eq!(render(&answer), "10.0.0.9, called 10.0.0.1, offers 10.0.0.50 on br0\n");
    }

    #[test]
    fn a_line_has_its_time_and_cannot_move_the_cursor() {
        let line = TraceLine { number: 7, age_ms: 0, text: "DHCPACK(br0) \u{1b}[2J".to_owned() };
        let text = shown(&line, false);
        assert!(text.ends_with(" DHCPACK(br0) [2J\n"), "{text}");
        assert_eq!(text.find(' '), Some("00:00:00.000".len()), "{text}");
        assert!(shown(&line, true).starts_with("{\"number\":7,"), "as JSON");
    }
}
