//! `[roles.dhcp]`: what it may say and what is wrong with it.

use std::path::{Path, PathBuf};

use config_reader::{Section, Violations};

use crate::access::Grant;
use crate::layout::Layout;
use crate::sync::config::SyncConfig;
use crate::tcp::TcpConfig;
use dhcp_api::words::{InterfaceName, LeaseTime, Upstream};

pub(crate) const DEFAULT_SOCKET: &str = "/run/quickcloud/dhcp.sock";
pub(crate) const DEFAULT_DNSMASQ: &str = "/usr/sbin/dnsmasq";

/// The role's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The one interface that is served.
    pub interface: InterfaceName,
    pub api_socket: PathBuf,
    /// Who may do what on it; nothing: whoever may open it, everything.
    pub socket_access: Vec<Grant>,
    pub dnsmasq: PathBuf,
    /// Account dnsmasq runs as; by default `dnsmasq` if it can reach the files.
    pub user: Option<String>,
    /// Whether DNS is served, too.
    pub dns: bool,
    /// Upstream name servers besides those of the zones.
    pub upstreams: Vec<Upstream>,
    /// For zones and subnets that do not say.
    pub lease_time: LeaseTime,
    /// The API over TCP, besides the socket.
    pub tcp: Option<TcpConfig>,
    /// The management server's book as a source, if there is one.
    pub sync: Option<SyncConfig>,
    /// The role's own directory.
    pub directory: PathBuf,
}

impl Config {
    /// Reads the table; `None` when something necessary is missing or wrong.
    pub fn read(
        table: &toml::Table,
        state_directory: &Path,
        violations: &mut Violations,
    ) -> Option<Self> {
        let found = violations.list().len();
        let mut section = Section::new("roles.dhcp", table, violations);
        let interface = section.required(
            "interface",
            "name the bridge of the guest network as \"ip link\" shows it: interface = \"br0\"",
        );
        let api_socket = absolute(&section.path("api_socket", DEFAULT_SOCKET));
        // sun_path has 108 bytes, one of them for the end.
        if api_socket.as_os_str().len() > 107 {
            let problem = format!("{} is longer than 107 bytes", api_socket.display());
            section.violation("api_socket", problem, "give a shorter path");
        }
        let socket_access = section.list(
            "api_socket_access",
            "give accounts and roles: [\"portal writer\", \"@operators admin\"]",
        );
        let dnsmasq = absolute(&section.path("dnsmasq", DEFAULT_DNSMASQ));
        let user = section.optional::<String>("user", "name the account dnsmasq shall run as");
        let dns = section.or_default("dns", true, "give true or false");
        let upstreams =
            section.list("upstreams", "give addresses of name servers: [\"10.0.0.53\"]");
        let lease_time = section.or_default(
            "lease_time",
            LeaseTime::Infinite,
            "give \"infinite\" or a number of seconds",
        );
        let tcp = TcpConfig::read(&mut section);
        let has_sync = section.table("sync").is_some();
        section.finish();
        let sync = table.get("sync").and_then(toml::Value::as_table).filter(|_| has_sync);
        let sync = match sync {
            Some(table) => SyncConfig::read(table, violations),
            None => None,
        };
        let directory = absolute(&crate::KIND.directory(state_directory));
        if !is_plain(&directory) {
            violations.add(
                "supervisor.state_directory",
                format!("{} cannot be written into a dnsmasq file", directory.display()),
                "use a path of letters, digits, '/', '.', '_', '-', '+', '@' and ':'",
            );
        }
        let interface = interface?;
        (violations.list().len() == found).then_some(Self {
            interface,
            api_socket,
            socket_access,
            dnsmasq,
            user,
            dns,
            upstreams,
            lease_time,
            tcp,
            sync,
            directory,
        })
    }

    /// Where the desired state is kept.
    pub fn desired_file(&self) -> PathBuf {
        self.directory.join("desired.json")
    }

    /// Where the last changes are kept.
    pub(crate) fn history_file(&self) -> PathBuf {
        self.directory.join("changes.jsonl")
    }

    /// Where the files of dnsmasq lie.
    pub fn layout(&self) -> Layout {
        Layout::new(self.directory.join("dnsmasq"))
    }
}

/// dnsmasq gets whole paths, wherever it is started.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_no_directory| path.to_owned())
}

fn is_plain(path: &Path) -> bool {
    path.to_str().is_some_and(|text| {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@:".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, state: &str) -> Result<Config, Vec<String>> {
        let mut violations = Violations::new();
        let config = Config::read(&text.parse().unwrap(), Path::new(state), &mut violations);
        config.ok_or_else(|| violations.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_interface_is_enough() {
        let config = read("interface = \"br0\"", "/var/lib/quickcloud").unwrap();
        assert_eq!(config.api_socket, Path::new(DEFAULT_SOCKET));
        assert_eq!(config.layout().main(), Path::new("/var/lib/quickcloud/dhcp/dnsmasq/main.conf"));
        assert!(config.dns && config.user.is_none());
    }

    #[test]
    fn every_violation_is_named_at_once() {
        let text = "interface = \"br 0\"\nupstreams = [\"dns\"]\nlease_time = 5\ndsn = true";
        let violations = read(text, "/var/lib/quick cloud").unwrap_err();
        assert_eq!(violations.len(), 5, "{violations:#?}");
        assert!(violations.iter().any(|v| v.contains("did you mean \"dns\"?")), "{violations:#?}");
        assert!(read("", "/s").unwrap_err()[0].starts_with("roles.dhcp.interface: is missing"));
        assert!(read("interface = \"lo\"", "/s").unwrap_err()[0].contains("is the loopback"));
        let sync = "interface = \"br0\"\n[sync]\nurls = [\"10.0.0.5\"]\nzone = \"z\"\n\
            full_interval = \"1s\"\nmax_delete_percent = 200\nwebhook_listen = \"0.0.0.0:8252\"";
        let found = read(sync, "/s").unwrap_err();
        assert_eq!(found.len(), 6, "{found:#?}");
        let sync = read("interface = \"br0\"\nsync = true", "/s").unwrap_err();
        assert!(sync[0].contains("write [roles.dhcp.sync]"), "{sync:?}");
    }
}
