//! Options that subnets and reservations share.

use super::*;

fn set(name: &str, body: serde_json::Value) -> Change {
    let content: OptionSetContent = whole(body).unwrap();
    let set = Box::new(OptionSet::new(id(name), content, Source::Api));
    Change::PutOptionSet { zone: z1(), set }
}

fn api(state: &mut DesiredState, change: Change) -> Outcome {
    by(state, Source::Api, change)
}

fn naming(sets: &[&str]) -> Reservation {
    let mut kept = reservation("r1", "02:00:00:00:00:01", "10.77.0.50");
    kept.option_sets = sets.iter().map(|set| id(set)).collect();
    kept
}

/// Codes with the texts that a client of the reservation or subnet is sent.
fn texts(options: &[&dhcp_api::option::DhcpOption]) -> Vec<(u8, String)> {
    let text = |option: &dhcp_api::option::DhcpOption| {
        serde_json::to_value(option).unwrap()["value"].as_str().unwrap().to_owned()
    };
    options.iter().map(|option| (option.code(), text(option))).collect()
}

#[test]
fn what_is_nearer_goes_before_and_nothing_is_sent_twice() {
    let mut state = state();
    let option = |code: u8, text: &str| json!({"code": code, "value": text});
    let a = json!({"options": [option(66, "a"), option(67, "a"), option(17, "a")]});
    let b = json!({"options": [option(17, "b"), option(114, "b")]});
    let c = json!({"options": [option(114, "c"), option(40, "c")], "subnets": ["s1", "later"]});
    for (name, body) in [("a", a), ("b", b), ("c", c)] {
        api(&mut state, set(name, body)).unwrap();
    }
    let mut kept = naming(&["b", "a"]);
    kept.options = whole(json!([option(67, "own")])).unwrap();
    put(&mut state, kept).unwrap();
    let zone = &state.zones[&z1()];
    let given = texts(&zone.options_of(&zone.reservations[&id("r1")]));
    let expected = [(67, "own"), (17, "b"), (114, "b"), (66, "a")];
    assert_eq!(given, expected.map(|(code, text)| (code, text.to_owned())));
    // The set itself says that it is for the subnet.
    let given = texts(&zone.options_of_subnet(&zone.subnets[&id("s1")].subnet));
    assert_eq!(given, [(114, "c".to_owned()), (40, "c".to_owned())]);
}

#[test]
fn a_field_of_the_subnet_goes_before_an_option_of_a_set() {
    let mut state = state();
    let body = json!({"options": [{"code": 26, "value": 1400}, {"code": 42, "value": ["10.0.0.9"]}],
        "subnets": ["s1"]});
    api(&mut state, set("net", body)).unwrap();
    let codes = |state: &DesiredState| -> Vec<u8> {
        let zone = &state.zones[&z1()];
        let options = zone.options_of_subnet(&zone.subnets[&id("s1")].subnet);
        options.iter().map(|option| option.code()).collect()
    };
    assert_eq!(codes(&state), [26, 42]);
    let mut changed = state.zones[&z1()].subnets[&id("s1")].subnet.clone();
    changed.mtu = Some(1500.try_into().unwrap());
    let revision = Some(changed.meta.revision);
    let change = Change::PutSubnet { zone: z1(), subnet: Box::new(changed) };
    let precondition = Precondition { revision, ..Precondition::default() };
    state.apply(change, Source::Api, precondition, &Circumstances::default()).unwrap();
    assert_eq!(codes(&state), [42]);
}

#[test]
fn a_set_that_is_named_stays_and_one_that_is_not_there_is_not_named() {
    let mut state = state();
    assert!(matches!(
        put(&mut state, naming(&["pxe"])),
        Err(ChangeError::Invalid { field: "option_sets", .. })
    ));
    api(&mut state, put_set("pxe", 66)).unwrap();
    put(&mut state, naming(&["pxe"])).unwrap();
    let delete = || Change::DeleteOptionSet { zone: z1(), set: id("pxe") };
    let refused = api(&mut state, delete()).unwrap_err();
    assert_eq!(refused.to_string(), "option set pxe is named by 1 reservations");
    put(&mut state, naming(&[])).unwrap();
    api(&mut state, delete()).unwrap();
    assert!(matches!(api(&mut state, delete()), Err(ChangeError::NotFound { .. })));
}

/// Of everybody who names a set, not only of the set itself.
#[test]
fn no_more_is_sent_than_fits() {
    let mut state = state();
    let long = "x".repeat(250);
    let body = |codes: &[u8]| {
        let option = |code: &u8| json!({"code": code, "value": long});
        json!({"options": codes.iter().map(option).collect::<Vec<_>>()})
    };
    api(&mut state, set("a", body(&[66, 67, 17]))).unwrap();
    api(&mut state, set("b", body(&[114]))).unwrap();
    put(&mut state, naming(&["a", "b"])).unwrap();
    let before = state.clone();
    let refused = api(&mut state, set("b", body(&[114, 40]))).unwrap_err();
    assert!(refused.to_string().contains("for reservation r1"), "{refused}");
    assert_eq!(state, before, "a refused change touches nothing");
    // The same option in both is one.
    api(&mut state, set("b", body(&[114, 66]))).unwrap();
}
