//! Rendered files against snapshots, and against whatever the state accepts.

use super::main_file::lease_limit;
use super::*;
use crate::desired::tests;
use crate::desired::tests::{put, reservation, state, subnet, zone};
use crate::desired::{Change, Circumstances, Precondition};
use dhcp_api::option::DhcpOption;
use dhcp_api::record::RecordType;
use dhcp_api::resource::{
    Addresses, Attachment, DefaultRoute, DnsServers, SearchDomains, Source, SubnetStatus,
};
use proptest::prelude::*;

fn settings() -> Settings {
    Settings {
        interface: "br0".parse().unwrap(),
        layout: Layout::new("/s/dhcp/dnsmasq".into()),
        dns: true,
        upstreams: vec!["10.0.0.53".parse().unwrap()],
        lease_time: LeaseTime::Infinite,
    }
}

fn apply(state: &mut DesiredState, change: Change) {
    let revision = match &change {
        Change::PutZone(zone) => state.zones.get(&zone.id).map(|z| z.zone.meta.revision),
        Change::PutSubnet { zone, subnet } => {
            state.zones[zone].subnets.get(&subnet.id).map(|s| s.subnet.meta.revision)
        }
        _ => None,
    };
    let precondition = Precondition { revision, ..Default::default() };
    state.apply(change, Source::Api, precondition, &Circumstances::default()).unwrap();
}

fn record(name: &str, kind: RecordType, values: &[&str]) -> Change {
    let record = Box::new(tests::record(name, kind, values));
    Change::PutRecord { zone: "z1".parse().unwrap(), record }
}

fn render(state: &DesiredState, settings: &Settings) -> Rendered {
    super::render(state, settings, &|_| false)
}

/// A zone with everything a zone can have.
fn full() -> DesiredState {
    let mut state = state();
    let mut zone = zone("z1");
    zone.dns_upstreams = vec!["10.0.0.54#5353".parse().unwrap()];
    zone.search_domains =
        SearchDomains(vec!["a.example".parse().unwrap(), "b.example".parse().unwrap()]);
    apply(&mut state, Change::PutZone(Box::new(zone)));
    let mut first = subnet("s1", "10.77.0.0/24");
    first.mtu = Some(1450.try_into().unwrap());
    first.ntp_servers = Addresses(vec![[10, 77, 0, 9].into()]);
    first.options = [DhcpOption::new(66, &"10.77.0.9".into()).unwrap()].into_iter().collect();
    let mut second = subnet("s2", "10.77.1.0/24");
    second.gateway = None;
    second.attachment = Some(Attachment::Shared { name: "br0".parse().unwrap() });
    second.dns_servers = Some(DnsServers::List(vec![[8, 8, 8, 8].into(), [8, 8, 4, 4].into()]));
    second.domain = Some("pod2.example".parse().unwrap());
    second.lease_time = Some(LeaseTime::Seconds(3600));
    let mut third = subnet("s3", "10.77.2.0/24");
    third.state = SubnetStatus::Disabled;
    for subnet in [first, second, third] {
        apply(
            &mut state,
            Change::PutSubnet { zone: "z1".parse().unwrap(), subnet: Box::new(subnet) },
        );
    }
    let mut plain = reservation("r1", "02:00:00:00:00:50", "10.77.0.50");
    plain.aliases = vec!["www".parse().unwrap()];
    plain.ipv6 = Some("fd00::50".parse().unwrap());
    let mut tagged = reservation("r2", "02:00:00:00:00:51", "10.77.0.51");
    tagged.default_route = DefaultRoute(false);
    tagged.lease_time = Some(LeaseTime::Seconds(7200));
    tagged.options =
        [DhcpOption::new(42, &vec!["10.77.0.9"].into()).unwrap()].into_iter().collect();
    let mut other = reservation("r3", "02:00:00:00:00:52", "10.77.1.50");
    other.subnet = "s2".parse().unwrap();
    other.hostname = Some("www".parse().unwrap());
    let mut disabled = reservation("r4", "02:00:00:00:00:53", "10.77.2.50");
    disabled.subnet = "s3".parse().unwrap();
    let mut nameless = reservation("r5", "02:00:00:00:00:54", "10.77.0.9");
    nameless.ipv4 = [10, 77, 0, 60].into();
    nameless.hostname = None;
    for reservation in [other, plain, tagged, disabled, nameless] {
        put(&mut state, reservation).unwrap();
    }
    apply(&mut state, record("gate", RecordType::A, &["10.77.0.1", "10.77.1.1"]));
    apply(&mut state, record("@", RecordType::Txt, &["v=spf1 -all"]));
    apply(&mut state, record("alias", RecordType::Cname, &["vm-r1.cs.example"]));
    apply(&mut state, record("_ldap._tcp", RecordType::Srv, &["0 5 389 vm-r1.cs.example"]));
    state
}

#[test]
fn the_main_file() {
    assert_eq!(render(&full(), &settings()).main, include_str!("snapshots/main.conf"));
}

#[test]
fn reservations_options_and_names() {
    let rendered = render(&full(), &settings());
    assert_eq!(rendered.hosts_text(), include_str!("snapshots/base.hosts"));
    assert_eq!(rendered.options, include_str!("snapshots/base.opts"));
    assert_eq!(rendered.names, include_str!("snapshots/names"));
}

/// dnsmasq's tags are those of a MAC: its reservations in other subnets must not have them.
#[test]
fn a_mac_in_two_subnets_has_the_tags_of_each_only_there() {
    let mut state = state();
    tests::put_subnet(&mut state, "z1", "s2", "10.78.0.0/24").unwrap();
    let mac = "02:00:00:00:00:01";
    let mut tagged = reservation("a", mac, "10.77.0.50");
    tagged.options = [DhcpOption::new(43, &"01:02".into()).unwrap()].into_iter().collect();
    put(&mut state, tagged).unwrap();
    let mut plain = reservation("b", mac, "10.78.0.50");
    plain.subnet = "s2".parse().unwrap();
    put(&mut state, plain).unwrap();
    let main = render(&state, &settings()).main;
    let lines: Vec<_> = main.lines().filter(|line| line.contains("m02")).collect();
    let expected = [
        "dhcp-mac=set:m020000000001,02:00:00:00:00:01",
        "tag-if=set:r0a4d0032,tag:m020000000001,tag:s0a4d0000",
        "tag-if=set:v43,tag:m020000000001,tag:s0a4d0000",
    ];
    assert_eq!(lines, expected, "{main}");
}

#[test]
fn without_dns_no_port_is_opened() {
    let rendered = render(&full(), &Settings { dns: false, ..settings() });
    assert!(
        rendered.main.contains("port=0\n")
            && !rendered.main.contains("hostsdir=/s/dhcp/dnsmasq/names.d")
            && !rendered.main.contains("addn-hosts=")
    );
}

#[test]
fn the_lease_limit_seldom_changes() {
    for (reservations, limit) in [(0, 2000), (1000, 2000), (1001, 4000), (20_000, 64_000)] {
        assert_eq!(lease_limit(reservations), limit, "{reservations}");
    }
}

proptest! {
    /// Whatever is accepted renders to exactly one line of known fields, in order, without a tag.
    #[test]
    fn every_reservation_is_one_harmless_line(
        entries in proptest::collection::btree_map(2u8..250, ("[a-zA-Z0-9-]{1,12}", any::<bool>()), 1..30)
    ) {
        let mut state = state();
        for (last, (name, default_route)) in &entries {
            let mac = format!("02:00:00:00:00:{last:02x}");
            let mut new = reservation(&format!("r{last}"), &mac, &format!("10.77.0.{last}"));
            new.hostname = name.parse().ok();
            new.default_route = DefaultRoute(*default_route);
            // Repeated names, our own address: refused, and then not rendered.
            drop(put(&mut state, new));
        }
        let rendered = render(&state, &settings());
        let kept: usize = state.reservations().count();
        let text = rendered.hosts_text();
        prop_assert_eq!(text.lines().count(), kept);
        prop_assert!(!text.contains("set:"));
        for (line, host) in text.lines().zip(&rendered.hosts) {
            let fields: Vec<_> = line.split(',').collect();
            prop_assert!(fields.len() == 2 || fields.len() == 3, "{}", line);
            prop_assert_eq!(fields[0], host.mac.to_string());
            prop_assert_eq!(fields[1], host.ipv4.to_string());
            let known = state.reservations().find(|(_, r)| r.ipv4 == host.ipv4).unwrap().1;
            prop_assert_eq!(fields.get(2).map(ToString::to_string), known.hostname.as_ref().map(ToString::to_string));
        }
        prop_assert_eq!(&render(&state, &settings()), &rendered, "rendering is deterministic");
        let tagged = state.reservations().filter(|(_, r)| !r.default_route.0).count();
        prop_assert_eq!(rendered.main.matches("dhcp-mac=set:").count(), tagged);
    }
}
