//! `[management]`: the management servers and how to talk to them.
//!
//! Every role that registers reads this table; each has a link of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_protocol::frame::DEFAULT_MAX_INFLATED;
use bedrock::chain;
use bedrock::net::HostPort;
use config_reader::{Section, Violations};
use role::{PreflightError, Resource};

use crate::client_certificate::ClientCertificate;

/// Version reported to the server; it stores and shows it, nothing depends on it.
const VERSION: &str = "4.22.0.0";
const PORT: u16 = 8250;
/// Name of the zone and pod of an agent that was told none.
const ANYWHERE: &str = "default";

/// Times and bounds of a link. The defaults suit a stock server; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkLimits {
    /// Name resolution and TCP connect together.
    pub connect_timeout: Duration,
    /// TLS handshake; the server itself gives up after 30 s.
    pub handshake_timeout: Duration,
    /// From the startup command to its answer.
    pub startup_timeout: Duration,
    /// Longest silence of the server between the startup answer and the ready command, counted
    /// from the last command of the connect phase.
    pub ready_timeout: Duration,
    /// Silence between the startup answer and the ready command that is worth a word.
    pub stall_timeout: Duration,
    /// Least time between losing a link and the next startup command: the server needs it to
    /// notice the loss.
    pub backoff: Duration,
    /// Longest wait after refusals; they grow from `backoff`.
    pub refusal_backoff: Duration,
    /// How long commands are taken and answered when the role stops, until the server has us Up
    /// and nothing is under way; then they are answered with failures.
    pub drain_timeout: Duration,
    /// How long the server has to close the link after the goodbye.
    pub goodbye_timeout: Duration,
    /// From answering a migration command to leaving the server.
    pub migration_delay: Duration,
    /// TCP connect that checks whether another server is alive.
    pub probe_timeout: Duration,
    /// Data the peer did not acknowledge for this long ends the connection.
    pub unacknowledged_timeout: Duration,
    /// Overrides the interval at which the server wants us to look for the preferred server.
    pub preferred_check_interval: Option<Duration>,
    /// Commands worked on at a time, over all links of the role; when full, reading pauses.
    pub max_commands: usize,
    /// Most bytes of one message, joined and inflated.
    pub max_message: usize,
}

impl LinkLimits {
    /// How long a link may take from the stop to its end.
    pub fn stop_grace(&self) -> Duration {
        // Draining, the failures at its bound, the goodbye, the last bytes, and a breath.
        self.drain_timeout + 3 * self.goodbye_timeout + Duration::from_secs(1)
    }
}

impl Default for LinkLimits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect_timeout: seconds(10),
            handshake_timeout: seconds(30),
            startup_timeout: seconds(60),
            ready_timeout: seconds(120),
            stall_timeout: seconds(60),
            backoff: seconds(5),
            refusal_backoff: seconds(60),
            drain_timeout: seconds(10),
            goodbye_timeout: seconds(1),
            migration_delay: seconds(3),
            probe_timeout: seconds(5),
            unacknowledged_timeout: seconds(60),
            preferred_check_interval: None,
            max_commands: 256,
            max_message: DEFAULT_MAX_INFLATED,
        }
    }
}

/// The management servers and how to talk to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagementConfig {
    /// In order of preference, until a server hands out its own list. Never empty.
    pub servers: Vec<HostPort>,
    /// For servers given without a port.
    pub port: u16,
    /// Name or id.
    pub zone: String,
    /// Name or id.
    pub pod: String,
    /// The server's CA certificate as PEM; without it the first one met is remembered.
    pub ca_file: Option<PathBuf>,
    /// Offered to a server that asks for one.
    pub client_certificate: Option<ClientCertificate>,
    /// Reported to the server.
    pub version: String,
    pub limits: LinkLimits,
}

impl ManagementConfig {
    /// Reads the table. `None` when there is no server to talk to; other faults are reported and
    /// replaced by defaults.
    pub fn read(table: &toml::Table, violations: &mut Violations) -> Option<Self> {
        let mut section = Section::new("management", table, violations);
        let servers = read_servers(&mut section, table.contains_key("servers"));
        let port = section.or_default("port", PORT, "give a port, 1-65535");
        if port == 0 {
            section.violation("port", "0 is not a port", "give a port, 1-65535");
        }
        let name = |section: &mut Section<'_>, key| {
            section.or_default(key, ANYWHERE.to_owned(), "give a name or an id")
        };
        let zone = name(&mut section, "zone");
        let pod = name(&mut section, "pod");
        let ca_file = section.optional_path("ca_file");
        let client_certificate = read_client_certificate(&mut section);
        let version = section.or_default("version", VERSION.to_owned(), "give a version");
        let limits = read_limits(&mut section);
        section.finish();
        if servers.is_empty() {
            return None;
        }
        Some(Self { servers, port, zone, pod, ca_file, client_certificate, version, limits })
    }

    /// Whether a changed key needs a restart: what the startup command tells.
    pub(crate) fn is_fixed(key: &str) -> bool {
        matches!(key, "management.zone" | "management.pod" | "management.version")
    }

    /// The keys whose values differ.
    pub(crate) fn differing_keys(&self, other: &Self) -> Vec<&'static str> {
        let pairs = self.values().into_iter().zip(other.values());
        pairs.filter(|(mine, theirs)| mine != theirs).map(|((key, _), _)| key).collect()
    }

    /// Every key with its value as a text, in a fixed order.
    fn values(&self) -> Vec<(&'static str, String)> {
        fn of(value: &impl std::fmt::Debug) -> String {
            format!("{value:?}")
        }
        let (pair, store) = match &self.client_certificate {
            Some(ClientCertificate::Pem { certificate, key }) => (Some((certificate, key)), None),
            Some(ClientCertificate::KeyStore { file, password_file }) => {
                (None, Some((file, password_file)))
            }
            None => (None, None),
        };
        let limits = &self.limits;
        vec![
            ("management.servers", of(&self.servers)),
            ("management.port", of(&self.port)),
            ("management.zone", of(&self.zone)),
            ("management.pod", of(&self.pod)),
            ("management.version", of(&self.version)),
            ("management.ca_file", of(&self.ca_file)),
            ("management.client_cert_file", of(&pair.map(|(certificate, _)| certificate))),
            ("management.client_key_file", of(&pair.map(|(_, key)| key))),
            ("management.client_keystore_file", of(&store.map(|(file, _)| file))),
            ("management.client_keystore_password_file", of(&store.map(|(_, file)| file))),
            ("management.connect_timeout", of(&limits.connect_timeout)),
            ("management.handshake_timeout", of(&limits.handshake_timeout)),
            ("management.startup_timeout", of(&limits.startup_timeout)),
            ("management.ready_timeout", of(&limits.ready_timeout)),
            ("management.backoff", of(&limits.backoff)),
            ("management.refusal_backoff", of(&limits.refusal_backoff)),
            ("management.drain_timeout", of(&limits.drain_timeout)),
            ("management.unacknowledged_timeout", of(&limits.unacknowledged_timeout)),
            ("management.preferred_check_interval", of(&limits.preferred_check_interval)),
            ("management.max_commands", of(&limits.max_commands)),
        ]
    }

    /// Looks at the configured files without using them: certificates, keys.
    pub fn misconfigured(&self) -> Vec<PreflightError> {
        let mut found = Vec::new();
        let mut report = |key: &str, error: &dyn std::error::Error| {
            let (problem, remedy) = (chain(error), format!("correct management.{key}"));
            found.push(PreflightError { problem, remedy });
        };
        if let Some(path) = &self.ca_file
            && let Err(error) = tls_material::read_certificates(path)
        {
            report("ca_file", &error);
        }
        if let Some(certificate) = &self.client_certificate
            && let Err(error) = certificate.load()
        {
            let key = match certificate {
                ClientCertificate::Pem { .. } => "client_cert_file or management.client_key_file",
                ClientCertificate::KeyStore { .. } => "client_keystore_file",
            };
            report(key, &error);
        }
        found
    }
}

fn read_servers(section: &mut Section<'_>, given: bool) -> Vec<HostPort> {
    const REMEDY: &str = "list the management servers: servers = [\"10.0.0.5\", \"10.0.0.6:8250\"]";
    let servers: Vec<HostPort> = section.list("servers", REMEDY);
    if servers.is_empty() && !given {
        section.violation("servers", "no management server is given", REMEDY);
    }
    servers
}

fn read_client_certificate(section: &mut Section<'_>) -> Option<ClientCertificate> {
    let certificate = section.optional_path("client_cert_file");
    let key = section.optional_path("client_key_file");
    let store = section.optional_path("client_keystore_file");
    let password_file = section.secret_path("client_keystore_password_file");
    if password_file.is_some() && store.is_none() {
        section.violation(
            "client_keystore_password_file",
            "is given without a key store",
            "give client_keystore_file too",
        );
    }
    let of_pair = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCertificate::Pem { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            section.violation("client_cert_file", "is given alone", "give client_key_file too");
            None
        }
        (None, Some(_)) => {
            section.violation("client_key_file", "is given alone", "give client_cert_file too");
            None
        }
    };
    match (of_pair, store) {
        (Some(_), Some(_)) => {
            section.violation(
                "client_keystore_file",
                "is given besides client_cert_file",
                "give one client certificate, as PEM or as a key store",
            );
            None
        }
        (pair @ Some(_), None) => pair,
        (None, Some(file)) => Some(ClientCertificate::KeyStore { file, password_file }),
        (None, None) => None,
    }
}

fn read_limits(section: &mut Section<'_>) -> LinkLimits {
    let defaults = LinkLimits::default();
    let connect_timeout = positive(section, "connect_timeout", defaults.connect_timeout);
    let handshake_timeout = positive(section, "handshake_timeout", defaults.handshake_timeout);
    let startup_timeout = positive(section, "startup_timeout", defaults.startup_timeout);
    let ready_timeout = positive(section, "ready_timeout", defaults.ready_timeout);
    let backoff = positive(section, "backoff", defaults.backoff);
    let refusal_backoff = positive(section, "refusal_backoff", defaults.refusal_backoff);
    let drain_timeout = section.duration("drain_timeout", defaults.drain_timeout);
    let unacknowledged_timeout =
        positive(section, "unacknowledged_timeout", defaults.unacknowledged_timeout);
    let preferred_check_interval = section
        .raw("preferred_check_interval")
        .is_some()
        .then(|| section.duration("preferred_check_interval", Duration::ZERO));
    let max_commands = section.or_default("max_commands", defaults.max_commands, "give a number");
    if max_commands == 0 {
        section.violation("max_commands", "0 would never handle a command", "give 1 or more");
    }
    LinkLimits {
        connect_timeout,
        handshake_timeout,
        startup_timeout,
        ready_timeout,
        backoff,
        refusal_backoff,
        drain_timeout,
        unacknowledged_timeout,
        preferred_check_interval,
        max_commands: max_commands.max(1),
        ..defaults
    }
}

fn positive(section: &mut Section<'_>, key: &'static str, default: Duration) -> Duration {
    let value = section.duration(key, default);
    if value.is_zero() {
        section.violation(key, "0 leaves no time at all", "give a longer time, or leave it out");
    }
    value
}

/// What a link needs to know besides its role.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    pub management: ManagementConfig,
    /// As on the wire, with the class suffix: it is the key of the host's row on the server.
    pub guid: String,
    /// The role's own directory; identity, remembered and provisioned certificates live in it.
    pub state_directory: PathBuf,
}

impl LinkConfig {
    /// The host's name on the server, to be compared across roles: the guid without
    /// `-<resource_name>`, as the server cuts it.
    pub fn host_resource(&self, resource_name: &str) -> Resource {
        let name = self.guid.strip_suffix(resource_name).and_then(|rest| rest.strip_suffix('-'));
        Resource::HostName(name.unwrap_or(&self.guid).to_owned())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.state_directory.join(name)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.state_directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<ManagementConfig>, Vec<String>) {
        let table: toml::Table = text.parse().unwrap();
        let mut violations = Violations::new();
        let config = ManagementConfig::read(&table, &mut violations);
        (config, violations.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn servers_alone_are_enough() {
        let (config, violations) = read("servers = [\"10.0.0.5\", \"ms:9\"]");
        assert_eq!(violations, Vec::<String>::new());
        let config = config.unwrap();
        assert_eq!(config.servers.len(), 2);
        assert_eq!(
            (config.port, config.zone.as_str(), config.pod.as_str()),
            (8250, "default", "default")
        );
        assert_eq!(config.version, "4.22.0.0");
        assert_eq!(config.limits, LinkLimits::default());
    }

    #[test]
    fn every_key_is_read() {
        let (config, violations) = read(
            "servers = \"ms\"\nport = 9\nzone = 1\npod = \"p\"\nca_file = \"/ca\"\n\
             client_keystore_file = \"/k\"\nclient_keystore_password_file = \"/p\"\n\
             version = \"4.23.0.0\"\nconnect_timeout = \"1s\"\nhandshake_timeout = \"2s\"\n\
             startup_timeout = \"3s\"\nready_timeout = \"4s\"\nbackoff = \"5s\"\n\
             refusal_backoff = \"6s\"\ndrain_timeout = \"7s\"\nunacknowledged_timeout = \"8s\"\n\
             preferred_check_interval = \"9s\"\nmax_commands = 10",
        );
        assert_eq!(violations, Vec::<String>::new());
        let config = config.unwrap();
        assert_eq!(config.zone, "1");
        assert_eq!(config.limits.ready_timeout, Duration::from_secs(4));
        assert_eq!(config.limits.preferred_check_interval, Some(Duration::from_secs(9)));
        assert_eq!(config.limits.max_commands, 10);
        let store =
            ClientCertificate::KeyStore { file: "/k".into(), password_file: Some("/p".into()) };
        assert_eq!(config.client_certificate, Some(store));
    }

    #[test]
    fn every_fault_is_told_with_its_place_and_a_remedy() {
        let (config, violations) =
            read("port = 0\nclient_cert_file = \"/c\"\nbackoff = \"0s\"\nserver = 1");
        assert_eq!(config, None);
        let servers = "list the management servers: servers = [\"10.0.0.5\", \"10.0.0.6:8250\"]";
        assert_eq!(
            violations,
            [
                format!("management.servers: no management server is given; {servers}"),
                "management.port: 0 is not a port; give a port, 1-65535".to_owned(),
                "management.client_cert_file: is given alone; give client_key_file too".to_owned(),
                "management.backoff: 0 leaves no time at all; give a longer time, or leave it out"
                    .to_owned(),
                "management.server: is not a known key; did you mean \"servers\"?".to_owned(),
            ]
        );
    }

    #[test]
    fn a_changed_key_is_told_by_its_name() {
        let (one, _) = read("servers = \"a\"\nclient_keystore_file = \"/j\"");
        let (other, _) =
            read("servers = \"b\"\nzone = \"z\"\nbackoff = \"9s\"\nclient_keystore_file = \"/j\"");
        let (one, other) = (one.unwrap(), other.unwrap());
        let keys = one.differing_keys(&other);
        assert_eq!(keys, ["management.servers", "management.zone", "management.backoff"]);
        let fixed: Vec<bool> = keys.iter().map(|key| ManagementConfig::is_fixed(key)).collect();
        assert_eq!(fixed, [false, true, false]);
        assert!(one.differing_keys(&one).is_empty());
    }

    #[test]
    fn two_client_certificates_are_one_too_many() {
        let (config, violations) = read(
            "servers = \"a\"\nclient_cert_file = \"/c\"\nclient_key_file = \"/k\"\nclient_keystore_file = \"/j\"",
        );
        assert!(config.is_some());
        assert_eq!(violations.len(), 1, "{violations:?}");
    }

    #[test]
    fn preflight_names_the_missing_file_and_the_key() {
        let (config, _) = read("servers = \"a\"\nca_file = \"/does/not/exist.pem\"");
        let found = config.unwrap().misconfigured();
        let text = found[0].to_string();
        assert!(text.starts_with("cannot read /does/not/exist.pem; check that"), "{text}");
        assert!(text.ends_with("correct management.ca_file"), "{text}");
    }
}
