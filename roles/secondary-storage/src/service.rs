//! The role: from a configuration to a registered, serving host and back.

use std::sync::Arc;
use std::time::Duration;

use config_reader::Violations;
use http_front::TrustedProxies;
use management_link::ManagementLink;
use role::{
    BoxFuture, ConfigInput, DoctorCheck, Host, PreflightError, Resource, Role, RoleContext,
    RoleDescriptor, RoleError, RoleKind, RoleSpec,
};

use crate::agent::StorageAgent;
use crate::commands::Commands;
use crate::commands::access::StoreAccess;
use crate::commands::downloads::DownloadCommands;
use crate::commands::drives::DriveCommands;
use crate::commands::inventory::InventoryCommands;
use crate::commands::links::LinkCommands;
use crate::commands::objects::ObjectCommands;
use crate::commands::setup::SetupCommands;
use crate::commands::uploads::UploadCommands;
use crate::config::{DownloadSettings, SecondaryStorageConfig};
use crate::ingest::{DownloadContext, Downloads};
use crate::ingest::{journal, records};
use crate::links::Links;
use crate::links::copy::CopyRules;
use crate::links::local::LocalTable;
use crate::links::serve::{FileService, router};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::moving::Moves;
use crate::serving::certificates::{ServedCertificates, own_names};
use crate::serving::{Reloadable, listeners};
use crate::setup::ServerSettings;
use crate::sharing::Sharing;
use crate::sharing::takeover::Takeover;
use crate::sources::http::trust::Trust;
use crate::stores::Stores;
use crate::stores::directory::open::Directories;
use crate::stores::engine::Engines;
use crate::stores::marker::Memory;
use crate::stores::nfs::with_nfs;
use crate::stores::s3::Buckets;
use crate::stores::survey::Surveys;
use crate::stores::watch::{INTERVAL, watch};
use crate::uploads::config::UploadSettings;
use crate::uploads::http::UploadService;
use crate::uploads::keys::Keys;
use crate::uploads::record::{Record, Records};
use crate::uploads::{self, Uploads};
use crate::{doctor, reload};

/// The role for the registry.
pub const DESCRIPTOR: RoleDescriptor =
    RoleDescriptor::new(KIND, configure).reloading(reload::RELOADABLE);

/// The role's names.
pub const KIND: RoleKind =
    RoleKind { short: "ss", title: "secondary storage", section: "secondary_storage" };

/// Between two looks at the links whose time is over; they serve nothing before either.
const LINKS_INTERVAL: Duration = Duration::from_secs(600);

fn configure(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Arc<dyn RoleSpec>> {
    let config = SecondaryStorageConfig::read(input, violations)?;
    Some(Arc::new(SecondaryStorageSpec { config }))
}

/// The role, configured.
#[derive(Debug, Clone)]
pub struct SecondaryStorageSpec {
    config: SecondaryStorageConfig,
}

impl SecondaryStorageSpec {
    pub const fn config(&self) -> &SecondaryStorageConfig {
        &self.config
    }
}

impl RoleSpec for SecondaryStorageSpec {
    fn kind(&self) -> RoleKind {
        KIND
    }

    fn resources(&self) -> Vec<Resource> {
        let routes = listeners::resources(&self.config.serving);
        let directories = self.config.stores.directories();
        let own = [&self.config.state_directory];
        let host = self.config.link.host_resource(&self.config.resource_name);
        let directories = directories.chain(own).cloned().map(Resource::Dir);
        routes.into_iter().chain(directories).chain([host]).collect()
    }

    /// A directory that is missing is not a reason to stay down: the store in it fails with a reason
    /// and is tried again, the others serve.
    fn preflight<'a>(&'a self, _host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn misconfigured(&self) -> Vec<PreflightError> {
        let mut found = self.config.link.management.misconfigured();
        if let Some(path) = &self.config.downloads.ca_file
            && let Err(error) = tls_material::read_certificates(path)
        {
            let remedy = "correct roles.secondary_storage.ca_file".to_owned();
            found.push(PreflightError { problem: bedrock::chain(&error), remedy });
        }
        found
    }

    fn stop_grace(&self) -> Option<Duration> {
        Some(self.config.link.management.limits.stop_grace())
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(SecondaryStorage { config: self.config.clone() })
    }

    fn doctor(&self) -> Vec<DoctorCheck> {
        doctor::checks(&self.config)
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

/// One run's parts: the handlers and everything below them, without a link and a listener.
#[derive(Debug)]
pub struct Assembled {
    pub commands: Commands,
    pub stores: Stores,
    pub surveys: Surveys,
    pub downloads: Downloads,
    pub links: Links,
    pub uploads: UploadService,
    pub takeover: Arc<Takeover>,
    pub moves: Moves,
    pub server: ServerSettings,
    pub metrics: Arc<Metrics>,
    pub(crate) settings: Live<DownloadSettings>,
    pub(crate) link_lifetime: Live<Duration>,
    pub(crate) upload_settings: Live<UploadSettings>,
    pub(crate) trust: Trust,
    pub(crate) serving: Reloadable,
    copy: CopyRules,
    pub(crate) host: Host,
}

/// What is read from disk before anything starts.
struct Loaded {
    trust: Trust,
    memory: Memory,
    links: LocalTable,
    server: ServerSettings,
    upload_keys: Keys,
    former_uploads: Vec<(String, Record)>,
    sharing: Sharing,
}

fn load(
    config: &SecondaryStorageConfig,
    uploads: Live<UploadSettings>,
) -> Result<Loaded, RoleError> {
    let trust = Trust::load(config.downloads.ca_file.as_deref()).map_err(|error| {
        RoleError::misconfigured("roles.secondary_storage.ca_file cannot be used", error)
    })?;
    let state = &config.state_directory;
    let unreadable = |what| move |error| RoleError::misconfigured(what, error);
    Ok(Loaded {
        trust,
        memory: Memory::load(state)
            .map_err(unreadable("cannot read what is known about stores"))?,
        links: LocalTable::load(state).map_err(unreadable("cannot read the table of links"))?,
        server: ServerSettings::load(state)
            .map_err(unreadable("cannot read the list of other storage hosts"))?,
        upload_keys: Keys::load(state, uploads)
            .map_err(unreadable("cannot read the upload key"))?,
        former_uploads: uploads::recover::load(&Records::new(state), &journal::of_uploads(state))
            .map_err(unreadable("cannot read the records of uploads"))?,
        sharing: Sharing::open(state, config.takeover_after)
            .map_err(unreadable("cannot keep this host's name among others"))?,
    })
}

/// Puts a run together.
///
/// # Errors
/// [`RoleError::Misconfigured`] when a file of the configuration or of the state directory cannot
/// be used.
pub async fn assemble(
    config: &SecondaryStorageConfig,
    cx: &RoleContext,
) -> Result<Assembled, RoleError> {
    let engines = Directories::new(config.stores.clone(), cx.host.clone());
    let engines = with_nfs(Arc::new(engines), config.stores.clone(), cx.tasks.clone());
    assemble_on(engines, config, cx).await
}

/// As [`assemble`], on stores of another kind.
///
/// # Errors
/// As [`assemble`].
pub async fn assemble_on(
    engines: Arc<dyn Engines>,
    config: &SecondaryStorageConfig,
    cx: &RoleContext,
) -> Result<Assembled, RoleError> {
    let metrics = Arc::new(Metrics::default());
    let settings = Live::new(config.downloads.clone());
    let link_lifetime = Live::new(config.link_lifetime);
    let upload_settings = Live::new(config.uploads.clone());
    let (read, of_uploads) = (config.clone(), upload_settings.clone());
    let loaded = cx.tasks.blocking("read state", move || load(&read, of_uploads)).await;
    let Loaded { trust, memory, links, server, upload_keys, former_uploads, sharing } =
        loaded.map_err(|error| RoleError::internal("cannot read state", error))??;
    let stores = Stores::new(engines, cx.tasks.clone(), memory);
    let (figures, lifetime) = (Arc::clone(&metrics), link_lifetime.clone());
    let links = Links::new(links, stores.clone(), cx.tasks.clone(), figures, lifetime);
    let serving = serving(config, cx).await?;
    let copy = CopyRules::new(serving.settings.clone(), server.clone());
    let context = shared_by_downloads(config, cx, &stores, &metrics, &settings, sharing);
    let uploads = uploads_on(config, &context, upload_settings.clone(), upload_keys.clone());
    uploads.restore_all(former_uploads);
    // The other half of the link's places stays free for lists, deletions and questions.
    let waiting = config.link.management.limits.max_commands / 2;
    let downloads = Downloads::new(context.clone(), config.downloads.per_store, waiting);
    let surveys = Surveys::new(context.clone(), downloads.clone());
    let buckets = Buckets::new(stores.clone(), cx.tasks.clone(), cx.host.clone(), trust.clone());
    let access = StoreAccess { stores: stores.clone(), buckets };
    let moves = Moves::new(&context, &config.state_directory);
    let commands = Commands {
        setup: SetupCommands {
            access: access.clone(),
            trust: trust.clone(),
            server: server.clone(),
            copy: copy.clone(),
            certificates: serving.certificates.clone(),
            upload_keys,
            tasks: cx.tasks.clone(),
        },
        downloads: DownloadCommands {
            access: access.clone(),
            downloads: downloads.clone(),
            settings: settings.clone(),
            server: server.clone(),
            trust: trust.clone(),
            tasks: cx.tasks.clone(),
            sharing: context.sharing.clone(),
        },
        inventory: InventoryCommands { access: access.clone(), metrics: Arc::clone(&metrics) },
        objects: objects(&context, &access, &downloads, &uploads, &links, &moves),
        drives: DriveCommands { access: access.clone(), moves: moves.clone() },
        links: LinkCommands { access, links: links.clone(), host: cx.host.clone() },
        uploads: UploadCommands { uploads: uploads.clone() },
        metrics: Arc::clone(&metrics),
    };
    let takeover = Takeover::new(context, commands.downloads.clone(), uploads.clone());
    let host = cx.host.clone();
    let name = config.public_address.to_string();
    let uploads = UploadService::new(uploads, settings.clone(), name, cx.tasks.clone());
    Ok(Assembled {
        commands,
        stores,
        surveys,
        downloads,
        links,
        uploads,
        takeover: Arc::new(takeover),
        moves,
        server,
        metrics,
        settings,
        link_lifetime,
        upload_settings,
        trust,
        serving,
        copy,
        host,
    })
}

/// Whatever writes has to end before an object goes.
fn objects(
    context: &DownloadContext,
    access: &StoreAccess,
    downloads: &Downloads,
    uploads: &Uploads,
    links: &Links,
    moves: &Moves,
) -> ObjectCommands {
    ObjectCommands {
        access: access.clone(),
        downloads: downloads.clone(),
        uploads: uploads.clone(),
        links: links.clone(),
        sharing: context.sharing.clone(),
        moves: moves.clone(),
        host: context.host.clone(),
    }
}

fn shared_by_downloads(
    config: &SecondaryStorageConfig,
    cx: &RoleContext,
    stores: &Stores,
    metrics: &Arc<Metrics>,
    settings: &Live<DownloadSettings>,
    sharing: Sharing,
) -> DownloadContext {
    DownloadContext {
        stores: stores.clone(),
        host: cx.host.clone(),
        tasks: cx.tasks.clone(),
        journal: journal::open(&config.state_directory),
        records: records::open(&config.state_directory),
        metrics: Arc::clone(metrics),
        settings: settings.clone(),
        sharing,
    }
}

/// Uploads go the same way as downloads, with a journal of their own.
fn uploads_on(
    config: &SecondaryStorageConfig,
    context: &DownloadContext,
    settings: Live<UploadSettings>,
    keys: Keys,
) -> Uploads {
    let journal = journal::of_uploads(&config.state_directory);
    let context = DownloadContext { journal, ..context.clone() };
    Uploads::new(context, settings, keys, Records::new(&config.state_directory))
}

/// What is served with, apart from files: certificates, and whom to believe.
async fn serving(
    config: &SecondaryStorageConfig,
    cx: &RoleContext,
) -> Result<Reloadable, RoleError> {
    let settings = Live::new(config.serving.live.clone());
    let addresses = [config.public_address, config.private_address];
    let certificates = ServedCertificates::open(
        settings.clone(),
        &config.state_directory,
        own_names(&addresses, &config.name),
        cx.host.clone(),
        cx.tasks.clone(),
    )
    .await
    .map_err(|error| RoleError::misconfigured("cannot serve https", error))?;
    let trusted_proxies = TrustedProxies::from(config.serving.live.trusted_proxies.clone());
    Ok(Reloadable { settings, trusted_proxies, certificates })
}

impl Assembled {
    /// The listener's view.
    pub fn file_service(&self) -> FileService {
        FileService {
            links: self.links.clone(),
            stores: self.stores.clone(),
            metrics: Arc::clone(&self.metrics),
            host: self.host.clone(),
            copy: self.copy.clone(),
            certificates: self.serving.certificates.clone(),
        }
    }

    /// What every listener of the role serves.
    pub fn web(&self) -> listeners::Service {
        let files = self.file_service();
        listeners::Service {
            router: router(files.clone()).merge(uploads::http::router(self.uploads.clone())),
            files: Arc::new(files),
            certificates: self.serving.certificates.clone(),
            trusted_proxies: self.serving.trusted_proxies.clone(),
        }
    }
}

async fn run(config: SecondaryStorageConfig, cx: RoleContext) -> Result<(), RoleError> {
    let parts = assemble(&config, &cx).await?;
    let link = ManagementLink::new(config.link.clone(), &cx)?;
    publish(&cx, &parts);
    reload::handle(&cx, &parts, &link);
    // Before the link: the server's first question finds the jobs of the run before.
    parts.commands.downloads.restore().await;
    // Before this host looks for work of its own past, and before its clients come back.
    parts.uploads.go_on().await;
    let takeover = Arc::clone(&parts.takeover).run(cx.shutdown.clone());
    cx.tasks.spawn_vital("look after other hosts", takeover);
    let recovering = (parts.downloads.clone(), cx.shutdown.clone());
    cx.tasks.spawn("recover downloads", async move { recovering.0.recover(recovering.1).await });
    let recovering = (parts.moves.clone(), cx.shutdown.clone());
    cx.tasks.spawn("recover copies", async move { recovering.0.recover(recovering.1).await });
    let stopping = (parts.downloads.clone(), cx.shutdown.clone());
    cx.tasks.spawn("stop downloads", async move {
        stopping.1.cancelled().await;
        stopping.0.stop().await;
    });
    let watched = watch(
        parts.stores.clone(),
        cx.health.clone(),
        Arc::clone(&parts.metrics),
        cx.shutdown.clone(),
        INTERVAL,
    );
    cx.tasks.spawn_vital("watch stores", watched);
    cx.tasks.spawn_vital("survey stores", parts.surveys.clone().run(cx.shutdown.clone()));
    cx.tasks.spawn_vital("end links", end_links(parts.links.clone(), cx.clone()));
    let certificates = parts.serving.certificates.clone();
    cx.tasks.spawn_vital("renew certificates", listeners::renew(cx.clone(), certificates));
    uploads::start(&parts.uploads, &cx);
    cx.admin.publish(crate::admin::router(&parts));
    let serving = listeners::serve(cx.clone(), config.serving, parts.web());
    let serving = cx.tasks.spawn_vital("serve links", serving);
    cx.health.started();
    let agent = StorageAgent {
        name: config.name,
        resource_name: config.resource_name,
        private_address: config.private_address,
        public_address: config.public_address,
        storage_address: config.storage_address,
        commands: parts.commands,
    };
    link.serve(Arc::new(agent)).await?;
    if serving.await.is_err() {
        tracing::debug!("the listener of links ended early");
    }
    Ok(())
}

/// Everything `/status` and `/metrics` show.
fn publish(cx: &RoleContext, parts: &Assembled) {
    let source = parts.surveys.clone();
    cx.health.report(move || source.status());
    let source = parts.downloads.clone();
    cx.health.report(move || source.status());
    let source = parts.moves.clone();
    cx.health.report(move || source.status());
    let (source, host) = (parts.links.clone(), cx.host.clone());
    cx.health.report(move || source.status(host.clock.unix_ms()));
    let source = parts.serving.certificates.clone();
    cx.health.report(move || source.status());
    cx.health.install_metrics(parts.metrics.registry());
}

/// Looks at all links now and then: those that ended long ago are forgotten.
async fn end_links(links: Links, cx: RoleContext) {
    loop {
        match links.sweep(cx.host.clock.unix_ms()).await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!(dropped, "links that ended long ago are forgotten"),
            Err(error) => {
                tracing::warn!(error = bedrock::chain(&error), "cannot look through the links");
            }
        }
        tokio::select! {
            () = cx.shutdown.cancelled() => return,
            () = tokio::time::sleep(LINKS_INTERVAL) => {}
        }
    }
}
