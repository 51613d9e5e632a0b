//! The role's table of the configuration.

mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use config_reader::{Section, Violations};
use management_link::ManagementConfig;
use role::ConfigInput;

use crate::bridge::BridgeLimits;
use bedrock::net::Network;

pub(crate) use tls::{BrowserTls, CertificateFiles, HostTlsPolicy};

/// What the server calls the part of the guid that names the class.
const RESOURCE_NAME: &str = agent_protocol::agent::StartupProxyCommand::RESOURCE_NAME;

/// Everything the role reads from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct ConsoleProxyConfig {
    pub(crate) management: ManagementConfig,
    pub(crate) state_directory: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) tls: BrowserTls,
    /// Peers that send a PROXY header before everything else.
    pub(crate) proxy_protocol: Vec<Network>,
    /// Another noVNC to serve instead of the built-in page.
    pub(crate) novnc_dir: Option<PathBuf>,
    /// Where it is written who saw what.
    pub(crate) audit_log: Option<PathBuf>,
    /// Consoles are recorded.
    pub(crate) recording: Option<RecordingConfig>,
    pub(crate) reloadable: Reloadable,
}

/// Where recordings go, and how large they grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordingConfig {
    pub(crate) directory: PathBuf,
    /// Bytes of one file.
    pub(crate) each: u64,
    /// Bytes of all files; the oldest are removed beyond.
    pub(crate) total: u64,
}

/// Keys of [`Reloadable`].
pub(crate) const RELOADABLE: &[&str] = &[
    "roles.console_proxy.sessions",
    "roles.console_proxy.ping_interval",
    "roles.console_proxy.idle_timeout",
    "roles.console_proxy.sessions_per_address",
    "roles.console_proxy.sessions_per_vm",
    "roles.console_proxy.session_timeout",
    "roles.console_proxy.session_reconnection_window",
    "roles.console_proxy.verdict_timeout",
    "roles.console_proxy.connect_timeout",
    "roles.console_proxy.handshake_timeout",
    "roles.console_proxy.message_limit",
    "roles.console_proxy.failed_tokens_per_minute",
    "roles.console_proxy.trusted_proxies",
    "roles.console_proxy.allowed_origins",
    "roles.console_proxy.frame_ancestors",
    "roles.console_proxy.hsts",
    "roles.console_proxy.host_tls",
];

/// What a reload may change while consoles are open; those that are keep what they began with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reloadable {
    /// Consoles at the same time, opening ones included.
    pub(crate) sessions: usize,
    /// Of one client address, and of one VM where the server lets it have several.
    pub(crate) sessions_per_address: usize,
    pub(crate) sessions_per_vm: usize,
    /// How long a lost viewer may come back; zero never.
    pub(crate) resume_window: Duration,
    pub(crate) bridge: BridgeLimits,
    /// How long the management server's answer on a console is waited for.
    pub(crate) verdict_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    /// For each of the two RFB handshakes.
    pub(crate) handshake_timeout: Duration,
    /// Longest WebSocket message from a viewer, in bytes.
    pub(crate) message_limit: usize,
    pub(crate) failed_tokens_per_minute: u32,
    pub(crate) trusted_proxies: Vec<Network>,
    /// Origins whose pages may open consoles besides our own; empty = any.
    pub(crate) allowed_origins: Vec<String>,
    /// Origins that may show the console page in a frame.
    pub(crate) frame_ancestors: Vec<String>,
    /// How long browsers come back over TLS only; zero says nothing about it.
    pub(crate) hsts: Duration,
    pub(crate) host_tls: HostTlsPolicy,
}

/// Who we are for the management server.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Name of the system VM whose place we take.
    pub(crate) name: String,
    /// As on the wire, with the class suffix.
    pub(crate) guid: String,
    /// Id of that VM; 0 where the server needs no row.
    pub(crate) proxy_vm: i64,
    pub(crate) private_address: IpAddr,
    pub(crate) public_address: IpAddr,
}

impl ConsoleProxyConfig {
    /// Reads `[roles.console_proxy]` and `[management]`; `None` when something indispensable is
    /// missing.
    pub(crate) fn read(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Self> {
        let management = ManagementConfig::read(input.management, violations);
        let mut section = Section::new("roles.console_proxy", input.section, violations);
        let identity = identity(&mut section);
        let listen = listen(&mut section);
        let tls = BrowserTls::read(&mut section);
        let proxy_protocol = section.list("proxy_protocol", "give networks such as \"10.0.0.0/8\"");
        let sessions = bounded(&mut section, "sessions", 500, 10_000);
        let ping = positive(&mut section, "ping_interval", Duration::from_secs(30));
        let idle = positive(&mut section, "idle_timeout", Duration::from_secs(180));
        if idle <= ping {
            section.violation(
                "idle_timeout",
                "is not longer than ping_interval",
                "a viewer is found gone when it answers no ping: give at least twice the interval",
            );
        }
        let per_address = bounded(&mut section, "sessions_per_address", 200, 10_000);
        let per_vm = bounded(&mut section, "sessions_per_vm", 16, 10_000);
        let session_timeout = section.duration("session_timeout", Duration::ZERO);
        let resume_window =
            section.duration("session_reconnection_window", Duration::from_secs(60));
        let verdict_timeout = positive(&mut section, "verdict_timeout", Duration::from_secs(10));
        let connect_timeout = positive(&mut section, "connect_timeout", Duration::from_secs(10));
        let handshake_timeout =
            positive(&mut section, "handshake_timeout", Duration::from_secs(15));
        let message_limit = section.bytes("message_limit", 1 << 20);
        if !(4096..=16 << 20).contains(&message_limit) {
            section.violation(
                "message_limit",
                format!("{message_limit} bytes is out of range"),
                "give 4KiB to 16MiB; only pasted texts are long",
            );
        }
        let failed_tokens = bounded(&mut section, "failed_tokens_per_minute", 60, 1_000_000);
        let trusted_proxies =
            section.list("trusted_proxies", "give networks such as \"10.0.0.0/8\"");
        let allowed_origins = origins(&mut section, "allowed_origins");
        let frame_ancestors = origins(&mut section, "frame_ancestors");
        let hsts = tls::hsts(&mut section);
        let host_tls = section.or_default(
            "host_tls",
            HostTlsPolicy::default(),
            "give \"verify\", \"verify-ignore-expiry\", \"accept-any\" or \"off\"",
        );
        let novnc_dir = section.optional_path("novnc_dir");
        let audit_log = section.optional_path("audit_log");
        let recording = recording(&mut section);
        section.finish();
        Some(Self {
            management: management?,
            state_directory: crate::KIND.directory(input.state_directory),
            identity: identity?,
            listen,
            tls,
            proxy_protocol,
            novnc_dir,
            audit_log,
            recording,
            reloadable: Reloadable {
                sessions,
                sessions_per_address: per_address,
                sessions_per_vm: per_vm,
                resume_window,
                bridge: BridgeLimits {
                    ping,
                    idle,
                    quiet: (!session_timeout.is_zero()).then_some(session_timeout),
                },
                verdict_timeout,
                connect_timeout,
                handshake_timeout,
                message_limit: usize::try_from(message_limit).unwrap_or(1 << 20),
                failed_tokens_per_minute: u32::try_from(failed_tokens).unwrap_or(u32::MAX),
                trusted_proxies,
                allowed_origins,
                frame_ancestors,
                hsts,
                host_tls,
            },
        })
    }
}

fn recording(section: &mut Section<'_>) -> Option<RecordingConfig> {
    let directory = section.optional_path("recordings_directory");
    let each = section.bytes("recording_limit", 1 << 30);
    let total = section.bytes("recordings_limit", 10 << 30);
    if each < 1 << 20 {
        let remedy = "give 1MiB or more; a minute of work takes a few";
        section.violation("recording_limit", format!("{each} bytes are too few"), remedy);
    }
    if total < each {
        let remedy = "give at least roles.console_proxy.recording_limit";
        section.violation("recordings_limit", "holds less than one recording may have", remedy);
    }
    directory.map(|directory| RecordingConfig { directory, each, total })
}

fn identity(section: &mut Section<'_>) -> Option<Identity> {
    let name: Option<String> = section.required(
        "name",
        "give the name of the console proxy VM whose place this takes, such as \"v-901-VM\"",
    );
    let proxy_vm: i64 = section.or_default(
        "proxy_vm",
        0,
        "give the id of the console_proxy row, or 0 for a server with a static proxy",
    );
    let guid: Option<String> =
        section.optional("guid", "give the guid of the host, such as \"Proxy.901\"");
    let private_address: Option<IpAddr> = section
        .required("private_address", "give this machine's address in the management network");
    let public_address: Option<IpAddr> =
        section.optional("public_address", "give the address that browsers reach");
    let (name, private_address) = (name?, private_address?);
    let guid = guid.unwrap_or_else(|| match proxy_vm {
        0 => format!("ConsoleProxy.{name}"),
        id => format!("Proxy.{id}"),
    });
    let suffix = format!("-{RESOURCE_NAME}");
    let guid = if guid.ends_with(&suffix) { guid } else { guid + &suffix };
    let public_address = public_address.unwrap_or(private_address);
    Some(Identity { name, guid, proxy_vm, private_address, public_address })
}

fn listen(section: &mut Section<'_>) -> Vec<SocketAddr> {
    let given = section.list("listen", "give addresses with ports, such as \"0.0.0.0:8080\"");
    if given.is_empty() {
        vec![([0, 0, 0, 0], 80).into(), ([0, 0, 0, 0], 8080).into()]
    } else {
        given
    }
}

fn bounded(section: &mut Section<'_>, key: &'static str, default: usize, max: usize) -> usize {
    let value = section.or_default(key, default, "give a number");
    if (1..=max).contains(&value) {
        return value;
    }
    section.violation(key, format!("{value} is out of range"), format!("give 1 to {max}"));
    default
}

fn positive(section: &mut Section<'_>, key: &'static str, default: Duration) -> Duration {
    let value = section.duration(key, default);
    if !value.is_zero() {
        return value;
    }
    section.violation(key, "is zero", "give a duration such as \"10s\"");
    default
}

/// Origins as they go into headers: nothing that could end a header or a directive.
fn origins(section: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let list: Vec<String> = section.list(key, "give origins such as \"https://cloud.example.org\"");
    for origin in &list {
        let plain = |c: char| c.is_ascii_alphanumeric() || ":/.-_*[]".contains(c);
        if !origin.contains("://") || !origin.chars().all(plain) {
            section.violation(
                key,
                format!("{origin:?} is not an origin"),
                "give scheme and host, such as \"https://cloud.example.org\"",
            );
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<ConsoleProxyConfig>, Vec<String>) {
        let management = "servers = [\"127.0.0.1\"]".parse().unwrap();
        let section = text.parse().unwrap();
        let mut violations = Violations::new();
        let input = ConfigInput {
            section: &section,
            management: &management,
            state_directory: std::path::Path::new("/var/lib/quickcloud"),
        };
        let config = ConsoleProxyConfig::read(input, &mut violations);
        (config, violations.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn two_keys_are_enough_and_everything_else_has_a_default() {
        let (config, violations) = read("name = \"v-901-VM\"\nprivate_address = \"10.0.0.1\"");
        assert_eq!(violations, Vec::<String>::new());
        let config = config.unwrap();
        assert_eq!(config.identity.guid, "ConsoleProxy.v-901-VM-ConsoleProxyResource");
        assert_eq!(config.identity.public_address, config.identity.private_address);
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["0.0.0.0:80", "0.0.0.0:8080"]);
        assert_eq!(config.reloadable.bridge.quiet, None);
        assert_eq!(config.state_directory, PathBuf::from("/var/lib/quickcloud/cp"));
    }

    #[test]
    fn the_guid_gets_the_class_suffix_once() {
        let check = |guid: &str, expected: &str| {
            let text =
                format!("name = \"a\"\nprivate_address = \"10.0.0.1\"\nproxy_vm = 7\n{guid}");
            assert_eq!(read(&text).0.unwrap().identity.guid, expected);
        };
        check("", "Proxy.7-ConsoleProxyResource");
        check("guid = \"x\"", "x-ConsoleProxyResource");
        check("guid = \"x-ConsoleProxyResource\"", "x-ConsoleProxyResource");
    }

    #[test]
    fn every_violation_is_found_at_once() {
        let (config, violations) = read(
            "proxy_vm = \"x\"\nlisten = [\"80\"]\nsessions = 0\nping_interval = \"60s\"\nidle_timeout = \"30s\"\n\
             connect_timeout = \"0s\"\nmessage_limit = \"1\"\ntrusted_proxies = [\"10.0.0.0/40\"]\n\
             allowed_origins = [\"evil; script-src *\"]\nnovnc = \"x\"",
        );
        assert!(config.is_none());
        let places: Vec<&str> = violations.iter().map(|v| v.split(": ").next().unwrap()).collect();
        let expected = [
            "name",
            "proxy_vm",
            "private_address",
            "listen",
            "sessions",
            "idle_timeout",
            "connect_timeout",
            "message_limit",
            "trusted_proxies",
            "allowed_origins",
            "novnc",
        ];
        let expected: Vec<String> =
            expected.iter().map(|key| format!("roles.console_proxy.{key}")).collect();
        assert_eq!(places.len(), expected.len(), "{violations:#?}");
        for place in expected {
            assert!(places.contains(&place.as_str()), "{place} in {violations:#?}");
        }
    }
}
