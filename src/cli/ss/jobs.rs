//! `quickcloud ss jobs|retry|cancel`: downloads by URL, and copies.

use std::time::Duration;

use clap::Args;
use http_client::{Client, ClientError, Method};
use status_api::{DownloadState, DownloadStatus};

use crate::cli::progress::{bar, left, speed};
use crate::cli::text::{ago, or_dash, plain, size, table};
use crate::cli::view::{ChangeOptions, ViewOptions, change, view};
use crate::exit::Outcome;

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud ss jobs
  quickcloud ss jobs --watch
  quickcloud ss jobs --json --admin 127.0.0.1:8251";

pub(super) const RETRY_EXAMPLES: &str = "\
Examples:
  quickcloud ss retry 3f1c

The download begins again under the same id, so that the server can go on asking for it. The id may
be shortened to a beginning that only one download has.";

pub(super) const CANCEL_EXAMPLES: &str = "\
Examples:
  quickcloud ss cancel 3f1c

Of a download the server is told at its next question that nothing was downloaded, of a copy at once;
nothing of either is kept. The id may be shortened to a beginning that only one of them has.";

const PATH: &str = "/roles/ss/jobs";
/// Longer than a store gets to let go of a cancelled download, and the answer's own limit.
const TIMEOUT: Duration = Duration::from_secs(35);
const BAR: usize = 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct JobOptions {
    /// Id of the download or copy, or its beginning, as `quickcloud ss jobs` shows it
    id: String,
    #[command(flatten)]
    change: ChangeOptions,
}

pub(super) fn jobs(options: &ViewOptions) -> Outcome {
    view::<Vec<DownloadStatus>>(options, PATH, |jobs| render(jobs))
}

pub(super) fn retry(options: &JobOptions) -> Outcome {
    act(options, "retry")
}

pub(super) fn cancel(options: &JobOptions) -> Outcome {
    act(options, "cancel")
}

fn act(options: &JobOptions, verb: &str) -> Outcome {
    let asked = async |client: &Client| {
        let id = whole_id(client, &options.id).await?;
        Ok((Method::POST, format!("{PATH}/{id}/{verb}")))
    };
    change::<DownloadStatus>(&options.change, TIMEOUT, asked, |job| {
        format!("{}  {}  {}\n", plain(&job.job), job.state, plain(&job.url))
    })
}

/// The id that begins like this, when there is only one; else the text itself, which the process
/// then does not know. Nothing but an id's letters goes into a path.
async fn whole_id(client: &Client, text: &str) -> Result<String, ClientError> {
    let jobs = client.get::<Vec<DownloadStatus>>(PATH).await?;
    let mut found = jobs.into_iter().filter(|job| job.job.starts_with(text)).map(|job| job.job);
    let id = match (found.next(), found.next()) {
        (Some(id), None) => id,
        _ => text.to_owned(),
    };
    Ok(id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect())
}

fn render(jobs: &[DownloadStatus]) -> String {
    if jobs.is_empty() {
        return "no downloads or copies\n".to_owned();
    }
    let head = ["ID", "OBJECT", "STATE", "PROGRESS", "RECEIVED", "SPEED", "LEFT", "STARTED", "URL"];
    let mut out = table(&head, jobs.iter().map(row));
    let told = |job: &DownloadStatus| {
        let text = plain(&job.text);
        let is_told = job.state == DownloadState::Failed || job.state == DownloadState::Queued;
        (is_told && !text.is_empty()).then(|| (short(&job.job), text))
    };
    let warned = jobs.iter().flat_map(|job| {
        job.warnings.iter().map(|warning| (short(&job.job), format!("warning: {}", plain(warning))))
    });
    let mut lines = jobs.iter().filter_map(told).chain(warned).peekable();
    if lines.peek().is_some() {
        out.push('\n');
    }
    for (id, text) in lines {
        out.push_str(&format!("{id}: {text}\n"));
    }
    out
}

fn row(job: &DownloadStatus) -> [String; 9] {
    let (done, total) = (job.received_bytes, job.total_bytes);
    let received =
        total.map_or_else(|| size(done), |total| format!("{} of {}", size(done), size(total)));
    let is_running = matches!(job.state, DownloadState::Downloading | DownloadState::Copying);
    let rate = job.bytes_per_second.filter(|_rate| is_running);
    let progress = format!("{} {:>3}%", bar(done, total, BAR), job.percent);
    [
        short(&job.job),
        or_dash(Some(plain(&job.object))),
        job.state.to_string(),
        progress,
        received,
        speed(rate),
        left(done, total, rate),
        ago(job.started_ago_ms),
        plain(&job.url),
    ]
}

/// As much of an id as tells downloads apart.
fn short(id: &str) -> String {
    plain(id).chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn jobs_are_shown_with_their_progress_and_why_they_failed() {
        let jobs: Vec<DownloadStatus> = serde_json::from_value(json!([
            {"job": "3f1c0000-aaaa", "state": "downloading", "percent": 40,
             "received_bytes": 400 << 20, "total_bytes": 1000 << 20, "bytes_per_second": 10 << 20,
             "object": "template 204", "url": "http://h/a.qcow2", "store": "nfs://h/p",
             "started_ago_ms": 5000},
            {"job": "4", "state": "failed", "percent": 0, "received_bytes": 0,
             "url": "http://h/b\u{1b}[2J", "store": "nfs://h/p", "text": "404", "started_ago_ms": 0,
             "warnings": ["odd"]},
        ]))
        .unwrap();
        let expected = "\
ID        OBJECT        STATE        PROGRESS                     RECEIVED             SPEED      LEFT  STARTED  URL
3f1c0000  template 204  downloading  [########............]  40%  400MiB of 1000MiB   10MiB/s    60s   5s ago   http://h/a.qcow2
4         -             failed       [--------------------]   0%  0B                   -          -     0s ago   http://h/b[2J

4: 404
4: warning: odd
";
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&render(&jobs)), squeezed(expected));
        assert_eq!(render(&[]), "no downloads or copies\n");
    }
}
