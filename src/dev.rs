//! `quickcloud dev`: everything in one process, with an embedded management server and a page.
//!
//! Nothing is short-circuited: the roles register over TLS and packets, templates come over HTTP,
//! consoles over WebSocket and VNC. The page and the check only do what an operator would.
//!
//! | module | what |
//! |---|---|
//! | `environment` | server, store, roles: put together, taken apart |
//! | `machines` | rows of the server with a screen behind each, on hosts that they may leave |
//! | `consoles` | consoles over https, moving, coming back, ended by an operator |
//! | `page`, `origin` | the page and its JSON; who may use it |
//! | `cloud` | a server of the CloudStack API, whose zone the dhcp role serves |
//! | `check`, `check_uploads` | `--check`: goes through everything once |
//! | `secure` | exchanges over https |
//! | `uploads` | signed orders for the page's uploads |
//! | `viewer` | an RFB client that looks through a console link |
//! | `sample`, `bridge` | images to download, an interface for the demo zone |

mod bridge;
mod check;
mod check_uploads;
mod cloud;
mod consoles;
mod environment;
mod machines;
mod origin;
mod page;
mod sample;
mod screen;
mod secure;
mod uploads;
mod viewer;

use std::net::SocketAddr;
use std::path::PathBuf;

use bedrock::chain;

use crate::config::LogConfig;
use crate::exit::Outcome;
use crate::output::{complain_of, say};
use crate::runtime;
use crate::signals::Signals;
use crate::supervisor::Shutdown;
use crate::telemetry;
use environment::DevEnvironment;

/// Options of `quickcloud dev`.
#[derive(Debug, Clone, clap::Args)]
pub struct DevOptions {
    /// Where the page is
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8096")]
    pub listen: SocketAddr,
    /// Directory for state and store, kept afterwards; a temporary one by default
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Go through everything once without a page, exit 0 or say what failed
    #[arg(long)]
    pub check: bool,
    /// Open the page in a browser, where there is a screen
    #[arg(long)]
    pub open: bool,
}

/// Runs until interrupted, or with `--check` to the end of the check.
pub fn run(options: &DevOptions) -> Outcome {
    let filter = if options.check { "warn" } else { "info" };
    let log = LogConfig { filter: filter.to_owned(), ..LogConfig::default() };
    if let Err(error) = telemetry::init(&log) {
        complain_of(&error);
        return Outcome::System;
    }
    let runtime = match runtime::multi_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return Outcome::System;
        }
    };
    let outcome = runtime.block_on(Box::pin(dev(options)));
    runtime.shutdown_timeout(runtime::END_TIMEOUT);
    outcome
}

async fn dev(options: &DevOptions) -> Outcome {
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot install signal handlers");
            return Outcome::System;
        }
    };
    let shutdown = Shutdown::new();
    let (demo, process) = match Box::pin(DevEnvironment::start(options)).await {
        Ok(started) => started,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    let page = page::serve(&demo);
    let roles = process.serve(shutdown.clone());
    let work = async {
        if options.check {
            let outcome = tokio::select! {
                outcome = check::run(&demo) => outcome,
                () = shutdown.graceful.cancelled() => Outcome::Failed,
            };
            shutdown.graceful.cancel();
            return outcome;
        }
        greet(&demo, options.open).await;
        shutdown.graceful.cancelled().await;
        Outcome::Clean
    };
    let (outcome, roles) = tokio::select! {
        both = async { tokio::join!(work, roles) } => both,
        () = page => (Outcome::System, Outcome::System),
        never = signals.forward(shutdown.clone(), None) => match never {},
    };
    demo.stop().await;
    if outcome == Outcome::Clean { roles } else { outcome }
}

/// Says where everything is, and opens a browser when there is a screen to open it on.
async fn greet(demo: &DevEnvironment, open: bool) {
    let url = format!("http://{}/", demo.page_address);
    say(&format!(
        "\nQuickCloud dev is running.\n  page    {url}\n  links   https://{}/ (self-signed)\n  console https://{}/ \
         (self-signed)\n  status  quickcloud status --admin {}\n  server  {} (agent protocol)\n  store   {}\n{}\
         Ctrl-C stops it.\n\n",
        demo.secure,
        demo.console_secure,
        demo.admin_address,
        demo.server.address(),
        demo.store.display(),
        demo.no_dhcp.as_ref().map(|why| format!("  dhcp    degraded: {why}\n")).unwrap_or_default(),
    ));
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if open && has_screen {
        let spec = role::CommandSpec::new("xdg-open", std::time::Duration::from_secs(10)).arg(&url);
        if let Err(error) = demo.host.runner.run(spec).await {
            tracing::info!(error = %chain(&error), "no browser was opened");
        }
    }
}
