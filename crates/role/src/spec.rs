//! A role, described and running.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_front::HttpFront;
use task_scope::TaskScope;
use tokio_util::sync::CancellationToken;

use crate::BoxFuture;
use crate::admin::AdminRoutes;
use crate::doctor::DoctorCheck;
use crate::error::{PreflightError, RoleError};
use crate::health::HealthReporter;
use crate::heartbeat::Heartbeat;
use crate::host::Host;
use crate::kind::RoleKind;
use crate::reload::Reload;

/// A service of this process, described but not running.
///
/// A spec is immutable and cheap to keep: the supervisor asks it for a fresh [`Role`] at every
/// (re)start, so no state survives a crash by accident.
pub trait RoleSpec: Any + fmt::Debug + Send + Sync {
    fn kind(&self) -> RoleKind;

    /// Everything the role needs for itself alone. Compared across roles before anything is bound.
    fn resources(&self) -> Vec<Resource>;

    /// Looks, does not touch: programs present, directories writable, addresses local. Returns
    /// every finding, empty when all is well.
    fn preflight<'a>(&'a self, host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>>;

    fn build(&self) -> Box<dyn Role>;

    /// How long a run that failed or hangs may take to let go, when that is longer than
    /// `supervisor.role_stop_grace`: a link that owes answers must be able to give them before the
    /// role is started again. A stop of the process has `supervisor.shutdown_grace`.
    fn stop_grace(&self) -> Option<Duration> {
        None
    }

    /// Reads the files that the configuration names, such as certificates and keys. A finding is as
    /// final as a violation of the configuration: waiting does not heal it. Blocks for a moment.
    fn misconfigured(&self) -> Vec<PreflightError> {
        Vec::new()
    }

    /// What an operator would look at when the role is not as it should be. Each check is a
    /// question of its own; asking may take a few seconds and changes nothing.
    fn doctor(&self) -> Vec<DoctorCheck> {
        Vec::new()
    }
}

/// One run of a role.
pub trait Role: Send + 'static {
    /// Runs until `cx.shutdown` fires, then stops serving and returns. Returning `Ok` earlier is a
    /// bug and is treated as [`RoleError::Internal`].
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>>;
}

/// What a role gets from the supervisor. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct RoleContext {
    pub kind: RoleKind,
    /// Child of the supervisor's token: fires when the role must stop.
    pub shutdown: CancellationToken,
    /// The only way to spawn.
    pub tasks: TaskScope,
    /// What `/status`, `/readyz` and the log say about the role.
    pub health: HealthReporter,
    /// The process-wide heartbeat that pings registered links.
    pub heartbeat: Heartbeat,
    /// HTTP ports that roles may share.
    pub http: HttpFront,
    /// Clock and programs of the machine.
    pub host: Host,
    /// Routes of its own on the admin listener, below `/roles/<short>/`.
    pub admin: AdminRoutes,
    /// How this run takes over another configuration.
    pub reload: Reload,
}

impl RoleContext {
    /// A context with health, routes and reload of its own.
    pub fn new(
        kind: RoleKind,
        shutdown: CancellationToken,
        tasks: TaskScope,
        heartbeat: Heartbeat,
        http: HttpFront,
        host: Host,
    ) -> Self {
        Self {
            kind,
            shutdown,
            tasks,
            health: HealthReporter::new(),
            heartbeat,
            http,
            host,
            admin: AdminRoutes::new(),
            reload: Reload::new(),
        }
    }
}

/// Something only one role can have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resource {
    Tcp(SocketAddr),
    /// Paths below a prefix on a port of the shared HTTP front.
    HttpRoute {
        addr: SocketAddr,
        prefix: &'static str,
    },
    Dir(PathBuf),
    Socket(PathBuf),
    Interface(String),
    /// How the role's host is named on its management server, without what the server cuts off. The
    /// server looks for hosts by the beginning of this name, so none may begin another's.
    HostName(String),
}

impl Resource {
    /// Whether both cannot exist at the same time. An unspecified address conflicts with every
    /// address on its port; port 0 with nothing.
    pub fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b) | Self::HttpRoute { addr: b, .. })
            | (Self::HttpRoute { addr: a, .. }, Self::Tcp(b)) => overlap(*a, *b),
            (
                Self::HttpRoute { addr: a, prefix: first },
                Self::HttpRoute { addr: b, prefix: second },
            ) => first == second && overlap(*a, *b),
            (Self::HostName(a), Self::HostName(b)) => begins(a, b) || begins(b, a),
            (a, b) => a == b,
        }
    }
}

/// As the server's database compares: `_` is any one character, `%` anything.
fn begins(pattern: &str, name: &str) -> bool {
    let mut letters = name.chars().flat_map(char::to_lowercase);
    for expected in pattern.chars().flat_map(char::to_lowercase) {
        if expected == '%' {
            return true;
        }
        match letters.next() {
            Some(letter) if expected == '_' || expected == letter => {}
            _ => return false,
        }
    }
    true
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "TCP {addr}"),
            Self::HttpRoute { addr, prefix } => write!(f, "HTTP {addr}{prefix}"),
            Self::Dir(path) => write!(f, "directory {}", path.display()),
            Self::Socket(path) => write!(f, "socket {}", path.display()),
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::HostName(name) => {
                write!(f, "the guid {name}, which must not begin another (let it end with -VM)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str, expected: bool) {
        let tcp = |text: &str| Resource::Tcp(text.parse().unwrap());
        assert_eq!(tcp(a).conflicts(&tcp(b)), expected, "{a} {b}");
        assert_eq!(tcp(b).conflicts(&tcp(a)), expected, "{b} {a}");
    }

    #[test]
    fn no_host_name_may_begin_another() {
        let check = |a: &str, b: &str, expected: bool| {
            let name = |text: &str| Resource::HostName(text.to_owned());
            assert_eq!(name(a).conflicts(&name(b)), expected, "{a} {b}");
            assert_eq!(name(b).conflicts(&name(a)), expected, "{b} {a}");
        };
        check("h1", "h1", true);
        check("Proxy.9", "Proxy.901", true);
        check("store-1", "Store-12", true);
        check("s-1-VM", "s-10-VM", false);
        check("s-1-VM", "v-1-VM", false);
        check("s_1", "s-12", true);
        check("a%z", "ab", true);
    }

    #[test]
    fn an_unspecified_address_conflicts_with_every_address_on_its_port() {
        check("0.0.0.0:80", "10.0.0.1:80", true);
        check("0.0.0.0:80", "10.0.0.1:81", false);
        check("10.0.0.2:80", "10.0.0.1:80", false);
        check("[::]:80", "10.0.0.1:80", true);
        check("0.0.0.0:0", "0.0.0.0:0", false);
    }
}
