//! `quickcloud ss upload`: a file to secondary storage, with the values that the API answered.
//!
//! To a host of ours the bytes go by the tus protocol and go on after a broken connection; any other
//! host gets the form that a browser would send.

mod order;
mod transfer;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::order::Order;
use self::transfer::{Show, Transfer};
use crate::exit::Outcome;
use crate::output::{complain, complain_of, say};
use crate::runtime;

pub(super) const EXAMPLES: &str = "\
Examples:
  cmk get uploadparamsfortemplate ... > answer.json
  quickcloud ss upload debian-12.qcow2 --params answer.json
  quickcloud ss upload debian-12.qcow2.xz --params -
  quickcloud ss upload data.vhd --url https://192.0.2.10/upload/5b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33 \\
                 --metadata AAEC --expires 2026-11-28T06:00:00.000Z --signature 59BY

The values are those that getUploadParamsForTemplate, getUploadParamsForIso or
getUploadParamsForVolume answered. The upload goes on where it broke off, after Ctrl-C too when the
same command is given again, as long as the host's upload_pause allows. The host's certificate is checked: --ca takes a self-signed one as it is.";

#[derive(Debug, Args)]
pub(in crate::cli) struct UploadOptions {
    /// The template, ISO or volume; compressed or not
    file: PathBuf,
    /// File with the whole answer of the API; "-" is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "metadata", "expires", "signature"],
          required_unless_present = "url")]
    params: Option<PathBuf>,
    /// postURL of the answer
    #[arg(long, requires_all = ["metadata", "expires", "signature"])]
    url: Option<String>,
    /// metadata of the answer
    #[arg(long)]
    metadata: Option<String>,
    /// expires of the answer
    #[arg(long)]
    expires: Option<String>,
    /// signature of the answer
    #[arg(long)]
    signature: Option<String>,
    /// Certificates to trust besides the system's (PEM or DER): of an authority, or the host's own
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long a broken connection is tried again
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    retry_for: Duration,
    /// Says nothing but what went wrong
    #[arg(long, short)]
    quiet: bool,
    /// The outcome as JSON
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    config_reader::parse_duration(text)
        .ok_or_else(|| format!("{text:?} is not a time: give 30s, 10m or 2h"))
}

pub(super) fn upload(options: &UploadOptions) -> Outcome {
    let order = match Order::of(options) {
        Ok(order) => order,
        Err(error) => {
            complain_of(&error);
            return Outcome::Usage;
        }
    };
    let runtime = match runtime::multi_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    let show = match (options.quiet || options.json, std::io::stderr().is_terminal()) {
        (true, _) => Show::Nothing,
        (false, true) => Show::Line,
        (false, false) => Show::Steps,
    };
    let outcome = runtime.block_on(async {
        let transfer = Transfer {
            file: options.file.clone(),
            ca: options.ca.clone(),
            retry_for: options.retry_for,
            show,
            order,
        };
        tokio::select! {
            outcome = transfer.run() => outcome,
            _ = tokio::signal::ctrl_c() => Err(transfer::UploadError::Interrupted),
        }
    });
    runtime.shutdown_timeout(runtime::END_TIMEOUT);
    match outcome {
        Ok(done) if options.json => say(&format!("{}\n", done.json())),
        Ok(_) if options.quiet => Outcome::Clean,
        Ok(done) => say(&format!("{done}\n")),
        Err(error) => {
            if options.json {
                let object =
                    serde_json::json!({ "uploaded": false, "reason": bedrock::chain(&error) });
                let written = say(&format!("{object}\n"));
                return if written == Outcome::Clean { Outcome::Failed } else { written };
            }
            complain(&format!("error: {}\n", bedrock::chain(&error)));
            Outcome::Failed
        }
    }
}
