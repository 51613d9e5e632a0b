//! The sync's decisions against a server that is only a value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloudstack_api::commands::{
    ListNetworks, ListRouters, ListVirtualMachines, ListVlanIpRanges, ListZones,
};
use cloudstack_api::paging::Page;
use cloudstack_api::{ListCommand, Listing};
use demo_api::World;
use demo_api::answer::{Query, answer};
use dhcp_api::answer::AlarmKind;
use dhcp_api::resource::{ReservationContent, Source};
use dhcp_api::words::ResourceId;
use uuid::Uuid;

use super::machine::{
    Action, Call, Event, Failure, Found, Machine, Outcome, Request, Settings, Wake,
};
use crate::desired::{Change, Circumstances, DesiredState, Precondition};

const SECOND: Duration = Duration::from_secs(1);

/// A server, a state and the machine between them, on a clock of their own.
struct Scene {
    world: World,
    state: DesiredState,
    machine: Machine,
    now: Instant,
    /// How long every call takes.
    takes: Duration,
    /// Whether calls fail, and whether others would, too.
    failing: Option<bool>,
    calls: Vec<Call>,
    replies: Vec<(u64, Result<Outcome, String>)>,
}

fn page<C: ListCommand>(xml: &str) -> Page<C::Item> {
    cloudstack_api::answer::read::<C>(xml.as_bytes()).unwrap().unwrap()
}

fn ask(world: &World, call: &Call) -> Found {
    let all = |command: &str, more: &[(&str, String)]| {
        let mut query: Query = [("command".to_owned(), command.to_owned())].into();
        query.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        answer(world, &query).1
    };
    fn list<C: ListCommand>(xml: &str) -> Listing<C::Item> {
        Listing { items: page::<C>(xml).items, drifted: false }
    }
    let vms = |more: &[(&str, String)]| {
        let mut more = more.to_vec();
        more.push(("projectid", "-1".to_owned()));
        Found::Machines(page::<ListVirtualMachines>(&all("listVirtualMachines", &more)))
    };
    match call {
        Call::Zones => Found::Zones(list::<ListZones>(&all("listZones", &[]))),
        Call::Networks(_) => Found::Networks(list::<ListNetworks>(&all("listNetworks", &[]))),
        Call::Ranges(_) => {
            let ranges = list::<ListVlanIpRanges>(&all("listVlanIpRanges", &[]));
            Found::Ranges(ranges, vec![[10, 77, 0, 1].into()])
        }
        Call::Routers(_) => Found::Routers(list::<ListRouters>(&all("listRouters", &[]))),
        Call::Plain(_) => {
            Found::Machines(page::<ListVirtualMachines>(&all("listVirtualMachines", &[])))
        }
        Call::Machines(_, number) => {
            vms(&[("page", number.to_string()), ("pagesize", "500".to_owned())])
        }
        Call::Starting(_) => vms(&[("state", "Starting".to_owned())]),
        Call::Machine(_, id) => vms(&[("id", id.to_string())]),
    }
}

impl Scene {
    fn new(machines: usize) -> Self {
        let mut world = World::basic("z1");
        for number in 0..machines {
            world.deploy(&format!("web-{number}")).unwrap();
        }
        let settings = Settings {
            zone: "z1".to_owned(),
            networks: Vec::new(),
            domain: "cloud.internal".parse().unwrap(),
            interface: "br0".parse().unwrap(),
            full_interval: Duration::from_secs(60),
            starting_interval: SECOND,
            max_delete_percent: 20,
            seed: 7,
        };
        let now = Instant::now();
        Self {
            world,
            state: DesiredState::default(),
            machine: Machine::new(settings, BTreeMap::new(), now),
            now,
            takes: Duration::from_millis(10),
            failing: None,
            calls: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// A scene whose first listing has been taken over.
    fn synced(machines: usize) -> Self {
        let mut scene = Self::new(machines);
        scene.send(Event::Timer);
        assert_eq!(scene.stored().len(), machines);
        scene.calls.clear();
        scene
    }

    /// An event and everything that follows from it at once.
    fn send(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let actions = self.machine.step(event, self.now);
            let works = actions.iter().filter(|a| !matches!(a, Action::Reply(..))).count();
            assert!(works <= 1, "one thing at a time: {actions:?}");
            for action in actions {
                match action {
                    Action::Reply(id, outcome) => self.replies.push((id, outcome)),
                    Action::Call(call) => {
                        self.calls.push(call.clone());
                        self.now += self.takes;
                        let outcome = match self.failing {
                            Some(offline) => Err(Failure { text: "told to".to_owned(), offline }),
                            None => Ok(ask(&self.world, &call)),
                        };
                        next = Some(Event::Answered { call, outcome, took: self.takes });
                    }
                    Action::Store(change) => {
                        let applied = self.state.apply(
                            Change::Sync(change),
                            Source::Cloudstack,
                            Precondition::default(),
                            &Circumstances::default(),
                        );
                        let applied = applied.unwrap();
                        next = Some(Event::Stored(Ok((self.state.synced(), applied.notes))));
                    }
                }
            }
        }
    }

    /// Lets time pass, with every timer that is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.send(Event::Timer);
        }
        self.now = self.now.max(end);
    }

    fn ask(&mut self, force: bool, dry_run: bool) -> Result<Outcome, String> {
        let id = u64::try_from(self.replies.len()).unwrap();
        self.send(Event::Asked(Request { id, force, dry_run }));
        let (answered, outcome) = self.replies.last().unwrap().clone();
        assert_eq!(answered, id);
        outcome
    }

    fn stored(&self) -> BTreeMap<ResourceId, Arc<ReservationContent>> {
        self.state.synced()
    }

    fn count(&self, is_it: impl Fn(&Call) -> bool) -> usize {
        self.calls.iter().filter(|call| is_it(call)).count()
    }

    fn first_id(&self) -> String {
        self.world.machines[0]["id"].as_str().unwrap().to_owned()
    }

    fn has_note(&self, kind: AlarmKind) -> bool {
        self.machine.notes().any(|note| note.kind == kind)
    }
}

const fn is_full(call: &Call) -> bool {
    matches!(call, Call::Zones)
}

const fn is_fast(call: &Call) -> bool {
    matches!(call, Call::Starting(_))
}

#[test]
fn starting_machines_are_looked_at_every_second_and_everything_every_minute() {
    let mut scene = Scene::synced(3);
    scene.pass(300 * SECOND);
    let (fast, full) = (scene.count(is_fast), scene.count(is_full));
    assert!((280..=300).contains(&fast), "{fast}");
    assert!((4..=5).contains(&full), "{full}");
    let generation = scene.state.generation;
    scene.pass(300 * SECOND);
    assert_eq!(scene.state.generation, generation, "nothing changed, nothing is written");
}

#[test]
fn a_slow_server_is_asked_less_often() {
    let mut scene = Scene::synced(3);
    scene.takes = SECOND;
    scene.ask(false, false).unwrap();
    scene.calls.clear();
    scene.pass(600 * SECOND);
    let (fast, full) = (scene.count(is_fast), scene.count(is_full));
    // A listing takes six seconds: the next one comes after two minutes. Looks every five.
    assert!((80..=110).contains(&fast), "{fast}");
    assert!((3..=5).contains(&full), "{full}");
}

#[test]
fn a_machine_that_starts_is_taken_over_without_a_listing() {
    let mut scene = Scene::synced(1);
    let id = scene.world.deploy("new").unwrap();
    scene.world.set(&id, "state", "Starting");
    scene.pass(2 * SECOND);
    assert_eq!((scene.stored().len(), scene.count(is_full)), (2, 0));
}

#[test]
fn what_is_not_listed_any_more_goes_after_a_second_witness() {
    let mut scene = Scene::synced(3);
    let id = scene.first_id();
    scene.world.expunge(&id);
    // The listing lacks it, and so does the answer for its machine.
    scene.ask(false, false).unwrap();
    assert_eq!(scene.stored().len(), 2);
    assert_eq!(scene.count(|call| matches!(call, Call::Machine(..))), 1);
}

#[test]
fn a_destroyed_machine_keeps_its_address_and_an_expunging_one_loses_it() {
    let mut scene = Scene::synced(1);
    let id = scene.first_id();
    for state in ["Stopped", "Destroyed", "BackingUp", "Error"] {
        scene.world.set(&id, "state", state);
        scene.ask(false, false).unwrap();
        scene.pass(SECOND);
        assert_eq!(scene.stored().len(), 1, "{state}");
    }
    scene.world.set(&id, "state", "Expunging");
    scene.ask(false, false).unwrap();
    scene.pass(SECOND);
    assert_eq!(scene.stored().len(), 0);
}

#[test]
fn an_address_that_moves_to_another_machine_is_one_change() {
    let mut scene = Scene::synced(2);
    let id = scene.first_id();
    let address = scene.world.nic(&id).unwrap()["ipaddress"].as_str().unwrap().to_owned();
    scene.world.expunge(&id);
    scene.world.deploy_with("heir", "1e:00:aa:00:00:99", &address);
    let generation = scene.state.generation;
    scene.ask(false, false).unwrap();
    assert_eq!(scene.state.generation, generation + 1);
    let stored = scene.stored();
    assert_eq!(stored.len(), 2);
    let heir = stored.values().find(|r| r.ipv4.to_string() == address).unwrap();
    assert_eq!(heir.mac.to_string(), "1e:00:aa:00:00:99");
}

#[test]
fn addresses_that_two_machines_exchange_are_exchanged() {
    let mut scene = Scene::synced(2);
    let ids: Vec<String> =
        scene.world.machines.iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect();
    let before: Vec<_> = scene.stored().into_values().map(|r| (r.mac, r.ipv4)).collect();
    let address = |scene: &mut Scene, id: &str| {
        scene.world.nic(id).unwrap()["ipaddress"].as_str().unwrap().to_owned()
    };
    let (first, second) = (address(&mut scene, &ids[0]), address(&mut scene, &ids[1]));
    scene.world.readdress(&ids[0], &second);
    scene.world.readdress(&ids[1], &first);
    scene.ask(false, false).unwrap();
    let after: BTreeMap<_, _> = scene.stored().into_values().map(|r| (r.mac, r.ipv4)).collect();
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|(mac, ipv4)| after[mac] != *ipv4));
}

#[test]
fn a_listing_that_lacks_too_much_removes_nothing_until_it_is_forced() {
    let mut scene = Scene::synced(20);
    let all = std::mem::take(&mut scene.world.machines);
    for _ in 0..3 {
        let outcome = scene.ask(false, false).unwrap();
        assert_eq!((outcome.held, outcome.delete.len()), (20, 0));
    }
    assert_eq!((scene.stored().len(), scene.machine.held()), (20, 20));
    // They come back by themselves.
    scene.world.machines = all;
    scene.ask(false, false).unwrap();
    assert_eq!(scene.machine.held(), 0);
    scene.world.machines.clear();
    let rehearsal = scene.ask(true, true).unwrap();
    assert_eq!((rehearsal.delete.len(), scene.stored().len()), (20, 20));
    scene.ask(true, false).unwrap();
    assert_eq!(scene.stored().len(), 0);
}

#[test]
fn errors_back_off_to_a_minute_and_change_nothing() {
    for offline in [true, false] {
        let mut scene = Scene::synced(3);
        scene.failing = Some(offline);
        scene.pass(3600 * SECOND);
        assert_eq!(scene.stored().len(), 3);
        let calls = scene.calls.len();
        assert!((55..=160).contains(&calls), "{calls} calls in an hour, offline: {offline}");
        assert_eq!(scene.machine.error(), Some("told to"));
        scene.failing = None;
        scene.world.deploy("new").unwrap();
        scene.pass(70 * SECOND);
        assert_eq!((scene.stored().len(), scene.machine.error()), (4, None));
    }
}

#[test]
fn a_wake_up_looks_at_one_machine_until_it_has_an_address() {
    let mut scene = Scene::synced(1);
    let id = scene.world.deploy("late").unwrap();
    let nic = scene.world.nic(&id).unwrap().as_object_mut().unwrap();
    let (mac, ip) = (nic.remove("macaddress").unwrap(), nic.remove("ipaddress").unwrap());
    let uuid: Uuid = id.parse().unwrap();
    scene.send(Event::Woken(Wake::Starting(uuid)));
    scene.pass(10 * SECOND);
    let looks = scene.count(|call| matches!(call, Call::Machine(..)));
    assert!((15..=21).contains(&looks), "{looks}");
    let nic = scene.world.nic(&id).unwrap().as_object_mut().unwrap();
    nic.extend([("macaddress".to_owned(), mac), ("ipaddress".to_owned(), ip)]);
    scene.calls.clear();
    scene.pass(10 * SECOND);
    assert_eq!(scene.stored().len(), 2);
    assert_eq!(scene.count(|call| matches!(call, Call::Machine(..))), 1, "then no more");
    // One that never gets an address is given up after a minute.
    scene.send(Event::Woken(Wake::Starting(Uuid::from_u128(1))));
    scene.pass(300 * SECOND);
    assert!(scene.count(|call| matches!(call, Call::Machine(..))) < 130);
}

#[test]
fn an_event_before_its_change_is_looked_at_twice() {
    let mut scene = Scene::synced(1);
    let id: Uuid = scene.first_id().parse().unwrap();
    scene.send(Event::Woken(Wake::Soon(Some(id))));
    scene.pass(15 * SECOND);
    assert_eq!(scene.count(|call| matches!(call, Call::Machine(..))), 2);
    scene.send(Event::Woken(Wake::Soon(None)));
    scene.pass(15 * SECOND);
    assert_eq!(scene.count(is_full), 2);
}

#[test]
fn a_storm_of_wake_ups_is_a_few_listings() {
    let mut scene = Scene::synced(1);
    for _ in 0..600 {
        scene.send(Event::Woken(Wake::Anything));
        scene.pass(Duration::from_millis(50));
    }
    let full = scene.count(is_full);
    assert!((4..=7).contains(&full), "{full} in 30 s");
}

#[test]
fn somebody_elses_server_in_the_network_disables_its_subnets() {
    let mut scene = Scene::synced(1);
    let subnet = |scene: &Scene| {
        let zone = scene.state.zones.values().next().unwrap();
        zone.subnets.values().next().unwrap().subnet.is_enabled()
    };
    assert!(subnet(&scene));
    let network = scene.world.network_id().to_owned();
    let zone = scene.world.zone_id().to_owned();
    scene.world.routers.push(serde_json::json!({
        "id": Uuid::from_u128(9).to_string(), "name": "r-9-VM", "state": "Running",
        "role": "VIRTUAL_ROUTER", "zoneid": zone, "guestnetworkid": network,
    }));
    scene.ask(false, false).unwrap();
    assert!(!subnet(&scene) && scene.has_note(AlarmKind::VrPresent));
    scene.world.routers[0]["state"] = "Stopped".into();
    scene.ask(false, false).unwrap();
    assert!(subnet(&scene) && !scene.has_note(AlarmKind::VrPresent));
    scene.world.networks[0]["service"][0]["provider"][0]["name"] = "NetworkExtension".into();
    scene.ask(false, false).unwrap();
    assert!(!subnet(&scene) && scene.has_note(AlarmKind::VrPresent));
}

#[test]
fn what_two_nics_claim_and_what_lies_outside_is_nobodys() {
    let mut scene = Scene::synced(2);
    let before = scene.stored();
    let ids: Vec<String> =
        scene.world.machines.iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect();
    let address = scene.world.nic(&ids[0]).unwrap()["ipaddress"].as_str().unwrap().to_owned();
    scene.world.readdress(&ids[1], &address);
    scene.ask(false, false).unwrap();
    assert_eq!(scene.stored(), before, "each keeps what it had");
    assert!(scene.has_note(AlarmKind::SyncConflict));
    for bad in ["10.99.0.5", "10.77.0.254", "10.77.0.5"] {
        scene.world.readdress(&ids[1], bad);
        scene.ask(false, false).unwrap();
        assert_eq!(scene.stored(), before, "{bad}");
        assert!(scene.has_note(AlarmKind::SyncConflict), "{bad}");
    }
    for bad in ["ff:ff:ff:ff:ff:ff", "01:00:00:00:00:01", "1e:00", "1e:00:00:00:00:01,set:x"] {
        scene.world.nic(&ids[1]).unwrap()["macaddress"] = bad.into();
        scene.ask(false, false).unwrap();
        assert_eq!(scene.stored(), before, "{bad}");
    }
}

#[test]
fn a_user_who_does_not_see_everything_removes_nothing() {
    let mut scene = Scene::synced(3);
    for machine in &mut scene.world.machines {
        machine.as_object_mut().unwrap().retain(|k, _| k != "instancename" && k != "hostname");
    }
    let id = scene.first_id();
    scene.world.expunge(&id);
    for _ in 0..3 {
        assert!(!scene.ask(false, false).unwrap().complete);
    }
    assert_eq!(scene.stored().len(), 3);
    assert!(scene.has_note(AlarmKind::SyncRole));
}

#[test]
fn texts_of_tenants_change_nobodys_reservation() {
    let mut scene = Scene::synced(2);
    let before = scene.stored();
    let id = scene.first_id();
    let name = "x</name><nic><id>1</id></nic>,10.77.0.21\n\"'&amp;";
    scene.world.set(&id, "name", name);
    scene.world.nic(&id).unwrap()["extradhcpoption"] = serde_json::json!([
        {"extradhcpoptioncode": 66, "extradhcpvalue": "10.77.0.3"},
        {"extradhcpoptioncode": 42, "extradhcpvalue": "evil\ndhcp-range=x"},
        {"extradhcpoptioncode": 3, "extradhcpvalue": "6.6.6.6"},
        {"extradhcpoptioncode": 66, "extradhcpvalue": "again"},
    ]);
    scene.ask(false, false).unwrap();
    let after = scene.stored();
    let changed: Vec<_> = after.iter().filter(|(id, r)| before[*id] != **r).collect();
    assert_eq!((after.len(), changed.len()), (2, 1));
    let (_, changed) = changed[0];
    assert_eq!(changed.options.len(), 1, "{changed:?}");
    let name = changed.hostname.as_ref().unwrap().as_str();
    assert!(name.starts_with("x--name--nic"), "{name}");
    assert!(scene.has_note(AlarmKind::OptionDropped));
    assert!(scene.has_note(AlarmKind::HostnameChanged));
}

#[test]
fn networks_are_found_by_id_and_by_a_name_that_is_theirs_alone() {
    let check = |networks: &[&str], twice: bool, expected: Result<usize, &str>| {
        let mut scene = Scene::new(1);
        if twice {
            let mut other = scene.world.networks[0].clone();
            other["id"] = Uuid::from_u128(5).to_string().into();
            scene.world.networks.push(other);
        }
        let id = scene.world.network_id().to_owned();
        let networks =
            networks.iter().map(|text| if *text == "ID" { id.clone() } else { (*text).to_owned() });
        let networks: Vec<String> = networks.collect();
        let mut settings_scene = Scene::new(0);
        std::mem::swap(&mut settings_scene.world, &mut scene.world);
        settings_scene.machine.set_networks(networks);
        settings_scene.send(Event::Timer);
        match expected {
            Ok(count) => assert_eq!(settings_scene.stored().len(), count),
            Err(text) => {
                let error = settings_scene.machine.error().unwrap();
                assert!(error.contains(text), "{error}");
            }
        }
    };
    check(&["ID"], true, Ok(1));
    check(&["guest"], false, Ok(1));
    check(&["guest"], true, Err("several networks are called"));
    check(&["nothing"], false, Err("no shared guest network"));
}
