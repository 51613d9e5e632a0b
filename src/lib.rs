//! QuickCloud: CloudStack's system VM services as supervised roles of one process.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | arguments and what each subcommand does |
//! | [`config`] | file, `--set`, `--roles` → validated [`config::Config`] |
//! | [`registry`] | the only list of role crates |
//! | [`process`] | one process of roles: start, serve |
//! | [`supervisor`] | starts, watches, restarts, stops roles |
//! | [`restart`] | when a role is started again, as a pure function |
//! | [`heartbeat`] | pings every link, watches progress, feeds the watchdog |
//! | [`reload`] | another configuration while the roles run |
//! | [`admin`] | `/livez` `/readyz` `/status` `/metrics` |
//! | `doctor` | the roles' own questions about machine and surroundings |
//! | [`import`] | an original agent's files as a configuration |
//! | `zone` | the steps between system VMs and this process, over the API |
//! | `lock`, `pid_file` | one process per state directory; its id in a file |
//! | `unit` | what systemd is to grant for a configuration |
//! | [`telemetry`], [`notify`], [`signals`] | logs, systemd, signals |
//! | `output`, `runtime` | text for people, the runtime |
//! | [`exit`] | exit codes |

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod admin;
pub mod cli;
pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
mod doctor;
pub mod exit;
pub mod heartbeat;
pub mod import;
mod lock;
pub mod notify;
mod output;
mod pid_file;
pub mod process;
pub mod registry;
pub mod reload;
pub mod restart;
mod runtime;
pub mod signals;
pub mod supervisor;
pub mod telemetry;
mod unit;
mod zone;

use exit::Outcome;
use process::{Environment, Process};
use supervisor::Shutdown;

/// Runs the configured roles until `shutdown` fires or none is left; logs why when nothing could
/// be started. What `main`, `dev` and the tests call.
pub async fn run(config: config::Config, environment: Environment, shutdown: Shutdown) -> Outcome {
    match Process::start(config, environment).await {
        Ok(process) => process.serve(shutdown).await,
        Err(error) => {
            tracing::error!(error = %bedrock::chain(&error), "cannot start");
            error.outcome()
        }
    }
}
