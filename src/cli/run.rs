//! `quickcloud run`.

use role::{Host, RoleDescriptor};

use super::RunOptions;
use super::check::{complain_of_load, complain_of_violations};
use crate::config::{self, Config, Loaded, Sources};
use crate::exit::Outcome;
use crate::import::{Fate, Line, Request};
use crate::notify::Notifier;
use crate::output::{complain, complain_of};
use crate::process::Environment;
use crate::reload::ReloadSource;
use crate::runtime;
use crate::signals::Signals;
use crate::supervisor::Shutdown;
use crate::telemetry;

pub(super) fn run(options: RunOptions, registry: &[RoleDescriptor]) -> Outcome {
    let properties = match &options.properties {
        inputs if inputs.is_empty() => None,
        inputs => match Request::parse(inputs, options.store) {
            Ok(request) => Some(request),
            Err(problem) => {
                complain(&format!("error: {problem}\n"));
                return Outcome::Usage;
            }
        },
    };
    let sources = Sources {
        properties,
        log_format: options.log_format,
        log_filter: options.log,
        ..options.sources.sources()
    };
    let loaded = match config::load(&sources, registry) {
        Ok(loaded) => loaded,
        Err(error) => return complain_of_load(&error),
    };
    match loaded {
        Loaded { config: Some(config), unread, imported, .. } => {
            let registry = registry.to_vec();
            let source = ReloadSource::new(move || config::load(&sources, &registry));
            start(config, &unread, &imported, source)
        }
        loaded => {
            complain_of_violations(&loaded);
            Outcome::Configuration
        }
    }
}

fn start(config: Config, unread: &[String], imported: &[Line], reload: ReloadSource) -> Outcome {
    let log = match telemetry::init(&config.log) {
        Ok(log) => log,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    for table in unread {
        tracing::info!(table, "not read, its role is not asked for");
    }
    for line in imported {
        match line.fate {
            Fate::Doubtful { .. } => tracing::warn!(%line, "imported"),
            _ => tracing::info!(%line, "imported"),
        }
    }
    let runtime = match runtime::multi_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return Outcome::System;
        }
    };
    let environment = Environment {
        host: Host::system(),
        notifier: Notifier::from_environment(),
        log: Some(log),
        reload: Some(reload.clone()),
    };
    let outcome = runtime.block_on(async {
        let signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "cannot install signal handlers");
                return Outcome::System;
            }
        };
        let shutdown = Shutdown::new();
        tokio::select! {
            outcome = Box::pin(crate::run(config, environment, shutdown.clone())) => outcome,
            never = signals.forward(shutdown, Some(reload)) => match never {},
        }
    });
    runtime.shutdown_timeout(runtime::END_TIMEOUT);
    outcome
}
