//! Recorded conversations of an unmodified 4.22 server, played to the real roles over the real
//! link: same classes, flags, order and fields as the original agents, but for the differences
//! listed here, each with its reason. An excuse that is never needed fails the test too.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path as UrlPath;
use axum::http::StatusCode;
use axum::routing::get;
use demo_screen::{DemoOptions, DemoScreen};
use futures_util::StreamExt;
use management_server::replay::{Conversation, Difference, Replay, ReplaySettings, Report};
use quickcloud::config::{Sources, load};
use quickcloud::process::{Environment, Process};
use quickcloud::registry::ROLES;
use quickcloud::supervisor::Shutdown;
use role::RoleSpec;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const ALLOW: &str = "AllowConsoleAccessCommand";
const ASK: &str = "ConsoleAccessAuthenticationCommand";

pub(crate) fn conversation(name: &str) -> Conversation {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/vectors/conversations").join(name);
    Conversation::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn excuses(list: &[(&str, &str)]) -> Vec<Difference> {
    list.iter().map(|(path, reason)| Difference::new(*path, *reason)).collect()
}

/// What differs because this is another machine than the recorded one.
const MACHINE: &[(&str, &str)] = &[
    ("Startup*.publicIpAddress", "another machine"),
    ("Startup*.publicNetmask", "another machine"),
    ("Startup*.publicMacAddress", "another machine"),
    ("Startup*.privateIpAddress", "another machine"),
    ("Startup*.privateMacAddress", "another machine"),
    ("Startup*.privateNetmask", "another machine"),
    ("Startup*.storageIpAddress", "another machine"),
    ("Startup*.storageNetmask", "another machine"),
    ("Startup*.storageMacAddress", "another machine"),
    ("Startup*.msHostList", "another server"),
    ("Startup*.version", "a release's version, not a snapshot's"),
];

/// A role run as an operator would, until dropped.
pub(crate) struct Running {
    shutdown: Shutdown,
    _state: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.graceful.cancel();
    }
}

/// Starts `role` against a replay; `settings` are its own.
pub(crate) async fn start(role: &str, replay: &Replay, settings: &[String]) -> Running {
    start_as(role, replay, settings, |spec| spec).await
}

/// The same with something between the supervisor and the role.
pub(crate) async fn start_as(
    role: &str,
    replay: &Replay,
    settings: &[String],
    wrap: impl Fn(Arc<dyn RoleSpec>) -> Arc<dyn RoleSpec>,
) -> Running {
    let state = tempfile::tempdir().unwrap();
    let authority = state.path().join("ca.pem");
    std::fs::write(&authority, replay.ca_pem()).unwrap();
    let mut set = vec![
        format!("supervisor.state_directory=\"{}\"", state.path().display()),
        "supervisor.admin_address=127.0.0.1:0".to_owned(),
        "supervisor.shutdown_grace=2s".to_owned(),
        format!("management.servers=[\"{}\"]", replay.address()),
        format!("management.ca_file=\"{}\"", authority.display()),
        "management.zone=1".to_owned(),
        "management.pod=1".to_owned(),
    ];
    set.extend_from_slice(settings);
    let sources = Sources { roles: Some(role.to_owned()), set, ..Sources::default() };
    let loaded = load(&sources, ROLES).unwrap();
    assert_eq!(loaded.violations, []);
    let mut config = loaded.config.unwrap();
    for configured in &mut config.roles {
        configured.spec = wrap(Arc::clone(&configured.spec));
    }
    let process = Process::start(config, Environment::embedded()).await.unwrap();
    let shutdown = Shutdown::new();
    let (handle, stop) = (tokio::runtime::Handle::current(), shutdown.clone());
    tokio::task::spawn_blocking(move || handle.block_on(process.serve(stop)));
    Running { shutdown, _state: state }
}

/// The settings of a storage host with one store.
pub(crate) fn storage(store: &Path) -> Vec<String> {
    vec![
        "roles.secondary_storage.name=s-900-VM".to_owned(),
        "roles.secondary_storage.guid=SecondaryStorage.1".to_owned(),
        "roles.secondary_storage.private_address=127.0.0.1".to_owned(),
        "roles.secondary_storage.listen=[\"127.0.0.1:0\"]".to_owned(),
        "roles.secondary_storage.allowed_sources=[\"127.0.0.0/8\"]".to_owned(),
        format!(
            "roles.secondary_storage.stores=[{{url=\"nfs://127.0.0.1/export/sec\",directory=\"{}\"}}]",
            store.display()
        ),
    ]
}

/// The settings of a console proxy.
pub(crate) fn console(public: SocketAddr) -> Vec<String> {
    vec![
        "roles.console_proxy.name=v-901-VM".to_owned(),
        "roles.console_proxy.guid=Proxy.901".to_owned(),
        "roles.console_proxy.proxy_vm=901".to_owned(),
        "roles.console_proxy.private_address=127.0.0.1".to_owned(),
        format!("roles.console_proxy.listen=[\"{public}\"]"),
    ]
}

fn assert_clean(report: &Report) {
    assert!(report.is_clean(), "{report}");
    let machine = |excuse: &&Difference| MACHINE.iter().any(|(path, _)| *path == excuse.path);
    let stale: Vec<_> = report.stale.iter().filter(|excuse| !machine(excuse)).collect();
    assert!(stale.is_empty(), "excuses that were never needed: {stale:?}");
}

/// The recorded images, over HTTP.
async fn images() -> SocketAddr {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("roles/secondary-storage/tests/vectors/images");
    let serve = move |UrlPath(name): UrlPath<String>| {
        let folder = folder.clone();
        async move { std::fs::read(folder.join(name)).map_err(|_absent| StatusCode::NOT_FOUND) }
    };
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/golden/{name}", get(serve));
    let scope = role::TaskScope::new();
    let listener = http_front::Listener::from(listener);
    let limits = http_front::HttpLimits::default();
    tokio::spawn(http_front::serve(listener, router, limits, scope, CancellationToken::new()));
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_answers_as_the_original_but_where_it_is_better() {
    let images = images().await;
    let mut settings = ReplaySettings {
        substitutions: vec![("http://10.77.0.2:8000".to_owned(), format!("http://{images}"))],
        ..ReplaySettings::default()
    };
    settings.differences = excuses(MACHINE);
    settings.differences.extend(excuses(&[
        ("DownloadAnswer.templatePhySicalSize", "the original repeats the virtual size at first"),
        ("DownloadAnswer.downloadPath", "our temporary file has another name"),
        ("DownloadAnswer.errorString", "another day; and we say what is wrong with the image"),
        ("DownloadAnswer.details", "the same text"),
        ("GetStorageStatsAnswer.usedBytes", "another disk"),
    ]));
    let replay = Replay::listen(conversation("ss-images.jsonl"), settings).await.unwrap();
    let store = tempfile::tempdir().unwrap();
    let role = storage(store.path());
    let _running = start("ss", &replay, &role).await;
    let report = replay.run().await.unwrap();
    assert!(report.answers.len() > 30, "{report}");
    assert_clean(&report);
}

/// Opens a console as a browser would; says whether a picture could follow, or the reason not.
async fn open(proxy: SocketAddr, token: &str) -> Result<(), String> {
    let encoded = token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let stream = TcpStream::connect(proxy).await.unwrap();
    let url = format!("ws://{proxy}/websockify?token={encoded}");
    let (mut socket, _) =
        tokio_tungstenite::client_async(url, stream).await.map_err(|error| error.to_string())?;
    let version = socket.next().await.unwrap().unwrap();
    assert_eq!(version, Message::Binary("RFB 003.008\n".into()));
    futures_util::SinkExt::send(&mut socket, Message::Binary("RFB 003.008\n".into()))
        .await
        .unwrap();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            // One security type, None: admitted.
            Message::Binary(bytes) if bytes.first() == Some(&1) => return Ok(()),
            Message::Close(frame) => return Err(format!("{frame:?}")),
            _ => {}
        }
    }
    Err("closed without a word".to_owned())
}

/// Plays a console conversation: each recorded console is opened after its session was announced,
/// or, on a server that announces none, after both ready commands.
async fn consoles(name: &str, more: &[(&str, &str)]) -> Report {
    let screen = DemoScreen::new(DemoOptions::default());
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let vnc = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(async move { screen.serve(listener, stop).await });
    let mut settings =
        ReplaySettings { linger: Duration::from_millis(500), ..ReplaySettings::default() };
    settings.differences = excuses(MACHINE);
    settings.differences.extend(excuses(more));
    // Every recorded console leads to our screen.
    settings.overrides = vec![
        ("_host".to_owned(), Value::from("127.0.0.1")),
        ("_port".to_owned(), vnc.port().to_string().into()),
    ];
    let replay = Replay::listen(conversation(name), settings).await.unwrap();
    let recorded = replay.consoles(LOOPBACK).unwrap();
    assert!(!recorded.is_empty(), "{name} has no consoles");
    let public = std::net::TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap();
    let role = console(public);
    let _running = start("cp", &replay, &role).await;
    let announced = conversation(name).messages().iter().any(|line| line.class().ends_with(ALLOW));
    let (mut opened, mut readies) = (0_usize, 0_usize);
    let report = replay
        .run_with(async |exchange| {
            readies += usize::from(exchange.command == "ReadyCommand");
            let due = match (exchange.command.as_str(), announced) {
                (ALLOW, true) => 1,
                ("ReadyCommand", false) if readies == 2 => recorded.len(),
                _ => 0,
            };
            for console in recorded.iter().skip(opened).take(due) {
                opened += 1;
                // Whether it is admitted is the recorded server's word; the question is compared.
                drop(open(public, &console.token).await);
            }
        })
        .await
        .unwrap();
    // The second use of a session is refused without a question; the original asks again.
    let sessions: BTreeSet<&str> = recorded.iter().map(|c| c.session.as_str()).collect();
    let asked = report.requests.iter().filter(|request| request.command == ASK);
    let asked = asked.filter(|request| request.got.is_some()).count();
    assert_eq!((opened, asked), (recorded.len(), sessions.len()), "{report}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn consoles_are_asked_for_and_reported_as_the_original_does() {
    let report = consoles(
        "cp-consoles.jsonl",
        &[
            ("ConsoleProxyLoadReportCommand._loadInfo", "compact, and our own sessions"),
            ("ConsoleAccessAuthenticationCommand.clientAddress", "another browser"),
            ("StartupProxyCommand.proxyPort", "a free port instead of 80"),
            ("StartupProxyCommand.id", "the recorded agent had been there before"),
        ],
    )
    .await;
    assert_clean(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_server_gets_the_same_answers() {
    let report = consoles(
        "cp-static.jsonl",
        &[
            ("StartupProxyCommand.*", "the recorded agent was a test program of another identity"),
            ("ConsoleAccessAuthenticationCommand.clientAddress", "another browser"),
        ],
    )
    .await;
    assert_clean(&report);
}
