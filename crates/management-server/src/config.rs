//! Settings of an embedded server: what the original keeps in its database and global settings.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::ca::CertificateAuthority;
use crate::tls::ClientCertificates;
use crate::token::TokenKey;

/// A source of wall-clock time, so that tests can move it.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>);

impl WallClock {
    /// A clock of one's own.
    pub fn of(now: impl Fn() -> jiff::Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> jiff::Timestamp {
        (self.0)()
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::of(jiff::Timestamp::now)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WallClock")
    }
}

/// A zone with its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Number of the row.
    pub id: i64,
    /// Name, matched exactly.
    pub name: String,
    /// Pods as number and name.
    pub pods: Vec<(i64, String)>,
}

/// An image store that secondary storage agents serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageStore {
    /// Its URL, for example `nfs://127.0.0.1/export/sec`.
    pub url: String,
    /// Whether new images may be placed on it; the lists are only asked for writable ones.
    pub writable: bool,
}

/// Which kind of system VM a row describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostKind {
    /// Secondary storage.
    SecondaryStorage,
    /// Console proxy.
    ConsoleProxy,
}

/// A row of a system VM. Hosts that match one are set up in the connect phase; hosts without one
/// only get the two ready commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemVm {
    /// Kind of the VM.
    pub kind: HostKind,
    /// Number of the VM, `proxyVmId` of a console proxy.
    pub id: i64,
    /// Instance name, which the agent must send as its name.
    pub name: String,
    /// Public address, used in links.
    pub public_address: String,
}

/// How links to consoles are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleMode {
    /// The stock manager: a console proxy row is chosen, and its host is told of every session
    /// before the link is given out.
    Rows {
        /// Address and port that stand in links instead of the row's public address and port 80.
        published: Option<(String, u16)>,
    },
    /// The static manager: the address is configured, no host is told of sessions, and reports
    /// are ignored.
    Static {
        /// Address in links.
        address: String,
        /// Port in links, 8088 in a stock configuration.
        port: u16,
    },
}

/// Settings of the console part.
#[derive(Debug, Clone)]
pub struct ConsoleSettings {
    /// Where links point to.
    pub mode: ConsoleMode,
    /// `port=` in links: where the browser opens its WebSocket. 8080 for a stock server; a static
    /// one sends 0 unless configured.
    pub websocket_port: u16,
    /// `show_dot=` in links.
    pub show_dot: bool,
    /// Whether proxies shall compare the browser's address with the one in the token.
    pub source_address_check: bool,
    /// Open sessions after which no more links are given out.
    pub session_limit: usize,
    /// Key of console tokens; `None` makes a new one.
    pub token_key: Option<TokenKey>,
    /// Key store with its password that proxies get for TLS, as with consoleproxy.sslEnabled.
    pub key_store: Option<(Vec<u8>, String)>,
}

/// What happens with images on a store that have no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrayImages {
    /// They are deleted, as the original does.
    Delete,
    /// They stay: for a server that forgets its records at every start.
    Keep,
}

/// Settings of the image part.
#[derive(Debug, Clone)]
pub struct ImageSettings {
    /// Time between the answer of a transfer and the next question for its state.
    pub poll_interval: Duration,
    /// Silence after which a transfer counts as failed.
    pub poll_timeout: Duration,
    /// Time between two requests for the size of each store; `None` never asks.
    pub stats_interval: Option<Duration>,
    /// Largest template or ISO, in bytes.
    pub template_limit: i64,
    /// Largest volume, in bytes.
    pub volume_limit: i64,
    /// Whether agents may follow redirects.
    pub follow_redirects: bool,
    /// Networks that agents may download from although they are private.
    pub allowed_internal_sites: Vec<String>,
    /// What happens with images on a store that have no record here.
    pub strays: StrayImages,
    /// Host and port in links to images, instead of the agent's public address and port 80.
    pub link_authority: Option<String>,
    /// Scheme, host and port of uploads, instead of https and the agent's public address.
    pub upload_base: Option<String>,
}

/// Settings of a server. [`ServerConfig::new`] gives those of a stock installation.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where agents connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The certificate authority; `None` makes a new one.
    pub authority: Option<CertificateAuthority>,
    /// Whether agents have to show a certificate.
    pub client_certificates: ClientCertificates,
    /// Node id of this server in headers.
    pub management_id: i64,
    /// Zones and pods that agents may name.
    pub zones: Vec<Zone>,
    /// Addresses that agents are told to use; empty stands for the address listened on.
    pub host_list: Vec<String>,
    /// Name of the balancing algorithm that comes with the list.
    pub balancing: String,
    /// Seconds between two checks for the preferred server that agents are told; 0 is off.
    pub balancing_check_interval: i64,
    /// Servers that agents are told to avoid.
    pub avoid: Vec<String>,
    /// Time between two pings; whole seconds go over the wire.
    pub ping_interval: Duration,
    /// Silence after which a link is closed; the original takes 2.5 ping intervals.
    pub ping_timeout: Duration,
    /// The global `wait`: a command without its own is given up after twice this time.
    pub answer_wait: Duration,
    /// `wait` of the first ready command, in whole seconds.
    pub ready_wait: Duration,
    /// As the original does: a command of the connect phase that is unanswered when its link ends
    /// leaves the host connecting and locked for twice `answer_wait`; start-up commands of that guid
    /// are answered, and nothing follows until then.
    pub lock_unanswered_hosts: bool,
    /// Image stores of the zone.
    pub stores: Vec<ImageStore>,
    /// Rows of system VMs.
    pub system_vms: Vec<SystemVm>,
    /// The console part.
    pub console: ConsoleSettings,
    /// The image part.
    pub images: ImageSettings,
    /// Links open at the same time; more are closed before TLS.
    pub connection_limit: usize,
    /// Where the minute of tickets comes from.
    pub clock: WallClock,
}

impl ServerConfig {
    /// A stock installation with one zone `z1`, one pod `p1`, no stores, rows or VMs.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            authority: None,
            client_certificates: ClientCertificates::default(),
            management_id: 0x02_51_43_00_00_01,
            zones: vec![Zone { id: 1, name: "z1".to_owned(), pods: vec![(1, "p1".to_owned())] }],
            host_list: Vec::new(),
            balancing: "static".to_owned(),
            balancing_check_interval: 0,
            avoid: Vec::new(),
            ping_interval: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(150),
            answer_wait: Duration::from_secs(1800),
            ready_wait: Duration::from_secs(60),
            lock_unanswered_hosts: false,
            stores: Vec::new(),
            system_vms: Vec::new(),
            console: ConsoleSettings {
                mode: ConsoleMode::Rows { published: None },
                websocket_port: 8080,
                show_dot: true,
                source_address_check: false,
                session_limit: 50,
                token_key: None,
                key_store: None,
            },
            images: ImageSettings {
                poll_interval: Duration::from_secs(10),
                poll_timeout: Duration::from_secs(50),
                stats_interval: Some(Duration::from_secs(60)),
                template_limit: 50 << 30,
                volume_limit: 500 << 30,
                follow_redirects: false,
                allowed_internal_sites: Vec::new(),
                strays: StrayImages::Delete,
                link_authority: None,
                upload_base: None,
            },
            connection_limit: 256,
            clock: WallClock::default(),
        }
    }
}
