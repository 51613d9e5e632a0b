//! `quickcloud cp …`: the consoles of the running process. Each command asks the role's routes below
//! `/roles/cp/` of the admin API.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bedrock::chain;
use clap::{Args, Subcommand};
use http_client::{ClientError, Method};
use serde_json::json;
use status_api::{ConsoleStatus, Listeners, ProcessStatus, RecordingStatus, ReplayLink};

use super::admin::AdminOptions;
use super::text::{ago, plain, size, table};
use super::view::{ViewOptions, ask, view};
use crate::exit::Outcome;
use crate::output::{complain, say};

const PATH: &str = "/roles/cp/consoles";
const RECORDINGS_PATH: &str = "/roles/cp/recordings";
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the process gives a host for its picture.
const PICTURE: Duration = Duration::from_secs(30);

const SESSIONS: &str = "\
Examples:
  quickcloud cp sessions
  quickcloud cp sessions --watch
  quickcloud cp sessions --json";

const KICK: &str = "\
Examples:
  quickcloud cp kick 7
  quickcloud cp kick 7 --message=maintenance

Its page says so and cannot come back to it; a new link can.";

const VIEW_ONLY: &str = "\
Examples:
  quickcloud cp view-only 7
  quickcloud cp view-only 7 --off";

const MESSAGE: &str = "\
Examples:
  quickcloud cp message 7 maintenance-at-noon";

const SCREENSHOT: &str = "\
Examples:
  quickcloud cp screenshot 7 -o vm.png
  quickcloud cp screenshot 7 > vm.png

By a connection of its own to the VM's host: the viewer notices nothing.";

const RECORDINGS: &str = "\
Examples:
  quickcloud cp recordings
  quickcloud cp recordings --json

They are written where roles.console_proxy.recordings_directory says so.";

const REPLAY: &str = "\
Examples:
  quickcloud cp replay 2026-11-28T080900Z-vm1-8a112b6e.fbs
  quickcloud cp replay 2026-11-28T080900Z-vm1-8a112b6e.fbs --at=https://console.example.org

Prints a link to the console page, which opens once within two minutes. The page can pause, and go
forward and back. Other players of FBS files show the file itself.";

/// Of every subcommand; a test parses them.
#[cfg(test)]
pub(super) const EXAMPLES: &[&str] =
    &[SESSIONS, KICK, VIEW_ONLY, MESSAGE, SCREENSHOT, RECORDINGS, REPLAY];

#[derive(Debug, Subcommand)]
pub(super) enum CpCommand {
    /// Shows the open consoles
    #[command(after_help = SESSIONS)]
    Sessions(ViewOptions),
    /// Ends a console for good
    #[command(after_help = KICK)]
    Kick(KickOptions),
    /// Lets the viewer of a console watch only, or type again
    #[command(after_help = VIEW_ONLY)]
    ViewOnly(ViewOnlyOptions),
    /// Shows a text on the page of a console
    #[command(after_help = MESSAGE)]
    Message(MessageOptions),
    /// Takes a picture of what a console shows, as PNG
    #[command(after_help = SCREENSHOT)]
    Screenshot(ScreenshotOptions),
    /// Shows the recordings of consoles that are there
    #[command(after_help = RECORDINGS)]
    Recordings(ViewOptions),
    /// Gives a link that shows a recording in the console page
    #[command(after_help = REPLAY)]
    Replay(ReplayOptions),
}

#[derive(Debug, Args)]
pub(super) struct KickOptions {
    /// Number of the console, as `quickcloud cp sessions` shows it
    id: u32,
    /// What its viewer reads
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    admin: AdminOptions,
}

#[derive(Debug, Args)]
pub(super) struct ViewOnlyOptions {
    /// Number of the console, as `quickcloud cp sessions` shows it
    id: u32,
    /// Its viewer may type again
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    admin: AdminOptions,
}

#[derive(Debug, Args)]
pub(super) struct MessageOptions {
    /// Number of the console, as `quickcloud cp sessions` shows it
    id: u32,
    /// What its page shows
    text: String,
    #[command(flatten)]
    admin: AdminOptions,
}

#[derive(Debug, Args)]
pub(super) struct ScreenshotOptions {
    /// Number of the console, as `quickcloud cp sessions` shows it
    id: u32,
    /// File to write; "-" or nothing is standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminOptions,
}

#[derive(Debug, Args)]
pub(super) struct ReplayOptions {
    /// Name of the recording, as `quickcloud cp recordings` shows it; a path of it will do
    file: PathBuf,
    /// Where the page is reached; without it, the first address on which consoles are served here
    #[arg(long, value_name = "URL")]
    at: Option<String>,
    #[command(flatten)]
    admin: AdminOptions,
}

pub(super) fn cp(command: &CpCommand) -> Outcome {
    match command {
        CpCommand::Sessions(options) => {
            view::<Vec<ConsoleStatus>>(options, PATH, |consoles| render(consoles))
        }
        CpCommand::Kick(options) => {
            let body = json!({ "message": options.message });
            act(&options.admin, options.id, "end", &body, "is ended")
        }
        CpCommand::ViewOnly(options) => {
            let done = if options.off { "may type again" } else { "may only watch now" };
            act(&options.admin, options.id, "view-only", &json!({ "on": !options.off }), done)
        }
        CpCommand::Message(options) => {
            act(&options.admin, options.id, "message", &json!({ "text": options.text }), "is told")
        }
        CpCommand::Screenshot(options) => screenshot(options),
        CpCommand::Recordings(options) => {
            view::<Vec<RecordingStatus>>(options, RECORDINGS_PATH, |found| render_recordings(found))
        }
        CpCommand::Replay(options) => replay(options),
    }
}

fn act(admin: &AdminOptions, id: u32, verb: &str, body: &serde_json::Value, done: &str) -> Outcome {
    ask(admin, TIMEOUT, async |client| {
        let path = format!("{PATH}/{id}/{verb}");
        let console: ConsoleStatus = client.call(Method::POST, &path, Some(body)).await?;
        let (name, viewer) = (plain(&console.name), plain(&console.client));
        Ok(say(&format!("console {id} of {name} for {viewer} {done}\n")))
    })
}

fn screenshot(options: &ScreenshotOptions) -> Outcome {
    ask(&options.admin, PICTURE, async |client| {
        let path = format!("{PATH}/{}/screenshot", options.id);
        let answer = client.fetch(Method::POST, &path, None).await?;
        if !answer.status.is_success() {
            let detail = answer.value();
            let detail = detail.get("detail").and_then(serde_json::Value::as_str);
            let detail = detail.unwrap_or("no reason given").to_owned();
            let call = format!("POST {path}");
            return Err(ClientError::Refused { call, status: answer.status, detail });
        }
        let written = match options.output.as_ref().filter(|path| path.as_os_str() != "-") {
            Some(path) => std::fs::write(path, &answer.body),
            None => std::io::stdout().write_all(&answer.body),
        };
        Ok(match (written, &options.output) {
            (Ok(()), _) => Outcome::Clean,
            (Err(error), output) => {
                let place =
                    output.as_ref().map_or("standard output".into(), |p| p.to_string_lossy());
                complain(&format!("error: cannot write {place}: {}\n", chain(&error)));
                Outcome::Failed
            }
        })
    })
}

fn replay(options: &ReplayOptions) -> Outcome {
    ask(&options.admin, TIMEOUT, async |client| {
        // Whatever directory stands before it: the process looks into its own.
        let name = options.file.file_name().unwrap_or(options.file.as_os_str()).to_string_lossy();
        let name = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("{RECORDINGS_PATH}/{name}/replay");
        let link: ReplayLink = client.call(Method::POST, &path, None::<&()>).await?;
        let base = match &options.at {
            Some(base) => base.trim_end_matches('/').to_owned(),
            None => {
                let status: ProcessStatus = client.get("/status").await?;
                address_of(&status)
            }
        };
        Ok(say(&format!("{base}{}\n", link.path)))
    })
}

/// The first address where consoles are served, as this machine reaches it.
fn address_of(status: &ProcessStatus) -> String {
    let listeners = status.role("cp").and_then(|role| role.details.listeners.as_ref());
    let shown = listeners.and_then(|Listeners(list)| list.first());
    let (scheme, shown) = match shown.map(|shown| (shown, shown.strip_suffix(" (TLS)"))) {
        Some((_, Some(addr))) => ("https", addr),
        Some((addr, None)) => ("http", addr.as_str()),
        None => ("http", ""),
    };
    let addr = match shown.parse::<SocketAddr>() {
        Ok(addr) if addr.ip().is_unspecified() => format!("127.0.0.1:{}", addr.port()),
        _ => plain(shown),
    };
    format!("{scheme}://{addr}")
}

fn render_recordings(recordings: &[RecordingStatus]) -> String {
    if recordings.is_empty() {
        return "no recordings\n".to_owned();
    }
    let rows = recordings.iter().map(|recording| {
        let state = if recording.recording { "recording" } else { "done" };
        [plain(&recording.name), size(recording.bytes), state.to_owned(), plain(&recording.changed)]
    });
    table(&["RECORDING", "SIZE", "STATE", "LAST WRITTEN"], rows)
}

fn render(consoles: &[ConsoleStatus]) -> String {
    if consoles.is_empty() {
        return "no consoles\n".to_owned();
    }
    let head =
        ["ID", "CONSOLE", "CLIENT", "SCREEN", "TLS", "MODE", "OPENED", "LAST USED", "SENT", "KEYS"];
    table(&head, consoles.iter().map(row))
}

fn row(console: &ConsoleStatus) -> [String; 10] {
    let name = if console.name.is_empty() { &console.vm } else { &console.name };
    [
        console.id.to_string(),
        plain(name),
        plain(&console.client),
        plain(&console.screen),
        if console.encrypted { "yes" } else { "no" }.to_owned(),
        if console.view_only { "watching" } else { "typing" }.to_owned(),
        ago(console.opened_ago_ms),
        ago(console.last_used_ago_ms),
        size(console.bytes_to_viewer),
        console.inputs.to_string(),
    ]
}
