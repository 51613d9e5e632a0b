//! Records, and the names they share with reservations.

use super::*;

/// Each line: records that are there, one that is put, and whether it may come in.
#[test]
fn a_record_that_dnsmasq_would_refuse_or_hide_does_not_come_in() {
    use RecordType::{A, Aaaa, Cname, Ptr, Srv, Txt};
    type Line<'a> = (&'a str, RecordType, &'a str);
    let long = ["a".repeat(60), "b".repeat(59)].join(".");
    let check = |there: &[Line<'_>], put: Line<'_>, refused: Option<&str>| {
        let mut state = state();
        put_subnet(&mut state, "z1", "s2", "10.78.0.0/24").unwrap();
        super::put(&mut state, reservation("r1", "02:00:00:00:00:01", "10.77.0.50")).unwrap();
        let mut second = zone("z2");
        second.domain = "example".parse().unwrap();
        by(&mut state, Source::Api, Change::PutZone(Box::new(second))).unwrap();
        for (name, kind, value) in there {
            by(&mut state, Source::Api, put_record(name, *kind, &[value])).unwrap();
        }
        let before = state.clone();
        let outcome = by(&mut state, Source::Api, put_record(put.0, put.1, &[put.2]));
        match refused {
            None => assert!(outcome.is_ok(), "{put:?}: {outcome:?}"),
            Some(reason) => {
                let text = outcome.expect_err(&format!("{put:?}")).to_string();
                assert!(text.contains(reason), "{put:?}: {text}");
                assert_eq!(state, before);
            }
        }
    };
    let itself = "leads back to itself";
    check(&[], ("www", Cname, "www.cs.example"), Some(itself));
    check(&[("a", Cname, "b.cs.example")], ("b", Cname, "a.cs.example"), Some(itself));
    let chain = [("a", Cname, "b.cs.example"), ("b", Cname, "c.cs.example")];
    check(&chain, ("c", Cname, "a.cs.example"), Some("a.cs.example → b.cs.example"));
    check(&chain, ("c", Cname, "vm-r1.cs.example"), None);
    // A name stands for a CNAME or for something else, whichever comes first and in any case.
    let taken = "belongs to record";
    check(&[("www", A, "10.77.0.1")], ("www", Cname, "vm-r1.cs.example"), Some(taken));
    check(&[("www", Txt, "x")], ("WWW", Cname, "vm-r1.cs.example"), Some(taken));
    for (kind, value) in [(A, "10.77.0.1"), (Aaaa, "fd00::1"), (Txt, "x"), (Ptr, "a.example")] {
        check(&[("www", Cname, "vm-r1.cs.example")], ("www", kind, value), Some(taken));
    }
    check(&[("www", A, "10.77.0.1")], ("www", Txt, "x"), None);
    check(&[("_a._tcp", Srv, "0 0 0 x.example")], ("_a._tcp", Txt, "x"), None);
    check(&[], ("vm-r1", Cname, "gate.cs.example"), Some("belongs to reservation r1"));
    check(&[], ("VM-R1", A, "10.77.0.1"), Some("belongs to reservation r1"));
    // The reverse name of a reservation that has a name.
    let reverse = ("50.0.77.10.in-addr.arpa", Ptr, "x.example");
    check(&[], reverse, Some("belongs to reservation r1"));
    check(&[], ("51.0.77.10.in-addr.arpa", Ptr, "x.example"), None);
    // dnsmasq follows a CNAME only to names of its own.
    check(&[], ("ext", Cname, "www.example.org"), Some("lies in no domain"));
    check(&[], ("ext", Cname, "notcs.example.org"), Some("lies in no domain"));
    check(&[], ("later", Cname, "not-there-yet.cs.example"), None);
    check(&[], ("bare", Cname, "vm-r1"), None);
    check(&[], ("bare", Cname, "vm-r2"), Some("lies in no domain"));
    check(&[], (&long, A, "10.77.0.1"), None);
}

#[test]
fn a_reservation_does_not_take_the_name_of_a_record() {
    let mut state = state();
    let new = || reservation("r1", "02:00:00:00:00:01", "10.77.0.50");
    for (name, kind, value) in [
        ("vm-r1", RecordType::Cname, "x.cs.example"),
        ("vm-r1", RecordType::Txt, "x"),
        ("50.0.77.10.in-addr.arpa", RecordType::Ptr, "x.example"),
    ] {
        by(&mut state, Source::Api, put_record(name, kind, &[value])).unwrap();
        assert_eq!(conflict(put(&mut state, new())), ConflictKind::HostName, "{name} {kind}");
        let name = name.parse().unwrap();
        by(&mut state, Source::Api, Change::DeleteRecord { zone: z1(), name, kind }).unwrap();
    }
    put(&mut state, new()).unwrap();
}

/// Two zones of one domain share its names; so do a domain and one below it.
#[test]
fn a_full_name_belongs_to_one_zone() {
    for (domain, name) in [("cs.example", "www"), ("example", "www.cs")] {
        let mut state = state();
        let mut second = zone("z2");
        second.domain = domain.parse().unwrap();
        by(&mut state, Source::Api, Change::PutZone(Box::new(second))).unwrap();
        let cname = put_record("www", RecordType::Cname, &["gate.cs.example"]);
        by(&mut state, Source::Api, cname).unwrap();
        for (kind, value) in [(RecordType::Cname, "gate.cs.example"), (RecordType::Txt, "x")] {
            let record = Box::new(record(name, kind, &[value]));
            let change = Change::PutRecord { zone: id("z2"), record };
            let outcome = by(&mut state, Source::Api, change);
            assert_eq!(conflict(outcome), ConflictKind::HostName, "{domain} {kind}");
        }
    }
}

/// A zone that changes its domain moves all its names, records included.
#[test]
fn a_new_domain_is_checked_for_every_name() {
    let mut state = state();
    let mut second = zone("z2");
    second.domain = "other.example".parse().unwrap();
    by(&mut state, Source::Api, Change::PutZone(Box::new(second))).unwrap();
    let there = Box::new(record("www", RecordType::Txt, &["x"]));
    by(&mut state, Source::Api, Change::PutRecord { zone: id("z2"), record: there }).unwrap();
    let cname = put_record("www", RecordType::Cname, &["a.other.example"]);
    by(&mut state, Source::Api, cname).unwrap();
    let mut moved = zone("z1");
    moved.domain = "other.example".parse().unwrap();
    let outcome = by(&mut state, Source::Api, Change::PutZone(Box::new(moved.clone())));
    assert_eq!(conflict(outcome), ConflictKind::HostName);
    moved.domain =
        format!("{}.example", ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join("."))
            .parse()
            .unwrap();
    let long = ["d".repeat(60), "e".repeat(59)].join(".");
    by(&mut state, Source::Api, put_record(&long, RecordType::A, &["10.77.0.1"])).unwrap();
    let outcome = by(&mut state, Source::Api, Change::PutZone(Box::new(moved)));
    assert!(matches!(outcome, Err(ChangeError::Invalid { .. })), "{outcome:?}");
}

#[test]
fn an_option_does_not_replace_a_field_in_silence() {
    let mut state = state();
    for (code, value, field) in [
        (26, json!(1400), json!({"mtu": 1450})),
        (42, json!(["10.1.1.1"]), json!({"ntp_servers": ["10.1.1.2"]})),
        (119, json!(["a.example"]), json!({"search_domains": ["b.example"]})),
    ] {
        let mut body = json!({"cidr": "10.78.0.0/24", "options": [{"code": code, "value": value}]});
        let content: SubnetContent = whole(body.clone()).unwrap();
        let put = |state: &mut DesiredState, content| {
            let subnet = Box::new(Subnet::new(id("s2"), content, Source::Api));
            by(state, Source::Api, Change::PutSubnet { zone: z1(), subnet })
        };
        put(&mut state, content).unwrap();
        body.as_object_mut().unwrap().extend(field.as_object().unwrap().clone());
        let outcome = put(&mut state, whole(body).unwrap());
        assert!(matches!(outcome, Err(ChangeError::Invalid { field: "options", .. })), "{code}");
    }
}
