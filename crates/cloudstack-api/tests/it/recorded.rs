//! Every recorded document is read. The XML ones as they came; the JSON ones rewritten as the XML
//! that the server writes for the same answer (a test proves the rewriting on what was recorded
//! in both forms).

use std::fmt::Write as _;
use std::path::PathBuf;

use cloudstack_api::commands::*;
use cloudstack_api::model::VmState;
use cloudstack_api::paging::Page;
use cloudstack_api::{Command, Refusal, RefusalKind, answer};
use serde_json::Value;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(directory().join(name)).unwrap()
}

fn names(extension: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.ends_with(extension))
        .collect();
    names.sort();
    names
}

/// An element for each member, repeated for a list; a list that is empty is nothing, a map that is
/// empty is the text of an empty map.
fn element(name: &str, value: &Value, out: &mut String) {
    let text = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    match value {
        Value::Array(items) => items.iter().for_each(|item| element(name, item, out)),
        Value::Object(members) if name == "details" || name == "resourcedetails" => {
            let pairs: Vec<String> =
                members.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
            write!(out, "<{name}>{{{}}}</{name}>", text(&pairs.join(", "))).unwrap();
        }
        Value::Object(members) => {
            write!(out, "<{name}>").unwrap();
            members.iter().for_each(|(key, value)| element(key, value, out));
            write!(out, "</{name}>").unwrap();
        }
        value => write!(out, "<{name}>{}</{name}>", text(&plain(value))).unwrap(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The XML form of a recorded JSON document, and of one recorded as XML under that name.
fn xml(name: &str) -> Vec<u8> {
    let body = vector(name);
    if body.starts_with(b"<?xml") {
        return body;
    }
    let document: Value = serde_json::from_slice(&body).unwrap();
    let mut text = r#"<?xml version="1.0" encoding="UTF-8"?>"#.to_owned();
    for (key, value) in document.as_object().unwrap() {
        let mut value = value.clone();
        // Written in JSON only.
        value.as_object_mut().unwrap().remove("uuidList");
        element(key, &value, &mut text);
    }
    text.into_bytes()
}

/// Reads a document as the answer to the command it was recorded for; says what it holds.
fn outcome(command: &str, body: &[u8]) -> Result<(u64, usize), Refusal> {
    fn list<C: ListCommand>(body: &[u8]) -> Result<(u64, usize), Refusal> {
        let answer =
            answer::read::<C>(body).unwrap_or_else(|error| panic!("{}", bedrock::chain(&error)));
        answer.map(|Page { count, items }| (count, items.len()))
    }
    match command {
        "listZones" => list::<ListZones>(body),
        "listPods" => list::<ListPods>(body),
        "listNetworks" => list::<ListNetworks>(body),
        "listVlanIpRanges" => list::<ListVlanIpRanges>(body),
        "listVirtualMachines" => list::<ListVirtualMachines>(body),
        "listRouters" => list::<ListRouters>(body),
        "listNics" => list::<ListNics>(body),
        other => panic!("no list {other}"),
    }
}

/// What was asked when `name` was recorded, and the status of the answer.
fn request(name: &str) -> (String, u16) {
    let text = String::from_utf8(vector(&name.replace(".json", ".http"))).unwrap();
    let mut lines = text.lines();
    let query: Value =
        serde_json::from_str(lines.next().unwrap().trim_start_matches("GET ")).unwrap();
    let status = lines.next().unwrap().trim_start_matches("status ").parse().unwrap();
    (query["command"].as_str().unwrap().to_owned(), status)
}

/// Not calls of this client.
const FOREIGN: &[&str] = &["listEvents", "getVMPassword", "getVirtualMachineUserData"];

#[test]
fn every_recorded_answer_is_read_and_every_refusal_is_one() {
    let (mut answers, mut refusals) = (0, 0);
    for name in names(".json") {
        let (command, status) = request(&name);
        if FOREIGN.contains(&command.as_str()) || !command.starts_with("list") {
            continue;
        }
        let body = xml(&name);
        if status != 200 {
            // An unknown command is refused under a name of no command.
            let known = !command.contains("NoSuch");
            let read = outcome(if known { &command } else { "listZones" }, &body);
            let refusal = read.expect_err(&name);
            assert_eq!(refusal.code, status, "{name}");
            assert!(!refusal.text.is_empty(), "{name}");
            refusals += 1;
            continue;
        }
        let (count, items) = outcome(&command, &body).expect(&name);
        assert!(count >= items as u64, "{name}: {count} {items}");
        answers += 1;
    }
    assert!(answers >= 60 && refusals >= 12, "{answers} answers, {refusals} refusals");
}

#[test]
fn documents_recorded_as_xml_are_read_whole() {
    let check = |name: &str, command: &str, expected: Result<(u64, usize), u16>| {
        let read = outcome(command, &vector(name)).map_err(|refusal| refusal.code);
        assert_eq!(read, expected, "{name}");
    };
    check("listZones.xml", "listZones", Ok((14, 14)));
    check("listPods.xml", "listPods", Ok((15, 15)));
    check("listNetworks.xml", "listNetworks", Ok((18, 18)));
    check("listVlanIpRanges.xml", "listVlanIpRanges", Ok((15, 15)));
    check("listVirtualMachines.xml", "listVirtualMachines", Ok((14, 14)));
    check("listVirtualMachines-Starting.xml", "listVirtualMachines", Ok((0, 0)));
    check("listRouters.xml", "listRouters", Ok((0, 0)));
    check("listVirtualMachines-error.xml", "listVirtualMachines", Err(431));
    assert_eq!(names(".xml").len(), 8);
}

#[test]
fn the_rewriting_gives_what_the_server_writes() {
    // One zone recorded in both forms.
    let both = |body: &[u8]| answer::read::<ListZones>(body).unwrap().unwrap().items;
    let recorded = both(&vector("listZones.xml"));
    let rewritten = both(&xml("listZones.json"));
    for zone in rewritten {
        let mut twin = recorded.iter().find(|other| other.id == zone.id).unwrap().clone();
        // Switched on between the two recordings.
        twin.allocation_state.clone_from(&zone.allocation_state);
        assert_eq!(twin, zone);
    }
}

fn machine(name: &str) -> Option<cloudstack_api::model::VirtualMachine> {
    let answer = answer::read::<ListVirtualMachines>(&xml(name)).unwrap().unwrap();
    assert!(answer.items.len() <= 1, "{name}");
    answer.items.into_iter().next()
}

#[test]
fn the_recorded_life_of_a_machine() {
    let states = [
        ("life-1-running.json", VmState::Running),
        ("life-3-stopped.json", VmState::Stopped),
        ("life-6-started.json", VmState::Running),
        ("life-8-destroyed.json", VmState::Destroyed),
        ("life-9-recovered.json", VmState::Stopped),
    ];
    let first = machine("life-1-running.json").unwrap();
    let address = |name: &str| machine(name).unwrap().nics[0].ip_address.unwrap();
    for (name, state) in states {
        let machine = machine(name).unwrap();
        assert_eq!((machine.state, machine.id), (state, first.id), "{name}");
        assert_eq!(machine.nics[0].mac_address, first.nics[0].mac_address, "{name}");
    }
    assert_ne!(machine("life-4-renamed.json").unwrap().name, first.name);
    assert_ne!(address("life-5-newip.json"), address("life-4-renamed.json"));
    assert_eq!(machine("life-10-expunged.json"), None);
    let secondary = &machine("life-2-secondary.json").unwrap().nics[0];
    assert!(!secondary.secondary_ips.is_empty());
    let options = &secondary.extra_dhcp_options;
    assert!(
        options.iter().any(|option| option.code == 26 && option.value == "1400"),
        "{options:?}"
    );
}

#[test]
fn a_machine_that_was_never_started_has_no_address() {
    let machine = machine("listVirtualMachines-never-started.json").unwrap();
    let nic = &machine.nics[0];
    assert_eq!((&nic.mac_address, nic.ip_address, nic.gateway), (&None, None, None));
}

#[test]
fn a_page_behind_the_last_one_has_a_count_and_nothing_else() {
    let page = answer::read::<ListVirtualMachines>(&xml("listVirtualMachines-pagelast.json"));
    assert_eq!(page.unwrap().unwrap(), Page { count: 199, items: Vec::new() });
}

#[test]
fn who_provides_dhcp_is_told() {
    let networks = answer::read::<ListNetworks>(&xml("listNetworks-few.json")).unwrap().unwrap();
    assert_eq!(networks.items[0].providers_of("Dhcp"), ["ConfigDrive"]);
    let routed = answer::read::<ListNetworks>(&xml("listNetworks-dvr.json")).unwrap().unwrap();
    assert_eq!(routed.items[0].providers_of("Dhcp"), ["VirtualRouter"]);
}

#[test]
fn refusals_are_told_apart() {
    let check = |name: &str, expected: RefusalKind| {
        let refusal = answer::read::<ListVirtualMachines>(&xml(name)).unwrap().unwrap_err();
        assert_eq!(refusal.kind, expected, "{name}");
    };
    check("error-431-page.json", RefusalKind::Parameter);
    check("error-denied-command.json", RefusalKind::NotAllowed);
    check("error-432-command.json", RefusalKind::Unauthorized);
}

#[test]
fn an_answer_to_something_else_or_a_cut_one_is_never_an_empty_list() {
    let whole = vector("listVirtualMachines.xml");
    assert!(answer::read::<ListZones>(&whole).is_err());
    for end in (0..whole.len()).step_by(997) {
        assert!(answer::read::<ListVirtualMachines>(&whole[..end]).is_err(), "cut at {end}");
    }
    let page = b"<html><head><title>Error 503</title></head><body/></html>";
    assert!(answer::read::<ListVirtualMachines>(page).is_err());
    assert_eq!(ListVirtualMachines::NAME, "listVirtualMachines");
}
