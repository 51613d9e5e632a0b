//! `main.conf`: everything dnsmasq reads once, at its start.

use std::collections::{BTreeMap, BTreeSet};

use dhcp_api::record::{Record, RecordType, RecordValue};
use dhcp_api::resource::{Attachment, Subnet};
use dhcp_api::words::MacAddress;

use super::{Served, Settings, Subnets, host_tag, line, quoted, subnet_tag};
use crate::desired::{DesiredState, RecordKey, SubnetState, ZoneState, domain_of};

/// Option 43. dnsmasq adds the one for a vendor to the one that is set, and a client would get both.
const VENDOR_ENCAPSULATED: u8 = 43;

/// The main file, and which of its lines are records.
pub(super) fn main(
    state: &DesiredState,
    subnets: &Subnets<'_>,
    served: &[Served<'_>],
    settings: &Settings,
    is_given: &impl Fn(&RecordKey) -> bool,
) -> (String, BTreeMap<usize, RecordKey>) {
    let Settings { interface, layout, .. } = settings;
    let mut records = BTreeMap::new();
    let mut out = String::from("# written by quickcloud, which overwrites every change\n");
    out.push_str("keep-in-foreground\npid-file=\nlog-facility=-\nlog-async=25\n");
    line!(&mut out, "interface={interface}");
    out.push_str("except-interface=lo\nbind-dynamic\n");
    out.push_str("dhcp-authoritative\ndhcp-ignore=tag:!known\ndhcp-ignore-names\n");
    out.push_str("dhcp-ignore-clid\nno-ping\n");
    line!(&mut out, "dhcp-lease-max={}", lease_limit(served.len()));
    line!(&mut out, "dhcp-leasefile={}", layout.leases().display());
    line!(&mut out, "dhcp-hostsfile={}", layout.base_hosts().display());
    line!(&mut out, "dhcp-hostsdir={}", layout.hosts_directory().display());
    line!(&mut out, "dhcp-optsfile={}", layout.options().display());
    // What a Windows guest should know, unless somebody says what it gets in this option.
    let option = VENDOR_ENCAPSULATED;
    line!(&mut out, "dhcp-option=tag:!v{option},vendor:MSFT,2,1i");
    for (zone, SubnetState { subnet, .. }) in subnets {
        subnet_lines(&mut out, zone, subnet, settings);
        if zone.options_of_subnet(subnet).iter().any(|given| given.code() == option) {
            line!(&mut out, "tag-if=set:v{option},tag:{}", subnet_tag(subnet));
        }
    }
    host_tags(&mut out, served);
    if settings.dns {
        records = dns_lines(&mut out, state, subnets, settings, is_given);
    } else {
        out.push_str("port=0\n");
    }
    (out, records)
}

/// Tags of reservations. dnsmasq knows them by MAC, so one that several subnets reserve is told
/// apart by the subnet that the client is in.
fn host_tags(out: &mut String, served: &[Served<'_>]) {
    let option = VENDOR_ENCAPSULATED;
    let mut count: BTreeMap<MacAddress, usize> = BTreeMap::new();
    for Served { reservation, .. } in served {
        *count.entry(reservation.mac).or_default() += 1;
    }
    let mut named = BTreeSet::new();
    for Served { zone, subnet, reservation } in served.iter().filter(|s| s.reservation.is_tagged())
    {
        let mac = reservation.mac;
        let mut tags = vec![host_tag(reservation)];
        if zone.options_of(reservation).iter().any(|given| given.code() == option) {
            tags.push(format!("v{option}"));
        }
        let is_shared = count.get(&mac).is_some_and(|count| *count > 1);
        if is_shared && named.insert(mac) {
            line!(out, "dhcp-mac=set:{},{mac}", mac_tag(mac));
        }
        for tag in tags {
            match is_shared {
                true => {
                    let (mac, subnet) = (mac_tag(mac), subnet_tag(subnet));
                    line!(out, "tag-if=set:{tag},tag:{mac},tag:{subnet}");
                }
                false => line!(out, "dhcp-mac=set:{tag},{mac}"),
            }
        }
    }
}

fn mac_tag(mac: MacAddress) -> String {
    let [a, b, c, d, e, f] = mac.octets();
    format!("m{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
}

/// Twice the reservations, in steps, so that growth seldom changes the main file.
pub(super) fn lease_limit(reservations: usize) -> usize {
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
    if let Some(Attachment::Shared { .. }) = &subnet.attachment {
        let inside = subnet.gateway.unwrap_or_else(|| cidr.first());
        line!(out, "shared-network={},{inside}", settings.interface);
    }
    line!(out, "domain={},{cidr}", domain_of(&zone.zone, Some(subnet)));
}

fn dns_lines(
    out: &mut String,
    state: &DesiredState,
    subnets: &Subnets<'_>,
    settings: &Settings,
    is_given: &impl Fn(&RecordKey) -> bool,
) -> BTreeMap<usize, RecordKey> {
    out.push_str("port=53\nno-hosts\nno-resolv\n");
    let mut upstreams = BTreeSet::from_iter(settings.upstreams.iter().copied());
    upstreams.extend(state.zones.values().flat_map(|zone| zone.zone.dns_upstreams.iter().copied()));
    for upstream in upstreams {
        line!(out, "server={upstream}");
    }
    line!(out, "addn-hosts={}", settings.layout.base_names().display());
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
    let (mut lines, mut count) = (BTreeMap::new(), out.lines().count());
    for zone in state.zones.values() {
        for record in zone.records.values().filter(|record| !record.kind.is_live()) {
            let key = (zone.zone.id.clone(), record.name.clone(), record.kind);
            if is_given(&key) {
                main_record(out, zone, record);
                // One line for each value.
                let end = count + record.values.len();
                lines.extend((count..end).map(|line| (line, key.clone())));
                count = end;
            }
        }
    }
    lines
}

/// Records that only the main file can hold.
fn main_record(out: &mut String, zone: &ZoneState, record: &Record) {
    let name = record.name.within(&zone.zone.domain);
    for value in &record.values {
        match value {
            RecordValue::V4(_) | RecordValue::V6(_) => {}
            RecordValue::Domain(target) if record.kind == RecordType::Cname => {
                line!(out, "cname={name},{target}");
            }
            RecordValue::Domain(target) => line!(out, "ptr-record={name},{target}"),
            RecordValue::Text(text) => line!(out, "txt-record={name},{}", quoted(text)),
            RecordValue::Srv { priority, weight, port, target } => {
                line!(out, "srv-host={name},{target},{port},{priority},{weight}");
            }
        }
    }
}
