//! `[roles.dhcp.sync]`: which server, which zone, how eagerly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cloudstack_api::ApiUrl;
use config_reader::{Section, Violations};
use dhcp_api::words::DomainName;

/// The sync's configuration.
#[derive(Debug, Clone)]
pub struct SyncConfig {
    /// Servers of one cloud.
    pub urls: Vec<ApiUrl>,
    pub api_key_file: PathBuf,
    pub secret_key_file: PathBuf,
    /// Trust for `https` besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Name or id of the zone.
    pub zone: String,
    /// Names or ids of networks; empty in a basic zone, which has one.
    pub networks: Vec<String>,
    /// For networks that have no domain of their own.
    pub domain: DomainName,
    /// Least time between two full listings.
    pub full_interval: Duration,
    /// Between two looks at starting machines; zero for none.
    pub starting_interval: Duration,
    /// A listing that lacks more is not believed.
    pub max_delete_percent: u8,
    /// Where the server's webhook arrives.
    pub webhook: Option<WebhookConfig>,
}

/// The receiver of events.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    pub listen: SocketAddr,
    pub secret_file: PathBuf,
}

const DEFAULT_DOMAIN: &str = "cloud.internal";
const DEFAULT_PERCENT: u8 = 20;

impl SyncConfig {
    /// Reads the table; `None` when something necessary is missing or wrong.
    pub(crate) fn read(table: &toml::Table, violations: &mut Violations) -> Option<Self> {
        let found = violations.list().len();
        let mut section = Section::new("roles.dhcp.sync", table, violations);
        let urls: Vec<ApiUrl> = section.list("urls", "give [\"http://10.0.0.5:8080/client/api\"]");
        if urls.is_empty() && !table.contains_key("urls") {
            let remedy = "give the server's API: urls = [\"http://10.0.0.5:8080/client/api\"]";
            section.violation("urls", "is missing", remedy);
        }
        let file = "name a file that holds only the key and is closed to others";
        let api_key_file = section.required::<String>("api_key_file", file);
        let secret_key_file = section.required::<String>("secret_key_file", file);
        let ca_file = section.optional_path("ca_file");
        let zone = section.required::<String>("zone", "give the name or the id of the zone");
        let networks = section.list("networks", "give names or ids of networks");
        let default = DEFAULT_DOMAIN.parse().ok();
        let domain = match default {
            Some(default) => section.or_default("domain", default, "give a domain"),
            None => return None,
        };
        let full_interval = section.duration("full_interval", Duration::from_secs(60));
        if full_interval < Duration::from_secs(5) {
            section.violation("full_interval", "is below 5s", "give 5s or more");
        }
        let starting_interval = section.duration("starting_interval", Duration::from_secs(1));
        if !starting_interval.is_zero() && starting_interval < Duration::from_millis(100) {
            section.violation("starting_interval", "is below 100ms", "give 0s for none, or more");
        }
        let max_delete_percent =
            section.or_default("max_delete_percent", DEFAULT_PERCENT, "give 0 to 100");
        if max_delete_percent > 100 {
            section.violation("max_delete_percent", "is above 100", "give 0 to 100");
        }
        let listen = section.optional::<SocketAddr>("webhook_listen", "give address:port");
        let secret_file = section.optional_path("webhook_secret_file");
        let webhook = match (listen, secret_file) {
            (Some(listen), Some(secret_file)) => Some(WebhookConfig { listen, secret_file }),
            (None, None) => None,
            _ => {
                let remedy = "give both webhook_listen and webhook_secret_file, or neither";
                section.violation("webhook_listen", "goes with webhook_secret_file", remedy);
                None
            }
        };
        section.finish();
        let (api_key_file, secret_key_file, zone) = (api_key_file?, secret_key_file?, zone?);
        (violations.list().len() == found).then(|| Self {
            urls,
            api_key_file: api_key_file.into(),
            secret_key_file: secret_key_file.into(),
            ca_file,
            zone,
            networks,
            domain,
            full_interval,
            starting_interval,
            max_delete_percent,
            webhook,
        })
    }
}
