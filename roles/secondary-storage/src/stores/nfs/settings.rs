//! Keys of a store's table that say how its server is spoken to.

use config_reader::Section;
use nfs3::rpc::MAX_GROUPS;

use super::NfsSettings;

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
