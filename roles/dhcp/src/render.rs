//! PURE: desired state → the files of one dnsmasq.
//!
//! Everything written is a typed value or a constant. Lines that a running dnsmasq re-reads never
//! carry `set:`: the 2.90 of Debian 12 dies at the first reload after such a line was matched, so
//! the tags of reservations come from `dhcp-mac` lines of the main file.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::desired::{DesiredState, SubnetState, ZoneState, domain_of};
use crate::model::{Attachment, DnsServers, Record, RecordValue, Reservation, Subnet};
use crate::value::{InterfaceName, LeaseTime, MacAddress, Upstream};

#[cfg(test)]
mod tests;

/// What the role's configuration adds to the desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub interface: InterfaceName,
    pub layout: Layout,
    /// Whether DNS is served at all.
    pub dns: bool,
    /// Used besides those of the zones.
    pub upstreams: Vec<Upstream>,
    /// For zones that do not say.
    pub lease_time: LeaseTime,
}

/// Where the files of one dnsmasq lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn main(&self) -> PathBuf {
        self.directory.join("main.conf")
    }

    /// All reservations as of the last reload; not watched.
    pub fn base_hosts(&self) -> PathBuf {
        self.directory.join("base.hosts")
    }

    pub fn options(&self) -> PathBuf {
        self.directory.join("base.opts")
    }

    /// Watched: reservations added since the last reload.
    pub fn hosts_directory(&self) -> PathBuf {
        self.directory.join("hosts.d")
    }

    /// Watched: names.
    pub fn names_directory(&self) -> PathBuf {
        self.directory.join("names.d")
    }

    pub fn names(&self) -> PathBuf {
        self.names_directory().join("base")
    }

    /// The only directory dnsmasq writes to.
    pub fn leases_directory(&self) -> PathBuf {
        self.directory.join("leases")
    }

    pub fn leases(&self) -> PathBuf {
        self.leases_directory().join("dnsmasq.leases")
    }
}

/// One reservation as a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostLine {
    pub ipv4: Ipv4Addr,
    pub mac: MacAddress,
    pub text: String,
}

/// The content of every file for one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub generation: u64,
    pub main: String,
    /// Ordered by address.
    pub hosts: Vec<HostLine>,
    pub options: String,
    pub names: String,
}

impl Rendered {
    /// Whether any range is served; without one dnsmasq does not even read the reservations.
    pub fn serves_dhcp(&self) -> bool {
        self.main.contains("\ndhcp-range=")
    }

    /// `base.hosts` with every reservation.
    pub fn hosts_text(&self) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            text.push_str(&host.text);
            text.push('\n');
        }
        text
    }
}

/// Renders a state.
pub fn render(state: &DesiredState, settings: &Settings) -> Rendered {
    let mut subnets: Vec<_> = state.subnets().filter(|(_, subnet)| subnet.subnet.enabled).collect();
    subnets.sort_by_key(|(_, subnet)| subnet.subnet.cidr);
    let mut served = Vec::new();
    for (zone, reservation) in state.reservations() {
        if let Some(SubnetState { subnet, .. }) = zone.subnets.get(&reservation.subnet)
            && subnet.enabled
        {
            served.push(Served { zone, subnet, reservation });
        }
    }
    served.sort_by_key(|served| served.reservation.ipv4);
    Rendered {
        generation: state.generation,
        main: main(state, &subnets, &served, settings),
        hosts: served.iter().map(host_line).collect(),
        options: options(&subnets, &served),
        names: names(state, &served),
    }
}

/// A reservation that is answered for.
struct Served<'a> {
    zone: &'a ZoneState,
    subnet: &'a Subnet,
    reservation: &'a Reservation,
}

type Subnets<'a> = [(&'a ZoneState, &'a SubnetState)];

/// Appends a formatted line. Writing to a `String` cannot fail.
macro_rules! line {
    ($out:expr, $($format:tt)+) => {
        if writeln!($out, $($format)+).is_err() {
            unreachable!("writing to a string cannot fail");
        }
    };
}

fn main(
    state: &DesiredState,
    subnets: &Subnets<'_>,
    served: &[Served<'_>],
    settings: &Settings,
) -> String {
    let Settings { interface, layout, .. } = settings;
    let mut out = String::from("# written by quickcloud, which overwrites every change\n");
    out.push_str("keep-in-foreground\npid-file=\nlog-facility=-\nlog-async=25\n");
    line!(out, "interface={interface}");
    out.push_str("except-interface=lo\nbind-dynamic\n");
    out.push_str("dhcp-authoritative\ndhcp-ignore=tag:!known\ndhcp-ignore-names\n");
    out.push_str("dhcp-ignore-clid\nno-ping\n");
    line!(out, "dhcp-lease-max={}", lease_limit(served.len()));
    line!(out, "dhcp-leasefile={}", layout.leases().display());
    line!(out, "dhcp-hostsfile={}", layout.base_hosts().display());
    line!(out, "dhcp-hostsdir={}", layout.hosts_directory().display());
    line!(out, "dhcp-optsfile={}", layout.options().display());
    out.push_str("dhcp-option=vendor:MSFT,2,1i\n");
    for (zone, SubnetState { subnet, .. }) in subnets {
        subnet_lines(&mut out, zone, subnet, settings);
    }
    for Served { reservation, .. } in served {
        if reservation.is_tagged() {
            line!(out, "dhcp-mac=set:{},{}", host_tag(reservation), reservation.mac);
        }
    }
    if settings.dns {
        dns_lines(&mut out, state, subnets, settings);
    } else {
        out.push_str("port=0\n");
    }
    out
}

/// Twice the reservations, in steps, so that growth seldom changes the main file.
fn lease_limit(reservations: usize) -> usize {
    let mut limit = 2_000;
    while limit < reservations.saturating_mul(2) {
        limit *= 2;
    }
    limit
}

fn subnet_lines(out: &mut String, zone: &ZoneState, subnet: &Subnet, settings: &Settings) {
    let cidr = subnet.cidr;
    let lease = subnet.lease_time.or(zone.zone.lease_time).unwrap_or(settings.lease_time);
    line!(
        out,
        "dhcp-range=set:{},{},static,{},{},{lease}",
        subnet_tag(subnet),
        cidr.network(),
        cidr.netmask(),
        cidr.broadcast()
    );
    if let Attachment::Shared { .. } = subnet.attachment {
        let inside = subnet.gateway.unwrap_or_else(|| cidr.first());
        line!(out, "shared-network={},{inside}", settings.interface);
    }
    line!(out, "domain={},{cidr}", domain_of(&zone.zone, Some(subnet)));
}

fn dns_lines(out: &mut String, state: &DesiredState, subnets: &Subnets<'_>, settings: &Settings) {
    out.push_str("port=53\nno-hosts\nno-resolv\n");
    let mut upstreams = BTreeSet::from_iter(settings.upstreams.iter().copied());
    upstreams.extend(state.zones.values().flat_map(|zone| zone.zone.dns_upstreams.iter().copied()));
    for upstream in upstreams {
        line!(out, "server={upstream}");
    }
    line!(out, "hostsdir={}", settings.layout.names_directory().display());
    let domains: BTreeSet<_> = state
        .zones
        .values()
        .map(|zone| &zone.zone.domain)
        .chain(subnets.iter().filter_map(|(_, subnet)| subnet.subnet.domain.as_ref()))
        .collect();
    for domain in domains {
        line!(out, "local=/{domain}/");
    }
    out.push_str("domain-needed\nbogus-priv\nlocalise-queries\n");
    out.push_str("cache-size=10000\ndns-forward-max=1000\n");
    for zone in state.zones.values() {
        for record in zone.records.values() {
            main_record(out, zone, record);
        }
    }
}

/// Records that only the main file can hold.
fn main_record(out: &mut String, zone: &ZoneState, record: &Record) {
    use crate::model::RecordType::Cname;
    let name = record.name.within(&zone.zone.domain);
    for value in &record.values {
        match value {
            RecordValue::V4(_) | RecordValue::V6(_) => {}
            RecordValue::Domain(target) if record.kind == Cname => {
                line!(out, "cname={name},{target}");
            }
            RecordValue::Domain(target) => line!(out, "ptr-record={name},{target}"),
            RecordValue::Text(text) => line!(out, "txt-record={name},\"{text}\""),
            RecordValue::Srv { priority, weight, port, target } => {
                line!(out, "srv-host={name},{target},{port},{priority},{weight}");
            }
        }
    }
}

/// Unique, since subnets do not overlap.
fn subnet_tag(subnet: &Subnet) -> String {
    format!("s{:08x}", subnet.cidr.network().to_bits())
}

/// Unique, since an address has one reservation.
fn host_tag(reservation: &Reservation) -> String {
    format!("r{:08x}", reservation.ipv4.to_bits())
}

fn host_line(served: &Served<'_>) -> HostLine {
    let Reservation { mac, ipv4, hostname, lease_time, .. } = served.reservation;
    let mut text = format!("{mac},{ipv4}");
    if let Some(hostname) = hostname {
        line_part(&mut text, hostname);
    }
    if let Some(lease_time) = lease_time {
        line_part(&mut text, lease_time);
    }
    HostLine { ipv4: *ipv4, mac: *mac, text }
}

fn line_part(text: &mut String, part: &impl std::fmt::Display) {
    if write!(text, ",{part}").is_err() {
        unreachable!("writing to a string cannot fail");
    }
}

fn options(subnets: &Subnets<'_>, served: &[Served<'_>]) -> String {
    let mut out = String::new();
    for (zone, SubnetState { subnet, .. }) in subnets {
        subnet_options(&mut out, zone, subnet);
    }
    for Served { reservation, .. } in served {
        let tag = host_tag(reservation);
        if !reservation.default_route {
            // An empty value suppresses what the subnet says.
            line!(out, "tag:{tag},3\ntag:{tag},6\ntag:{tag},15");
        }
        for option in &reservation.options {
            line!(out, "tag:{tag},{}", option.render());
        }
    }
    out
}

fn subnet_options(out: &mut String, zone: &ZoneState, subnet: &Subnet) {
    let tag = subnet_tag(subnet);
    match subnet.gateway {
        Some(gateway) => line!(out, "tag:{tag},option:router,{gateway}"),
        None => line!(out, "tag:{tag},option:router"),
    }
    match subnet.dns_servers.as_ref().unwrap_or(&zone.zone.dns_servers) {
        // dnsmasq puts its own address on that network in.
        DnsServers::Own => line!(out, "tag:{tag},option:dns-server,0.0.0.0"),
        DnsServers::List(list) if list.is_empty() => line!(out, "tag:{tag},option:dns-server"),
        DnsServers::List(list) => line!(out, "tag:{tag},option:dns-server,{}", join(list)),
    }
    line!(out, "tag:{tag},option:domain-name,{}", domain_of(&zone.zone, Some(subnet)));
    let search = subnet.search_domains.as_ref().unwrap_or(&zone.zone.search_domains);
    if !search.is_empty() {
        line!(out, "tag:{tag},option:domain-search,{}", join(search));
    }
    if let Some(mtu) = subnet.mtu {
        line!(out, "tag:{tag},option:mtu,{mtu}");
    }
    if !subnet.ntp_servers.is_empty() {
        line!(out, "tag:{tag},option:ntp-server,{}", join(&subnet.ntp_servers));
    }
    for option in &subnet.options {
        line!(out, "tag:{tag},{}", option.render());
    }
}

fn join<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Names of reservations and of A and AAAA records. The full name stands first, so that it is the
/// answer to a reverse query; a bare name that several domains have goes to the first.
fn names(state: &DesiredState, served: &[Served<'_>]) -> String {
    let mut out = String::new();
    let mut bare = HashSet::new();
    for Served { zone, subnet, reservation } in served {
        let domain = domain_of(&zone.zone, Some(subnet));
        let mut names = String::new();
        for name in reservation.names() {
            names.push_str(&format!(" {name}.{domain}"));
            if bare.insert(name) {
                names.push_str(&format!(" {name}"));
            }
        }
        if names.is_empty() {
            continue;
        }
        line!(out, "{}{names}", reservation.ipv4);
        if let Some(ipv6) = reservation.ipv6 {
            line!(out, "{ipv6}{names}");
        }
    }
    for zone in state.zones.values() {
        for record in zone.records.values() {
            let name = record.name.within(&zone.zone.domain);
            for value in &record.values {
                let address: IpAddr = match value {
                    RecordValue::V4(address) => (*address).into(),
                    RecordValue::V6(address) => (*address).into(),
                    RecordValue::Domain(_) | RecordValue::Text(_) | RecordValue::Srv { .. } => {
                        continue;
                    }
                };
                line!(out, "{address} {name}");
            }
        }
    }
    out
}
