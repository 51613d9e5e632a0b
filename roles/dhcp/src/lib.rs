//! Role `dhcp`: DHCP and DNS for the guests of a zone, by a supervised dnsmasq.
//!
//! ```text
//!  REST on a Unix socket ──► store (durable) ──► reconciler ──► files ──► dnsmasq
//!                                 ▲                  │ ▲                     │
//!              (later: the management server's       │ └── log, lease file ◄─┘
//!               API as a second writer)              └──► observed state
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`config`] | `[roles.dhcp]` |
//! | [`value`], [`options`], [`model`] | typed words and resources |
//! | [`desired`], [`store`] | what must hold, and its file |
//! | `api` | REST on the Unix socket, problem bodies |
//! | [`render`] | pure: state → files |
//! | `plan`, `reconciler` | the one loop that applies |
//! | `child`, `dnsmasq_log`, `ports` | the process, what it says, who has its ports |
//! | [`leases`], `release` | who holds what, and taking it back |
//!
//! Whatever is missing on the machine (dnsmasq, privileges, the interface) makes the role degraded,
//! never failed: the API works, files are rendered, and starting is tried again. A later writer,
//! the sync with the management server, submits the same [`desired::Change`]s to the store with
//! [`model::Source::Cloudstack`].
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::string_slice))]

mod api;
mod child;
pub mod config;
pub mod desired;
mod dnsmasq_log;
mod files;
pub mod leases;
mod machine;
mod metrics;
pub mod model;
pub mod observed;
pub mod options;
mod plan;
mod ports;
mod reconciler;
mod release;
pub mod render;
pub mod store;
pub mod value;
mod version;

use std::path::Path;
use std::sync::Arc;

use config_reader::Violations;
use http_front::{HttpLimits, Listener};
use nix::unistd::AccessFlags;
use role::kind::ConfigInput;
use role::{
    BoxFuture, Host, PreflightError, Resource, Role, RoleContext, RoleDescriptor, RoleError,
    RoleKind, RoleSpec,
};
use tokio::sync::watch;

use api::Api;
use config::Config;
use metrics::Metrics;
use observed::Observed;
use reconciler::Reconciler;
use release::Releaser;
use render::Settings;
use store::{LoadError, Store};

/// The role as the registry lists it.
pub const DESCRIPTOR: RoleDescriptor = RoleDescriptor::new(KIND, configure);

const KIND: RoleKind = RoleKind { short: "dhcp", title: "DHCP and DNS", section: "dhcp" };

fn configure(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Arc<dyn RoleSpec>> {
    let config = Config::read(input.section, input.state_directory, violations)?;
    Some(Arc::new(Spec { config }))
}

#[derive(Debug)]
struct Spec {
    config: Config,
}

impl RoleSpec for Spec {
    fn kind(&self) -> RoleKind {
        KIND
    }

    fn resources(&self) -> Vec<Resource> {
        vec![
            Resource::Interface(self.config.interface.to_string()),
            Resource::Socket(self.config.api_socket.clone()),
            Resource::Dir(self.config.directory.clone()),
        ]
    }

    /// Only what the API needs: everything else makes the role degraded, not impossible.
    fn preflight<'a>(&'a self, _host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        let checks = [
            (self.config.directory.as_path(), "set supervisor.state_directory"),
            (
                self.config.api_socket.parent().unwrap_or(Path::new("/")),
                "set roles.dhcp.api_socket",
            ),
        ];
        let found =
            checks.into_iter().filter_map(|(directory, remedy)| unwritable(directory, remedy));
        let found = found.collect();
        Box::pin(async move { found })
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(DhcpRole { config: self.config.clone() })
    }
}

/// Whether we could create files in `directory`, which may not exist yet.
fn unwritable(directory: &Path, remedy: &str) -> Option<PreflightError> {
    let existing = directory.ancestors().find(|ancestor| ancestor.exists())?;
    let writable = existing.is_dir()
        && nix::unistd::access(existing, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    (!writable).then(|| PreflightError {
        problem: format!("cannot write below {}", existing.display()),
        remedy: format!("{remedy} to a path this user can write to"),
    })
}

#[derive(Debug)]
struct DhcpRole {
    config: Config,
}

impl Role for DhcpRole {
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        Box::pin(run(self.config, cx))
    }
}

async fn run(config: Config, cx: RoleContext) -> Result<(), RoleError> {
    let layout = config.layout();
    let prepared = {
        let layout = layout.clone();
        let prepare = move || files::prepare(&layout).and_then(|()| files::lock(&layout));
        cx.tasks.blocking("prepare", prepare).await
    };
    let _lock = prepared
        .map_err(|error| RoleError::internal("cannot prepare the role's directory", error))?
        .map_err(|error| RoleError::dependency("cannot prepare the role's directory", error))?;
    let listener = Listener::unix(config.api_socket.clone())
        .map_err(|error| RoleError::dependency("cannot serve the DHCP API", error))?;
    let path = config.desired_file();
    let loaded = {
        let path = path.clone();
        cx.tasks.blocking("load", move || store::load(&path)).await
    };
    let state = loaded
        .map_err(|error| RoleError::internal("cannot load the desired state", error))?
        .map_err(load_error)?;
    tracing::info!(
        generation = state.generation,
        reservations = state.reservations().count(),
        interface = %config.interface,
        "desired state loaded"
    );
    let (store, store_task) = Store::new(path, state);
    cx.tasks.spawn_vital("store", store_task.run(cx.host.clone(), cx.tasks.clone()));
    let metrics = Metrics::new();
    cx.health.install_metrics(metrics.registry());
    let (observed, observer) = watch::channel(Observed::default());
    publish(&cx, &store, observer.clone());
    let releaser = Releaser { interface: config.interface.clone(), layout: layout.clone() };
    let api = Api::new(store.clone(), observer, releaser, config.dns, cx.tasks.clone());
    let limits = HttpLimits { connections: 100, ..HttpLimits::default() };
    let serving =
        http_front::serve(listener, api.router(), limits, cx.tasks.clone(), cx.shutdown.clone());
    cx.tasks.spawn_vital("api", serving);
    let settings = Settings {
        interface: config.interface,
        layout,
        dns: config.dns,
        upstreams: config.upstreams,
        lease_time: config.lease_time,
    };
    let shutdown = cx.shutdown.clone();
    Reconciler::new(cx, store, settings, config.dnsmasq, config.user, metrics, observed)
        .run()
        .await;
    if shutdown.is_cancelled() {
        return Ok(());
    }
    Err(RoleError::Internal("the store of the desired state ended".to_owned(), None))
}

fn load_error(error: LoadError) -> RoleError {
    match &error {
        LoadError::Read { .. } => RoleError::dependency("cannot load the desired state", error),
        LoadError::Damaged { .. } | LoadError::Contradiction { .. } | LoadError::Version { .. } => {
            RoleError::misconfigured(
                "cannot serve the desired state, put the file right or move it away",
                error,
            )
        }
    }
}

/// What `/status` of the process shows about the role.
fn publish(cx: &RoleContext, store: &Store, observer: watch::Receiver<Observed>) {
    let store = store.clone();
    // The source outlives the run: it must not keep the store's task alive.
    let store = store.subscribe();
    cx.health.publish("dhcp", move || {
        let generation = store.borrow().generation;
        api::status::brief(generation, &observer.borrow())
    });
}
