//! Hard times: a full disk, a process killed at any moment, a dnsmasq that hangs, a broken build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use role::Host;
use serde_json::{Value, json};

use crate::harness::{Api, Running, eventually};
use crate::namespace::{again_on_a_wire, on_a_wire, open_directory, set_mode};

fn mac(number: usize) -> String {
    format!("02:00:00:00:05:{number:02x}")
}

fn address(number: usize) -> String {
    format!("10.77.0.{}", 20 + number)
}

async fn pid(api: &Api) -> i64 {
    api.status().await["instances"][0]["pid"].as_i64().unwrap()
}

/// Nothing is half stored, what was served is served on, and with room again everything goes on.
#[test]
fn a_full_disk_takes_nothing_away_and_is_recovered_from() {
    on_a_wire("hardship::a_full_disk_takes_nothing_away_and_is_recovered_from", async |wire| {
        let directory = open_directory();
        // In the namespace of this process alone.
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k,mode=755", "none"])
            .arg(directory.path())
            .status();
        assert!(mounted.unwrap().success(), "cannot mount a small file system");
        let running = Running::start(directory.path(), "", Host::system()).await;
        let api = &running.api;
        api.set_up().await;
        api.reserve("r0", &mac(0), &address(0)).await.expect(201);
        let before = pid(api).await;
        // Nearly full, then full: the change fails in another place each time.
        let (mut acknowledged, mut refused) = (vec![0], Vec::new());
        for (number, left) in (1..).zip([49_152_u64, 32_768, 16_384, 8192, 0]) {
            fill(directory.path(), left);
            // More than what the state before the last change gives free.
            let labels: serde_json::Map<String, Value> =
                (0..30).map(|index| (format!("l{index}"), json!("x".repeat(250)))).collect();
            let body = json!({"mac": mac(number), "ipv4": address(number), "labels": labels});
            let answer = api.put(&format!("/v1/zones/z1/reservations/r{number}"), &body).await;
            match answer.status {
                201 => acknowledged.push(number),
                // Stored, and served when there is room.
                502 => acknowledged.push(number),
                500 => {
                    answer.problem(500, "storage");
                    refused.push(number);
                }
                other => panic!("{other}: {}", answer.text),
            }
            let given = wire.client().lease(&mac(0)).expect("what was served is served");
            assert_eq!(given.ip(), address(0));
        }
        assert!(!refused.is_empty(), "a full disk stores nothing");
        std::fs::remove_file(directory.path().join("fill")).unwrap();
        let last = acknowledged.len() + refused.len();
        api.reserve(&format!("r{last}"), &mac(last), &address(last)).await.expect(201);
        acknowledged.push(last);
        for number in 0..=last {
            let given = wire.client().lease(&mac(number)).map(|given| given.ip());
            let is_known = acknowledged.contains(&number);
            assert_eq!(given, is_known.then(|| address(number)), "{number} {refused:?}");
        }
        assert_eq!(pid(api).await, before, "it was never started anew");
        running.stop().await;
        let unmounted = Command::new("umount").arg(directory.path()).status();
        assert!(unmounted.unwrap().success(), "cannot unmount the small file system");
    });
}

/// Fills the file system of a directory but for so many bytes.
fn fill(directory: &Path, left: u64) {
    let path = directory.join("fill");
    if path.exists() {
        std::fs::remove_file(&path).unwrap();
    }
    let stat = nix::sys::statvfs::statvfs(directory).unwrap();
    let free = stat.blocks_free() * stat.fragment_size();
    let length = usize::try_from(free.saturating_sub(left)).unwrap();
    std::fs::write(&path, vec![0; length]).unwrap();
}

/// `kill -9` at moments all over the way from a request to its lease: what was answered is served
/// by the next one, what was not is there whole or not at all, and nothing has to be repaired.
#[test]
fn a_process_killed_at_any_moment_keeps_what_it_acknowledged() {
    let test = "hardship::a_process_killed_at_any_moment_keeps_what_it_acknowledged";
    let inner = async |directory: PathBuf| {
        set_mode(&directory, 0o755);
        let _running = Running::start(&directory, "", Host::system()).await;
        std::future::pending::<()>().await;
    };
    again_on_a_wire(test, inner, async |wire, directory, start| {
        let api = Api { socket: directory.join("dhcp.sock") };
        let mut known: Vec<usize> = Vec::new();
        for (round, wait) in [0, 2, 5, 10, 20, 40].into_iter().enumerate() {
            let mut process = start();
            eventually("dnsmasq serves", async || {
                api.try_send("GET", "/v1/status", String::new()).await?;
                (api.status().await["state"] == "ready").then_some(())
            })
            .await;
            if round == 0 {
                api.set_up().await;
            }
            for number in &known {
                let given = wire.client().lease(&mac(*number)).expect("acknowledged before");
                assert_eq!(given.ip(), address(*number), "round {round}");
            }
            // One that is answered, and changes of every kind under way when the end comes.
            let sure = round * 4;
            let answer = api.reserve(&format!("r{sure}"), &mac(sure), &address(sure)).await;
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
            known.push(sure);
            let body = |number: usize, options: Value| json!({"mac": mac(number), "ipv4": address(number), "options": options});
            let texts = json!([{"code": 66, "value": "x"}]);
            let under_way = [
                ("added", body(sure + 1, json!([]))),
                ("tagged", body(sure + 2, texts)),
                ("moved", body(sure + 3, json!([]))),
            ];
            for (name, body) in under_way {
                let (api, path) = (api.clone(), format!("/v1/zones/z1/reservations/{name}"));
                tokio::spawn(async move { api.try_put(&path, &body).await });
            }
            tokio::time::sleep(Duration::from_millis(wait)).await;
            process.kill().unwrap();
            process.wait().unwrap();
        }
    });
}

/// One that was stopped holds its ports and says nothing.
#[test]
fn a_dnsmasq_that_hangs_is_started_anew() {
    on_a_wire("hardship::a_dnsmasq_that_hangs_is_started_anew", async |wire| {
        let directory = open_directory();
        let running = Running::start(directory.path(), "", Host::system()).await;
        let api = &running.api;
        api.set_up().await;
        api.reserve("r0", &mac(0), &address(0)).await.expect(201);
        let before = pid(api).await;
        kill(Pid::from_raw(i32::try_from(before).unwrap()), Signal::SIGSTOP).unwrap();
        eventually("another dnsmasq serves", async || {
            let instance = api.status().await["instances"][0].clone();
            (instance["state"] == "serving" && instance["pid"] != before).then_some(())
        })
        .await;
        assert_eq!(wire.client().lease(&mac(0)).expect("an address").ip(), address(0));
        running.stop().await;
    });
}

/// An upgrade that went wrong: the one that runs serves on, and what needs a new one waits for a
/// program that works.
#[test]
fn a_broken_build_does_not_take_the_place_of_one_that_works() {
    let test = "hardship::a_broken_build_does_not_take_the_place_of_one_that_works";
    on_a_wire(test, async |wire| {
        let directory = open_directory();
        let program = directory.path().join("dnsmasq");
        let install = |text: &str| {
            let new = directory.path().join("dnsmasq.new");
            std::fs::write(&new, text).unwrap();
            set_mode(&new, 0o755);
            std::fs::rename(&new, &program).unwrap();
        };
        let works = "#!/bin/sh\nexec /usr/sbin/dnsmasq \"$@\"\n";
        install(works);
        let more = format!("dnsmasq = \"{}\"", program.display());
        let running = Running::start(directory.path(), &more, Host::system()).await;
        let api = &running.api;
        api.set_up().await;
        api.reserve("r0", &mac(0), &address(0)).await.expect(201);
        let before = pid(api).await;
        install("#!/bin/sh\necho 'symbol lookup error' >&2\nexit 127\n");
        // It needs a tag, which needs a start.
        let body = json!({"mac": mac(1), "ipv4": address(1),
            "options": [{"code": 66, "value": "x"}]});
        let path = "/v1/zones/z1/reservations/r1";
        let problem = api.put(path, &body).await.problem(502, "apply-failed");
        assert!(problem["detail"].as_str().unwrap().contains("symbol lookup error"), "{problem}");
        assert_eq!(pid(api).await, before);
        assert_eq!(wire.client().lease(&mac(0)).expect("an address").ip(), address(0));
        install(works);
        eventually("the change is served", async || {
            (api.status().await["dirty"] == false).then_some(())
        })
        .await;
        assert_eq!(wire.client().lease(&mac(1)).expect("an address").ip(), address(1));
        running.stop().await;
    });
}
