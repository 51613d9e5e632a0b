//! `[roles.secondary_storage]`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use config_reader::{Section, Violations};
use management_link::{LinkConfig, ManagementConfig};
use role::ConfigInput;

use crate::serving::config::ServingConfig;
use crate::sources::Retries;
use crate::sources::http::url::ProxySetting;
use crate::sources::http::{HttpLimits, MinimumRate, NoProxy, Parallel};
use crate::stores::config::StoreSettings;
use crate::uploads::config::UploadSettings;
use bedrock::net::Network;

/// Everything the role was told.
#[derive(Debug, Clone)]
pub struct SecondaryStorageConfig {
    /// Name of the system VM that this process stands for; the server finds its row by it.
    pub name: String,
    /// Last part of the guid on the wire, and what the server cuts off again.
    pub resource_name: String,
    pub private_address: IpAddr,
    /// In every link the server hands out.
    pub public_address: IpAddr,
    pub storage_address: IpAddr,
    /// Where links are served, and to whom.
    pub serving: ServingConfig,
    pub stores: StoreSettings,
    pub downloads: DownloadSettings,
    pub uploads: UploadSettings,
    /// After which a link ends, whether the server says so or not.
    pub link_lifetime: Duration,
    /// After which another host of the zone that gives no sign is dead.
    pub takeover_after: Duration,
    pub link: LinkConfig,
    /// The role's own directory for what survives a restart.
    pub state_directory: PathBuf,
}

/// What holds for every download.
#[derive(Debug, Clone)]
pub struct DownloadSettings {
    /// Networks that may be reached although they are private.
    pub allowed_sources: Vec<Network>,
    /// At the same time to one store.
    pub per_store: usize,
    /// When a command names no limit.
    pub size_limit: u64,
    /// Largest image after decompression; `None` for four times the limit of the download.
    pub decompressed_limit: Option<u64>,
    /// How many times as long as what was received an image may be, from 4 GiB on.
    pub decompression_ratio: u64,
    pub limits: HttpLimits,
    /// Longest time from a download's turn to its last byte.
    pub total_timeout: Duration,
    /// How long the first answer waits for a small image to be done.
    pub answer_wait: Duration,
    /// How long a command waits for a cancelled download to end.
    pub cancel_limit: Duration,
    /// Used when a command names no proxy.
    pub proxy: Option<ProxySetting>,
    /// Hosts that are asked without a proxy, the command's included.
    pub no_proxy: NoProxy,
    /// Trusted besides the system's and Mozilla's certificates.
    pub ca_file: Option<PathBuf>,
}

/// The management server's default for templates.
const SIZE_LIMIT: u64 = 50 << 30;
/// A disk without a byte on it shrinks to a seven-thousandth by xz, and further by zstd.
const DECOMPRESSION_RATIO: u64 = 20_000;
const DOWNLOADS: usize = 8;
const RETRIES: u32 = 5;
const MIN_RATE: u64 = 4 << 10;
/// The server asks again after ten seconds only, so an image that is there by then is worth a wait;
/// its own limit for an answer is fifty seconds.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The server's links end after four hours and are looked at every two; an operator who sets
/// `extract.url.expiration.interval` higher sets this higher, too.
const LINK_LIFETIME: Duration = Duration::from_hours(24);
const CANCEL_LIMIT: Duration = Duration::from_secs(30);

impl SecondaryStorageConfig {
    /// Reads the tables, reporting every violation; `None` when something necessary is missing.
    pub fn read(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Self> {
        let management = ManagementConfig::read(input.management, violations);
        let state_directory = crate::service::KIND.directory(input.state_directory);
        let mut section = Section::new("roles.secondary_storage", input.section, violations);
        let identity = Identity::read(&mut section);
        let serving = ServingConfig::read(&mut section);
        let stores = crate::stores::config::read(&mut section);
        let downloads = read_downloads(&mut section);
        let uploads = crate::uploads::config::read(&mut section);
        let link_lifetime = read_link_lifetime(&mut section);
        let takeover_after = read_takeover_after(&mut section);
        section.finish();
        let (management, identity) = (management?, identity?);
        let guid = format!("{}-{}", identity.guid, identity.resource_name);
        Some(Self {
            name: identity.name,
            resource_name: identity.resource_name,
            private_address: identity.private_address,
            public_address: identity.public_address,
            storage_address: identity.storage_address,
            serving,
            stores,
            downloads,
            uploads,
            link_lifetime,
            takeover_after,
            link: LinkConfig { management, guid, state_directory: state_directory.clone() },
            state_directory,
        })
    }
}

struct Identity {
    name: String,
    guid: String,
    resource_name: String,
    private_address: IpAddr,
    public_address: IpAddr,
    storage_address: IpAddr,
}

impl Identity {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        const ADDRESS: &str = "give an IP address of this host";
        let name = section.required::<String>("name", "give the system VM's name: \"s-900-VM\"");
        let guid = section.optional("guid", "give a text; the default is the name");
        let resource_name = section.or_default(
            "resource_name",
            agent_protocol::agent::StartupSecondaryStorageCommand::RESOURCE_NAME.to_owned(),
            "give the class name that the server cuts off the guid",
        );
        let private_address = section.required::<IpAddr>("private_address", ADDRESS);
        let public_address = section.optional("public_address", ADDRESS);
        let storage_address = section.optional("storage_address", ADDRESS);
        let (name, private_address) = (name?, private_address?);
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            section.violation(
                "name",
                format!("{name:?} is not a name"),
                "give a name without blanks",
            );
            return None;
        }
        Some(Self {
            guid: guid.unwrap_or_else(|| name.clone()),
            name,
            resource_name,
            private_address,
            public_address: public_address.unwrap_or(private_address),
            storage_address: storage_address.unwrap_or(private_address),
        })
    }
}

fn read_link_lifetime(section: &mut Section<'_>) -> Duration {
    let lifetime = section.duration("link_lifetime", LINK_LIFETIME);
    if lifetime.is_zero() {
        section.violation(
            "link_lifetime",
            "0 would end every link at once",
            "give a time: \"24h\"",
        );
    }
    lifetime
}

fn read_takeover_after(section: &mut Section<'_>) -> Duration {
    let (key, range) = ("takeover_after", Duration::from_secs(1)..=Duration::from_hours(1));
    let after = section.duration(key, crate::stores::lease::LIFE);
    if !range.contains(&after) {
        let remedy = "give a time from \"1s\" to \"1h\", longer than a store ever hangs";
        section.violation(key, format!("{after:?} is out of range"), remedy);
    }
    after
}

fn read_downloads(section: &mut Section<'_>) -> DownloadSettings {
    let allowed_sources = section.list("allowed_sources", "give networks: [\"10.77.0.0/24\"]");
    let per_store = section.or_default("max_downloads", DOWNLOADS, "give a number from 1 to 64");
    if !(1..=64).contains(&per_store) {
        section.violation(
            "max_downloads",
            format!("{per_store} is out of range"),
            "give a number from 1 to 64",
        );
    }
    let size_limit = section.bytes("size_limit", SIZE_LIMIT);
    let decompressed_limit =
        section.optional_bytes("decompressed_limit", "four times the limit of each download");
    let decompression_ratio =
        section.or_default("decompression_ratio", DECOMPRESSION_RATIO, "give a number from 100");
    if decompression_ratio < 100 {
        section.violation(
            "decompression_ratio",
            format!("{decompression_ratio} would refuse usual images"),
            "give a number from 100: a disk that is nearly empty shrinks a lot",
        );
    }
    let retries = Retries {
        count: section.or_default("retries", RETRIES, "give a number"),
        delay: section.duration("retry_delay", Duration::from_secs(1)),
    };
    let connect_timeout = section.duration("connect_timeout", Duration::from_secs(10));
    let stall_timeout = section.duration("stall_timeout", Duration::from_secs(60));
    let total_timeout = section.duration("download_timeout", Duration::from_secs(24 * 3600));
    let min_rate = MinimumRate {
        bytes_per_second: section.bytes("min_rate", MIN_RATE),
        window: section.duration("min_rate_window", Duration::from_secs(300)),
    };
    for (key, value) in [
        ("connect_timeout", connect_timeout),
        ("stall_timeout", stall_timeout),
        ("download_timeout", total_timeout),
        ("min_rate_window", min_rate.window),
    ] {
        if value.is_zero() {
            section.violation(key, "0 would fail every download", "give a time: \"60s\"");
        }
    }
    let connections = section.or_default("parallel_ranges", 1, "give a number from 1 to 8");
    if !(1..=Parallel::MOST).contains(&connections) {
        section.violation(
            "parallel_ranges",
            format!("{connections} is out of range"),
            "give a number from 1 to 8",
        );
    }
    let parallel = Parallel::new(connections);
    const DIRECT: &str = "list networks and hosts: [\"10.0.0.0/8\", \".example\"]";
    let no_proxy = NoProxy(section.list("no_proxy", DIRECT));
    DownloadSettings {
        no_proxy,
        allowed_sources,
        per_store,
        size_limit,
        decompressed_limit,
        decompression_ratio,
        limits: HttpLimits { connect_timeout, stall_timeout, min_rate, retries, parallel },
        total_timeout,
        answer_wait: section.duration("answer_wait", ANSWER_WAIT),
        cancel_limit: CANCEL_LIMIT,
        proxy: section.secret("proxy").and_then(|text| {
            match text.reveal().parse::<ProxySetting>() {
                Ok(proxy) => Some(proxy),
                Err(problem) => {
                    let remedy = "give http://[user:password@]host[:port]";
                    section.violation("proxy", problem, remedy);
                    None
                }
            }
        }),
        ca_file: section.optional_path("ca_file"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::stores::Modes;

    fn read(text: &str) -> (Option<SecondaryStorageConfig>, Vec<String>) {
        let table: toml::Table = text.parse().unwrap();
        let management: toml::Table = "servers = [\"127.0.0.1\"]".parse().unwrap();
        let mut violations = Violations::new();
        let input = ConfigInput {
            section: &table,
            management: &management,
            state_directory: Path::new("/var/lib/quickcloud"),
        };
        let config = SecondaryStorageConfig::read(input, &mut violations);
        (config, violations.list().iter().map(ToString::to_string).collect())
    }

    const LEAST: &str = "name = \"s-900-VM\"\nprivate_address = \"10.0.0.7\"\n";

    #[test]
    fn two_keys_are_enough() {
        let (config, violations) = read(LEAST);
        let config = config.unwrap();
        assert_eq!(violations, Vec::<String>::new());
        assert_eq!(config.link.guid, "s-900-VM-NfsSecondaryStorageResource");
        assert_eq!(config.public_address.to_string(), "10.0.0.7");
        assert_eq!(config.serving.listen, ["0.0.0.0:80".parse().unwrap()]);
        assert_eq!(config.serving.tls_listen, ["0.0.0.0:443".parse().unwrap()]);
        assert_eq!(config.stores.mount_root, Path::new("/mnt/SecStorage"));
        assert_eq!(config.stores.modes, Modes { directory: 0o777, file: 0o666 });
        assert_eq!(config.state_directory, Path::new("/var/lib/quickcloud/ss"));
        assert_eq!(config.downloads.decompressed_limit, None);
    }

    #[test]
    fn every_key_is_read() {
        let (config, violations) = read(&format!(
            "{LEAST}guid = \"SecondaryStorage.1\"\npublic_address = \"192.0.2.1\"\nlisten = []\n\
             stores = [{{ url = \"nfs://10.0.0.9/export/sec\", directory = \"/srv/sec\" }}]\n\
             allowed_sources = [\"10.77.0.0/24\", \"10.1.1.1\"]\nmax_downloads = 2\n\
             decompressed_limit = \"1GiB\"\nstall_timeout = \"5s\"\nproxy = \"http://u:geheim@p:80\"\n\
             file_mode = \"0660\"\nnfs_options = \"soft\"\ndecompression_ratio = 100\ntakeover_after = \"10s\"\n"
        ));
        let config = config.unwrap();
        assert_eq!(violations, Vec::<String>::new());
        assert_eq!(config.link.guid, "SecondaryStorage.1-NfsSecondaryStorageResource");
        assert_eq!((config.serving.listen.len(), config.serving.tls_listen.len()), (0, 0));
        assert_eq!(config.stores.directories().collect::<Vec<_>>(), [Path::new("/srv/sec")]);
        assert_eq!(config.downloads.allowed_sources.len(), 2);
        assert_eq!(config.downloads.decompressed_limit, Some(1 << 30));
        assert_eq!(config.downloads.decompression_ratio, 100);
        assert_eq!(config.takeover_after, Duration::from_secs(10));
        assert_eq!(config.downloads.proxy.as_ref().unwrap().url(), "http://p:80");
        assert!(!format!("{config:?}").contains("geheim"));
    }

    #[test]
    fn violations_name_place_and_remedy() {
        let (config, violations) = read(
            "private_address = \"ten\"\nallowed_sources = [\"10.0.0.0/40\"]\nfile_mode = \"9\"\n\
             max_downloads = 0\ndecompression_ratio = 99\ntakeover_after = \"500ms\"\nmount_root = \"mnt\"\nprimary = 1\n\
             stores = [{ url = \"/srv\", directory = \"/a\" }, { url = \"nfs://h/p\", directory = \"/a\" },\n\
             { url = \"nfs://h/p/\", directory = \"/b\" }]\n",
        );
        assert!(config.is_none());
        let places: Vec<&str> =
            violations.iter().map(|text| text.split(": ").next().unwrap()).collect();
        let base = "roles.secondary_storage";
        for key in [
            "name",
            "private_address",
            "mount_root",
            "stores[0].url",
            "stores",
            "file_mode",
            "allowed_sources",
            "max_downloads",
            "decompression_ratio",
            "takeover_after",
            "primary",
        ] {
            let place = format!("{base}.{key}");
            assert!(places.contains(&place.as_str()), "{place} not in {violations:?}");
        }
    }
}
