//! The real roles, configured as an operator would, against the embedded management server.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use management_server::{HostKind, ImageStore, ManagementServer, ServerConfig, SystemVm};
use quickcloud::config::{Sources, load};
use quickcloud::exit::Outcome;
use quickcloud::process::{Environment, Process};
use quickcloud::registry::ROLES;
use quickcloud::supervisor::Shutdown;
use role::Health;
use testkit::eventually;

use crate::running::{LIMIT, request};

pub(crate) const STORE: &str = "nfs://127.0.0.1/export/sec";

/// A server with one store that knows one system VM of each registering role.
pub(crate) async fn server() -> ManagementServer {
    let mut config = ServerConfig::new("127.0.0.1:0".parse().unwrap());
    config.ping_interval = Duration::from_secs(1);
    config.stores = vec![ImageStore { url: STORE.to_owned(), writable: true }];
    config.system_vms =
        [(HostKind::SecondaryStorage, 900, "s-900-VM"), (HostKind::ConsoleProxy, 901, "v-901-VM")]
            .map(|(kind, id, name)| SystemVm {
                kind,
                id,
                name: name.to_owned(),
                public_address: "127.0.0.1".to_owned(),
            })
            .into();
    ManagementServer::start(config).await.unwrap()
}

/// Both registering roles for that server, without listeners; state and store are in `directory`.
pub(crate) fn settings(directory: &Path, server: SocketAddr) -> Vec<String> {
    let store = directory.join("sec");
    std::fs::create_dir_all(&store).unwrap();
    let store = store.display();
    [
        format!("supervisor.state_directory={}", directory.join("state").display()),
        "supervisor.admin_address=127.0.0.1:0".to_owned(),
        format!("management.servers=[\"{server}\"]"),
        "management.zone=z1".to_owned(),
        "management.pod=p1".to_owned(),
        "roles.secondary_storage.name=s-900-VM".to_owned(),
        "roles.secondary_storage.private_address=127.0.0.1".to_owned(),
        format!("roles.secondary_storage.stores=[{{url=\"{STORE}\",directory=\"{store}\"}}]"),
        "roles.console_proxy.name=v-901-VM".to_owned(),
        "roles.console_proxy.proxy_vm=901".to_owned(),
        "roles.console_proxy.private_address=127.0.0.1".to_owned(),
    ]
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_registering_roles_become_ready_are_pinged_and_stop() {
    let server = server().await;
    let state = tempfile::tempdir().unwrap();
    let mut set = settings(state.path(), server.address());
    set.extend(
        ["secondary_storage", "console_proxy"]
            .map(|role| format!("roles.{role}.listen=[\"127.0.0.1:0\"]")),
    );
    let sources = Sources { roles: Some("ss,cp".to_owned()), set, ..Sources::default() };
    let loaded = load(&sources, ROLES).unwrap();
    assert_eq!(loaded.violations, []);
    let process = Process::start(loaded.config.unwrap(), Environment::embedded()).await.unwrap();
    let (board, admin, shutdown) = (process.board(), process.admin_addr(), Shutdown::new());
    let (handle, stop) = (tokio::runtime::Handle::current(), shutdown.clone());
    let serving = tokio::task::spawn_blocking(move || handle.block_on(process.serve(stop)));
    let both = || (board.is_ready() && server.hosts().len() == 2).then_some(());
    eventually("readiness of both hosts", LIMIT, both).await;

    // The shared heartbeat pings both links, and both are answered.
    let question = "GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answered = |link: &serde_json::Value| {
        link["state"] == "attached" && link["host_id"].is_i64() && link["round_trip_ms"].is_f64()
    };
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let status: serde_json::Value =
            serde_json::from_str(&request(admin, question).await.1).unwrap();
        let links = status["links"].as_array().unwrap();
        assert_eq!(links.len(), 2);
        if links.iter().all(answered) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no ping was answered: {status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    shutdown.graceful.cancel();
    assert_eq!(serving.await.unwrap(), Outcome::Clean);
    assert!(board.rows().iter().all(|row| row.health == Health::Stopped));
    assert!(server.shutdown().await);
}
