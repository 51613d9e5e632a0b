//! Scripted server, sync, real dnsmasq, real clients: every client has exactly what the server's
//! book says, at every step.

use std::collections::BTreeMap;

use demo_api::World;
use role::Host;

use crate::cloud::{BY_HAND, Cloud, LIFE, LIFE_MAC, recorded, recorded_world, reservations, sync};
use crate::harness::{Api, Running, eventually};
use crate::namespace::{on_a_wire, open_directory};

async fn pid(api: &Api) -> i64 {
    api.status().await["instances"][0]["pid"].as_i64().unwrap()
}

/// Waits until dnsmasq serves all that is stored.
async fn served(api: &Api) {
    eventually("everything is served", async || {
        let status = api.status().await;
        (status["dirty"] == false && status["instances"][0]["state"] == "serving").then_some(())
    })
    .await;
}

#[test]
fn the_recorded_life_of_a_machine_ends_in_the_right_lease_at_every_step() {
    on_a_wire(
        "lives::the_recorded_life_of_a_machine_ends_in_the_right_lease_at_every_step",
        async |wire| {
            let directory = open_directory();
            let cloud = Cloud::start(recorded_world()).await;
            let table = cloud.table(directory.path(), BY_HAND);
            let running = Running::start(directory.path(), &table, Host::system()).await;
            let api = &running.api;
            for (step, expected) in LIFE {
                cloud.api.with(|world| world.machines = recorded(&format!("{step}.json")));
                sync(api).await;
                if expected.is_none() {
                    eventually("the reservation goes", async || {
                        reservations(api, "z2").await.is_empty().then_some(())
                    })
                    .await;
                }
                served(api).await;
                let given = wire.client().lease(LIFE_MAC);
                assert_eq!(given.is_some(), expected.is_some(), "{step}");
                let (Some(given), Some((address, name))) = (given, expected) else { continue };
                assert_eq!((given.ip().as_str(), given.text(12).as_deref()), (address, Some(name)));
                assert_eq!(given.addresses(3), [std::net::Ipv4Addr::new(10, 77, 9, 1)], "{step}");
                assert_eq!(given.options[&26], 1400_u16.to_be_bytes(), "the NIC's own option");
                assert_eq!(wire.dig(&[&format!("{name}.z2.example"), "A"]), address);
                assert_eq!(wire.dig(&["-x", address]), format!("{name}.z2.example."));
            }
            // What the guest configures itself has a name, too.
            cloud.api.with(|world| world.machines = recorded("life-2-secondary.json"));
            sync(api).await;
            served(api).await;
            assert_eq!(wire.dig(&["lifea-10-77-9-173.z2.example", "A"]), "10.77.9.173");
            running.stop().await;
        },
    );
}

/// Machines come, go, move and change their names at random; afterwards every client holds what
/// the book says, and dnsmasq was never started anew.
#[test]
fn random_lives_of_many_machines_end_in_the_right_leases() {
    on_a_wire("lives::random_lives_of_many_machines_end_in_the_right_leases", async |wire| {
        let directory = open_directory();
        let mut world = World::basic("z1");
        for number in 0..20 {
            world.deploy(&format!("web-{number}")).unwrap();
        }
        let cloud = Cloud::start(world).await;
        let table = cloud.table(directory.path(), "starting_interval = \"100ms\"");
        let running = Running::start(directory.path(), &table, Host::system()).await;
        let api = &running.api;
        sync(api).await;
        served(api).await;
        let before = pid(api).await;
        let mut seed = 42_u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
        };
        for round in 0..15 {
            for _ in 0..3 {
                let (what, which) = (random(5), random(20));
                cloud.api.with(|world| {
                    let ids = world.machines.iter().map(|m| m["id"].as_str().unwrap().to_owned());
                    let ids: Vec<String> = ids.collect();
                    let id = &ids[which % ids.len()];
                    match what {
                        0 => world.expunge(id),
                        1 => drop(world.deploy(&format!("new-{round}-{which}"))),
                        2 => world.set(id, "name", format!("Renamed_{round}.{which}")),
                        3 => {
                            world.readdress(id, &format!("10.77.0.{}", 100 + round * 3 + which % 3))
                        }
                        _ => world.set(id, "state", "Stopped"),
                    }
                });
            }
            sync(api).await;
        }
        // Two machines may have got one address by hand: the book must be one that can be.
        cloud.api.with(|world| {
            let mut seen = BTreeMap::new();
            world
                .machines
                .retain(|m| seen.insert(m["nic"][0]["ipaddress"].to_string(), ()).is_none());
        });
        sync(api).await;
        let book: BTreeMap<String, String> = cloud.api.with(|world| {
            let nic = |m: &serde_json::Value, f: &str| m["nic"][0][f].as_str().unwrap().to_owned();
            world.machines.iter().map(|m| (nic(m, "macaddress"), nic(m, "ipaddress"))).collect()
        });
        eventually("the state is the book", async || {
            let stored = reservations(api, "z1").await;
            let stored: BTreeMap<_, _> = stored.into_iter().map(|(mac, ip, _)| (mac, ip)).collect();
            if stored == book {
                return Some(());
            }
            sync(api).await;
            None
        })
        .await;
        served(api).await;
        for (mac, address) in &book {
            let given = wire.client().lease(mac).unwrap_or_else(|| panic!("nothing for {mac}"));
            assert_eq!(given.ip(), *address, "{mac}");
        }
        assert_eq!(pid(api).await, before, "never started anew");
        assert_eq!(api.status().await["instances"][0]["restarts"], 0);
        let leases = api.get("/v1/zones/z1/leases?limit=1000").await.json();
        let conflicts =
            leases["items"].as_array().unwrap().iter().filter(|l| l["conflict"] == true);
        assert_eq!(conflicts.count(), 0);
        running.stop().await;
    });
}
