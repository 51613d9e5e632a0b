//! The process is killed under open consoles: the next start tells the server of each end once, and
//! a page in a browser comes back by itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use demo_screen::{DemoOptions, DemoScreen};
use management_server::{
    ConsoleLink, HostKind, HostState, ManagementServer, ServerConfig, SystemVm, Vm,
};
use serde_json::Value;
use testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::running::{LIMIT, request};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const GUID: &str = "Proxy.901-ConsoleProxyResource";

struct Machine {
    server: ManagementServer,
    screen: DemoScreen,
    state: tempfile::TempDir,
    /// Where consoles are served, also by the next process.
    addr: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

impl Machine {
    async fn new() -> Self {
        let mut config = ServerConfig::new("127.0.0.1:0".parse().unwrap());
        config.system_vms.push(SystemVm {
            kind: HostKind::ConsoleProxy,
            id: 901,
            name: "v-901-VM".to_owned(),
            public_address: "127.0.0.1".to_owned(),
        });
        let server = ManagementServer::start(config).await.unwrap();
        let options = DemoOptions { width: 160, height: 120, ..DemoOptions::default() };
        let screen = DemoScreen::new(options);
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let screen_port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        tokio::spawn({
            let (screen, stop) = (screen.clone(), stop.clone());
            async move { screen.serve(listener, stop).await }
        });
        for number in 1..=3 {
            server.put_vm(Vm {
                id: number,
                uuid: format!("8a112b6e-0e48-419d-af9b-{number:012}"),
                name: format!("vm{number}"),
                host_address: LOCAL.to_string(),
                port: screen_port,
                vnc_password: "vncpassword-0123456789".into(),
                keyboard: None,
                windows: false,
                running: true,
            });
        }
        let addr = std::net::TcpListener::bind((LOCAL, 0)).unwrap().local_addr().unwrap();
        let state = tempfile::tempdir().unwrap();
        Self { server, screen, state, addr, _stop: stop.drop_guard() }
    }

    /// The real binary, up to the moment when the server knows it.
    async fn start(&self) -> Child {
        let settings = [
            format!("supervisor.state_directory={}", self.state.path().display()),
            "supervisor.admin_address=127.0.0.1:0".to_owned(),
            format!("management.servers=[\"{}\"]", self.server.address()),
            "management.zone=z1".to_owned(),
            "management.pod=p1".to_owned(),
            "management.backoff=200ms".to_owned(),
            "roles.console_proxy.name=v-901-VM".to_owned(),
            "roles.console_proxy.proxy_vm=901".to_owned(),
            "roles.console_proxy.private_address=127.0.0.1".to_owned(),
            format!("roles.console_proxy.listen=[\"{}\"]", self.addr),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickcloud"));
        command.args(["run", "--roles", "cp", "--log", "warn"]);
        for setting in settings {
            command.args(["--set", &setting]);
        }
        let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        self.server.wait_for_host(GUID, HostState::Up, LIMIT).await.unwrap();
        child
    }

    async fn link(&self, number: u32) -> ConsoleLink {
        let uuid = format!("8a112b6e-0e48-419d-af9b-{number:012}");
        self.server.console_link(&uuid, LOCAL, None).await.unwrap()
    }

    /// A viewer that was let in, and its first bytes.
    async fn viewer(&self, link: &ConsoleLink) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let request = format!(
            "GET /websockify?token={} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            link.token
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
        stream
    }

    fn has(
        &self,
        link: &ConsoleLink,
        what: fn(&management_server::ConsoleSession) -> bool,
    ) -> bool {
        let sessions = self.server.console_sessions();
        sessions.iter().any(|session| session.uuid == link.session && what(session))
    }

    async fn admin(&self, path: &str) -> Option<String> {
        let addr = std::fs::read_to_string(self.state.path().join("admin.addr")).ok()?;
        let addr = addr.trim().parse().ok()?;
        let question = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Some(request(addr, &question).await.1)
    }

    /// Bytes of picture that the viewer of this VM got.
    async fn shown(&self, name: &str) -> u64 {
        let Some(body) = self.admin("/status").await else { return 0 };
        let status: Value = serde_json::from_str(&body).unwrap();
        let consoles = status["roles"][0]["details"]["consoles"].as_array().cloned();
        let consoles = consoles.unwrap_or_default();
        let own = consoles.iter().find(|console| console["name"] == name);
        own.and_then(|console| console["bytes_to_viewer"].as_u64()).unwrap_or_default()
    }
}

/// Chromium on a link; what it says at the end.
fn browse(url: &str, arguments: &[&str]) -> tokio::task::JoinHandle<Value> {
    let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/console.mjs");
    let mut command = Command::new("node");
    command.arg(script).args(["--url", url]).args(arguments).kill_on_drop(true);
    tokio::spawn(async move {
        let output = command.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let said: Value = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        assert!(output.status.success(), "{said:#}");
        said
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn consoles_that_were_open_at_a_kill_are_closed_in_the_books_and_the_page_comes_back() {
    let machine = Machine::new().await;
    let mut process = machine.start().await;
    let page = machine.link(1).await;
    let others = [machine.link(2).await, machine.link(3).await];
    let url = page
        .url
        .replace("http://127.0.0.1/", &format!("http://console.test:{}/", machine.addr.port()));
    // What the browser logs while there is nobody, and while the new process has not met its server.
    let complaints = [
        "ERR_CONNECTION_REFUSED",
        "has no key from the management server yet",
        "the management server cannot be asked at the moment",
    ];
    let complaints = complaints.map(|text| ["--may-complain", text]).concat();
    let wanted = ["--expect-return", "--type", "back", "--keep", "300"];
    let browser = browse(&url, &[&wanted[..], &complaints].concat());
    let _held = [machine.viewer(&others[0]).await, machine.viewer(&others[1]).await];
    eventually("both are held open by the server", LIMIT, || {
        others.iter().all(|link| machine.has(link, |it| it.acquired)).then_some(())
    })
    .await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while machine.shown("vm1").await == 0 {
        assert!(!browser.is_finished(), "{:?}", browser.await);
        assert!(tokio::time::Instant::now() < deadline, "no picture");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    process.kill().await.unwrap();
    let all = [&page, &others[0], &others[1]];
    assert!(all.iter().all(|link| !machine.has(link, |it| it.removed)));
    machine.server.wait_for_host(GUID, HostState::Alert, LIMIT).await.unwrap();
    let _process = machine.start().await;
    eventually("each end is in the books", LIMIT, || {
        all.iter().all(|link| machine.has(link, |it| it.removed)).then_some(())
    })
    .await;
    let said = browser.await.unwrap();
    assert_eq!(said["state"], "connected", "{said:#}");
    assert_eq!(machine.screen.typed_text(), "back");
    // The server takes no report that tells of an end twice.
    let metrics = machine.admin("/metrics").await.unwrap();
    assert!(!metrics.contains("outcome=\"rejected\""), "{metrics}");
    // Nor is it asked about a link of before the kill.
    let _again = machine.viewer(&others[0]).await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !machine.admin("/metrics").await.unwrap().contains("reason=\"replay\"") {
        assert!(tokio::time::Instant::now() < deadline, "the old link is not told");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
