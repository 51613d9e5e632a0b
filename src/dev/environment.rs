//! The parts of `quickcloud dev` put together: server, screens, store, interface, roles.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_front::{BindError, Listener};
use management_server::{
    ConsoleMode, HostKind, ImageStore, ManagementServer, ServerConfig, ServerError, StrayImages,
    SystemVm,
};
use role::{Host, TaskScope};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::DevOptions;
use super::bridge::{Bridge, INTERFACE};
use super::cloud::Cloud;
use super::consoles::ConsolePorts;
use super::machines::{Hosts, Machine};
use crate::config::{self, Loaded, Sources};
use crate::lock::{DirectoryLock, LockError};
use crate::process::{Environment, Process, StartError};
use crate::registry;

/// Zone of the embedded server and of the dhcp role.
pub(crate) const ZONE: &str = "demo";
/// Guid of the storage host, as the server knows it.
pub(crate) const SS_NAME: &str = "s-1-VM";
pub(crate) const CP_NAME: &str = "v-2-VM";
const STORE_URL: &str = "nfs://127.0.0.1/demo/secondary";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const NO_DNSMASQ: &str = "dnsmasq is not installed (Debian package dnsmasq-base)";

/// Why the demo does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevError {
    #[error("cannot make the directory {}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("cannot use the state directory; give another --state")]
    Lock(#[source] LockError),
    #[error("cannot get a port on the loopback address")]
    Port(#[source] std::io::Error),
    #[error("cannot serve the page; give another --listen")]
    Page(#[source] BindError),
    #[error("cannot start the embedded management server")]
    Server(#[source] ServerError),
    #[error("cannot start the demo's machines")]
    Machines(#[source] std::io::Error),
    #[error("cannot start the demo's API")]
    Cloud(#[source] std::io::Error),
    #[error("the demo's own configuration is wrong: {0}")]
    Config(String),
    #[error("cannot start the roles")]
    Roles(#[source] StartError),
}

/// Everything that runs besides the roles.
#[derive(Debug)]
pub(crate) struct DevEnvironment {
    pub(crate) host: Host,
    pub(crate) server: ManagementServer,
    pub(crate) machines: Vec<Machine>,
    pub(crate) page_address: SocketAddr,
    pub(crate) page: Mutex<Option<Listener>>,
    pub(crate) admin_address: SocketAddr,
    /// Links, uploads and consoles.
    pub(crate) public: SocketAddr,
    /// Links over https, and the certificate that is shown there.
    pub(crate) secure: SocketAddr,
    pub(crate) certificate: PathBuf,
    /// The same for the console page.
    pub(crate) console_secure: SocketAddr,
    pub(crate) console_certificate: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) cloud: Cloud,
    pub(crate) store: PathBuf,
    pub(crate) tasks: TaskScope,
    pub(crate) stop: CancellationToken,
    /// Why the dhcp role cannot serve on this machine.
    pub(crate) no_dhcp: Option<String>,
    bridge: Option<Bridge>,
    /// Of the state directory.
    _lock: DirectoryLock,
    /// Removed at the end, unless the operator named the directory.
    _temporary: Option<tempfile::TempDir>,
}

impl DevEnvironment {
    /// Puts everything together; the roles are configured but not running.
    pub(crate) async fn start(options: &DevOptions) -> Result<(Self, Process), DevError> {
        let host = Host::system();
        let (state, temporary) = directory(options.state.clone())?;
        // Of its own: the process takes the directory over only after the server runs.
        let lock = DirectoryLock::take(&state, "dev.lock").map_err(DevError::Lock)?;
        let store = state.join("store");
        std::fs::create_dir_all(&store)
            .map_err(|source| DevError::Directory { path: store.clone(), source })?;
        let listen = if options.check { SocketAddr::new(LOOPBACK, 0) } else { options.listen };
        let page = Listener::tcp(listen).await.map_err(DevError::Page)?;
        let page_address = reachable(page.local_addr().unwrap_or(listen));
        let (public, secure, console_secure) = (free_port()?, free_port()?, free_port()?);
        let server =
            ManagementServer::start(server_config(public)).await.map_err(DevError::Server)?;
        let (tasks, stop) = (TaskScope::new(), CancellationToken::new());
        let hosts = Hosts { server: server.clone(), tasks: tasks.clone(), stop: stop.clone() };
        let machines = hosts.machines().await.map_err(DevError::Machines)?;
        let dnsmasq = find("dnsmasq");
        let (bridge, no_bridge) = match Bridge::create(&host).await {
            Ok(bridge) => (Some(bridge), None),
            Err(why) => (None, Some(why)),
        };
        let authority = state.join("management-ca.pem");
        std::fs::write(&authority, server.ca_pem())
            .map_err(|source| DevError::Directory { path: authority.clone(), source })?;
        let socket = state.join("dhcp.sock");
        let texts = Texts { state: &state, store: &store, authority: &authority, socket: &socket };
        let cloud = Cloud::start(&state, &tasks, &stop).await.map_err(DevError::Cloud)?;
        let mut set = settings(&texts, server.address(), public, secure);
        set.push(format!("roles.console_proxy.tls_listen=[\"{LOOPBACK}:{console_secure}\"]"));
        set.extend(cloud.settings.iter().cloned());
        set.extend(dnsmasq.as_ref().map(|path| format!("roles.dhcp.dnsmasq={}", quoted(path))));
        let sources = Sources { set, roles: Some("ss,cp,dhcp".to_owned()), ..Sources::default() };
        let process = process(&sources, &host).await?;
        let environment = Self {
            admin_address: process.admin_addr(),
            public: SocketAddr::new(LOOPBACK, public),
            secure: SocketAddr::new(LOOPBACK, secure),
            certificate: state.join("ss/own-certificate.pem"),
            console_secure: SocketAddr::new(LOOPBACK, console_secure),
            console_certificate: state.join("cp/self-signed.pem"),
            host,
            server,
            machines,
            page_address,
            page: Mutex::new(Some(page)),
            socket,
            cloud,
            store,
            tasks,
            stop,
            no_dhcp: no_bridge.or_else(|| dnsmasq.is_none().then(|| NO_DNSMASQ.to_owned())),
            bridge,
            _lock: lock,
            _temporary: temporary,
        };
        Ok((environment, process))
    }

    /// What serves the machines' screens.
    pub(crate) fn hosts(&self) -> Hosts {
        let (server, tasks) = (self.server.clone(), self.tasks.clone());
        Hosts { server, tasks, stop: self.stop.clone() }
    }

    pub(crate) const fn console_ports(&self) -> ConsolePorts {
        ConsolePorts { plain: self.public.port(), tls: self.console_secure.port() }
    }

    /// Ends everything, after the roles.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.server.shutdown().await;
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(2), self.tasks.wait()).await.is_err() {
            self.tasks.kill();
        }
        if let Some(bridge) = self.bridge {
            bridge.remove().await;
        }
    }
}

fn directory(wanted: Option<PathBuf>) -> Result<(PathBuf, Option<tempfile::TempDir>), DevError> {
    match wanted {
        Some(path) => {
            std::fs::create_dir_all(&path)
                .map_err(|source| DevError::Directory { path: path.clone(), source })?;
            Ok((path, None))
        }
        None => {
            let temporary = tempfile::Builder::new()
                .prefix("quickcloud-dev-")
                .tempdir()
                .map_err(|source| DevError::Directory { path: std::env::temp_dir(), source })?;
            Ok((temporary.path().to_path_buf(), Some(temporary)))
        }
    }
}

/// Where a program lies, also in the places that only root has in its path.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut candidates =
        std::env::split_paths(&path).chain(system).map(|directory| directory.join(program));
    candidates.find(|candidate| candidate.is_file())
}

/// Where this machine itself reaches a listener.
const fn reachable(listening: SocketAddr) -> SocketAddr {
    match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(LOOPBACK, listening.port()),
        _ => listening,
    }
}

/// A port that was free a moment ago, for the roles' shared listener: links carry it.
fn free_port() -> Result<u16, DevError> {
    let listener = TcpListener::bind((LOOPBACK, 0)).map_err(DevError::Port)?;
    Ok(listener.local_addr().map_err(DevError::Port)?.port())
}

fn server_config(public: u16) -> ServerConfig {
    let mut config = ServerConfig::new(SocketAddr::new(LOOPBACK, 0));
    for zone in &mut config.zones {
        ZONE.clone_into(&mut zone.name);
    }
    config.ping_interval = Duration::from_secs(5);
    config.ping_timeout = Duration::from_secs(20);
    // A person waits: what is not answered within twice this has failed.
    config.answer_wait = Duration::from_secs(5);
    config.stores = vec![ImageStore { url: STORE_URL.to_owned(), writable: true }];
    let row = |kind, id, name: &str| SystemVm {
        kind,
        id,
        name: name.to_owned(),
        public_address: LOOPBACK.to_string(),
    };
    config.system_vms =
        vec![row(HostKind::SecondaryStorage, 1, SS_NAME), row(HostKind::ConsoleProxy, 2, CP_NAME)];
    config.console.mode = ConsoleMode::Rows { published: Some((LOOPBACK.to_string(), public)) };
    config.console.websocket_port = public;
    config.images.poll_interval = Duration::from_millis(500);
    config.images.allowed_internal_sites = vec!["127.0.0.0/8".to_owned()];
    // The server forgets its records at every start; what a kept store holds stays.
    config.images.strays = StrayImages::Keep;
    config.images.link_authority = Some(format!("{LOOPBACK}:{public}"));
    config.images.upload_base = Some(format!("http://{LOOPBACK}:{public}"));
    config
}

struct Texts<'a> {
    state: &'a Path,
    store: &'a Path,
    authority: &'a Path,
    socket: &'a Path,
}

/// A path as a value of TOML.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

/// The configuration of the roles, as an operator would give it with `--set`.
fn settings(texts: &Texts<'_>, server: SocketAddr, public: u16, secure: u16) -> Vec<String> {
    let store = format!("[{{ url = \"{STORE_URL}\", directory = {} }}]", quoted(texts.store));
    let mut list = vec![
        format!("supervisor.state_directory={}", quoted(texts.state)),
        "supervisor.admin_address=127.0.0.1:0".to_owned(),
        "supervisor.shutdown_grace=30s".to_owned(),
        format!("management.servers=[\"{server}\"]"),
        format!("management.zone={ZONE}"),
        "management.pod=p1".to_owned(),
        format!("management.ca_file={}", quoted(texts.authority)),
        format!("roles.secondary_storage.name={SS_NAME}"),
        format!("roles.secondary_storage.guid={SS_NAME}"),
        format!("roles.secondary_storage.stores={store}"),
        "roles.secondary_storage.allowed_sources=[\"127.0.0.0/8\"]".to_owned(),
        format!("roles.secondary_storage.tls_listen=[\"{LOOPBACK}:{secure}\"]"),
        format!("roles.console_proxy.name={CP_NAME}"),
        "roles.console_proxy.proxy_vm=2".to_owned(),
        format!("roles.dhcp.interface={INTERFACE}"),
        format!("roles.dhcp.api_socket={}", quoted(texts.socket)),
    ];
    for role in ["secondary_storage", "console_proxy"] {
        list.push(format!("roles.{role}.private_address={LOOPBACK}"));
        list.push(format!("roles.{role}.public_address={LOOPBACK}"));
        list.push(format!("roles.{role}.listen=[\"{LOOPBACK}:{public}\"]"));
    }
    list
}

async fn process(sources: &Sources, host: &Host) -> Result<Process, DevError> {
    let loaded = config::load(sources, registry::ROLES)
        .map_err(|error| DevError::Config(bedrock::chain(&error)))?;
    let Loaded { config: Some(config), .. } = loaded else {
        let list: Vec<String> = loaded.violations.iter().map(ToString::to_string).collect();
        return Err(DevError::Config(list.join("; ")));
    };
    let environment = Environment { host: host.clone(), ..Environment::embedded() };
    Process::start(config, environment).await.map_err(DevError::Roles)
}
