//! Showing a document of the running process: once or again and again, as JSON or as people read it.

use std::time::Duration;

use clap::Args;
use http_client::{Client, ClientError, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::admin::{AdminOptions, complain_of_client};
use super::check::complain_of_load;
use crate::exit::Outcome;
use crate::output::{complain, complain_of, say};
use crate::runtime;

const TIMEOUT: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(2);
/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// How a document is shown.
#[derive(Debug, Args)]
pub(super) struct ViewOptions {
    /// As JSON, as the process gives it
    #[arg(long)]
    json: bool,
    /// Again every two seconds, until interrupted
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

/// Shows what `path` of the admin API holds.
pub(super) fn view<T: DeserializeOwned>(
    options: &ViewOptions,
    path: &str,
    render: impl Fn(&T) -> String,
) -> Outcome {
    ask(&options.admin, TIMEOUT, async |client| {
        loop {
            let text = match (options.json, options.watch) {
                // As it came: what this version does not know is shown too.
                (true, true) => client.get::<Value>(path).await.map(|d| format!("{d}\n")),
                (true, false) => client.get::<Value>(path).await.map(|d| format!("{d:#}\n")),
                (false, watch) => client.get::<T>(path).await.map(|document| {
                    format!("{}{}", if watch { CLEAR } else { "" }, render(&document))
                }),
            };
            let written = say(&text?);
            if !options.watch || written != Outcome::Clean {
                return Ok(written);
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}

/// How the outcome of a change is shown.
#[derive(Debug, Args)]
pub(super) struct ChangeOptions {
    /// As JSON, as the process gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

/// Asks for a change and shows what came of it. `timeout` is longer than the process may take.
pub(super) fn change<T: DeserializeOwned>(
    options: &ChangeOptions,
    timeout: Duration,
    asked: impl AsyncFnOnce(&Client) -> Result<(Method, String), ClientError>,
    render: impl Fn(&T) -> String,
) -> Outcome {
    ask(&options.admin, timeout, async |client| {
        let (method, path) = asked(&client).await?;
        let answer = client.call::<Value>(method, &path, None::<&()>).await?;
        if options.json {
            return Ok(say(&format!("{answer:#}\n")));
        }
        match serde_json::from_value::<T>(answer) {
            Ok(document) => Ok(say(&render(&document))),
            Err(error) => {
                complain(&format!("error: the answer is not understood: {error}\n"));
                Ok(Outcome::Failed)
            }
        }
    })
}

/// Talks to the running process; complains when it does not answer as it should.
pub(super) fn ask(
    admin: &AdminOptions,
    timeout: Duration,
    talk: impl AsyncFnOnce(Client) -> Result<Outcome, ClientError>,
) -> Outcome {
    let client = match admin.client(timeout) {
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
    runtime.block_on(talk(client)).unwrap_or_else(|error| {
        complain_of_client(&error);
        Outcome::Failed
    })
}
