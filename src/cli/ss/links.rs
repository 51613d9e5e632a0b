//! `quickcloud ss links|unlink`: download links of users.

use std::time::Duration;

use clap::Args;
use http_client::{Client, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use status_api::DownloadLinksStatus;

use crate::cli::text::{ago, or_dash, plain, span, table};
use crate::cli::view::{ChangeOptions, ViewOptions, change, view};
use crate::exit::Outcome;

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud ss links
  quickcloud ss links --json --admin 127.0.0.1:8251

Links of all storage hosts of the zone are shown: they lie on the stores.";

pub(super) const UNLINK_EXAMPLES: &str = "\
Examples:
  quickcloud ss unlink 245aa84f-36c2-4a2b-ab08-c2efa8b16f18/debian.qcow2
  quickcloud ss unlink http://203.0.113.7/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/debian.qcow2

No storage host of the zone serves the link any more; what it leads to stays. Who has it is told when it
ended. The management server still shows it until it expires there.";

const PATH: &str = "/roles/ss/links";
const TIMEOUT: Duration = Duration::from_secs(35);

#[derive(Debug, Args)]
pub(in crate::cli) struct LinkOptions {
    /// The link as `quickcloud ss links` shows it, or its URL
    link: String,
    #[command(flatten)]
    change: ChangeOptions,
}

/// What came of taking a link away.
#[derive(Debug, Deserialize)]
struct Removed {
    link: String,
    path: String,
}

pub(super) fn links(options: &ViewOptions) -> Outcome {
    view::<DownloadLinksStatus>(options, PATH, render)
}

pub(super) fn unlink(options: &LinkOptions) -> Outcome {
    let asked = async |_client: &Client| Ok((Method::DELETE, path_of(&options.link)));
    change::<Removed>(&options.change, TIMEOUT, asked, |removed| {
        format!("{} is served no more ({})\n", plain(&removed.link), plain(&removed.path))
    })
}

/// The route of a link: its two last segments. Those of a URL are encoded already.
fn path_of(link: &str) -> String {
    let is_url = link.contains("://");
    let link = if is_url { link.split(['?', '#']).next().unwrap_or(link) } else { link };
    let mut segments: Vec<&str> = link.rsplitn(3, '/').take(2).collect();
    segments.reverse();
    let encoded = segments.iter().map(|segment| {
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
        let text = if is_url { decoded.as_ref() } else { segment };
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    });
    format!("{PATH}/{}", encoded.collect::<Vec<_>>().join("/"))
}

fn render(status: &DownloadLinksStatus) -> String {
    if status.links.is_empty() {
        return "no links\n".to_owned();
    }
    let rows = status.links.iter().map(|link| {
        [
            plain(&link.link),
            ago(link.created_ago_ms),
            or_dash(link.expires_in_ms.map(|left| format!("in {}", span(left)))),
            plain(&link.store),
            plain(&link.path),
        ]
    });
    table(&["LINK", "CREATED", "ENDS", "STORE", "PATH"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use status_api::DownloadLink;

    #[test]
    fn links_are_shown_with_their_end() {
        let link = DownloadLink {
            link: "245aa84f/a\u{1b}.qcow2".to_owned(),
            store: "nfs://h/p".to_owned(),
            path: "template/tmpl/2/320/a.qcow2".to_owned(),
            created_ago_ms: 5_000,
            expires_in_ms: Some(7_200_000),
        };
        let text = render(&DownloadLinksStatus { count: 1, links: vec![link] });
        let row = text.lines().nth(1).unwrap();
        let cells = "245aa84f/a.qcow2 5s ago in 2h nfs://h/p template/tmpl/2/320/a.qcow2";
        assert_eq!(row.split_whitespace().collect::<Vec<_>>().join(" "), cells);
        assert_eq!(render(&DownloadLinksStatus::default()), "no links\n");
    }

    #[test]
    fn a_link_is_named_as_shown_or_by_its_url() {
        let expected = "/roles/ss/links/a%2Db/c%20%C3%A9%2Eiso";
        assert_eq!(path_of("a-b/c é.iso"), expected);
        assert_eq!(path_of("https://h/userdata/a-b/c%20%C3%A9.iso?x"), expected);
        assert_eq!(path_of("only"), "/roles/ss/links/only");
    }
}
