//! A process of test roles, and questions to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quickcloud::config::{Config, LogConfig, SupervisorConfig};
use quickcloud::exit::Outcome;
use quickcloud::process::{Environment, Process, StartError};
use quickcloud::restart::RestartPolicy;
use quickcloud::supervisor::board::{Board, RoleRow};
use quickcloud::supervisor::{ConfiguredRole, Keys, Shutdown};
use role::{Health, RoleKind, RoleSpec};
use tempfile::TempDir;
use testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// Generous: the machine may be busy, and a test that waits so long fails anyway.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) board: Board,
    pub(crate) shutdown: Shutdown,
    pub(crate) state: TempDir,
    task: JoinHandle<Outcome>,
}

/// Restarts within milliseconds instead of seconds.
pub(crate) fn quick(config: &mut SupervisorConfig) {
    config.restart.first_delay = Duration::from_millis(5);
    config.restart.max_delay = Duration::from_millis(20);
    config.role_stop_grace = Duration::from_millis(100);
}

/// As configured by default.
pub(crate) fn stock(_config: &mut SupervisorConfig) {}

pub(crate) fn config(
    roles: Vec<Arc<dyn RoleSpec>>,
    state: &TempDir,
    adjust: impl FnOnce(&mut SupervisorConfig),
) -> Config {
    let mut supervisor = SupervisorConfig {
        state_directory: state.path().join("state"),
        admin_address: "127.0.0.1:0".parse().unwrap(),
        restart: RestartPolicy::default(),
        ..SupervisorConfig::default()
    };
    adjust(&mut supervisor);
    let roles = roles.into_iter().map(ConfiguredRole::fixed).collect();
    Config { supervisor, log: LogConfig::default(), roles, keys: Keys::new() }
}

pub(crate) async fn try_start(
    roles: Vec<Arc<dyn RoleSpec>>,
    adjust: impl FnOnce(&mut SupervisorConfig),
) -> Result<Running, StartError> {
    let state = tempfile::tempdir().unwrap();
    let config = config(roles, &state, adjust);
    let process = Process::start(config, Environment::embedded()).await?;
    let (addr, board, shutdown) = (process.admin_addr(), process.board(), Shutdown::new());
    let serve = process.serve(shutdown.clone());
    let handle = Handle::current();
    // As the binary does it, off the workers; on one thread with paused time there is no other way.
    let task = match handle.runtime_flavor() {
        RuntimeFlavor::CurrentThread => tokio::spawn(serve),
        _multi_thread => tokio::task::spawn_blocking(move || handle.block_on(serve)),
    };
    Ok(Running { addr, board, shutdown, state, task })
}

pub(crate) async fn start(
    roles: Vec<Arc<dyn RoleSpec>>,
    adjust: impl FnOnce(&mut SupervisorConfig),
) -> Running {
    try_start(roles, adjust).await.unwrap()
}

impl Running {
    pub(crate) fn row(&self, kind: RoleKind) -> RoleRow {
        self.board.rows().into_iter().find(|row| row.kind == kind).unwrap()
    }

    pub(crate) async fn until(
        &self,
        kind: RoleKind,
        what: &str,
        check: impl Fn(&RoleRow) -> bool,
    ) -> RoleRow {
        eventually(what, LIMIT, || Some(self.row(kind)).filter(|row| check(row))).await
    }

    pub(crate) async fn until_ready(&self, kind: RoleKind) {
        self.until(kind, "readiness", |row| row.health == Health::Ready).await;
    }

    /// Status code and body of a GET on the admin listener.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        request(self.addr, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
            .await
    }

    pub(crate) async fn status(&self) -> serde_json::Value {
        let (code, body) = self.get("/status").await;
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The end, without asking for it.
    pub(crate) async fn ended(self) -> Outcome {
        tokio::time::timeout(LIMIT, self.task).await.expect("does not end").unwrap()
    }

    pub(crate) async fn stop(self) -> Outcome {
        self.shutdown.graceful.cancel();
        self.ended().await
    }
}

/// Sends `text`, returns status code and body.
pub(crate) async fn request(addr: SocketAddr, text: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, body.to_owned())
}
