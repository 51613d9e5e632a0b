//! The sync against a server that misbehaves: nothing it says or does not say takes an address from
//! anybody.

use std::time::Duration;

use demo_api::{Fault, World};
use serde_json::{Value, json};

use crate::cloud::{BY_HAND, Cloud, alarms, reservations, sync};
use crate::harness::eventually;

fn world(machines: usize) -> World {
    let mut world = World::basic("z1");
    for number in 0..machines {
        world.deploy(&format!("web-{number}")).unwrap();
    }
    world
}

#[tokio::test]
async fn the_book_of_the_server_is_taken_over_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(world(3)).await;
    let running = cloud.role(directory.path(), "starting_interval = \"100ms\"").await;
    let api = &running.api;
    eventually("the first listing is taken over", async || {
        api.status().await["sync"]["last_success"].as_str().map(|_| ())
    })
    .await;
    let status = api.status().await["sync"].clone();
    assert_eq!((&status["enabled"], &status["reservations"]), (&json!(true), &json!(3)));
    let zone = api.get("/v1/zones/z1").await.expect(200).json();
    assert_eq!((&zone["source"], &zone["domain"]), (&json!("cloudstack"), &json!("cs.example")));
    let subnet = api.get("/v1/zones/z1/subnets/s-10-77-0-0-24").await.expect(200).json();
    assert_eq!((&subnet["gateway"], &subnet["mtu"]), (&json!("10.77.0.254"), &json!(1500)));
    assert_eq!(reservations(api, "z1").await.len(), 3);
    let generation = api.status().await["generation"].clone();
    let again = sync(api).await;
    assert_eq!((&again["upsert"], &again["complete"]), (&json!([]), &json!(true)), "{again}");
    assert_eq!(api.status().await["generation"], generation);
    // One that starts is seen without a listing.
    let id = cloud.api.with(|world| world.deploy("late").unwrap());
    cloud.api.with(|world| world.set(&id, "state", "Starting"));
    eventually("the new machine is known", async || {
        (reservations(api, "z1").await.len() == 4).then_some(())
    })
    .await;
    running.stop().await;
}

/// Whatever the server answers instead of its book: no reservation goes, and the next good answer
/// is taken.
#[tokio::test]
async fn no_lie_of_the_server_takes_an_address_from_anybody() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(world(15)).await;
    let running = cloud.role(directory.path(), BY_HAND).await;
    let api = &running.api;
    sync(api).await;
    let before = reservations(api, "z1").await;
    assert_eq!(before.len(), 15);
    let other_zone = World::basic("z1");
    let (_, forged) = demo_api::answer::answer(
        &other_zone,
        &[("command".to_owned(), "listVirtualMachines".to_owned())].into(),
    );
    let lies = [
        Fault::Refuse(401),
        Fault::Refuse(429),
        Fault::Refuse(431),
        Fault::Refuse(432),
        Fault::Refuse(530),
        Fault::NotAnAnswer(502),
        Fault::NotAnAnswer(200),
        Fault::Cut,
        Fault::Forged("<listvirtualmachinesresponse><count>15</count>".to_owned()),
        Fault::Forged("<listzonesresponse/>".to_owned()),
        Fault::Forged(
            "<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]><x>&y;</x>".to_owned(),
        ),
    ];
    for command in ["listVirtualMachines", "listNetworks", "listVlanIpRanges", "listZones"] {
        for lie in &lies {
            cloud.api.fault(command, lie.clone());
            let answer = api.send("POST", "/v1/sync", &[], "").await;
            let is_other = matches!(lie, Fault::Forged(text) if text == "<listzonesresponse/>");
            if command == "listZones" && is_other {
                answer.problem(502, "sync-failed");
            } else {
                let problem = answer.problem(502, "sync-failed");
                assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
            }
            assert_eq!(cloud.api.pending(), 0, "{command} {lie:?}");
            assert_eq!(reservations(api, "z1").await, before, "{command} {lie:?}");
            assert!(api.status().await["sync"]["last_error"].is_string());
        }
        sync(api).await;
        assert_eq!(api.status().await["sync"]["last_error"], Value::Null);
    }
    // An empty success for every question is what a user with too few rights gets.
    for _ in 0..2 {
        for _ in 0..2 {
            cloud.api.fault("listVirtualMachines", Fault::Empty);
        }
        let outcome = sync(api).await;
        assert_eq!(outcome["held"], 15, "{outcome}");
        assert_eq!(reservations(api, "z1").await, before);
        assert!(alarms(api).await.contains(&"mass-delete-held".to_owned()));
    }
    for _ in 0..2 {
        cloud.api.fault("listVirtualMachines", Fault::Forged(forged.clone()));
    }
    assert_eq!(sync(api).await["held"], 15);
    // A network that is gone takes nothing along at once, either.
    cloud.api.fault("listNetworks", Fault::Empty);
    sync(api).await;
    assert_eq!(reservations(api, "z1").await, before);
    sync(api).await;
    assert!(!alarms(api).await.contains(&"mass-delete-held".to_owned()));
    // Slow is not wrong.
    cloud.api.fault("listVirtualMachines", Fault::Slow(Duration::from_millis(700)));
    sync(api).await;
    assert_eq!(reservations(api, "z1").await, before);
    running.stop().await;
}

/// Pages that do not fit together are read again; when they drift again, nothing is removed.
#[tokio::test]
async fn a_listing_that_drifts_between_its_pages_loses_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::basic("z1");
    let range = &mut world.ranges[0];
    range["netmask"] = "255.255.248.0".into();
    range["startip"] = "10.77.0.20".into();
    range["endip"] = "10.77.7.250".into();
    let ids: Vec<String> = (0..600_u32)
        .map(|number| {
            let [.., a, b] = (number + 20).to_be_bytes();
            let mac = format!("1e:00:07:00:{a:02x}:{b:02x}");
            world.deploy_with(&format!("web-{number}"), &mac, &format!("10.77.{a}.{b}"))
        })
        .filter(|id| !id.is_empty())
        .collect();
    // .0 and .255 inside the subnet are addresses like others; the gateway is not.
    world.machines.retain(|machine| machine["nic"][0]["ipaddress"] != "10.77.0.254");
    let cloud = Cloud::start(world).await;
    let running = cloud.role(directory.path(), BY_HAND).await;
    let api = &running.api;
    let outcome = sync(api).await;
    let count = async || api.status().await["sync"]["reservations"].as_u64().unwrap();
    let all = count().await;
    assert_eq!((all, &outcome["complete"]), (599, &json!(true)), "{}", outcome["notes"]);
    // One goes between the pages, so that the one that moves up is in neither.
    let gone = ids[3].clone();
    cloud.api.drift(2, move |world| world.expunge(&gone));
    let outcome = sync(api).await;
    assert_eq!(cloud.api.pending(), 0);
    assert_eq!(outcome["complete"], true, "the second round fits together");
    eventually("only the one that is gone is gone", async || {
        (count().await == all - 1).then_some(())
    })
    .await;
    // It drifts in both rounds, and one has gone before.
    let (first, second, gone) = (ids[5].clone(), ids[6].clone(), ids[7].clone());
    cloud.api.with(|world| world.expunge(&gone));
    cloud.api.drift(2, move |world| world.expunge(&first));
    cloud.api.drift(2, move |world| world.expunge(&second));
    let outcome = sync(api).await;
    assert_eq!((&outcome["complete"], &outcome["delete"]), (&json!(false), &json!([])));
    assert_eq!(count().await, all - 1);
    running.stop().await;
}

#[tokio::test]
async fn sync_and_api_never_touch_each_others() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(world(2)).await;
    let running = cloud.role(directory.path(), BY_HAND).await;
    let api = &running.api;
    sync(api).await;
    let items = api.get("/v1/zones/z1/reservations").await.json()["items"].clone();
    let (id, mac) = (items[0]["id"].as_str().unwrap(), items[0]["mac"].as_str().unwrap());
    let path = format!("/v1/zones/z1/reservations/{id}");
    let body = json!({"mac": mac, "ipv4": "10.77.0.99"});
    api.put(&path, &body).await.problem(409, "owned-by-sync");
    api.delete(&path).await.problem(409, "owned-by-sync");
    let batch = json!({"delete": [id]}).to_string();
    api.send("POST", "/v1/zones/z1/reservations:batch", &[], batch)
        .await
        .problem(409, "owned-by-sync");
    for container in ["/v1/zones/z1", "/v1/zones/z1/subnets/s-10-77-0-0-24"] {
        let tag = api.get(container).await.tag();
        let headers = [("if-match", tag.as_str())];
        let path = format!("{container}?cascade=true");
        api.send("DELETE", &path, &headers, "").await.problem(409, "owned-by-sync");
    }
    // A reservation of the API in a subnet of the sync stays, whatever the sync does.
    let body = json!({"mac": "02:00:00:00:00:77", "ipv4": "10.77.0.200", "hostname": "mine"});
    let answer = api.put("/v1/zones/z1/reservations/mine", &body).await;
    assert!(matches!(answer.status, 201 | 202), "{answer:?}");
    cloud.api.with(|world| world.machines.clear());
    sync(api).await;
    sync(api).await;
    let left = reservations(api, "z1").await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].2, "mine");
    // The server gives its address to a machine: it is set aside, and comes back.
    let address = "10.77.0.200";
    let id = cloud.api.with(|world| world.deploy_with("new", "1e:00:01:00:00:01", address));
    sync(api).await;
    let now = reservations(api, "z1").await;
    assert_eq!((now.len(), now[0].2.as_str()), (1, "new"), "{now:?}");
    let found = alarms(api).await;
    assert!(found.contains(&"quarantined".to_owned()), "{found:?}");
    cloud.api.with(|world| world.expunge(&id));
    sync(api).await;
    let back = eventually("it comes back", async || {
        let now = reservations(api, "z1").await;
        now.first().filter(|r| r.2 == "mine").cloned()
    })
    .await;
    assert_eq!(back.1, address);
    assert!(!alarms(api).await.contains(&"quarantined".to_owned()));
    running.stop().await;
}

#[tokio::test]
async fn what_was_known_is_there_before_the_server_is() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(world(3)).await;
    let running = cloud.role(directory.path(), BY_HAND).await;
    sync(&running.api).await;
    let known = reservations(&running.api, "z1").await;
    running.stop().await;
    cloud.api.fault("listZones", Fault::Refuse(401));
    let running = cloud.role(directory.path(), BY_HAND).await;
    let api = &running.api;
    assert_eq!(reservations(api, "z1").await, known);
    let error = eventually("the refusal is told", async || {
        api.status().await["sync"]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(
        error.contains("credentials are not accepted") && error.contains("api_key_file"),
        "{error}"
    );
    assert_eq!(reservations(api, "z1").await, known);
    running.stop().await;
}

#[tokio::test]
async fn keys_that_are_missing_or_open_to_everybody_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(world(1)).await;
    let table = cloud.table(directory.path(), BY_HAND);
    for (mode, expected) in [(0o644, "chmod 600"), (0o000, "")] {
        crate::namespace::set_mode(&directory.path().join("secret"), mode);
        if expected.is_empty() {
            std::fs::remove_file(directory.path().join("secret")).unwrap();
        }
        let text = format!("dnsmasq = \"/nonexistent/dnsmasq\"\n{table}");
        let running =
            crate::harness::Running::start(directory.path(), &text, role::Host::system()).await;
        let error = eventually("the reason is told", async || {
            running.api.status().await["sync"]["last_error"].as_str().map(str::to_owned)
        })
        .await;
        assert!(error.contains("secret") && error.contains(expected), "{error}");
        running.stop().await;
    }
}

#[tokio::test]
async fn without_a_sync_there_is_nothing_to_read() {
    let directory = tempfile::tempdir().unwrap();
    let more = "dnsmasq = \"/nonexistent/dnsmasq\"";
    let running =
        crate::harness::Running::start(directory.path(), more, role::Host::system()).await;
    running.api.send("POST", "/v1/sync", &[], "").await.problem(409, "sync-off");
    assert_eq!(running.api.status().await["sync"]["enabled"], false);
    running.stop().await;
}

#[tokio::test]
async fn a_signed_webhook_wakes_the_sync_and_any_other_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(world(1)).await;
    let secret = directory.path().join("webhook");
    std::fs::write(&secret, "whsecret\n").unwrap();
    crate::namespace::set_mode(&secret, 0o600);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let more = format!(
        "{BY_HAND}\nwebhook_listen = \"127.0.0.1:{port}\"\nwebhook_secret_file = {:?}",
        secret.display().to_string()
    );
    let running = cloud.role(directory.path(), &more).await;
    let api = &running.api;
    sync(api).await;
    let send = async |body: &str, signature: &str| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = eventually("the receiver listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        let request = format!(
            "POST /v1/webhooks/cloudstack/z1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             X-CS-Signature: {signature}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // The receiver may refuse before it has read all of it.
        drop(stream.write_all(request.as_bytes()).await);
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer).await);
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let body = r#"{"event":"VM.START","status":"Completed","entity":"VirtualMachine"}"#;
    let right = "KthekLnKy7VyTDp75le8MuY9XGskA6TYUqNUJfJdvg8=";
    cloud.api.with(|world| world.deploy("new").unwrap());
    let calls = cloud.api.calls().len();
    assert_eq!(send(body, "AAAA").await, "401");
    assert_eq!(send(&"x".repeat(70_000), "AAAA").await, "413");
    assert_eq!(cloud.api.calls().len(), calls, "a lie costs no call");
    assert_eq!(send(body, right).await, "200");
    eventually("the listing is read", async || {
        (reservations(api, "z1").await.len() == 2).then_some(())
    })
    .await;
    running.stop().await;
}

/// A clock that a test moves.
struct Moved(std::sync::atomic::AtomicI64);

impl role::host::Clock for Moved {
    fn now(&self) -> std::time::SystemTime {
        let by = self.0.load(std::sync::atomic::Ordering::Relaxed);
        let seconds = Duration::from_secs(by.unsigned_abs());
        let now = role::Host::system().clock.now();
        if by < 0 { now - seconds } else { now + seconds }
    }
}

/// A clock that jumps ahead and back again stops nothing, takes no address, and is told.
#[tokio::test]
async fn a_jump_of_the_clock_is_told_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(world(12)).await;
    let clock = std::sync::Arc::new(Moved(0.into()));
    let host = role::Host { clock: std::sync::Arc::clone(&clock) as _, ..role::Host::system() };
    let table = cloud.table(directory.path(), "starting_interval = \"100ms\"");
    let text = format!("dnsmasq = \"/nonexistent/dnsmasq\"\n{table}");
    let running = crate::harness::Running::start(directory.path(), &text, host).await;
    let api = &running.api;
    eventually("the first listing is taken over", async || {
        api.status().await["sync"]["last_success"].as_str().map(|_| ())
    })
    .await;
    let before = reservations(api, "z1").await;
    for (known, hours) in [(13, 7), (14, -48)] {
        clock.0.store(hours * 3600, std::sync::atomic::Ordering::Relaxed);
        cloud.api.with(|world| {
            let id = world.deploy(&format!("late-{known}")).unwrap();
            world.set(&id, "state", "Starting");
        });
        eventually("a machine that starts is still seen", async || {
            (reservations(api, "z1").await.len() == known).then_some(())
        })
        .await;
        eventually("the jump is told", async || {
            alarms(api).await.contains(&"clock-jumped".to_owned()).then_some(())
        })
        .await;
        sync(api).await;
    }
    let after = reservations(api, "z1").await;
    assert!(before.iter().all(|known| after.contains(known)), "{after:?}");
    let status = api.status().await;
    let told = status["alarms"].as_array().unwrap().iter();
    let told: Vec<&str> = told.filter_map(|alarm| alarm["text"].as_str()).collect();
    assert!(told.iter().any(|text| text.contains("jumped back by 3300 minutes")), "{told:?}");
    running.stop().await;
}
