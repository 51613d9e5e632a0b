//! Who may change and remove what.

use super::*;

const ALL: [&str; 6] = ["zone", "option set", "subnet", "range", "reservation", "record"];

/// A zone with one of each; `foreign` is the other's.
fn built(source: Source, foreign: &str) -> DesiredState {
    let other = |source| match source {
        Source::Api => Source::Cloudstack,
        Source::Cloudstack => Source::Api,
    };
    let mut state = DesiredState::default();
    for kind in ALL {
        let owner = if kind == foreign { other(source) } else { source };
        let change = match kind {
            "zone" => Change::PutZone(Box::new(zone("z1"))),
            "option set" => put_set("pxe", 66),
            "subnet" => {
                Change::PutSubnet { zone: z1(), subnet: Box::new(subnet("s1", "10.77.0.0/24")) }
            }
            "range" => {
                Change::PutRange { zone: z1(), subnet: id("s1"), range: range(Purpose::Reserved) }
            }
            "reservation" => Change::PutReservation {
                zone: z1(),
                reservation: Box::new(reservation("r1", "02:00:00:00:00:01", "10.77.0.50")),
            },
            _ => put_record("gate", RecordType::A, &["10.77.0.1"]),
        };
        by(&mut state, owner, change).unwrap();
    }
    state
}

/// Every verb, and the resources it would change or remove.
fn verbs() -> Vec<(&'static str, Change, &'static [&'static str])> {
    let mut renamed = zone("z1");
    renamed.domain = "other.example".parse().unwrap();
    let mut smaller = subnet("s1", "10.77.0.0/25");
    smaller.mtu = Some(1400.try_into().unwrap());
    let moved = || reservation("r1", "02:00:00:00:00:02", "10.77.0.50");
    let batch = |upsert, delete| Change::Batch { zone: z1(), upsert, delete };
    vec![
        ("put zone", Change::PutZone(Box::new(renamed)), &["zone"]),
        ("put option set", put_set("pxe", 67), &["option set"]),
        (
            "delete option set",
            Change::DeleteOptionSet { zone: z1(), set: id("pxe") },
            &["option set"],
        ),
        ("delete zone", Change::DeleteZone { zone: z1(), cascade: true }, &ALL),
        ("put subnet", Change::PutSubnet { zone: z1(), subnet: Box::new(smaller) }, &["subnet"]),
        (
            "delete subnet",
            Change::DeleteSubnet { zone: z1(), subnet: id("s1"), cascade: true },
            &["subnet", "range", "reservation"],
        ),
        (
            "put range",
            Change::PutRange { zone: z1(), subnet: id("s1"), range: range(Purpose::Excluded) },
            &["range"],
        ),
        (
            "delete range",
            Change::DeleteRange { zone: z1(), subnet: id("s1"), range: id("x") },
            &["range"],
        ),
        (
            "put reservation",
            Change::PutReservation { zone: z1(), reservation: Box::new(moved()) },
            &["reservation"],
        ),
        (
            "delete reservation",
            Change::DeleteReservation { zone: z1(), reservation: id("r1") },
            &["reservation"],
        ),
        ("batch put", batch(vec![moved()], Vec::new()), &["reservation"]),
        ("batch delete", batch(Vec::new(), vec![id("r1")]), &["reservation"]),
        ("batch exchange", batch(vec![moved()], vec![id("r1")]), &["reservation"]),
        ("put record", put_record("gate", RecordType::A, &["10.77.0.2"]), &["record"]),
        (
            "delete record",
            Change::DeleteRecord { zone: z1(), name: "gate".parse().unwrap(), kind: RecordType::A },
            &["record"],
        ),
    ]
}

/// Every verb on every resource, by its owner and by the other one. `whose` are the resources that
/// another owner has; everything else belongs to `source`.
#[test]
fn only_its_owner_changes_or_removes_a_resource() {
    for source in [Source::Api, Source::Cloudstack] {
        for (verb, change, touched) in &verbs() {
            for foreign in ALL.into_iter().chain(["nothing"]) {
                let mut state = built(source, foreign);
                let before = state.clone();
                let outcome = by(&mut state, source, change.clone());
                if touched.contains(&foreign) {
                    let Err(error @ ChangeError::Owned { .. }) = outcome else {
                        panic!("{verb} by {source}, {foreign} foreign: {outcome:?}");
                    };
                    let text = error.to_string();
                    assert!(text.starts_with(foreign) && text.contains(" belongs to "), "{text}");
                    assert_eq!(state, before, "{verb}: a refused change touches nothing");
                } else {
                    assert!(outcome.is_ok(), "{verb} by {source}, {foreign} foreign: {outcome:?}");
                }
            }
        }
    }
}
