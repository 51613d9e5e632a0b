//! What an older program stored.

use super::*;

/// A file of the first program, with everything in it that it accepted and this one cannot serve.
fn first_file() -> serde_json::Value {
    let meta = json!({"revision": 7, "source": "api",
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"});
    let with_meta = |value: serde_json::Value| {
        let mut value = value;
        value.as_object_mut().unwrap().extend(meta.as_object().unwrap().clone());
        value
    };
    let reservation = |id: &str, last: u8, more: serde_json::Value| {
        let mut value = json!({"id": id, "mac": format!("02:00:00:00:00:{last:02x}"),
            "ipv4": format!("10.77.0.{last}"), "subnet": "s1", "hostname": format!("vm-{id}"),
            "aliases": [], "ipv6": null, "default_route": true, "lease_time": null,
            "options": [], "labels": {}});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with_meta(value)
    };
    let subnet = |id: &str, cidr: &str| {
        with_meta(json!({"id": id, "cidr": cidr, "gateway": null,
            "attachment": {"kind": "interface", "name": "br0"}, "dns_servers": null,
            "domain": null, "search_domains": null, "ntp_servers": [], "mtu": null,
            "lease_time": null, "options": [], "pod_id": null, "enabled": id != "s3",
            "labels": {}}))
    };
    let record = |name: &str, kind: &str, values: serde_json::Value| {
        with_meta(json!({"name": name, "type": kind, "values": values}))
    };
    json!({
        "generation": 41,
        "zones": {"z1": {
            "zone": with_meta(json!({"id": "z1", "name": null, "cloudstack_zone_id": null,
                "network_id": null, "domain": "cs.example", "dns_upstreams": [],
                "dns_servers": "self", "search_domains": [], "lease_time": null, "labels": {}})),
            "subnets": {
                "s1": {"subnet": subnet("s1", "10.77.0.0/24"), "ranges": {
                    "x": with_meta(json!({"id": "x", "start": "10.99.0.1", "end": "10.99.0.2",
                        "purpose": "reserved"}))}},
                "s2": {"subnet": subnet("s2", "10.77.0.0/25"), "ranges": {}},
                "s3": {"subnet": subnet("s3", "10.78.0.0/24"), "ranges": {}},
            },
            "reservations": {
                "good": reservation("good", 50, json!({})),
                "option": reservation("option", 51, json!({"options": [
                    {"code": 60, "value": "s"}, {"code": 66, "value": "x"}]})),
                "twice": reservation("twice", 52, json!({"ipv4": "10.77.0.50"})),
                "word": reservation("word", 53, json!({"hostname": "a,b"})),
                "mac": reservation("mac", 54, json!({"mac": "none"})),
                "nowhere": reservation("nowhere", 55, json!({"subnet": "gone"})),
            },
            "records": [
                record("self", "CNAME", json!(["self.cs.example"])),
                record("gate", "A", json!(["10.77.0.1"])),
                record("gate", "CNAME", json!(["vm-good.cs.example"])),
                record("bad", "A", json!(["x"])),
            ],
        }},
    })
}

/// A state as the first program stored it, with everything in it that it accepted and this one
/// cannot serve.
#[test]
fn what_cannot_be_served_is_kept_aside_and_stops_nothing_else() {
    let stored: Stored = serde_json::from_value(first_file()).unwrap();
    let state = stored.admit();
    let zone = &state.zones[&z1()];
    let ids = |keys: Vec<&ResourceId>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ids(zone.reservations.keys().collect()), ["good", "option", "word"]);
    assert_eq!(zone.reservations[&id("option")].options.len(), 1, "the other option is served");
    assert_eq!(zone.reservations[&id("word")].hostname, None);
    assert!(!zone.subnets[&id("s3")].subnet.is_enabled(), "the old word for it is understood");
    let places: Vec<&str> = state.quarantine.iter().map(|kept| kept.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "zones/z1/records/bad A",
            "zones/z1/reservations/mac",
            "zones/z1/reservations/nowhere",
            "zones/z1/reservations/option/fields/options/0",
            "zones/z1/reservations/twice",
            "zones/z1/reservations/word/fields/hostname",
            "zones/z1/subnets/s1/ranges/x",
            "zones/z1/subnets/s2",
        ],
        "{:#?}",
        state.quarantine
    );
    // These are taken as they are, and not given to dnsmasq.
    let withheld: Vec<String> =
        state.standings().withheld.keys().map(|(_, name, kind)| format!("{name} {kind}")).collect();
    assert_eq!(withheld, ["gate CNAME", "self CNAME"]);
    // Nothing of it is lost in the next file, and the next start comes to the same.
    let again: Stored = serde_json::from_value(serde_json::to_value(&state).unwrap()).unwrap();
    assert_eq!(again.admit(), state);
}

#[test]
fn a_put_or_a_delete_settles_what_was_kept_aside() {
    let aside = |place: &str| Quarantined {
        place: place.to_owned(),
        reason: "is not valid".to_owned(),
        content: json!({"id": "r1"}),
    };
    let mut state = state();
    state.quarantine = vec![
        aside("zones/z1/reservations/r1"),
        aside("zones/z1/reservations/r10"),
        aside("zones/z1/fields/name"),
        aside("zones/gone/reservations/r1"),
    ];
    let new = reservation("r1", "02:00:00:00:00:01", "10.77.0.50");
    put(&mut state, new).unwrap();
    assert_eq!(state.quarantine.len(), 3);
    let delete = |zone: &str, reservation: &str| Change::DeleteReservation {
        zone: id(zone),
        reservation: id(reservation),
    };
    assert!(by(&mut state, Source::Api, delete("z1", "r10")).unwrap().changed);
    assert!(by(&mut state, Source::Api, delete("gone", "r1")).unwrap().changed);
    let outcome = by(&mut state, Source::Api, delete("gone", "r1"));
    assert!(matches!(outcome, Err(ChangeError::NotFound { .. })), "{outcome:?}");
    by(&mut state, Source::Api, Change::DeleteZone { zone: z1(), cascade: true }).unwrap();
    assert_eq!(state.quarantine, []);
}

/// Whatever JSON stands in the file, reading it ends with a state.
#[test]
fn any_stored_resource_is_taken_or_kept_aside() {
    for junk in [json!(null), json!(1), json!([]), json!({}), json!({"id": "a b"})] {
        let file = json!({"generation": 1, "zones": {"z1": {"zone": junk, "subnets": {
            "s1": {"subnet": junk, "ranges": {"x": junk}}},
            "reservations": {"r1": junk}, "records": [junk]}}});
        let state = serde_json::from_value::<Stored>(file).unwrap().admit();
        assert_eq!((state.zones.len(), state.quarantine.len()), (0, 5), "{junk}");
    }
}
