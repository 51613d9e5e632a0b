//! PURE: desired state → the files of one dnsmasq.
//!
//! Everything written is a typed value or a constant. Lines that a running dnsmasq re-reads never
//! carry `set:`: the 2.90 of Debian 12 dies at the first reload after such a line was matched, so
//! the tags of reservations come from `dhcp-mac` lines of the main file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use dhcp_api::resource::{Reservation, Subnet};
use dhcp_api::words::{Cidr, InterfaceName, LeaseTime, MacAddress, Upstream};

use crate::desired::{DesiredState, RecordKey, SubnetState, ZoneState};
use crate::layout::Layout;

mod main_file;
mod names;
mod options;
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

/// One reservation as a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostLine {
    pub ipv4: Ipv4Addr,
    pub mac: MacAddress,
    pub text: String,
}

/// Whose line something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineOwner {
    Reservation(Ipv4Addr),
    Subnet(Cidr),
}

/// The content of every file for one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    pub generation: u64,
    pub main: String,
    /// Ordered by address.
    pub hosts: Vec<HostLine>,
    pub options: String,
    pub names: String,
    /// Owners of the lines of `options`.
    pub option_owners: Vec<LineOwner>,
    /// Records of `main`, by the number of their line.
    pub record_lines: BTreeMap<usize, RecordKey>,
}

impl Rendered {
    /// Whether dnsmasq would read the same.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.main == other.main
            && self.hosts == other.hosts
            && self.options == other.options
            && self.names == other.names
    }

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

    /// Whose line dnsmasq complains about: `bad … at line 7 of /x/base.opts`.
    pub fn owner_of(&self, complaint: &str, layout: &Layout) -> Option<LineOwner> {
        let (file, index) = line_of(complaint)?;
        if layout.options().to_str() == Some(file) {
            return self.option_owners.get(index).copied();
        }
        let is_hosts = layout.base_hosts().to_str() == Some(file);
        let host = self.hosts.get(index).filter(|_| is_hosts)?;
        Some(LineOwner::Reservation(host.ipv4))
    }
}

/// File and index of the line that dnsmasq complains about.
pub(crate) fn line_of(complaint: &str) -> Option<(&str, usize)> {
    let (number, file) = complaint.rsplit_once(" at line ")?.1.split_once(" of ")?;
    let number: usize = number.parse().ok()?;
    Some((file.trim_end(), number.checked_sub(1)?))
}

/// Renders a state, without the records that dnsmasq is known to refuse.
pub fn render(
    state: &DesiredState,
    settings: &Settings,
    is_refused: &dyn Fn(&RecordKey) -> bool,
) -> Rendered {
    let mut subnets: Vec<_> =
        state.subnets().filter(|(_, subnet)| subnet.subnet.is_enabled()).collect();
    subnets.sort_by_key(|(_, subnet)| subnet.subnet.cidr);
    let mut served = Vec::new();
    for (zone, reservation) in state.reservations() {
        if let Some(SubnetState { subnet, .. }) = zone.subnets.get(&reservation.subnet)
            && subnet.is_enabled()
        {
            served.push(Served { zone, subnet, reservation });
        }
    }
    served.sort_by_key(|served| served.reservation.ipv4);
    let withheld = state.standings().withheld;
    let is_given = |key: &RecordKey| !withheld.contains_key(key) && !is_refused(key);
    let (main, record_lines) = main_file::main(state, &subnets, &served, settings, &is_given);
    let (options, option_owners) = options::options(&subnets, &served);
    Rendered {
        generation: state.generation,
        main,
        hosts: served.iter().map(host_line).collect(),
        options,
        names: names::names(state, &served, &is_given),
        option_owners,
        record_lines,
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
        if std::fmt::Write::write_fmt($out, format_args!("{}\n", format_args!($($format)+))).is_err() {
            unreachable!("writing to a string cannot fail");
        }
    };
}
use line;

/// Unique, since subnets do not overlap.
fn subnet_tag(subnet: &Subnet) -> String {
    format!("s{:08x}", subnet.cidr.network().to_bits())
}

/// Unique, since an address has one reservation.
fn host_tag(reservation: &Reservation) -> String {
    format!("r{:08x}", reservation.ipv4.to_bits())
}

fn host_line(served: &Served<'_>) -> HostLine {
    let reservation = served.reservation;
    let (ipv4, mac) = (reservation.ipv4, reservation.mac);
    let mut text = format!("{mac},{ipv4}");
    if let Some(hostname) = &reservation.hostname {
        line_part(&mut text, hostname);
    }
    if let Some(lease_time) = reservation.lease_time {
        line_part(&mut text, &lease_time);
    }
    HostLine { ipv4, mac, text }
}

fn line_part(text: &mut String, part: &impl std::fmt::Display) {
    if write!(text, ",{part}").is_err() {
        unreachable!("writing to a string cannot fail");
    }
}

fn join<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// In quotes dnsmasq takes every character for itself, but for the two that are escaped.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
