//! One process of roles: what `run`, `dev` and the tests start.
//!
//! [`Process::start`] does everything that can fail before a role runs; [`Process::serve`] runs
//! the roles to the end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_front::HttpFront;
use http_front::{BindError, Listener};
use role::{Heartbeat, Host, Resource, TaskScope};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AddressFile, AdminState};
use crate::config::Config;
use crate::exit::Outcome;
use crate::heartbeat::HeartbeatService;
use crate::lock::{DirectoryLock, LockError};
use crate::notify::Notifier;
use crate::pid_file::{PidFile, PidFileError};
use crate::reload::{ReloadService, ReloadSource};
use crate::supervisor::board::Board;
use crate::supervisor::conflicts::{self, Conflict};
use crate::supervisor::{Limits, Ports, RoleSlot, Shutdown, supervise};
use crate::telemetry::LogHandle;

/// The lock in the state directory.
const LOCK_FILE: &str = "quickcloud.lock";
/// How long listeners may take to end after the roles did.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(1);

/// What a process needs besides its configuration.
#[derive(Debug, Clone)]
pub struct Environment {
    pub host: Host,
    pub notifier: Notifier,
    /// For `/log-filter`; `None` when this process has no subscriber of its own.
    pub log: Option<LogHandle>,
    /// For reloads; `None` when the configuration comes from nowhere.
    pub reload: Option<ReloadSource>,
}

impl Environment {
    /// The machine, nobody to notify, no log, nothing to reload: a process inside a process.
    pub fn embedded() -> Self {
        Self { host: Host::system(), notifier: Notifier::silent(), log: None, reload: None }
    }
}

/// Why no role was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("roles claim the same resource: {}", list(.0))]
    Conflicts(Vec<Conflict>),
    #[error("cannot create the state directory {}", path.display())]
    StateDirectory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error("cannot write the address file in {}", path.display())]
    AddressFile { path: PathBuf, source: std::io::Error },
    #[error("cannot start the admin listener")]
    Admin(#[source] BindError),
}

fn list(conflicts: &[Conflict]) -> String {
    conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl StartError {
    /// How the process ends because of it.
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Conflicts(_) => Outcome::Configuration,
            Self::Lock(LockError::InUse { .. }) | Self::PidFile(PidFileError::Alive { .. }) => {
                Outcome::InUse
            }
            Self::PidFile(PidFileError::System { .. })
            | Self::StateDirectory { .. }
            | Self::Lock(LockError::System { .. })
            | Self::AddressFile { .. }
            | Self::Admin(_) => Outcome::System,
        }
    }
}

/// A process whose admin listener is bound and whose roles are not started yet.
#[derive(Debug)]
pub struct Process {
    config: Config,
    environment: Environment,
    board: Board,
    heartbeat: Heartbeat,
    tasks: TaskScope,
    listener: Listener,
    addr: SocketAddr,
    address_file: AddressFile,
    pid_file: Option<PidFile>,
    lock: DirectoryLock,
}

/// Resources the supervisor itself claims.
pub fn own_resources(config: &Config) -> Vec<Resource> {
    vec![Resource::Tcp(config.supervisor.admin_address)]
}

impl Process {
    /// Looks for conflicts, makes the state directory, binds the admin listener.
    pub async fn start(config: Config, environment: Environment) -> Result<Self, StartError> {
        let conflicts = conflicts::find(&config.specs(), &own_resources(&config));
        if !conflicts.is_empty() {
            return Err(StartError::Conflicts(conflicts));
        }
        let directory = &config.supervisor.state_directory;
        std::fs::create_dir_all(directory)
            .map_err(|source| StartError::StateDirectory { path: directory.clone(), source })?;
        // Before anything that another process could notice.
        let lock = DirectoryLock::take(directory, LOCK_FILE)?;
        let pid_file = config.supervisor.pid_file.as_deref().map(PidFile::write).transpose()?;
        let (listener, addr) =
            admin::bind(config.supervisor.admin_address).await.map_err(StartError::Admin)?;
        let address_file = AddressFile::write(directory, addr)
            .map_err(|source| StartError::AddressFile { path: directory.clone(), source })?;
        let kinds = config.roles.iter().map(|role| role.spec.kind());
        let board = Board::new(kinds, environment.host.clone());
        let heartbeat = Heartbeat::new();
        let tasks = TaskScope::new();
        Ok(Self {
            config,
            environment,
            board,
            heartbeat,
            tasks,
            listener,
            addr,
            address_file,
            pid_file,
            lock,
        })
    }

    /// Where `/status` is.
    pub const fn admin_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The states of the roles; stays readable after the end.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Runs the roles until `shutdown` fires or none is left.
    pub async fn serve(self, shutdown: Shutdown) -> Outcome {
        let Self { config, environment, board, heartbeat, tasks, listener, addr, .. } = self;
        let (address_file, pid_file, lock) = (self.address_file, self.pid_file, self.lock);
        let stop = CancellationToken::new();
        let limits = Limits::new(config.supervisor.clone());
        let slots: Vec<RoleSlot> = config.roles.iter().cloned().map(RoleSlot::new).collect();
        let http = HttpFront::new(tasks.clone());
        http.set_connections_per_address(config.supervisor.connections_per_address);
        let reload = environment.reload.clone().map(|source| {
            let (service, handle) = ReloadService::new(
                source,
                &config,
                slots.clone(),
                (board.clone(), limits.clone(), http.clone()),
                (environment.log.clone(), environment.notifier),
                tasks.clone(),
            );
            tasks.spawn_vital("reload", service.run(stop.clone()));
            handle
        });
        let state = AdminState {
            board: board.clone(),
            links: heartbeat.clone(),
            addr,
            log: environment.log.clone(),
            reload,
        };
        let admin = admin::serve(listener, state, tasks.clone(), stop.clone());
        tasks.spawn_vital("admin listener", admin);
        let beat = HeartbeatService::new(
            heartbeat.clone(),
            board.clone(),
            limits.clone(),
            environment.notifier,
        );
        tasks.spawn_vital("heartbeat", beat.run(stop.clone()));
        let notifier = environment.notifier;
        tasks.spawn_vital("service status", report(board.clone(), notifier, stop.clone()));
        let roles: Vec<&str> = slots.iter().map(|slot| slot.kind.short).collect();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            roles = roles.join(","),
            admin = %addr,
            state_directory = %config.supervisor.state_directory.display(),
            "starting"
        );
        for (role, problem) in config.short_graces() {
            tracing::warn!(role = role.short, problem, "the grace period is short");
        }
        let ports = Ports { board, heartbeat, http, host: environment.host, limits };
        let outcome = supervise(&slots, &ports, &shutdown).await;
        stop.cancel();
        tasks.close();
        if tokio::time::timeout(LISTENER_TIMEOUT, tasks.wait()).await.is_err() {
            tracing::debug!(tasks = tasks.len(), "connections were still open");
        }
        tasks.kill();
        drop((address_file, pid_file));
        // Last: whoever waits for the directory finds nothing of ours.
        drop(lock);
        tracing::info!(code = outcome.code(), "stopped");
        outcome
    }
}

/// Tells the service manager how we are, until we stop.
async fn report(board: Board, notifier: Notifier, stop: CancellationToken) {
    let mut changed = board.changed();
    notifier.ready(&board.summary());
    let mut said_stopping = false;
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => true,
            change = changed.changed() => change.is_err(),
        };
        // A quick stop is over before its beginning was seen here.
        if board.is_stopping() && !said_stopping {
            said_stopping = true;
            notifier.stopping();
        }
        notifier.status(&board.summary());
        if ended {
            return;
        }
    }
}
