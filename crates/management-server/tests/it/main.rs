//! The embedded server, driven by a small agent of these tests' own (`agent`), and compared with
//! what the original server was recorded to send (`recorded`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "tests start tasks of their own")]

mod agent;
mod client_certificates;
mod console;
mod faults;
mod images;
mod recorded;
mod registration;
mod replay;
mod session;

use std::sync::OnceLock;
use std::time::Duration;

use management_server::{
    CertificateAuthority, ConsoleMode, HostKind, ImageStore, ManagementServer, ServerConfig,
    SystemVm, Zone,
};

/// Long enough for a loaded machine; nothing here waits for it when all is well.
const SOON: Duration = Duration::from_secs(20);
const STORE: &str = "nfs://127.0.0.1/export/sec";

/// One authority for all tests: making a key takes a while.
fn authority() -> CertificateAuthority {
    static AUTHORITY: OnceLock<CertificateAuthority> = OnceLock::new();
    AUTHORITY.get_or_init(|| CertificateAuthority::generate().unwrap()).clone()
}

/// A server without stores and rows, with the zones of the recorded conversations.
fn bare() -> ServerConfig {
    let mut config = ServerConfig::new(([127, 0, 0, 1], 0).into());
    config.authority = Some(authority());
    config.ping_interval = Duration::from_secs(10);
    let zone = |id, name: &str, pod: &str| Zone {
        id,
        name: name.to_owned(),
        pods: vec![(id, pod.to_owned())],
    };
    config.zones = vec![zone(1, "z1", "p1"), zone(2, "z3", "p3")];
    config.images.stats_interval = None;
    config
}

/// A server with the store and the rows of the recorded system VMs.
fn with_rows() -> ServerConfig {
    let mut config = bare();
    config.stores = vec![ImageStore { url: STORE.to_owned(), writable: true }];
    config.images.allowed_internal_sites = vec!["10.77.0.0/24".to_owned()];
    let row = |kind, id, name: &str, address: &str| SystemVm {
        kind,
        id,
        name: name.to_owned(),
        public_address: address.to_owned(),
    };
    config.system_vms = vec![
        row(HostKind::SecondaryStorage, 900, "s-900-VM", "10.77.1.2"),
        row(HostKind::ConsoleProxy, 901, "v-901-VM", "10.77.2.2"),
    ];
    config
}

/// A server with the static console proxy manager.
fn with_static_console() -> ServerConfig {
    let mut config = bare();
    config.console.mode = ConsoleMode::Static { address: "127.0.0.3".to_owned(), port: 8088 };
    config.console.websocket_port = 0;
    config
}

async fn start(config: ServerConfig) -> ManagementServer {
    ManagementServer::start(config).await.unwrap()
}
