//! The role: from a configuration to a registered, serving host and back.

use std::sync::Arc;
use std::time::Duration;

use config_reader::Violations;
use http_front::{Site, Transport, TrustedProxies};
use management_link::ManagementLink;
use role::{
    BoxFuture, ConfigInput, Host, PreflightError, Resource, Role, RoleContext, RoleDescriptor,
    RoleError, RoleKind, RoleSpec,
};

use crate::agent::StorageAgent;
use crate::commands::Commands;
use crate::config::SecondaryStorageConfig;
use crate::ingest::journal::Journal;
use crate::ingest::{DownloadContext, Downloads};
use crate::links::Links;
use crate::links::serve::{LinkService, PREFIX, router};
use crate::metrics::Metrics;
use crate::setup::ServerSettings;
use crate::sources::http::trust::Trust;
use crate::stores::Stores;
use crate::stores::marker::Memory;
use crate::stores::watch::{INTERVAL, watch};

/// The role for the registry.
pub const DESCRIPTOR: RoleDescriptor = RoleDescriptor::new(KIND, configure);

/// The role's names.
pub const KIND: RoleKind =
    RoleKind { short: "ss", title: "secondary storage", section: "secondary_storage" };

/// How often an address that could not be bound is tried again.
const BIND_RETRY: Duration = Duration::from_secs(10);

fn configure(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Arc<dyn RoleSpec>> {
    let config = SecondaryStorageConfig::read(input, violations)?;
    Some(Arc::new(SecondaryStorageSpec { config }))
}

/// The role, configured.
#[derive(Debug, Clone)]
pub struct SecondaryStorageSpec {
    config: SecondaryStorageConfig,
}

impl RoleSpec for SecondaryStorageSpec {
    fn kind(&self) -> RoleKind {
        KIND
    }

    fn resources(&self) -> Vec<Resource> {
        let routes = self
            .config
            .listen
            .iter()
            .map(|addr| Resource::HttpRoute { addr: *addr, prefix: PREFIX });
        let directories = self.config.stores.configured.iter().map(|(_, path)| path);
        let own = [&self.config.state_directory];
        routes.chain(directories.chain(own).cloned().map(Resource::Dir)).collect()
    }

    /// A directory that is missing is no reason to stay down: the store in it fails with a reason
    /// and is tried again, the others serve.
    fn preflight<'a>(&'a self, _host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        Box::pin(async { self.config.link.management.preflight() })
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(SecondaryStorage { config: self.config.clone() })
    }
}

/// One run of the role.
#[derive(Debug)]
struct SecondaryStorage {
    config: SecondaryStorageConfig,
}

impl Role for SecondaryStorage {
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        Box::pin(async move { Box::pin(run(self.config, cx)).await })
    }
}

/// What is read from disk before anything starts.
struct Loaded {
    trust: Trust,
    memory: Memory,
    links: Links,
}

fn load(config: &SecondaryStorageConfig, metrics: Arc<Metrics>) -> Result<Loaded, RoleError> {
    let trust = Trust::load(config.downloads.ca_file.as_deref()).map_err(|error| {
        RoleError::misconfigured("roles.secondary_storage.ca_file is of no use", error)
    })?;
    let state = &config.state_directory;
    let memory = Memory::load(state).map_err(|error| {
        RoleError::misconfigured("cannot read what is known about stores", error)
    })?;
    let links = Links::load(state, metrics)
        .map_err(|error| RoleError::misconfigured("cannot read the table of links", error))?;
    Ok(Loaded { trust, memory, links })
}

/// Puts the handlers and everything below them together, without a link and a listener.
///
/// # Errors
/// [`RoleError::Misconfigured`] when a file of the configuration or of the state directory is of
/// no use.
pub async fn assemble(
    config: &SecondaryStorageConfig,
    cx: &RoleContext,
) -> Result<Commands, RoleError> {
    let metrics = Arc::new(Metrics::default());
    let (settings, figures) = (config.clone(), Arc::clone(&metrics));
    let loaded = cx.tasks.blocking("read state", move || load(&settings, figures)).await;
    let Loaded { trust, memory, links } =
        loaded.map_err(|error| RoleError::internal("cannot read state", error))??;
    let stores = Stores::new(config.stores.clone(), cx.host.clone(), cx.tasks.clone(), memory);
    let context = DownloadContext {
        stores: stores.clone(),
        host: cx.host.clone(),
        tasks: cx.tasks.clone(),
        journal: Journal::new(&config.state_directory),
        metrics: Arc::clone(&metrics),
        retries: config.downloads.limits.retries,
        stall_timeout: config.downloads.limits.stall_timeout,
    };
    Ok(Commands {
        stores,
        downloads: Downloads::new(
            context,
            config.downloads.per_store,
            config.downloads.answer_wait,
        ),
        download_settings: config.downloads.clone(),
        links,
        settings: ServerSettings::default(),
        trust,
        metrics,
        tasks: cx.tasks.clone(),
        host: cx.host.clone(),
    })
}

async fn run(config: SecondaryStorageConfig, cx: RoleContext) -> Result<(), RoleError> {
    let commands = assemble(&config, &cx).await?;
    let link = ManagementLink::new(config.link.clone(), &cx)?;
    publish(&cx, &link, &commands);
    let recovering = (commands.downloads.clone(), cx.shutdown.clone());
    cx.tasks.spawn("recover downloads", async move { recovering.0.recover(recovering.1).await });
    let stopping = (commands.downloads.clone(), cx.shutdown.clone());
    cx.tasks.spawn("stop downloads", async move {
        stopping.1.cancelled().await;
        stopping.0.stop().await;
    });
    let watched = watch(
        commands.stores.clone(),
        cx.health.clone(),
        Arc::clone(&commands.metrics),
        cx.shutdown.clone(),
        INTERVAL,
    );
    cx.tasks.spawn_vital("watch stores", watched);
    let service = LinkService::of(&commands);
    let serving =
        cx.tasks.spawn_vital("serve links", serve_links(cx.clone(), config.listen, service));
    cx.health.started();
    let agent = StorageAgent {
        name: config.name,
        resource_name: config.resource_name,
        private_address: config.private_address,
        public_address: config.public_address,
        storage_address: config.storage_address,
        commands,
    };
    link.serve(Arc::new(agent)).await?;
    if serving.await.is_err() {
        tracing::debug!("the listener of links ended early");
    }
    Ok(())
}

/// Everything `/status` and `/metrics` show.
fn publish(cx: &RoleContext, link: &ManagementLink, commands: &Commands) {
    let to_json = |value: Result<serde_json::Value, serde_json::Error>| value.unwrap_or_default();
    let source = link.clone();
    cx.health.publish("link", move || source.status());
    let source = commands.stores.clone();
    cx.health.publish("stores", move || to_json(serde_json::to_value(source.status())));
    let source = commands.downloads.clone();
    cx.health.publish("downloads", move || to_json(serde_json::to_value(source.status())));
    let source = commands.links.clone();
    cx.health.publish("links", move || source.status());
    cx.health.install_metrics(commands.metrics.registry());
}

/// Keeps the link listener on every configured address until shutdown. An address that cannot be
/// bound makes the role degraded, not dead, and is tried again.
async fn serve_links(cx: RoleContext, addresses: Vec<std::net::SocketAddr>, service: LinkService) {
    const CONDITION: &str = "links";
    let mut registrations = Vec::new();
    let mut missing = addresses;
    loop {
        let mut failed = Vec::new();
        let mut reasons = Vec::new();
        for addr in missing {
            let site = Site {
                owner: KIND.short,
                addr,
                prefixes: &[PREFIX],
                router: router(service.clone()),
                tasks: cx.tasks.clone(),
                trusted_proxies: TrustedProxies::default(),
                transport: Transport::default(),
            };
            match cx.http.register(site).await {
                Ok(registration) => {
                    tracing::info!(addr = %registration.local_addr(), "serving links");
                    registrations.push(registration);
                }
                Err(error) => {
                    reasons.push(bedrock::chain(&error));
                    failed.push(addr);
                }
            }
        }
        if failed.is_empty() {
            cx.health.clear_condition(CONDITION);
            cx.shutdown.cancelled().await;
            return;
        }
        let reason = format!("links cannot be fetched: {}", reasons.join(", "));
        tracing::warn!(error = reason, "cannot serve links, will retry");
        cx.health.set_condition(CONDITION, reason);
        missing = failed;
        tokio::select! {
            () = cx.shutdown.cancelled() => return,
            () = tokio::time::sleep(BIND_RETRY) => {}
        }
    }
}
