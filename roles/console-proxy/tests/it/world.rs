//! A management server, a screen and the role, running together.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config_reader::Violations;
use console_proxy::{DESCRIPTOR, KIND};
use demo_screen::{DemoOptions, DemoScreen};
use http_front::HttpFront;
use management_server::{
    ConsoleLink, ConsoleMode, ConsoleSession, HostKind, HostState, ManagementServer, ServerConfig,
    SystemVm, Vm,
};
use role::{ConfigInput, RoleContext, RoleError, RoleSpec};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const GUID: &str = "Proxy.901-ConsoleProxyResource";
pub(crate) const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// What a test wants different.
pub(crate) struct Options {
    /// TOML lines for `[roles.console_proxy]`.
    pub(crate) role: String,
    /// TOML lines for `[management]`.
    pub(crate) management: String,
    pub(crate) server: Box<dyn FnOnce(&mut ServerConfig)>,
    pub(crate) screen: DemoOptions,
    /// A front that others use too, and the port of theirs that the role shares.
    pub(crate) shared: Option<(HttpFront, SocketAddr)>,
}

impl Default for Options {
    fn default() -> Self {
        let screen = DemoOptions {
            width: 160,
            height: 120,
            password: Some("vncpassw".into()),
            ..DemoOptions::default()
        };
        Self {
            role: String::new(),
            management: String::new(),
            server: Box::new(|_| {}),
            screen,
            shared: None,
        }
    }
}

pub(crate) struct World {
    pub(crate) server: ManagementServer,
    pub(crate) screen: DemoScreen,
    pub(crate) screen_addr: SocketAddr,
    pub(crate) cx: RoleContext,
    /// Where the role serves consoles.
    pub(crate) addr: SocketAddr,
    pub(crate) role: JoinHandle<Result<(), RoleError>>,
    stop_screen: CancellationToken,
    _guards: (DropGuard, DropGuard),
    pub(crate) directory: tempfile::TempDir,
}

/// A VM whose screen is at `addr`.
pub(crate) fn vm(number: usize, addr: SocketAddr) -> Vm {
    Vm {
        id: i64::try_from(number).unwrap(),
        uuid: format!("8a112b6e-0e48-419d-af9b-{number:012}"),
        name: format!("vm{number}"),
        host_address: addr.ip().to_string(),
        port: addr.port(),
        // 22 characters, of which VNC uses eight.
        vnc_password: "vncpassword-0123456789".into(),
        keyboard: None,
        windows: false,
        running: true,
    }
}

pub(crate) async fn start(options: Options) -> World {
    let mut config = ServerConfig::new("127.0.0.1:0".parse().unwrap());
    config.system_vms.push(SystemVm {
        kind: HostKind::ConsoleProxy,
        id: 901,
        name: "v-901-VM".into(),
        public_address: "127.0.0.1".into(),
    });
    config.console.session_limit = 1000;
    (options.server)(&mut config);
    let server = ManagementServer::start(config).await.unwrap();

    let screen = DemoScreen::new(options.screen);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let screen_addr = listener.local_addr().unwrap();
    let stop_screen = CancellationToken::new();
    tokio::spawn({
        let (screen, stop) = (screen.clone(), stop_screen.clone());
        async move { screen.serve(listener, stop).await }
    });
    server.put_vm(vm(1, screen_addr));

    let directory = tempfile::tempdir().unwrap();
    let extra = (options.role.as_str(), options.management.as_str());
    let (cx, role) = run_role(&server, 901, extra, options.shared, directory.path());
    server.wait_for_host(GUID, HostState::Up, LIMIT).await.unwrap();
    let addr = listening(&cx).await;
    let guards = (cx.shutdown.clone().drop_guard(), stop_screen.clone().drop_guard());
    World { server, screen, screen_addr, cx, addr, role, stop_screen, _guards: guards, directory }
}

/// Where a role serves consoles, once it does.
pub(crate) async fn listening(cx: &RoleContext) -> SocketAddr {
    testkit::eventually("listening", LIMIT, || {
        cx.health.details().get("listeners")?[0].as_str()?.parse().ok()
    })
    .await
}

pub(crate) fn run_role(
    server: &ManagementServer,
    number: u32,
    (extra, management): (&str, &str),
    shared: Option<(HttpFront, SocketAddr)>,
    directory: &Path,
) -> (RoleContext, JoinHandle<Result<(), RoleError>>) {
    let any = SocketAddr::new(LOCAL, 0);
    let listen = shared.as_ref().map_or(any, |(_front, addr)| *addr);
    let spec = spec_with(server.address(), number, listen, (extra, management), directory);
    let mut cx = testkit::context(KIND);
    if let Some((front, _addr)) = shared {
        cx.http = front;
    }
    let span = tracing::error_span!("role", role = KIND.short);
    let role = tokio::spawn(spec.build().run(cx.clone()).instrument(span));
    (cx, role)
}

/// The role as this configuration describes it.
pub(crate) fn spec(
    server: SocketAddr,
    listen: SocketAddr,
    extra: &str,
    directory: &Path,
) -> Arc<dyn RoleSpec> {
    spec_with(server, 901, listen, (extra, ""), directory)
}

fn spec_with(
    server: SocketAddr,
    number: u32,
    listen: SocketAddr,
    (extra, management): (&str, &str),
    directory: &Path,
) -> Arc<dyn RoleSpec> {
    let management: toml::Table = format!(
        "servers = [\"{server}\"]\nzone = \"z1\"\npod = \"p1\"\nbackoff = \"200ms\"\n{management}"
    )
    .parse()
    .unwrap();
    let section: toml::Table = format!(
        "name = \"v-{number}-VM\"\nproxy_vm = {number}\nprivate_address = \"127.0.0.1\"\nlisten = [\"{listen}\"]\n{extra}"
    )
    .parse()
    .unwrap();
    let mut violations = Violations::new();
    let input =
        ConfigInput { section: &section, management: &management, state_directory: directory };
    let spec = (DESCRIPTOR.configure)(input, &mut violations);
    assert_eq!(violations.list(), []);
    spec.unwrap()
}

impl World {
    /// A fresh link to the VM of that number, made for 127.0.0.1.
    pub(crate) async fn link(&self, number: usize) -> ConsoleLink {
        self.link_for(number, LOCAL, None).await
    }

    pub(crate) async fn link_for(
        &self,
        number: usize,
        client: IpAddr,
        extra: Option<&str>,
    ) -> ConsoleLink {
        let uuid = vm(number, self.screen_addr).uuid;
        self.server.console_link(&uuid, client, extra).await.unwrap()
    }

    /// What the server's books say about a session.
    pub(crate) fn session(&self, link: &ConsoleLink) -> ConsoleSession {
        let sessions = self.server.console_sessions();
        sessions.into_iter().find(|session| session.uuid == link.session).unwrap()
    }

    /// Waits until the server's books have the session closed.
    pub(crate) async fn closed_in_books(&self, link: &ConsoleLink) {
        testkit::eventually("session closed in the books", LIMIT, || {
            self.session(link).removed.then_some(())
        })
        .await;
    }

    /// The station of the role's link.
    pub(crate) fn link_state(&self) -> role::LinkState {
        self.cx.heartbeat.links()[0].1.report().state
    }

    /// Consoles that `/status` shows.
    pub(crate) fn open(&self) -> usize {
        self.cx.health.details()["consoles"].as_array().unwrap().len()
    }

    pub(crate) async fn until_open(&self, count: usize) {
        testkit::eventually("open consoles", LIMIT, || (self.open() == count).then_some(())).await;
    }

    /// Ends the screen, as a VM that is stopped does.
    pub(crate) fn stop_screen(&self) {
        self.stop_screen.cancel();
    }
}

/// A server with a static console proxy.
pub(crate) fn static_mode(config: &mut ServerConfig) {
    config.system_vms.clear();
    config.console.mode = ConsoleMode::Static { address: "127.0.0.1".into(), port: 8088 };
    config.console.websocket_port = 0;
}
