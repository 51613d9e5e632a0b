//! What the enabled roles need of systemd beyond the shipped unit, as a drop-in. *Pure.*
//!
//! The unit itself runs as a user of its own with the low ports. Kernel mounts need root, because
//! mount(8) does; directories that other hosts write to need root's way with files; dnsmasq needs
//! raw and administrative sockets, but no root.

use std::fmt::Write as _;
use std::path::Path;

use toml::{Table, Value};

/// What a configuration asks of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Storage that this process mounts by itself.
    pub(crate) mounts: bool,
    /// Storage in directories, whoever mounts them.
    pub(crate) directories: bool,
    /// dnsmasq.
    pub(crate) dhcp: bool,
    /// Where the process writes outside of what the unit leaves writable.
    pub(crate) writable: Vec<String>,
    /// The mount root, when it is another than the unit makes.
    pub(crate) mount_root: Option<String>,
}

/// What the unit makes and leaves writable.
const MOUNT_ROOT: &str = "/mnt/SecStorage";
const WRITABLE: [&str; 4] = [MOUNT_ROOT, "/srv", "/var/lib/quickcloud", "/run/quickcloud"];

/// Reads them off a configuration in which nothing is wrong. `roles` are the short names.
pub(crate) fn needs(table: &Table, roles: &[&str]) -> Needs {
    let mut needs = Needs { dhcp: roles.contains(&"dhcp"), ..Needs::default() };
    let section = |names: [&str; 2]| table.get(names[0])?.get(names[1])?.as_table();
    let text = |table: Option<&Table>, key: &str| Some(table?.get(key)?.as_str()?.to_owned());
    let mut writable = Vec::new();
    let supervisor = table.get("supervisor").and_then(Value::as_table);
    writable.extend(text(supervisor, "state_directory"));
    writable.extend(text(supervisor, "pid_file").as_deref().and_then(folder));
    if roles.contains(&"cp") {
        let consoles = section(["roles", "console_proxy"]);
        writable.extend(text(consoles, "recordings_directory"));
    }
    if roles.contains(&"dhcp") {
        let socket = text(section(["roles", "dhcp"]), "api_socket");
        writable.extend(socket.as_deref().and_then(folder));
    }
    if roles.contains(&"ss") {
        let storage = section(["roles", "secondary_storage"]);
        needs.mounts = text(storage, "store_engine").as_deref() != Some("nfs");
        let stores = storage.and_then(|table| table.get("stores")?.as_array());
        for store in stores.into_iter().flatten() {
            let word = |key: &str| store.get(key).and_then(Value::as_str);
            let Some(directory) = word("directory") else {
                let is_kernels = word("url").is_some_and(|url| url.starts_with("nfs://"));
                needs.mounts |= is_kernels && word("engine") != Some("nfs");
                continue;
            };
            needs.directories = true;
            needs.mounts |= word("mount") == Some("yes");
            writable.push(directory.to_owned());
        }
        needs.mount_root = text(storage, "mount_root").filter(|root| root != MOUNT_ROOT);
        writable.extend(needs.mount_root.clone());
    }
    let known = |path: &String| WRITABLE.iter().any(|known| Path::new(path).starts_with(known));
    writable.retain(|path| !known(path));
    writable.dedup();
    needs.writable = writable;
    needs
}

fn folder(path: &str) -> Option<String> {
    Some(Path::new(path).parent()?.to_str()?.to_owned())
}

/// The drop-in, `None` when the unit does as it is. `source` is the configuration: systemd then says
/// when it is newer than what was made of it.
pub(crate) fn drop_in(needs: &Needs, source: &Path) -> Option<String> {
    if *needs == Needs::default() {
        return None;
    }
    let mut text =
        "# Made by quickcloud unit of the configuration; systemctl daemon-reload makes it \
                    anew.\n"
            .to_owned();
    if let Some(source) = source.to_str().and_then(word) {
        text.push_str(&format!("[Unit]\nSourcePath={source}\n"));
    }
    text.push_str("\n[Service]\n");
    let root = needs.mounts || needs.directories;
    if root {
        text.push_str(
            "# Directories that hypervisors and other storage hosts use, too, as root.\n\
             User=root\nGroup=root\nUMask=0027\n\
             CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER\n\
             AmbientCapabilities=\nSystemCallFilter=@chown\n",
        );
    }
    if needs.mounts {
        text.push_str(
            "# mount(8): its own notes, the helper's sockets, unmounting.\n\
             CapabilityBoundingSet=CAP_SYS_ADMIN\nSystemCallFilter=@mount @setuid\n",
        );
    }
    if needs.dhcp {
        text.push_str(
            "# dnsmasq: answers to clients that have no address yet; it is sent signals.\n\
             CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW\n\
             RestrictAddressFamilies=AF_PACKET\nSystemCallFilter=capset @setuid\n",
        );
        text.push_str(match root {
            true => "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL\n",
            false => "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW\n",
        });
    }
    if let Some(root) = needs.mount_root.as_deref().and_then(word) {
        text.push_str(&format!("ExecStartPre=+/usr/bin/mkdir -p {root}\n"));
    }
    for path in &needs.writable {
        // Writing to a String cannot fail.
        match word(path) {
            Some(path) => writeln!(text, "ReadWritePaths=-{path}"),
            None => writeln!(text, "# A path that a unit cannot name is left out: {path:?}"),
        }
        .unwrap_or_default();
    }
    Some(text)
}

/// An absolute path that needs no quoting in a unit.
fn word(path: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:@+~".contains(c);
    (path.starts_with('/') && path.chars().all(plain)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, roles: &[&str]) -> (Needs, String) {
        let found = needs(&text.parse().unwrap(), roles);
        let text = drop_in(&found, Path::new("/etc/quickcloud/quickcloud.toml"));
        (found, text.unwrap_or_default())
    }

    #[test]
    fn consoles_and_storage_without_mounts_need_nothing_more() {
        let nfs = "[roles.secondary_storage]\nstore_engine = \"nfs\"\n\
                   stores = [{ url = \"nfs://h/e\", engine = \"nfs\" }, { url = \"s3://b\" }]";
        for (text, roles) in [("", &["cp"][..]), (nfs, &["ss", "cp"])] {
            assert_eq!(of(text, roles), (Needs::default(), String::new()));
        }
    }

    #[test]
    fn each_role_gets_what_it_needs_and_no_more() {
        let (needs, text) = of("", &["ss"]);
        assert!(needs.mounts && !needs.directories && text.contains("CAP_SYS_ADMIN"), "{text}");
        assert!(!text.contains("CAP_NET_ADMIN") && text.contains("User=root"), "{text}");
        let (_, text) = of("", &["dhcp", "cp"]);
        assert!(!text.contains("User=") && text.contains("AmbientCapabilities=CAP_NET_ADMIN"));
        let (needs, text) = of(
            "[roles.secondary_storage]\nstore_engine = \"nfs\"\nmount_root = \"/m\"\n\
             stores = [{ url = \"nfs://h/e\", directory = \"/export/a b\" }, \
             { url = \"nfs://h/f\", directory = \"/export/f\" }, \
             { url = \"nfs://h/g\", directory = \"/srv/g\" }]",
            &["ss"],
        );
        assert!(needs.directories && !needs.mounts && !text.contains("SYS_ADMIN"), "{text}");
        assert!(text.contains("ReadWritePaths=-/export/f\n") && !text.contains("-/srv"), "{text}");
        assert!(text.contains("# A path that a unit cannot name is left out: \"/export/a b\""));
        assert!(text.contains("ExecStartPre=+/usr/bin/mkdir -p /m\n"), "{text}");
        assert!(text.contains("SourcePath=/etc/quickcloud/quickcloud.toml\n"), "{text}");
    }
}
