//! What the configuration says about stores: where they are, how they are mounted, what all share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config_reader::Section;

use super::directory::mount::MountOptions;
use super::nfs_settings::NfsSettings;
use super::{Modes, StoreUrl};

/// What holds for stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Stores without a directory of their own are below it, under the name that the server uses.
    pub mount_root: PathBuf,
    pub configured: Vec<StoreEntry>,
    pub mount: MountOptions,
    /// How long a piece of quick work on a store may take.
    pub deadline: Duration,
    pub modes: Modes,
    /// Bytes of a store that nothing is written into.
    pub min_free: u64,
    /// NFS stores that are not configured are spoken to instead of being mounted.
    pub nfs_others: bool,
}

/// One of `[[roles.secondary_storage.stores]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    pub url: StoreUrl,
    /// Where it is, or is mounted; below the mount root without.
    pub directory: Option<PathBuf>,
    pub mount: MountMode,
    /// In place of those for all stores.
    pub mount_options: Option<String>,
    /// In place of what the server says.
    pub nfs_version: Option<String>,
    /// What must be mounted there, when that does not follow from the URL.
    pub source: Option<String>,
    /// How its server is spoken to, when it is no directory.
    pub nfs: Option<NfsSettings>,
}

/// Who makes a store appear in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountMode {
    /// Nobody: the directory is the store, mounted or not.
    No,
    /// Somebody else: a directory that is not mounted is refused.
    Required,
    /// This process, unless it is mounted already.
    Yes,
}

impl std::str::FromStr for MountMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "no" => Ok(Self::No),
            "required" => Ok(Self::Required),
            "yes" => Ok(Self::Yes),
            _ => Err("is not one of them"),
        }
    }
}

/// Soft, so that a dead server fails commands instead of hanging them for ever; attributes of
/// directories are not cached, because other hosts write to the same export.
const NFS_OPTIONS: &str = "soft,timeo=133,retrans=10,tcp,acdirmax=0,acdirmin=0";
const MOUNT_ROOT: &str = "/mnt/SecStorage";
const MIN_FREE: u64 = 1 << 30;
const FILE_MODE: u32 = 0o666;
const DIRECTORY_MODE: u32 = 0o777;

impl StoreSettings {
    /// What is configured for a store.
    pub fn entry(&self, url: &StoreUrl) -> Option<&StoreEntry> {
        self.configured.iter().find(|entry| entry.url.key() == url.key())
    }

    /// Directories that the operator named.
    pub fn directories(&self) -> impl Iterator<Item = &PathBuf> {
        self.configured.iter().filter_map(|entry| entry.directory.as_ref())
    }

    /// Whether what `other` says about this store means the same place in the same way.
    pub fn agrees(&self, other: &Self, url: &StoreUrl) -> bool {
        let all = |settings: &Self| Self { configured: Vec::new(), ..settings.clone() };
        all(self) == all(other) && self.entry(url) == other.entry(url)
    }
}

/// Reads the keys about stores.
pub fn read(section: &mut Section<'_>) -> StoreSettings {
    const REMEDY: &str =
        "list tables: [{ url = \"nfs://10.0.0.9/export/sec\", directory = \"/srv/sec\" }]";
    let mount_root = section.path("mount_root", MOUNT_ROOT);
    require_absolute(section, "mount_root", &mount_root);
    let configured = section.tables("stores", REMEDY, read_entry);
    for (at, entry) in configured.iter().enumerate() {
        let same = |other: &StoreEntry| {
            other.url.key() == entry.url.key()
                || (other.directory.is_some() && other.directory == entry.directory)
        };
        if configured.iter().take(at).any(same) {
            let directory = entry.directory.as_deref().map(|path| path.display().to_string());
            let what = directory.map_or_else(String::new, |path| format!(" or {path}"));
            section.violation(
                "stores",
                format!("{}{what} is there twice", entry.url),
                "give each store a directory of its own: two in one would delete each other's volumes",
            );
        }
    }
    let options = section.or_default("nfs_options", NFS_OPTIONS.to_owned(), "give mount options");
    check_options(section, "nfs_options", &options);
    let timeout = section.duration("mount_timeout", Duration::from_secs(60));
    let deadline = section.duration("store_timeout", Duration::from_secs(60));
    for (key, value) in [("mount_timeout", timeout), ("store_timeout", deadline)] {
        if value.is_zero() {
            section.violation(key, "0 would fail every command", "give a time: \"60s\"");
        }
    }
    let nfs_others = read_engine(section, "store_engine", "mount");
    let file = read_mode(section, "file_mode", FILE_MODE);
    let directory = read_mode(section, "directory_mode", DIRECTORY_MODE);
    StoreSettings {
        mount_root,
        configured,
        mount: MountOptions { options, timeout },
        deadline,
        modes: Modes { directory, file },
        min_free: section.bytes("min_free", MIN_FREE),
        nfs_others,
    }
}

fn read_entry(store: &mut Section<'_>) -> Option<StoreEntry> {
    const URL: &str = "give the URL that the server knows the store by";
    const MOUNT: &str = "give \"no\" (the directory is the store), \"required\" (somebody else \
                         mounts it there) or \"yes\" (mount it there)";
    let url = store.required::<StoreUrl>("url", URL);
    let directory = store.optional::<PathBuf>("directory", "give the directory of the store");
    if let Some(directory) = &directory {
        require_absolute(store, "directory", directory);
    }
    let mount = store.optional::<MountMode>("mount", MOUNT);
    let mount_options = store.optional::<String>("mount_options", "give mount options");
    if let Some(options) = &mount_options {
        check_options(store, "mount_options", options);
    }
    let nfs_version = store.optional::<String>("nfs_version", "give a version: \"4.1\"");
    let nfs_version = nfs_version.filter(|version| !is_unset(version));
    if let Some(version) = &nfs_version
        && !is_version(version)
    {
        let problem = format!("{version:?} is not an NFS version");
        store.violation("nfs_version", problem, "give a version: \"4.1\"");
    }
    let source = store.optional::<String>("source", "give what is mounted: \"filer:/export/sec\"");
    let speaks_nfs = read_engine(store, "engine", "directory");
    let nfs = speaks_nfs.then(|| NfsSettings::read(store));
    let url = url?;
    let is_file = url.scheme() == "file";
    let directory = directory.or_else(|| is_file.then(|| PathBuf::from(url.path())));
    let default = if directory.is_some() || nfs.is_some() { MountMode::No } else { MountMode::Yes };
    if nfs.is_some() && (directory.is_some() || mount.is_some_and(|mount| mount != MountMode::No)) {
        let problem = "with engine = \"nfs\" there is no directory and no mount";
        store.violation("engine", problem, "take out directory and mount, or the engine");
    }
    if nfs.is_some() && url.scheme() != "nfs" {
        store.violation("engine", format!("{url} is no NFS store"), "take out the engine");
    }
    let mount = mount.unwrap_or(default);
    if mount == MountMode::Yes && url.scheme() != "nfs" {
        let problem = format!("{url} is of a kind that is not mounted here");
        store.violation("mount", problem, "mount it yourself, and name its directory");
    }
    Some(StoreEntry { url, directory, mount, mount_options, nfs_version, source, nfs })
}

/// Whether a store is spoken to; otherwise it is reached in the `usual` way.
fn read_engine(section: &mut Section<'_>, key: &'static str, usual: &'static str) -> bool {
    let remedy = format!("give \"{usual}\" or \"nfs\"");
    let given = section.or_default(key, usual.to_owned(), &remedy);
    if given != usual && given != "nfs" {
        section.violation(key, format!("{given:?} is no engine of stores"), remedy);
    }
    given == "nfs"
}

/// Absent, blank and the text `null` all mean "not set", on the wire and here.
pub fn is_unset(version: &str) -> bool {
    let version = version.trim();
    version.is_empty() || version == "null"
}

/// `3`, `4.1`.
pub fn is_version(text: &str) -> bool {
    text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn check_options(section: &mut Section<'_>, key: &str, options: &str) {
    if options.is_empty() || options.contains(char::is_whitespace) {
        let problem = format!("{options:?} are not mount options");
        section.violation(key, problem, "separate them by commas");
    }
}

fn require_absolute(section: &mut Section<'_>, key: &str, path: &Path) {
    if !path.is_absolute() {
        section.violation(key, format!("{} is not absolute", path.display()), "give a path from /");
    }
}

/// Octal permissions.
fn read_mode(section: &mut Section<'_>, key: &'static str, default: u32) -> u32 {
    const REMEDY: &str = "give octal permissions as a text: \"0660\"";
    let text = section.or_default(key, format!("{default:04o}"), REMEDY);
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o600 == 0o600 => mode,
        Ok(_) | Err(_) => {
            section.violation(key, format!("{text:?} are not usable permissions"), REMEDY);
            default
        }
    }
}

#[cfg(test)]
mod tests {
    use config_reader::Violations;

    use super::*;

    fn check(text: &str) -> (StoreSettings, Vec<String>) {
        let table: toml::Table = text.parse().unwrap();
        let mut violations = Violations::new();
        let mut section = Section::new("ss", &table, &mut violations);
        let settings = read(&mut section);
        section.finish();
        (settings, violations.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_store_says_as_much_as_it_must() {
        let (settings, violations) = check(
            "min_free = \"2GiB\"\n[[stores]]\nurl = \"nfs://h/a\"\n\
             [[stores]]\nurl = \"nfs://h/b\"\ndirectory = \"/b\"\n\
             [[stores]]\nurl = \"file:///srv/c\"\n\
             [[stores]]\nurl = \"nfs://h/d\"\ndirectory = \"/d\"\nmount = \"yes\"\n\
             mount_options = \"hard\"\nnfs_version = \"null\"\nsource = \"x:/d\"\n",
        );
        assert_eq!(violations, Vec::<String>::new());
        let modes: Vec<MountMode> = settings.configured.iter().map(|entry| entry.mount).collect();
        assert_eq!(modes, [MountMode::Yes, MountMode::No, MountMode::No, MountMode::Yes]);
        let named: Vec<&PathBuf> = settings.directories().collect();
        assert_eq!(named, [Path::new("/b"), Path::new("/srv/c"), Path::new("/d")]);
        let last = settings.entry(&"nfs://h/d/".parse().unwrap()).unwrap();
        assert_eq!(last.mount_options.as_deref(), Some("hard"));
        assert_eq!((&last.nfs_version, last.source.as_deref()), (&None, Some("x:/d")));
        assert_eq!(settings.min_free, 2 << 30);
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_its_place() {
        let (_, violations) = check(
            "mount_timeout = \"0s\"\n[[stores]]\nurl = \"cifs://h/a\"\nmount = \"yes\"\n\
             [[stores]]\nurl = \"nfs://h/b\"\nmount = \"perhaps\"\nnfs_version = \"4,exec\"\n\
             directory = \"relative\"\nmount_options = \"a b\"\nunknown = 1\n",
        );
        for place in [
            "ss.stores[0].mount",
            "ss.stores[1].mount",
            "ss.stores[1].nfs_version",
            "ss.stores[1].directory",
            "ss.stores[1].mount_options",
            "ss.stores[1].unknown",
            "ss.mount_timeout",
        ] {
            let there = violations.iter().any(|text| text.starts_with(&format!("{place}: ")));
            assert!(there, "{place} not in {violations:?}");
        }
    }

    #[test]
    fn a_store_may_be_spoken_to_instead() {
        let (settings, violations) = check(
            "store_engine = \"nfs\"\n[[stores]]\nurl = \"nfs://h/a\"\nengine = \"nfs\"\n\
             uid = 107\ngroups = [4, 5]\nport = 2050\nprivileged_port = false\n",
        );
        assert_eq!(violations, Vec::<String>::new());
        assert!(settings.nfs_others);
        let entry = settings.configured[0].clone();
        let nfs = entry.nfs.unwrap();
        assert_eq!((nfs.uid, nfs.gid, nfs.groups, nfs.port), (107, 0, vec![4, 5], Some(2050)));
        assert_eq!((nfs.privileged_port, entry.mount), (Some(false), MountMode::No));
        for (text, place) in [
            ("engine = \"nfs\"\ndirectory = \"/a\"", "engine"),
            ("engine = \"samba\"", "engine"),
            ("engine = \"nfs\"\nport = 0", "port"),
            ("uid = 107", "uid"),
        ] {
            let (_, violations) = check(&format!("[[stores]]\nurl = \"nfs://h/a\"\n{text}\n"));
            let place = format!("ss.stores[0].{place}: ");
            assert!(violations.iter().any(|found| found.starts_with(&place)), "{violations:?}");
        }
    }

    #[test]
    fn an_unset_version_is_written_in_many_ways() {
        for text in ["", " ", "null", " null "] {
            assert!(is_unset(text), "{text:?}");
        }
        assert!(!is_unset("3") && is_version("4.1") && !is_version("4,x"));
    }
}
