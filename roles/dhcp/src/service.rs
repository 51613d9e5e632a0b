//! One run of the role: store, API and reconciler, and what the process is told about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dhcp_api::answer::Status;
use http_front::{HttpLimits, Listener};
use role::{RoleContext, RoleError};
use serde_json::Value;
use status_api::{Alarm, DhcpStatus, ReloadReport};
use tokio::sync::watch;

use crate::Spec;
use crate::access::Accounts;
use crate::api::{self, Api, Gate, Parts};
use crate::config::Config;
use crate::files;
use crate::heard::Heard;
use crate::history::History;
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::reconciler::Reconciler;
use crate::release::Releaser;
use crate::render::Settings;
use crate::store::{self, LoadError, Loaded, Store};
use crate::sync::runner::{Handle, Runner};
use crate::sync::{SyncState, webhook};

/// Runs until the role stops.
pub(crate) async fn run(config: Config, cx: RoleContext) -> Result<(), RoleError> {
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
    let gate = socket_gate(&config, &cx).await?;
    let path = config.desired_file();
    let loaded = {
        let path = path.clone();
        cx.tasks.blocking("load", move || store::load(&path)).await
    };
    let Loaded { state, restored } = loaded
        .map_err(|error| RoleError::internal("cannot load the desired state", error))?
        .map_err(load_error)?;
    tracing::info!(
        generation = state.generation,
        reservations = state.reservations().count(),
        interface = %config.interface,
        "desired state loaded"
    );
    let history = {
        let path = config.history_file();
        cx.tasks.blocking("history", move || History::load(path)).await
    };
    let history = history
        .map_err(|error| RoleError::internal("cannot load the history of changes", error))?;
    let (store, store_task) = Store::new(path, state, history.clone());
    cx.tasks.spawn_vital("store", store_task.run(cx.host.clone(), cx.tasks.clone()));
    let metrics = Metrics::new();
    cx.health.install_metrics(metrics.registry());
    if let Some(text) = &restored {
        tracing::error!(text, "the desired state is that of the backup");
        cx.health.set_condition("state", text.clone());
    }
    let (observed, observer) = watch::channel(Observed { restored, ..Observed::default() });
    let releaser = Releaser { interface: config.interface.clone(), layout: layout.clone() };
    let sync = start_sync(&config, &cx, &store, &metrics);
    report(&cx, &store, observer.clone(), sync.as_ref().map(|sync| sync.state.clone()));
    let heard = Heard::default();
    let parts = Parts { sync, heard: heard.clone(), history, dns: config.dns };
    let api = Api::new(store.clone(), observer, releaser, parts, cx.tasks.clone());
    let limits = HttpLimits { connections: 100, ..HttpLimits::default() };
    if let Some(tcp) = config.tcp {
        cx.tasks.spawn("api over tcp", crate::tcp::serve(tcp, api.clone(), cx.clone()));
    }
    let router = api.router(gate);
    let serving =
        http_front::serve(listener, router, limits, cx.tasks.clone(), cx.shutdown.clone());
    cx.tasks.spawn_vital("api", serving);
    let settings = Settings {
        interface: config.interface,
        layout,
        dns: config.dns,
        upstreams: config.upstreams,
        lease_time: config.lease_time,
    };
    let shutdown = cx.shutdown.clone();
    let (configured, settings) = watch::channel(settings);
    cx.reload.handle(move |spec: Arc<Spec>| reload(configured.clone(), spec));
    let (dnsmasq, user) = (config.dnsmasq, config.user);
    let mut reconciler = Reconciler::new(cx, store, settings, dnsmasq, user, metrics, observed);
    reconciler.heard = heard;
    reconciler.run().await;
    if shutdown.is_cancelled() {
        return Ok(());
    }
    Err(RoleError::Internal("the store of the desired state ended".to_owned(), None))
}

/// Who is let in on the socket, where the configuration has a list: it decides then, not the mode.
async fn socket_gate(config: &Config, cx: &RoleContext) -> Result<Option<Gate>, RoleError> {
    if config.socket_access.is_empty() {
        return Ok(None);
    }
    let (path, grants) = (config.api_socket.clone(), config.socket_access.clone());
    let open = move || {
        let found = Accounts::look_up(&grants);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(path, mode).map(|()| found)
    };
    let opened = cx.tasks.blocking("accounts", open).await;
    let (accounts, unknown) = opened
        .map_err(|error| RoleError::internal("cannot look accounts up", error))?
        .map_err(|error| RoleError::dependency("cannot open the DHCP API to accounts", error))?;
    if !unknown.is_empty() {
        let text = format!(
            "roles.dhcp.api_socket_access names accounts that this machine does not know: {}",
            unknown.join(", ")
        );
        tracing::warn!(text, "they are not let in");
        cx.health.set_condition("accounts", text);
    }
    Ok(Some(Gate::Socket(accounts)))
}

/// The sync and its webhook, if they are configured.
fn start_sync(
    config: &Config,
    cx: &RoleContext,
    store: &Store,
    metrics: &Metrics,
) -> Option<Handle> {
    let sync = config.sync.clone()?;
    let (interface, webhook) = (config.interface.clone(), sync.webhook.clone());
    let (handle, runner) = Runner::new(cx.clone(), sync, interface, store.clone(), metrics.clone());
    cx.tasks.spawn_vital("sync", runner.run());
    if let Some(webhook) = webhook {
        let (commands, metrics) = (handle.commands.clone(), metrics.clone());
        cx.tasks.spawn("webhook", webhook::serve(webhook, commands, metrics, cx.clone()));
    }
    Some(handle)
}

fn load_error(error: LoadError) -> RoleError {
    match &error {
        LoadError::Read { .. } => RoleError::dependency("cannot load the desired state", error),
        LoadError::Damaged { .. } | LoadError::NoBackup { .. } => RoleError::misconfigured(
            "cannot serve the desired state, and its backup is no better: put a copy of the file \
             back, or move both away to begin with nothing (what a sync knows comes back)",
            error,
        ),
        LoadError::Version { .. } => RoleError::misconfigured(
            "cannot serve the desired state: install the version of quickcloud that wrote it, or \
             put an older copy of the file back",
            error,
        ),
    }
}

/// Puts in force what needs no other socket, process account or interface: the files of dnsmasq are
/// rendered with it, and dnsmasq is started anew when they differ.
async fn reload(configured: watch::Sender<Settings>, spec: Arc<Spec>) -> ReloadReport {
    configured.send_modify(|settings| {
        settings.upstreams.clone_from(&spec.config.upstreams);
        settings.lease_time = spec.config.lease_time;
    });
    ReloadReport::default()
}

/// What `/status` of the process shows about the role.
fn report(
    cx: &RoleContext,
    store: &Store,
    observer: watch::Receiver<Observed>,
    sync: Option<watch::Receiver<SyncState>>,
) {
    // The source outlives the run: it must not keep the store's task alive.
    let store = store.subscribe();
    cx.health.report(move || {
        let desired = Arc::clone(&store.borrow());
        let sync = sync.as_ref().map(|sync| sync.borrow().clone());
        published(&api::status::brief(&desired, &observer.borrow(), sync.as_ref()))
    });
}

fn published(status: &Status) -> DhcpStatus {
    let Value::Object(mut whole) = serde_json::to_value(status).unwrap_or_default() else {
        return DhcpStatus::default();
    };
    for known in ["generation", "applied_generation", "alarms"] {
        whole.shift_remove(known);
    }
    let state = whole.shift_remove("state");
    let alarms = status.alarms.iter().map(|alarm| {
        let word = serde_json::to_value(alarm.alarm).unwrap_or_default();
        Alarm { alarm: word.as_str().unwrap_or_default().to_owned(), text: alarm.text.clone() }
    });
    let instance = status.instances.first();
    DhcpStatus {
        state: state.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(),
        generation: status.generation,
        applied_generation: status.applied_generation,
        reservations: instance.map_or(0, |instance| instance.reservations),
        leases: instance.map_or(0, |instance| instance.leases),
        pid: instance.and_then(|instance| instance.pid).and_then(|pid| u32::try_from(pid).ok()),
        restarts: instance.map_or(0, |i| u32::try_from(i.restarts).unwrap_or(u32::MAX)),
        alarms: alarms.collect(),
        other: whole.into_iter().collect::<BTreeMap<_, _>>(),
    }
}
