//! `quickcloud status`: asks the running process and shows its answer as tables.

mod table;

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use status_api::ProcessStatus;

use super::admin::{AdminOptions, complain_of_client};
use super::check::complain_of_load;
use crate::exit::Outcome;
use crate::output::{complain_of, say};
use crate::runtime;

const TIMEOUT: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(2);
/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// As JSON, as the process gives it
    #[arg(long)]
    json: bool,
    /// Again every two seconds, until interrupted
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

pub(super) fn status(options: &StatusOptions) -> Outcome {
    let client = match options.admin.client(TIMEOUT) {
        Ok(client) => client,
        Err(error) => return complain_of_load(&error),
    };
    let runtime = match runtime::single_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    runtime.block_on(async {
        loop {
            let text = match (options.json, options.watch) {
                // As it came: what this version does not know is shown too.
                (true, true) => client.get::<Value>("/status").await.map(|d| format!("{d}\n")),
                (true, false) => client.get::<Value>("/status").await.map(|d| format!("{d:#}\n")),
                (false, watch) => client.get::<ProcessStatus>("/status").await.map(|status| {
                    format!("{}{}", if watch { CLEAR } else { "" }, table::render(&status))
                }),
            };
            let written = match text {
                Ok(text) => say(&text),
                Err(error) => {
                    complain_of_client(&error);
                    return Outcome::Failed;
                }
            };
            if !options.watch || written != Outcome::Clean {
                return written;
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}
