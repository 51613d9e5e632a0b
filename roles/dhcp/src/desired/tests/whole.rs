//! Everything of the API as one change.

use super::*;
use dhcp_api::read::Place;

fn zone_of(name: &str, subnets: Vec<Subnet>, reservations: Vec<Reservation>) -> WholeZone {
    let whole = |subnet| WholeSubnet { subnet, is_foreign: false, ranges: None };
    WholeZone {
        id: id(name),
        place: Place::root().member("zones").entry(0),
        zone: Some(zone(name).content.as_ref().clone()),
        option_sets: Vec::new(),
        subnets: subnets.into_iter().map(whole).collect(),
        reservations,
        records: Vec::new(),
    }
}

fn apply(state: &mut DesiredState, zones: Vec<WholeZone>) -> Outcome {
    let change = WholeChange { zones, every_zone: true, force: true };
    by(state, Source::Api, Change::Whole(Box::new(change)))
}

/// Subnets exchange their networks, reservations their addresses, and a zone takes over another's.
#[test]
fn what_is_replaced_makes_room_for_what_comes() {
    let mut state = DesiredState::default();
    let one = reservation("r1", "02:00:00:00:00:01", "10.77.0.50");
    let mut two = reservation("r2", "02:00:00:00:00:02", "10.78.0.50");
    two.subnet = id("s2");
    let subnets = |a, b| vec![subnet("s1", a), subnet("s2", b)];
    let (a, b) = ("10.77.0.0/24", "10.78.0.0/24");
    apply(&mut state, vec![zone_of("z1", subnets(a, b), vec![one.clone(), two.clone()])]).unwrap();
    let (mut new_one, mut new_two) = (one.clone(), two.clone());
    (new_one.ipv4, new_two.ipv4) = (two.ipv4, one.ipv4);
    let exchanged = vec![new_one, new_two];
    apply(&mut state, vec![zone_of("z1", subnets(b, a), exchanged.clone())]).unwrap();
    assert_eq!(state.zones[&z1()].reservations[&id("r1")].ipv4, two.ipv4);
    // The same once more changes nothing.
    let generation = state.generation;
    apply(&mut state, vec![zone_of("z1", subnets(b, a), exchanged.clone())]).unwrap();
    assert_eq!(state.generation, generation);
    // Another zone has it all, and the first is gone.
    apply(&mut state, vec![zone_of("z2", subnets(b, a), exchanged)]).unwrap();
    assert_eq!(state.zones.keys().map(ToString::to_string).collect::<Vec<_>>(), ["z2"]);
}

#[test]
fn every_fault_is_found_with_its_place_and_nothing_is_changed() {
    let mut state = state();
    let before = state.clone();
    let reserve = |id: &str, mac, ipv4| reservation(id, mac, ipv4);
    let mut unset = reserve("r5", "02:00:00:00:00:05", "10.77.0.55");
    unset.option_sets = vec![id("nothing")];
    let reservations = vec![
        reserve("r1", "02:00:00:00:00:01", "10.77.0.50"),
        reserve("r2", "02:00:00:00:00:02", "10.77.0.50"),
        reserve("r3", "02:00:00:00:00:01", "10.77.0.53"),
        reserve("r4", "02:00:00:00:00:04", "10.99.0.1"),
        unset,
        reserve("r6", "02:00:00:00:00:06", "10.77.0.56"),
    ];
    let mut zone = zone_of("z1", vec![subnet("s1", "10.77.0.0/24")], reservations);
    zone.subnets.push(WholeSubnet {
        subnet: subnet("s2", "10.77.0.0/25"),
        is_foreign: false,
        ranges: None,
    });
    zone.records = vec![
        record("vm-r6", RecordType::A, &["10.77.0.9"]),
        record("loop", RecordType::Cname, &["loop.cs.example"]),
    ];
    let Err(ChangeError::Several(faults)) = apply(&mut state, vec![zone]) else {
        panic!("there are faults");
    };
    let pointer = |(place, error): &(Place, ChangeError)| {
        let field = match error {
            ChangeError::Invalid { field, .. } | ChangeError::Conflict { field, .. } => *field,
            other => panic!("{other}"),
        };
        place.within(field).fault(serde_json::Value::Null, String::new(), String::new()).pointer
    };
    let pointers: Vec<String> = faults.iter().map(pointer).collect();
    let expected = [
        "/zones/0/subnets/1/cidr",
        "/zones/0/reservations/1/ipv4",
        "/zones/0/reservations/2/mac",
        "/zones/0/reservations/3/ipv4",
        "/zones/0/reservations/4/option_sets",
        "/zones/0/records/0/name",
        "/zones/0/records/1/values/0",
    ];
    assert_eq!(pointers, expected);
    assert_eq!(state, before, "a refused change touches nothing");
}

/// A zone of the management server's keeps what is its, and so does one with something of its in it.
#[test]
fn what_is_anothers_stays() {
    let mut state = DesiredState::default();
    by(&mut state, Source::Cloudstack, Change::PutZone(Box::new(zone("z1")))).unwrap();
    let net = Change::PutSubnet { zone: z1(), subnet: Box::new(subnet("s1", "10.77.0.0/24")) };
    by(&mut state, Source::Cloudstack, net).unwrap();
    let theirs = Change::PutReservation {
        zone: z1(),
        reservation: Box::new(reservation("vm", "02:00:00:00:00:01", "10.77.0.50")),
    };
    by(&mut state, Source::Cloudstack, theirs).unwrap();
    let ours = reservation("printer", "02:00:00:00:00:07", "10.77.0.7");
    let listed = |reservations| WholeZone { zone: None, ..zone_of("z1", Vec::new(), reservations) };
    apply(&mut state, vec![listed(vec![ours])]).unwrap();
    let names = |state: &DesiredState| -> Vec<String> {
        state.zones[&z1()].reservations.keys().map(ToString::to_string).collect()
    };
    assert_eq!(names(&state), ["printer", "vm"]);
    apply(&mut state, Vec::new()).unwrap();
    assert_eq!(names(&state), ["printer", "vm"], "a zone that is not listed is another's");
    apply(&mut state, vec![listed(Vec::new())]).unwrap();
    assert_eq!(names(&state), ["vm"]);
    // A zone of ours with a record of theirs cannot go.
    let mut state = built_with_record();
    let Err(ChangeError::Several(faults)) = apply(&mut state, Vec::new()) else {
        panic!("something of theirs is in it");
    };
    assert!(matches!(faults[0].1, ChangeError::Owned { what: "record", .. }), "{faults:?}");
}

fn built_with_record() -> DesiredState {
    let mut state = state();
    let gate = put_record("gate", RecordType::A, &["10.77.0.1"]);
    by(&mut state, Source::Cloudstack, gate).unwrap();
    state
}
