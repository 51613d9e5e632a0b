//! PURE: what a running dnsmasq has, what it should have → the least that gets it there.
//!
//! A watched directory is only good for hosts this process has never seen: dnsmasq does not forget
//! a removed line and refuses a known address for another MAC until it reloads. Names that come are
//! live, too. Everything else in hosts, options and names is a reload, the main file is a restart.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::render::{HostLine, Rendered};
use dhcp_api::words::MacAddress;

/// So many watched files are folded into the base file. dnsmasq has read their lines and keeps them,
/// so it need not be told.
const MAX_DELTAS: usize = 64;
/// Names of so many watched files are folded by a reload: dnsmasq forgets those of a file that goes.
const MOST_NAME_DELTAS: usize = 500;
/// dnsmasq compares each line of a watched file with everything it knows; a reload is faster then.
const MOST_ADDED: usize = 200;

/// What one dnsmasq process has in memory, as far as it confirmed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    pub(crate) rendered: Arc<Rendered>,
    /// Content of the base file.
    pub(crate) base: String,
    /// Content of the watched files added since, by name.
    pub(crate) deltas: BTreeMap<String, String>,
    /// The same two for names.
    pub(crate) base_names: String,
    pub(crate) name_deltas: BTreeMap<String, String>,
    /// Whatever stood in a line since the last reload.
    seen_addresses: HashSet<Ipv4Addr>,
    seen_macs: HashSet<MacAddress>,
    /// Names of deltas are never used twice by one process.
    next_delta: u64,
}

impl Loaded {
    /// After a start or a reload of everything in `rendered`.
    pub(crate) fn all(rendered: &Arc<Rendered>) -> Self {
        Self {
            rendered: Arc::clone(rendered),
            base: rendered.hosts_text(),
            deltas: BTreeMap::new(),
            base_names: rendered.names.clone(),
            name_deltas: BTreeMap::new(),
            seen_addresses: rendered.hosts.iter().map(|host| host.ipv4).collect(),
            seen_macs: rendered.hosts.iter().map(|host| host.mac).collect(),
            next_delta: 0,
        }
    }

    /// Name of the next watched files.
    pub(crate) fn next_delta(&mut self) -> String {
        self.next_delta += 1;
        format!("{:06}", self.next_delta)
    }

    /// What is watched is confirmed, under this name.
    pub(crate) fn added(&mut self, rendered: &Arc<Rendered>, added: &Addition, name: &str) {
        self.seen_addresses.extend(added.hosts.iter().map(|host| host.ipv4));
        self.seen_macs.extend(added.hosts.iter().map(|host| host.mac));
        self.rendered = Arc::clone(rendered);
        if !added.hosts.is_empty() {
            self.deltas.insert(name.to_owned(), added.hosts_text());
        }
        if !added.names.is_empty() {
            self.name_deltas.insert(name.to_owned(), added.names.clone());
        }
    }

    /// Whether the watched files are enough to be folded.
    pub(crate) fn is_full(&self) -> bool {
        self.deltas.len() >= MAX_DELTAS
    }

    /// The base file holds everything now.
    pub(crate) fn folded(&mut self) {
        self.base = self.rendered.hosts_text();
        self.deltas.clear();
    }

    fn has_seen(&self, host: &HostLine) -> bool {
        self.seen_addresses.contains(&host.ipv4) || self.seen_macs.contains(&host.mac)
    }
}

/// The files as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OnDisk {
    pub(crate) main: Option<String>,
    pub(crate) options: Option<String>,
    pub(crate) names: Option<String>,
    pub(crate) base: Option<String>,
    pub(crate) deltas: BTreeMap<String, String>,
    pub(crate) name_deltas: BTreeMap<String, String>,
}

/// What a running dnsmasq takes without a signal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addition {
    pub(crate) hosts: Vec<HostLine>,
    /// Lines of names.
    pub(crate) names: String,
}

impl Addition {
    /// The hosts as a watched file.
    pub(crate) fn hosts_text(&self) -> String {
        self.hosts.iter().map(|host| format!("{}\n", host.text)).collect()
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    Nothing,
    /// Write the main file, which nobody has to re-read.
    Main,
    /// Write one more watched file for hosts, for names, or for both.
    Add(Addition),
    /// Write everything, then SIGHUP.
    Reload,
    /// Write everything, then start anew.
    Restart,
}

impl Plan {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "noop",
            Self::Main => "main",
            Self::Add(added) if added.hosts.is_empty() => "names",
            Self::Add(_) => "add",
            Self::Reload => "reload",
            Self::Restart => "restart",
        }
    }
}

/// Plans for a dnsmasq that serves `loaded` from the files `disk`.
pub(crate) fn plan(rendered: &Rendered, loaded: &Loaded, disk: &OnDisk) -> Plan {
    let known = &*loaded.rendered;
    if rendered.main != known.main {
        return Plan::Restart;
    }
    // Somebody else touched what dnsmasq reads.
    let touched = disk.options.as_deref() != Some(&known.options)
        || disk.base.as_deref() != Some(&loaded.base)
        || disk.deltas != loaded.deltas
        || disk.names.as_deref() != Some(&loaded.base_names)
        || disk.name_deltas != loaded.name_deltas;
    if touched || rendered.options != known.options {
        return Plan::Reload;
    }
    let hosts = additions(&known.hosts, &rendered.hosts);
    let (Some(hosts), Some(names)) = (hosts, new_names(&known.names, &rendered.names)) else {
        return Plan::Reload;
    };
    let added = Addition { hosts, names };
    if added != Addition::default() {
        let seen = added.hosts.iter().any(|host| loaded.has_seen(host));
        let many = added.hosts.len().max(added.names.lines().count()) > MOST_ADDED;
        let full = loaded.name_deltas.len() >= MOST_NAME_DELTAS;
        return if seen || many || full { Plan::Reload } else { Plan::Add(added) };
    }
    if disk.main.as_deref() != Some(&rendered.main) {
        return Plan::Main;
    }
    Plan::Nothing
}

/// The lines of `new` that `old` lacks; `None` when a line of `old` is gone or changed, or one that
/// comes is for an address that has a name: the first one answers for it.
fn new_names(old: &str, new: &str) -> Option<String> {
    if old == new {
        return Some(String::new());
    }
    let (mut added, mut rest) = (Vec::new(), old.lines().peekable());
    for line in new.lines() {
        if rest.next_if_eq(&line).is_none() {
            added.push(line);
        }
    }
    let taken: HashSet<&str> = old.lines().map(address_in).collect();
    let is_new =
        rest.next().is_none() && added.iter().all(|line| !taken.contains(address_in(line)));
    is_new.then(|| added.iter().map(|line| format!("{line}\n")).collect())
}

/// The address of a line of names.
fn address_in(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// The lines of `new` that `old` lacks; `None` when a line of `old` is gone or changed. Both are
/// ordered by address.
fn additions(old: &[HostLine], new: &[HostLine]) -> Option<Vec<HostLine>> {
    let mut added = Vec::new();
    let mut rest = old.iter().peekable();
    for host in new {
        match rest.peek() {
            Some(next) if *next == host => {
                rest.next();
            }
            Some(next) if next.ipv4 <= host.ipv4 => return None,
            _ => added.push(host.clone()),
        }
    }
    rest.next().is_none().then_some(added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(last: u8, mac: u8) -> HostLine {
        let (ipv4, mac) = (Ipv4Addr::new(10, 77, 0, last), format!("02:00:00:00:00:{mac:02x}"));
        let mac: MacAddress = mac.parse().unwrap();
        HostLine { ipv4, mac, text: format!("{mac},{ipv4}") }
    }

    fn rendered(hosts: &[HostLine]) -> Arc<Rendered> {
        let mut hosts = hosts.to_vec();
        hosts.sort();
        Arc::new(Rendered {
            generation: 1,
            main: "main".to_owned(),
            hosts,
            options: "options".to_owned(),
            names: "names\n".to_owned(),
            ..Rendered::default()
        })
    }

    fn disk(loaded: &Loaded) -> OnDisk {
        OnDisk {
            main: Some(loaded.rendered.main.clone()),
            options: Some(loaded.rendered.options.clone()),
            names: Some(loaded.base_names.clone()),
            base: Some(loaded.base.clone()),
            deltas: loaded.deltas.clone(),
            name_deltas: loaded.name_deltas.clone(),
        }
    }

    fn check(old: &[HostLine], new: &[HostLine], expected: &Plan) {
        let loaded = Loaded::all(&rendered(old));
        assert_eq!(plan(&rendered(new), &loaded, &disk(&loaded)), *expected, "{old:?} {new:?}");
    }

    #[test]
    fn only_hosts_never_seen_are_added_live() {
        let (a, b) = (host(50, 1), host(51, 2));
        check(&[], &[], &Plan::Nothing);
        let add = |host: &HostLine| {
            Plan::Add(Addition { hosts: vec![host.clone()], ..Addition::default() })
        };
        check(std::slice::from_ref(&a), &[a.clone(), b.clone()], &add(&b));
        check(std::slice::from_ref(&b), &[a.clone(), b.clone()], &add(&a));
        // removed; moved to another MAC; MAC moved to another address
        check(&[a.clone(), b.clone()], std::slice::from_ref(&b), &Plan::Reload);
        check(&[a.clone(), b], &[host(50, 1), host(51, 3)], &Plan::Reload);
        check(&[a], &[host(60, 1)], &Plan::Reload);
    }

    #[test]
    fn a_host_that_was_removed_and_comes_back_needs_no_second_look() {
        let a = host(50, 1);
        let mut loaded = Loaded::all(&rendered(std::slice::from_ref(&a)));
        // Gone without a reload never happens, but the address was seen by this process.
        Arc::make_mut(&mut loaded.rendered).hosts.clear();
        assert_eq!(plan(&rendered(&[host(50, 9)]), &loaded, &disk(&loaded)), Plan::Reload);
        assert_eq!(plan(&rendered(&[host(99, 1)]), &loaded, &disk(&loaded)), Plan::Reload);
    }

    #[test]
    fn main_restarts_options_reload_and_names_that_come_are_live() {
        let loaded = Loaded::all(&rendered(&[]));
        let mut new = Rendered::clone(&rendered(&[]));
        new.names = "10.0.0.1 a\nnames\n".to_owned();
        let names = "10.0.0.1 a\n".to_owned();
        let added = Plan::Add(Addition { names, ..Addition::default() });
        assert_eq!((plan(&new, &loaded, &disk(&loaded)), added.kind()), (added.clone(), "names"));
        // One that goes or changes, and a second one for an address.
        for changed in ["", "other\n", "names\nnames b\n"] {
            new.names = changed.to_owned();
            assert_eq!(plan(&new, &loaded, &disk(&loaded)), Plan::Reload, "{changed}");
        }
        new.options = "x".to_owned();
        assert_eq!(plan(&new, &loaded, &disk(&loaded)), Plan::Reload);
        new.main = "x".to_owned();
        assert_eq!(plan(&new, &loaded, &disk(&loaded)), Plan::Restart);
    }

    #[test]
    fn files_touched_by_somebody_else_are_put_right() {
        let loaded = Loaded::all(&rendered(&[host(50, 1)]));
        let rendered = rendered(&[host(50, 1)]);
        let check = |touch: fn(&mut OnDisk), expected| {
            let mut disk = disk(&loaded);
            touch(&mut disk);
            assert_eq!(plan(&rendered, &loaded, &disk), expected, "{disk:?}");
        };
        check(|disk| disk.base = None, Plan::Reload);
        check(|disk| disk.options = Some(String::new()), Plan::Reload);
        check(|disk| drop(disk.deltas.insert("x".to_owned(), "y".to_owned())), Plan::Reload);
        check(|disk| disk.names = None, Plan::Reload);
        check(|disk| drop(disk.name_deltas.insert("x".to_owned(), "y".to_owned())), Plan::Reload);
        check(|disk| disk.main = None, Plan::Main);
    }

    proptest! {
        /// Adding is only planned when nothing that was there is missing.
        #[test]
        fn additions_are_a_difference(
            old in proptest::collection::btree_map(2u8..60, 1u8..9, 0..20),
            new in proptest::collection::btree_map(2u8..60, 1u8..9, 0..20),
        ) {
            let lines = |map: &BTreeMap<u8, u8>| -> Vec<HostLine> {
                map.iter().map(|(last, mac)| host(*last, *mac)).collect()
            };
            let (old, new) = (lines(&old), lines(&new));
            let kept = old.iter().all(|host| new.contains(host));
            match additions(&old, &new) {
                Some(added) => {
                    prop_assert!(kept);
                    let expected: Vec<_> =
                        new.iter().filter(|host| !old.contains(host)).cloned().collect();
                    prop_assert_eq!(added, expected);
                }
                None => prop_assert!(!kept),
            }
        }
    }
}
