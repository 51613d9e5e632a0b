//! `quickcloud run`.

use std::time::Duration;

use role::{Host, RoleDescriptor};

use super::RunOptions;
use super::check::{complain_of_load, complain_of_violations};
use super::output::complain_of;
use crate::config::{self, Config, Loaded, Sources};
use crate::exit::Outcome;
use crate::notify::Notifier;
use crate::process::Environment;
use crate::signals::StopSignals;
use crate::supervisor::Shutdown;
use crate::telemetry;

/// What blocking work still running gets after the roles ended.
const RUNTIME_PATIENCE: Duration = Duration::from_millis(500);
/// Threads for file work of all roles together; each role has a bound of its own.
const BLOCKING_THREADS: usize = 64;

pub(super) fn run(options: RunOptions, registry: &[RoleDescriptor]) -> Outcome {
    let sources = Sources {
        log_format: options.log_format,
        log_filter: options.log,
        ..options.sources.sources()
    };
    let loaded = match config::load(&sources, registry) {
        Ok(loaded) => loaded,
        Err(error) => return complain_of_load(&error),
    };
    match loaded {
        Loaded { config: Some(config), unread, .. } => start(config, &unread),
        loaded => {
            complain_of_violations(&loaded);
            Outcome::Configuration
        }
    }
}

fn start(config: Config, unread: &[String]) -> Outcome {
    let filter = match telemetry::init(&config.log) {
        Ok(filter) => filter,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    for table in unread {
        tracing::info!(table, "not read, its role is not asked for");
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return Outcome::System;
        }
    };
    let environment = Environment {
        host: Host::system(),
        notifier: Notifier::from_environment(),
        filter: Some(filter),
    };
    let outcome = runtime.block_on(async {
        let signals = match StopSignals::install() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "cannot install signal handlers");
                return Outcome::System;
            }
        };
        let shutdown = Shutdown::new();
        tokio::select! {
            outcome = Box::pin(crate::run(config, environment, shutdown.clone())) => outcome,
            never = signals.forward(shutdown) => match never {},
        }
    });
    runtime.shutdown_timeout(RUNTIME_PATIENCE);
    outcome
}

/// A modest runtime. Never fewer than two workers: one that a role blocks must leave another.
pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 4))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::from_secs(10))
        .thread_name("quickcloud")
        .enable_all()
        .build()
}
