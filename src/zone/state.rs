//! What a zone is between system VMs and this host: the whole of one, the whole of the other, or
//! something in between that has a name and a remedy.

use cloudstack_api::model::{Host, SystemVm};

use super::look::{Seen, is_ours, on_a_machine};
use super::{CONSOLE_DETAIL, STORAGE_DETAIL};

/// Who does a service of the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    SystemVm,
    QuickCloud,
    Both,
    Nobody,
}

impl Served {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::SystemVm => "system VM",
            Self::QuickCloud => "QuickCloud",
            Self::Both => "both at once",
            Self::Nobody => "nobody",
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Stable: "storage.nobody".
    pub(crate) name: &'static str,
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

/// How a zone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) storage: Served,
    pub(crate) consoles: Served,
    pub(crate) findings: Vec<Finding>,
}

/// Judges what was seen.
pub(crate) fn judge(seen: &Seen) -> State {
    let mut findings = Vec::new();
    let storage = served(&seen.storage_hosts, &seen.storage_vms);
    let consoles = served(&seen.console_hosts, &seen.console_vms);
    let zone = seen.zone.name.as_str();
    let mut find = |name, problem: String, remedy: String| {
        findings.push(Finding { name, problem, remedy });
    };
    for (kind, served, makes, detail, names) in [
        ("storage", storage, seen.makes_storage_vms(), STORAGE_DETAIL, STORAGE),
        ("console proxy", consoles, seen.makes_consoles(), CONSOLE_DETAIL, CONSOLE),
    ] {
        match (served, makes) {
            (Served::Both, _) => find(
                names[0],
                format!("a system VM and QuickCloud serve as {kind} at the same time, at random"),
                format!("quickcloud zone enable {zone} (stops the VM), or disable"),
            ),
            (Served::Nobody, false) => find(
                names[1],
                format!("no {kind} is connected, and {detail}=false keeps the server from one"),
                format!(
                    "start quickcloud (systemctl start quickcloud; quickcloud doctor says why it \
                     is not connected), or quickcloud zone disable {zone}"
                ),
            ),
            (Served::Nobody, true) => find(
                names[2],
                format!("no {kind} is connected; the server is to start its own and has not yet"),
                "wait a minute; then look for capacity, the system VM template and hosts"
                    .to_owned(),
            ),
            (Served::QuickCloud, true) => find(
                names[3],
                format!(
                    "QuickCloud is the {kind}, but {detail} is not false: the server will start a \
                     system VM beside it"
                ),
                format!("quickcloud zone enable {zone}"),
            ),
            (Served::SystemVm, false) => find(
                names[4],
                format!(
                    "a system VM is the {kind}, but {detail}=false: the server will not make \
                     another when it ends"
                ),
                format!("quickcloud zone enable {zone}, or disable, to its end"),
            ),
            (Served::SystemVm, true) | (Served::QuickCloud, false) => {}
        }
    }
    rows(seen, &mut find);
    hosts(seen, &mut find);
    if !seen.routers.is_empty() && seen.offering.is_some() {
        find(
            "network.router",
            format!("routers run beside the offering without one: {}", seen.routers.join(", ")),
            "role dhcp refuses to serve in a router's network: move its machines, then destroy it"
                .to_owned(),
        );
    }
    State { storage, consoles, findings }
}

const STORAGE: [&str; 5] = [
    "storage.both",
    "storage.nobody",
    "storage.waiting",
    "storage.detail",
    "storage.half-disabled",
];
const CONSOLE: [&str; 5] = [
    "console.both",
    "console.nobody",
    "console.waiting",
    "console.detail",
    "console.half-disabled",
];

fn served(hosts: &[Host], vms: &[SystemVm]) -> Served {
    let of_a_machine = |host: &Host| vms.iter().any(|vm| vm.name == host.name && on_a_machine(vm));
    let up: Vec<&Host> = hosts.iter().filter(|host| host.state == "Up").collect();
    let machines = up.iter().filter(|host| of_a_machine(host)).count();
    match (machines, up.len() - machines) {
        (0, 0) => Served::Nobody,
        (_, 0) => Served::SystemVm,
        (0, _) => Served::QuickCloud,
        _ => Served::Both,
    }
}

/// Consoles are given by the row, whether anybody is there or not.
fn rows(seen: &Seen, find: &mut impl FnMut(&'static str, String, String)) {
    let zone = seen.zone.name.as_str();
    let running = seen.console_vms.iter().filter(|vm| vm.state == "Running");
    let is_static = seen.settings.contains_key("consoleproxy.static.publicIp");
    if !seen.makes_consoles() && running.clone().count() == 0 && !is_static {
        let problem = match seen.console_vms.first() {
            Some(vm) => format!("the row {} is {}: the server gives no console", vm.name, vm.state),
            None => "there is no row of a console proxy: the server gives no console".to_owned(),
        };
        let remedy = format!("run the SQL of quickcloud zone enable {zone}");
        find("console.row", problem, remedy);
    }
    for vm in running.filter(|vm| is_ours(vm) && vm.public_ip.is_none()) {
        let problem = format!("the row {} has no public address: no console is given", vm.name);
        find("console.address", problem, format!("run the SQL of quickcloud zone enable {zone}"));
    }
}

/// A name is a host's only once.
fn hosts(seen: &Seen, find: &mut impl FnMut(&'static str, String, String)) {
    let all: Vec<&Host> = seen.storage_hosts.iter().chain(&seen.console_hosts).collect();
    for (index, host) in all.iter().enumerate() {
        let earlier = all.iter().take(index);
        if earlier.clone().any(|other| other.name == host.name && other.kind == host.kind) {
            find(
                "host.twice",
                format!("two host rows are called {}: set-up goes to either", host.name),
                "keep the guid of an agent; remove the stale row (deleteHost forced=true)"
                    .to_owned(),
            );
        }
        // Since 4.20.3 and 4.22.1 a row is found by the beginning of its guid, which is the name here.
        let begins =
            |other: &&&Host| other.name != host.name && other.name.starts_with(host.name.as_str());
        if let Some(other) = all.iter().find(begins) {
            find(
                "host.prefix",
                format!(
                    "{} begins with {}: newer servers may mix their rows up",
                    other.name, host.name
                ),
                "give guids of which none begins with another".to_owned(),
            );
        }
    }
}
