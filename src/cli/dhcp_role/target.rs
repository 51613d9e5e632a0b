//! Where the role's API is, which zone is meant, and how answers are shown.

use std::path::PathBuf;
use std::time::Duration;

use bedrock::chain;
use clap::Args;
use dhcp_api::answer::Page;
use dhcp_api::operation::Operation;
use dhcp_api::resource::Zone;
use http_client::{Client, ClientError};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::configured_socket;
use crate::cli::check::complain_of_load;
use crate::config::{self, LoadError, Sources};
use crate::exit::Outcome;
use crate::output::{complain, complain_of, say};
use crate::runtime;

const DEFAULT_SOCKET: &str = "/run/quickcloud/dhcp.sock";
const AGAIN: Duration = Duration::from_secs(2);
/// Longer than the role itself takes for anything.
const TIMEOUT: Duration = Duration::from_secs(70);
/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";
/// Largest page of a collection.
const PAGE: usize = 1000;

/// Whom to ask.
#[derive(Debug, Args)]
pub(in crate::cli) struct Target {
    /// Socket of the role's API
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Configuration file of the running process, to find the socket
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One value, put over the file, as for run
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Zone; not needed when there is only one
    #[arg(long)]
    zone: Option<String>,
}

/// How something is shown.
#[derive(Debug, Args)]
pub(in crate::cli) struct View {
    /// As JSON, as the role gives it
    #[arg(long)]
    json: bool,
    /// Again every two seconds, until interrupted
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Why something cannot be shown or done.
#[derive(Debug)]
pub(super) enum Problem {
    Client(ClientError),
    Zone(String),
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Problem {
    /// One sentence, with what to look at.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Client(ClientError::Connect { endpoint, source }) => format!(
                "nothing listens on {endpoint}; is `quickcloud run` running with the role dhcp, \
                 and is this its socket? Give --socket PATH, or the --config FILE it was started \
                 with: {source}"
            ),
            Self::Client(error) => chain(error),
            Self::Zone(text) => text.clone(),
        }
    }

    pub(super) const fn is_absent(&self) -> bool {
        matches!(self, Self::Client(ClientError::Connect { .. }))
    }
}

impl Target {
    fn socket(&self) -> Result<PathBuf, LoadError> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let sources =
            Sources { file: self.config.clone(), set: self.set.clone(), ..Sources::default() };
        let (table, _set) = config::read_table(&sources)?;
        Ok(configured_socket(&table).unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET)))
    }

    /// Talks to the role.
    pub(super) fn talk(
        &self,
        talk: impl AsyncFnOnce(Client) -> Result<Outcome, Problem>,
        failed: impl FnOnce(&Problem) -> Outcome,
    ) -> Outcome {
        let socket = match self.socket() {
            Ok(socket) => socket,
            Err(error) => return complain_of_load(&error),
        };
        let runtime = match runtime::single_threaded() {
            Ok(runtime) => runtime,
            Err(error) => {
                complain_of(&error);
                return Outcome::System;
            }
        };
        let client = Client::unix(socket).timeout(TIMEOUT);
        runtime.block_on(talk(client)).unwrap_or_else(|problem| {
            complain(&format!("error: {}\n", problem.text()));
            failed(&problem)
        })
    }

    /// As [`Target::talk`], where every problem is one.
    pub(super) fn ask(
        &self,
        talk: impl AsyncFnOnce(Client) -> Result<Outcome, Problem>,
    ) -> Outcome {
        self.talk(talk, |_| Outcome::Failed)
    }

    /// The zone that is meant.
    pub(super) async fn zone(&self, client: &Client) -> Result<String, Problem> {
        if let Some(zone) = &self.zone {
            return Ok(zone.clone());
        }
        let zones: Page<Zone> = client.get(&path(Operation::ListZones, &[])?).await?;
        match zones.items.as_slice() {
            [zone] => Ok(zone.id.to_string()),
            [] => Err(Problem::Zone("there is no zone yet".to_owned())),
            several => {
                let ids: Vec<&str> = several.iter().map(|zone| zone.id.as_str()).collect();
                Err(Problem::Zone(format!(
                    "there are several zones, give one as --zone: {}",
                    ids.join(", ")
                )))
            }
        }
    }
}

/// The path of an operation with its values.
pub(super) fn path(operation: Operation, values: &[&str]) -> Result<String, Problem> {
    let wrong = || Problem::Zone(format!("{} needs other values", operation.id()));
    operation.uri(values).ok_or_else(wrong)
}

/// Every page of a collection, as JSON.
pub(super) async fn all(client: &Client, path: &str) -> Result<Vec<Value>, Problem> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let joint = if path.contains('?') { '&' } else { '?' };
        let page: Page<Value> = client.get(&format!("{path}{joint}limit={PAGE}{cursor}")).await?;
        items.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={}", escaped(&next)),
            None => return Ok(items),
        }
    }
}

/// A value as it may stand in a query.
pub(super) fn escaped(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match keep(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// A value as the type that tables are made of.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    let wrong = |error| Problem::Zone(format!("the answer is not understood: {error}"));
    serde_json::from_value(value).map_err(wrong)
}

impl View {
    /// Shows what `fetch` gives, once or again and again.
    pub(super) fn show(
        &self,
        fetch: impl AsyncFn(&Client) -> Result<Value, Problem>,
        render: impl Fn(Value) -> Result<String, Problem>,
    ) -> Outcome {
        self.target.ask(async |client| {
            loop {
                let document = fetch(&client).await?;
                let text = match (self.json, self.watch) {
                    (true, true) => format!("{document}\n"),
                    (true, false) => format!("{document:#}\n"),
                    (false, true) => format!("{CLEAR}{}", render(document)?),
                    (false, false) => render(document)?,
                };
                let written = say(&text);
                if !self.watch || written != Outcome::Clean {
                    return Ok(written);
                }
                tokio::time::sleep(AGAIN).await;
            }
        })
    }
}
