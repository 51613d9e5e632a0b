//! Keys of a store's table that say how its server is spoken to.

use config_reader::Section;

/// Groups that a call carries at most, its user's own one aside.
const MAX_GROUPS: usize = 16;

/// How one server is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsSettings {
    /// Whom the server takes us for (AUTH_SYS).
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Asked of the server's port mapper when absent.
    pub port: Option<u16>,
    /// Asked of the server's port mapper when absent.
    pub mount_port: Option<u16>,
    /// Whether to call from a port below 1024: yes, no, or if this process may.
    pub privileged_port: Option<bool>,
}

impl Default for NfsSettings {
    fn default() -> Self {
        let (port, mount_port, privileged_port) = (None, None, None);
        Self { uid: 0, gid: 0, groups: Vec::new(), port, mount_port, privileged_port }
    }
}

impl NfsSettings {
    /// Reads the keys of a store with `engine = "nfs"`, reporting every violation.
    pub fn read(store: &mut Section<'_>) -> Self {
        const ID: &str = "give the number of a user or group of the server";
        const PORT: &str = "give a port, or leave the key out: the port mapper is asked then";
        let usual = Self::default();
        let groups: Vec<u32> = store.list("groups", ID);
        if groups.len() > MAX_GROUPS {
            let problem = format!("{} groups are too many", groups.len());
            store.violation("groups", problem, "list at most 16: NFS carries no more");
        }
        let [port, mount_port] = ["port", "mount_port"].map(|key| {
            let port = store.optional::<u16>(key, PORT);
            if port == Some(0) {
                store.violation(key, "0 is no port", PORT);
            }
            port
        });
        Self {
            uid: store.or_default("uid", usual.uid, ID),
            gid: store.or_default("gid", usual.gid, ID),
            groups,
            port,
            mount_port,
            privileged_port: store.optional("privileged_port", "give true or false"),
        }
    }
}
