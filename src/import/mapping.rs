//! What an agent's values mean here. Defaults are those of the agent: a value that it would not
//! understand has the meaning of none.

mod addresses;
mod identity;
mod link;
mod places;

use std::path::Path;

use bedrock::Secret;
use toml::{Table, Value};

use super::given::{Given, Values};
use super::machine::Machine;
use super::{Fate, Imported, Line};

/// Which of our roles an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SecondaryStorage,
    ConsoleProxy,
}

impl Kind {
    const fn short(self) -> &'static str {
        match self {
            Self::SecondaryStorage => "ss",
            Self::ConsoleProxy => "cp",
        }
    }

    const fn section(self) -> &'static str {
        match self {
            Self::SecondaryStorage => "roles.secondary_storage",
            Self::ConsoleProxy => "roles.console_proxy",
        }
    }

    /// Last part of the guid on the wire, before which the agent puts a hyphen.
    const fn resource(self) -> &'static str {
        match self {
            Self::SecondaryStorage => "NfsSecondaryStorageResource",
            Self::ConsoleProxy => "ConsoleProxyResource",
        }
    }
}

/// The result while it is put together.
struct Draft<'a> {
    table: Table,
    lines: Vec<Line>,
    password: Option<Secret<String>>,
    password_file: &'a Path,
    store: Option<&'a str>,
    machine: &'a dyn Machine,
}

impl Draft<'_> {
    fn line(&mut self, place: &str, key: &str, fate: Fate) {
        self.lines.push(Line { place: place.to_owned(), key: key.to_owned(), fate });
    }

    fn ignored(&mut self, key: &str, given: &Given, why: impl Into<String>) {
        self.line(&given.place, key, Fate::Ignored { why: why.into() });
    }

    fn doubtful(&mut self, key: &str, place: &str, why: impl Into<String>) {
        self.line(place, key, Fate::Doubtful { why: why.into() });
    }

    /// The value as it is, under a key of ours.
    fn keep(&mut self, key: &str, given: &Given, to: &str, value: impl Into<Value>) {
        let value = value.into();
        if self.put(key, &given.place, to, &value) {
            let fate = Fate::Kept { to: to.to_owned(), value: value.to_string() };
            self.line(&given.place, key, fate);
        }
    }

    /// Another value that means the same.
    fn map(&mut self, key: &str, place: &str, to: &str, value: impl Into<Value>, why: &str) {
        let value = value.into();
        if self.put(key, place, to, &value) {
            let (to, why) = (to.to_owned(), why.to_owned());
            self.line(place, key, Fate::Mapped { to, value: value.to_string(), why });
        }
    }

    /// False when another agent has said something else already.
    fn put(&mut self, key: &str, place: &str, to: &str, value: &Value) -> bool {
        let Some((tables, last)) = to.rsplit_once('.') else { return false };
        let mut table = &mut self.table;
        for name in tables.split('.') {
            let entry = table.entry(name).or_insert_with(|| Value::Table(Table::default()));
            let Value::Table(inner) = entry else { return false };
            table = inner;
        }
        match table.get(last) {
            Some(there) if there != value => {
                let why = format!("{to} is {there} by another agent; one process has one value");
                self.doubtful(key, place, why);
                false
            }
            _ => {
                table.insert(last.to_owned(), value.clone());
                true
            }
        }
    }
}

/// Maps every agent into one configuration.
pub(super) fn map(
    agents: Vec<Values>,
    store: Option<&str>,
    password_file: &Path,
    machine: &dyn Machine,
) -> Imported {
    let (table, lines) = (Table::default(), Vec::new());
    let mut draft = Draft { table, lines, password: None, password_file, store, machine };
    let mut roles = Vec::new();
    for mut values in agents {
        draft.lines.append(&mut values.lines);
        let kind = identity::kind(&mut values, &mut draft);
        if let Some(kind) = kind {
            if roles.contains(&kind) {
                let why = format!("a second agent of role {}; import it apart", kind.short());
                draft.doubtful("resource", &values.directory.display().to_string(), why);
                continue;
            }
            roles.push(kind);
        }
        link::map(&mut values, &mut draft);
        places::pid_file(&mut values, &mut draft);
        if let Some(kind) = kind {
            identity::map(kind, &mut values, &mut draft);
            addresses::map(kind, &mut values, &mut draft);
            places::map(kind, &mut values, &mut draft);
        }
        leftovers(kind, &mut values, &mut draft);
    }
    let roles: Vec<Value> = roles.iter().map(|kind| Value::from(kind.short())).collect();
    if !roles.is_empty() {
        draft.put("", "", "supervisor.roles", &Value::Array(roles));
    }
    Imported { table: draft.table, lines: draft.lines, password: draft.password }
}

/// Values that have no place here, by the reason.
const UNUSED: &[(&[&str], &str)] = &[
    (
        &["workers", "threads"],
        "commands are tasks here, not threads; management.max_commands bounds them",
    ),
    (
        &[
            "localgw",
            "gateway",
            "mgmtcidr",
            "internaldns1",
            "internaldns2",
            "dns1",
            "dns2",
            "storagegateway",
            "bootproto",
        ],
        "routes and name servers are this host's; the agent sets them in a system VM only",
    ),
    (
        &["eth0ip", "eth0mask", "eth1mask", "eth2mask", "storagenetmask", "public.netmask"],
        "no server uses the mask",
    ),
    (&["disable_rp_filter"], "a setting of the kernel: sysctl net.ipv4.conf.<interface>.rp_filter"),
    (
        &["nfsVersion"],
        "the server sends it with each store; nfs_version of an entry of stores overrides it",
    ),
    (
        &["secondary.storage.vm"],
        "set-up is answered whether this host stands for a system VM or not; the name decides",
    ),
    (
        &[
            "type",
            "template",
            "role",
            "sslcopy",
            "useHttpsToUpload",
            "premium",
            "vmpassword",
            "authorized_key",
            "userdata",
            "ntpserverlist",
            "keystore_password",
            "security.hash.key",
        ],
        "for the boot of a system VM, or told by the server when it connects",
    ),
    (
        &["paths.script", "scripts.timeout", "domr.scripts.dir", "hypervisor.scripts.dir"],
        "no script is run here",
    ),
    (&["consoleproxy.httpCmdListenPort"], "how the proxy is, is told at supervisor.admin_address"),
    (
        &[
            "consoleproxy.reconnectMaxRetry",
            "consoleproxy.readTimeoutSeconds",
            "consoleproxy.defaultBufferSize",
            "consoleproxy.tcpListenPort",
            "consoleproxy.jarDir",
            "consoleproxy.viewerLinger",
        ],
        "without effect in the original, or of its way of reading",
    ),
    (
        &["ipv6disabled", "ipv6prefer"],
        "the order of a name's addresses is the resolver's (gai.conf); give an address instead",
    ),
    (
        &["developer", "ping.retries"],
        "of the original's main loop; pings and restarts are the supervisor's here",
    ),
    (&["cluster"], "these hosts belong to no cluster"),
    (&["resource.id"], "the server finds its row by the guid"),
];

fn leftovers(kind: Option<Kind>, values: &mut Values, draft: &mut Draft<'_>) {
    for (key, given) in values.rest() {
        let known = UNUSED.iter().find(|(keys, _)| keys.contains(&key.as_str()));
        let identity = ["Resource.id", "Resource.uuid", "Resource.name"];
        let why = match known {
            Some((_, why)) => *why,
            None if identity.iter().any(|end| key.ends_with(end)) => {
                "the server finds its row by the guid"
            }
            None if kind.is_none() => "the role is not known",
            None => "not of storage or consoles: a hypervisor agent's, or unknown",
        };
        draft.ignored(&key, &given, why);
    }
}
