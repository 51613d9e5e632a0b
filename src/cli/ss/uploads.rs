//! `quickcloud ss uploads`: what browsers and other clients upload.

use std::time::Duration;

use clap::Args;
use http_client::{Client, Method};
use status_api::{UploadState, UploadStatus};

use crate::cli::progress::bar;
use crate::cli::text::{ago, or_dash, plain, size, table};
use crate::cli::view::{ChangeOptions, ViewOptions, change, view};
use crate::exit::Outcome;

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud ss uploads
  quickcloud ss uploads --watch
  quickcloud ss uploads --json";

pub(super) const CANCEL_EXAMPLES: &str = "\
Examples:
  quickcloud ss cancel-upload 5b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33

The server is told at its next question that the upload failed.";

const PATH: &str = "/roles/ss/uploads";
/// Longer than a store gets to let go of a cancelled upload.
const TIMEOUT: Duration = Duration::from_secs(35);
const BAR: usize = 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct CancelOptions {
    /// Id of the upload, as `quickcloud ss uploads` shows it
    id: String,
    #[command(flatten)]
    change: ChangeOptions,
}

pub(super) fn uploads(options: &ViewOptions) -> Outcome {
    view::<Vec<UploadStatus>>(options, PATH, |uploads| render(uploads))
}

pub(super) fn cancel(options: &CancelOptions) -> Outcome {
    // Nothing but an id's letters goes into a path.
    let id: String =
        options.id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let asked = async |_client: &Client| Ok((Method::POST, format!("{PATH}/{id}/cancel")));
    change::<UploadStatus>(&options.change, TIMEOUT, asked, |upload| {
        format!("{}  {}  {}\n", plain(&upload.upload), upload.state, plain(&upload.text))
    })
}

fn render(uploads: &[UploadStatus]) -> String {
    if uploads.is_empty() {
        return "no uploads\n".to_owned();
    }
    let head = ["UPLOAD", "OBJECT", "STATE", "PROGRESS", "RECEIVED", "SINCE", "CLIENT", "FILE"];
    let mut out = table(&head, uploads.iter().map(row));
    let failed = uploads.iter().filter(|upload| upload.state == UploadState::Failed);
    for (at, upload) in failed.enumerate() {
        out.push_str(if at == 0 { "\n" } else { "" });
        out.push_str(&format!("{}: {}\n", plain(&upload.upload), plain(&upload.text)));
    }
    out
}

fn row(upload: &UploadStatus) -> [String; 8] {
    let (done, total) = (upload.received_bytes, upload.total_bytes);
    let received =
        total.map_or_else(|| size(done), |total| format!("{} of {}", size(done), size(total)));
    let shown = if upload.state == UploadState::Done { Some(done) } else { total };
    [
        plain(&upload.upload),
        or_dash(Some(plain(&upload.object))),
        upload.state.to_string(),
        format!("{} {:>3}%", bar(done, shown, BAR), upload.percent),
        received,
        ago(upload.since_ago_ms),
        or_dash(upload.client.as_deref().map(plain)),
        or_dash(upload.file.as_deref().map(plain)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_a_table_with_reasons_below() {
        let upload = |state, text: &str| UploadStatus {
            upload: "5b4d3c52".to_owned(),
            state,
            percent: 40,
            received_bytes: 4_096,
            total_bytes: Some(10_240),
            object: "204-2-x".to_owned(),
            file: Some("a\u{1b}[2J.iso".to_owned()),
            client: None,
            resumable: true,
            store: String::new(),
            path: String::new(),
            text: text.to_owned(),
            since_ago_ms: 3_000,
        };
        let text = render(&[
            upload(UploadState::Receiving, ""),
            upload(UploadState::Failed, "signature validation failed."),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("[########............]  40%"), "{text}");
        assert!(lines[1].ends_with("-       a[2J.iso"), "{text}");
        assert_eq!(lines[4], "5b4d3c52: signature validation failed.");
        assert_eq!(render(&[]), "no uploads\n");
    }
}
