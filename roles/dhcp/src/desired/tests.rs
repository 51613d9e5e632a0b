//! What the desired state accepts, refuses and keeps untouched.

use super::*;
use dhcp_api::read::whole;
use dhcp_api::resource::Meta;
use dhcp_api::resource::{
    OptionSetContent, Purpose, RangeContent, ReservationContent, SubnetContent, ZoneContent,
};
use serde_json::json;

mod option_sets;
mod ownership;
mod records;
mod stored;
mod whole;

pub(crate) fn zone(id: &str) -> Zone {
    let content: ZoneContent = whole(json!({"domain": "cs.example"})).unwrap();
    Zone::new(id.parse().unwrap(), content, Source::Api)
}

pub(crate) fn subnet(id: &str, cidr: &str) -> Subnet {
    let cidr: dhcp_api::words::Cidr = cidr.parse().unwrap();
    let content: SubnetContent = whole(json!({
        "cidr": cidr,
        "gateway": cidr.first(),
        "attachment": {"kind": "interface", "name": "br0"},
    }))
    .unwrap();
    Subnet::new(id.parse().unwrap(), content, Source::Api)
}

pub(crate) fn reservation(id: &str, mac: &str, ipv4: &str) -> Reservation {
    let content: ReservationContent = whole(json!({
        "mac": mac, "ipv4": ipv4, "subnet": "s1", "hostname": format!("vm-{id}"),
    }))
    .unwrap();
    Reservation::new(id.parse().unwrap(), content, Source::Api)
}

pub(crate) fn record(name: &str, kind: RecordType, values: &[&str]) -> Record {
    let body = json!({"values": values});
    Record::read(name.parse().unwrap(), kind, body, Meta::new(Source::Api)).unwrap()
}

pub(crate) fn put_subnet(state: &mut DesiredState, zone: &str, id: &str, cidr: &str) -> Outcome {
    let change =
        Change::PutSubnet { zone: zone.parse().unwrap(), subnet: Box::new(subnet(id, cidr)) };
    state.apply(change, Source::Api, Precondition::default(), &Circumstances::default())
}

pub(crate) fn put(state: &mut DesiredState, reservation: Reservation) -> Outcome {
    let facts = Circumstances { now_ms: 0, local: vec![Ipv4Addr::new(10, 77, 0, 9)] };
    let change =
        Change::PutReservation { zone: "z1".parse().unwrap(), reservation: Box::new(reservation) };
    state.apply(change, Source::Api, Precondition::default(), &facts)
}

pub(crate) fn state() -> DesiredState {
    let mut state = DesiredState::default();
    let put = Change::PutZone(Box::new(zone("z1")));
    state.apply(put, Source::Api, Precondition::default(), &Circumstances::default()).unwrap();
    put_subnet(&mut state, "z1", "s1", "10.77.0.0/24").unwrap();
    state
}

fn conflict(outcome: Outcome) -> ConflictKind {
    match outcome {
        Err(ChangeError::Conflict { kind, .. }) => kind,
        other => panic!("no conflict: {other:?}"),
    }
}

#[test]
fn an_identical_put_changes_nothing() {
    let mut state = state();
    let new = reservation("r1", "02:00:00:00:00:01", "10.77.0.50");
    let first = put(&mut state, new.clone()).unwrap();
    let again = put(&mut state, new).unwrap();
    assert!(first.created && first.changed && !again.created && !again.changed);
    assert_eq!(first.generation, again.generation);
}

#[test]
fn address_mac_and_name_belong_to_one_reservation() {
    let mut state = state();
    put(&mut state, reservation("r1", "02:00:00:00:00:01", "10.77.0.50")).unwrap();
    let before = state.clone();
    let address = reservation("r2", "02:00:00:00:00:02", "10.77.0.50");
    assert_eq!(conflict(put(&mut state, address)), ConflictKind::Address);
    let mac = reservation("r2", "02:00:00:00:00:01", "10.77.0.51");
    assert_eq!(conflict(put(&mut state, mac)), ConflictKind::Mac);
    let mut name = reservation("r2", "02:00:00:00:00:02", "10.77.0.51");
    name.hostname = Some("VM-R1".parse().unwrap());
    assert_eq!(conflict(put(&mut state, name.clone())), ConflictKind::HostName);
    name.hostname = None;
    name.aliases = vec!["vm-r1".parse().unwrap()];
    assert_eq!(conflict(put(&mut state, name)), ConflictKind::HostName);
    assert_eq!(state, before, "a refused change touches nothing");
}

#[test]
fn addresses_nobody_may_have_are_refused() {
    let mut state = state();
    let content = RangeContent {
        start: Ipv4Addr::new(10, 77, 0, 100),
        end: Ipv4Addr::new(10, 77, 0, 110),
        purpose: Purpose::Excluded,
    };
    let range = Range::new("x".parse().unwrap(), content, Source::Api);
    let (zone, subnet) = ("z1".parse().unwrap(), "s1".parse().unwrap());
    let change = Change::PutRange { zone, subnet, range: Box::new(range) };
    state.apply(change, Source::Api, Precondition::default(), &Circumstances::default()).unwrap();
    // network, broadcast, gateway, our own, excluded, outside
    for bad in ["10.77.0.0", "10.77.0.255", "10.77.0.1", "10.77.0.9", "10.77.0.105", "10.78.0.5"] {
        let outcome = put(&mut state, reservation("r1", "02:00:00:00:00:01", bad));
        assert!(matches!(outcome, Err(ChangeError::Invalid { field: "ipv4", .. })), "{bad}");
    }
    put(&mut state, reservation("r1", "02:00:00:00:00:01", "10.77.0.111")).unwrap();
}

#[test]
fn subnets_never_overlap_even_across_zones() {
    let mut state = state();
    let put = Change::PutZone(Box::new(zone("z2")));
    state.apply(put, Source::Api, Precondition::default(), &Circumstances::default()).unwrap();
    assert_eq!(
        conflict(put_subnet(&mut state, "z2", "s1", "10.77.0.128/25")),
        ConflictKind::Subnet
    );
    put_subnet(&mut state, "z2", "s1", "10.77.1.0/24").unwrap();
}

#[test]
fn a_subnet_cannot_leave_its_reservations_outside() {
    let mut state = state();
    put(&mut state, reservation("r1", "02:00:00:00:00:01", "10.77.0.50")).unwrap();
    let revision = state.zones.values().next().unwrap().subnets.values().next().unwrap();
    let precondition =
        Precondition { revision: Some(revision.subnet.meta.revision), ..Default::default() };
    let change = |cidr| Change::PutSubnet {
        zone: "z1".parse().unwrap(),
        subnet: Box::new(subnet("s1", cidr)),
    };
    let facts = Circumstances::default();
    let outcome = state.apply(change("10.77.0.128/25"), Source::Api, precondition, &facts);
    assert!(matches!(outcome, Err(ChangeError::Invalid { field: "ipv4", .. })), "{outcome:?}");
    state.apply(change("10.77.0.0/25"), Source::Api, precondition, &facts).unwrap();
}

#[test]
fn replacing_a_subnet_needs_its_revision_and_repeating_it_does_not() {
    let mut state = state();
    assert!(!put_subnet(&mut state, "z1", "s1", "10.77.0.0/24").unwrap().changed);
    let outcome = put_subnet(&mut state, "z1", "s1", "10.77.0.0/25");
    assert!(matches!(outcome, Err(ChangeError::PreconditionRequired { revision: 2, .. })));
    let (zone, subnet) = ("z1".parse().unwrap(), "s1".parse().unwrap());
    let delete = Change::DeleteSubnet { zone, subnet, cascade: false };
    let facts = Circumstances::default();
    let stale = Precondition { revision: Some(1), ..Default::default() };
    let outcome = state.apply(delete.clone(), Source::Api, stale, &facts);
    assert!(matches!(outcome, Err(ChangeError::PreconditionFailed { .. })));
    let fresh = Precondition { revision: Some(2), ..Default::default() };
    state.apply(delete, Source::Api, fresh, &facts).unwrap();
}

#[test]
fn a_batch_swaps_addresses_and_is_all_or_nothing() {
    let mut state = state();
    put(&mut state, reservation("r1", "02:00:00:00:00:01", "10.77.0.50")).unwrap();
    put(&mut state, reservation("r2", "02:00:00:00:00:02", "10.77.0.51")).unwrap();
    let before = state.clone();
    let batch = |upsert| Change::Batch { zone: "z1".parse().unwrap(), upsert, delete: Vec::new() };
    let swapped = vec![
        reservation("r1", "02:00:00:00:00:01", "10.77.0.51"),
        reservation("r2", "02:00:00:00:00:02", "10.77.0.50"),
    ];
    let mut broken = swapped.clone();
    broken.push(reservation("r3", "02:00:00:00:00:03", "10.77.0.50"));
    let facts = Circumstances::default();
    assert_eq!(
        conflict(state.apply(batch(broken), Source::Api, Precondition::default(), &facts)),
        ConflictKind::Address
    );
    assert_eq!(state, before);
    state.apply(batch(swapped), Source::Api, Precondition::default(), &facts).unwrap();
    assert_eq!(state.generation, before.generation + 1);
}

#[test]
fn containers_are_removed_only_when_empty_or_on_purpose() {
    let mut state = state();
    put(&mut state, reservation("r1", "02:00:00:00:00:01", "10.77.0.50")).unwrap();
    let precondition = Precondition { revision: Some(1), ..Default::default() };
    let delete = |cascade| Change::DeleteZone { zone: "z1".parse().unwrap(), cascade };
    let facts = Circumstances::default();
    let outcome = state.apply(delete(false), Source::Api, precondition, &facts);
    assert!(matches!(outcome, Err(ChangeError::NotEmpty { .. })), "{outcome:?}");
    state.apply(delete(true), Source::Api, precondition, &facts).unwrap();
    assert!(state.zones.is_empty());
}

fn by(state: &mut DesiredState, source: Source, change: Change) -> Outcome {
    let revision = match &change {
        Change::PutZone(new) => state.zones.get(&new.id).map(|z| z.zone.meta.revision),
        Change::DeleteZone { zone, .. } => state.zones.get(zone).map(|z| z.zone.meta.revision),
        Change::PutSubnet { zone, subnet } => {
            let subnets = state.zones.get(zone).map(|z| &z.subnets);
            subnets.and_then(|s| s.get(&subnet.id)).map(|s| s.subnet.meta.revision)
        }
        Change::DeleteSubnet { zone, subnet, .. } => {
            let subnets = state.zones.get(zone).map(|z| &z.subnets);
            subnets.and_then(|s| s.get(subnet)).map(|s| s.subnet.meta.revision)
        }
        _ => None,
    };
    let precondition = Precondition { revision, ..Default::default() };
    state.apply(change, source, precondition, &Circumstances::default())
}

fn z1() -> ResourceId {
    "z1".parse().unwrap()
}

fn id(text: &str) -> ResourceId {
    text.parse().unwrap()
}

fn range(purpose: Purpose) -> Box<Range> {
    let content = RangeContent {
        start: Ipv4Addr::new(10, 77, 0, 100),
        end: Ipv4Addr::new(10, 77, 0, 110),
        purpose,
    };
    Box::new(Range::new(id("x"), content, Source::Api))
}

/// One option with a text.
fn put_set(name: &str, code: u8) -> Change {
    let content: OptionSetContent =
        whole(json!({"options": [{"code": code, "value": "x"}]})).unwrap();
    Change::PutOptionSet {
        zone: z1(),
        set: Box::new(OptionSet::new(id(name), content, Source::Api)),
    }
}

fn put_record(name: &str, kind: RecordType, values: &[&str]) -> Change {
    Change::PutRecord { zone: z1(), record: Box::new(record(name, kind, values)) }
}
