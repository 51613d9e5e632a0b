//! The role with a real dnsmasq and real clients.

use std::net::Ipv4Addr;

use role::{Health, Host};
use serde_json::{Value, json};

use crate::harness::{Api, Running, eventually};
use crate::namespace::{Wire, around_a_wire, on_a_wire, open_directory, set_mode};

const MAC1: &str = "02:00:00:00:00:01";
const MAC2: &str = "02:00:00:00:00:02";

async fn started(directory: &tempfile::TempDir) -> Running {
    let running = Running::start(directory.path(), "", Host::system()).await;
    assert_eq!(running.health.health(), Health::Ready, "{:?}", running.health.details());
    running
}

/// The role, serving zone z1 with subnet s1.
async fn serving(directory: &tempfile::TempDir) -> Running {
    let running = started(directory).await;
    running.api.set_up().await;
    running
}

async fn pid(api: &Api) -> i64 {
    api.status().await["instances"][0]["pid"].as_i64().unwrap()
}

async fn last_apply(api: &Api) -> Value {
    api.status().await["instances"][0]["last_apply"]["kind"].clone()
}

async fn leases(api: &Api) -> Value {
    api.get("/v1/zones/z1/leases").await.expect(200).json()["items"].clone()
}

#[test]
fn a_reserved_mac_gets_its_address_and_an_unknown_one_nothing() {
    on_a_wire(
        "serving::a_reserved_mac_gets_its_address_and_an_unknown_one_nothing",
        async |wire| {
            let directory = open_directory();
            let running = serving(&directory).await;
            let api = &running.api;
            api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
            let given = wire.udhcpc(MAC1).expect("an address");
            assert_eq!(given.ip(), "10.77.0.50");
            assert_eq!(given.get("router"), Some("10.77.0.254"));
            assert_eq!(given.get("dns"), Some("10.77.0.1"));
            assert_eq!(given.get("domain"), Some("cs.example"));
            assert_eq!(given.get("hostname"), Some("vm-r1"));
            assert_eq!(given.get("serverid"), Some("10.77.0.1"));
            assert_eq!(given.get("lease"), Some("4294967295"));
            assert!(wire.udhcpc("02:00:00:00:00:99").is_none());
            let leases = leases(api).await;
            assert_eq!(leases.as_array().unwrap().len(), 1);
            assert_eq!(leases[0]["reservation"], "r1");
            assert_eq!(leases[0]["conflict"], false);
            running.stop().await;
        },
    );
}

#[test]
fn a_host_added_while_running_is_served_without_a_reload() {
    on_a_wire("serving::a_host_added_while_running_is_served_without_a_reload", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        let before = pid(api).await;
        for n in 50..55 {
            let mac = format!("02:00:00:00:00:{n}");
            api.reserve(&format!("r{n}"), &mac, &format!("10.77.0.{n}")).await.expect(201);
            assert_eq!(last_apply(api).await, "add");
            assert_eq!(wire.client().lease(&mac).expect("an address").ip(), format!("10.77.0.{n}"));
        }
        assert_eq!(pid(api).await, before);
        running.stop().await;
    });
}

#[test]
fn an_address_moved_to_another_mac_is_served_when_the_answer_comes() {
    on_a_wire(
        "serving::an_address_moved_to_another_mac_is_served_when_the_answer_comes",
        async |wire| {
            let directory = open_directory();
            let running = serving(&directory).await;
            let api = &running.api;
            api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
            // An infinite lease of the old MAC, which dnsmasq would honour for ever.
            assert_eq!(wire.client().lease(MAC1).expect("an address").ip(), "10.77.0.50");
            let before = pid(api).await;
            // Served when it is answered: the first discover is not ignored.
            api.reserve("r1", MAC2, "10.77.0.50").await.expect(200);
            assert_eq!(wire.client().lease(MAC2).expect("the address").ip(), "10.77.0.50");
            assert_eq!(pid(api).await, before, "a reload and a release, no restart");
            let leases = leases(api).await;
            assert_eq!(leases.as_array().unwrap().len(), 1, "{leases}");
            assert_eq!(leases[0]["mac"], MAC2);
            assert!(wire.client().lease(MAC1).is_none(), "the old one is unknown now");
            // By removal and creation, which is what two writers would do.
            api.delete("/v1/zones/z1/reservations/r1").await.expect(204);
            api.reserve("r2", MAC1, "10.77.0.50").await.expect(201);
            assert_eq!(wire.client().lease(MAC1).expect("the address").ip(), "10.77.0.50");
            running.stop().await;
        },
    );
}

#[test]
fn a_changed_address_is_given_and_a_removed_host_is_forgotten() {
    on_a_wire(
        "serving::a_changed_address_is_given_and_a_removed_host_is_forgotten",
        async |wire| {
            let directory = open_directory();
            let running = serving(&directory).await;
            let api = &running.api;
            api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
            assert_eq!(wire.client().lease(MAC1).expect("an address").ip(), "10.77.0.50");
            api.reserve("r1", MAC1, "10.77.0.51").await.expect(200);
            assert_eq!(leases(api).await, json!([]), "the old lease is taken back");
            // Whoever comes back with the old address is told no, and finds the new one.
            assert_eq!(wire.client().again(MAC1, [10, 77, 0, 50].into()), Some(6));
            assert_eq!(wire.client().lease(MAC1).expect("an address").ip(), "10.77.0.51");
            assert_eq!(wire.client().again(MAC1, [10, 77, 0, 51].into()), Some(5));
            assert_eq!(wire.dig(&["vm-r1.cs.example", "A"]), "10.77.0.51");
            api.delete("/v1/zones/z1/reservations/r1").await.expect(204);
            assert_eq!(leases(api).await, json!([]));
            assert!(wire.client().lease(MAC1).is_none());
            assert_eq!(wire.dig(&["vm-r1.cs.example", "A"]), "");
            running.stop().await;
        },
    );
}

#[test]
fn names_are_answered_both_ways_before_the_first_lease() {
    on_a_wire("serving::names_are_answered_both_ways_before_the_first_lease", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        let body = json!({"mac": MAC1, "ipv4": "10.77.0.50", "hostname": "web-1",
            "aliases": ["www"], "ipv6": "fd00::50"});
        api.put("/v1/zones/z1/reservations/r1", &body).await.expect(201);
        assert_eq!(wire.dig(&["web-1.cs.example", "A"]), "10.77.0.50");
        assert_eq!(wire.dig(&["www.cs.example", "A"]), "10.77.0.50");
        assert_eq!(wire.dig(&["web-1", "A"]), "10.77.0.50");
        assert_eq!(wire.dig(&["web-1.cs.example", "AAAA"]), "fd00::50");
        assert_eq!(wire.dig(&["-x", "10.77.0.50"]), "web-1.cs.example.");
        // The local domain is never forwarded.
        assert_eq!(wire.dig(&["nobody.cs.example", "A"]), "");
        wire.client().lease(MAC1).expect("an address");
        assert_eq!(wire.dig(&["-x", "10.77.0.50"]), "web-1.cs.example.");
        let record = |values: Value| json!({"values": values});
        let put = async |path: &str, values| {
            api.put(&format!("/v1/zones/z1/records/{path}"), &record(values)).await.expect(201);
        };
        put("gate/A", json!(["10.77.0.1"])).await;
        assert_eq!(last_apply(api).await, "names");
        assert_eq!(wire.dig(&["gate.cs.example", "A"]), "10.77.0.1");
        put("info/TXT", json!(["a text"])).await;
        put("alias/CNAME", json!(["web-1.cs.example"])).await;
        put("_ldap._tcp/SRV", json!(["0 5 389 web-1.cs.example"])).await;
        assert_eq!(wire.dig(&["info.cs.example", "TXT"]), "\"a text\"");
        assert_eq!(wire.dig(&["alias.cs.example", "A"]), "web-1.cs.example.\n10.77.0.50");
        assert_eq!(wire.dig(&["_ldap._tcp.cs.example", "SRV"]), "0 5 389 web-1.cs.example.");
        api.delete("/v1/zones/z1/records/gate/A").await.expect(204);
        assert_eq!(wire.dig(&["gate.cs.example", "A"]), "");
        running.stop().await;
    });
}

/// A NIC that is not the default one gets neither router nor DNS nor domain, and reloads do not
/// kill dnsmasq 2.90 although the host has a tag.
#[test]
fn tags_and_options_survive_reloads() {
    on_a_wire("serving::tags_and_options_survive_reloads", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        let body = json!({"mac": MAC1, "ipv4": "10.77.0.50", "hostname": "web-1",
            "default_route": false, "options": [
                {"code": 26, "value": 1450}, {"code": 42, "value": ["10.77.0.9"]},
                {"code": 119, "value": ["a.example", "b.example"]}]});
        api.put("/v1/zones/z1/reservations/r1", &body).await.expect(201);
        assert_eq!(last_apply(api).await, "restart", "tags are of the main file");
        let before = pid(api).await;
        for round in 0..20 {
            let given = wire.client().lease(MAC1).expect("an address");
            assert!([3, 6, 15].iter().all(|code| !given.options.contains_key(code)), "{given:?}");
            assert_eq!(given.options[&26], 1450u16.to_be_bytes());
            assert_eq!(given.addresses(42), [Ipv4Addr::new(10, 77, 0, 9)]);
            assert_eq!(given.options[&119], b"\x01a\x07example\x00\x01b\xc0\x02");
            // A removal is a reload.
            api.reserve("r2", MAC2, &format!("10.77.0.{}", 60 + round)).await;
            api.delete("/v1/zones/z1/reservations/r2").await.expect(204);
            assert_eq!(last_apply(api).await, "reload");
        }
        assert_eq!(pid(api).await, before);
        running.stop().await;
    });
}

#[test]
fn options_of_the_subnet_change_by_reload() {
    on_a_wire("serving::options_of_the_subnet_change_by_reload", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        wire.client().lease(MAC1).expect("an address");
        let before = pid(api).await;
        let tag = api.get("/v1/zones/z1/subnets/s1").await.tag();
        let subnet = json!({"cidr": "10.77.0.0/24", "gateway": null, "mtu": 1400,
            "dns_servers": ["8.8.8.8", "8.8.4.4"]});
        let path = "/v1/zones/z1/subnets/s1";
        let headers = [("if-match", tag.as_str())];
        let answer = api.send("PUT", path, &headers, subnet.to_string()).await.expect(200);
        assert_eq!(answer.json()["state"], "active");
        let given = wire.client().lease(MAC1).expect("an address");
        assert!(!given.options.contains_key(&3), "{given:?}");
        assert_eq!(given.options[&26], 1400u16.to_be_bytes());
        assert_eq!(given.addresses(6), [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)]);
        assert_eq!(pid(api).await, before);
        running.stop().await;
    });
}

#[test]
fn a_killed_dnsmasq_is_started_again_and_its_leases_live_on() {
    on_a_wire("serving::a_killed_dnsmasq_is_started_again_and_its_leases_live_on", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        wire.client().lease(MAC1).expect("an address");
        for _ in 0..2 {
            let before = pid(api).await;
            kill(before);
            eventually("another dnsmasq serves", async || {
                let instance = api.status().await["instances"][0].clone();
                (instance["state"] == "serving" && instance["pid"] != before).then_some(())
            })
            .await;
            assert_eq!(leases(api).await[0]["mac"], MAC1);
            assert_eq!(wire.client().lease(MAC1).expect("an address").ip(), "10.77.0.50");
        }
        let instance = api.status().await["instances"][0].clone();
        assert!(instance["last_exit"].as_str().unwrap().contains("signal: 9"), "{instance}");
        assert_eq!(instance["restarts"], 2);
        running.stop().await;
    });
}

fn kill(pid: i64) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn files_edited_by_hand_are_put_right() {
    on_a_wire("serving::files_edited_by_hand_are_put_right", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        let files = directory.path().join("dhcp/dnsmasq");
        std::fs::write(files.join("hosts.d/zz"), "02:00:00:00:00:77,10.77.0.77\n").unwrap();
        std::fs::remove_file(files.join("base.names")).unwrap();
        eventually("the stray host is forgotten", async || {
            (!files.join("hosts.d/zz").exists() && files.join("base.names").exists()).then_some(())
        })
        .await;
        // The next write is applied after that pass.
        api.reserve("r2", MAC2, "10.77.0.51").await.expect(201);
        assert!(wire.client().lease("02:00:00:00:00:77").is_none());
        assert_eq!(wire.client().lease(MAC1).expect("an address").ip(), "10.77.0.50");
        assert_eq!(wire.dig(&["vm-r1.cs.example", "A"]), "10.77.0.50");
        running.stop().await;
    });
}

#[test]
fn everything_survives_a_restart_of_the_role() {
    on_a_wire("serving::everything_survives_a_restart_of_the_role", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        running.api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        wire.client().lease(MAC1).expect("an address");
        let old = pid(&running.api).await;
        running.stop().await;
        assert!(!is_alive(old), "dnsmasq ends with the role");
        assert!(wire.client().lease(MAC1).is_none());
        let running = started(&directory).await;
        assert_eq!(wire.client().lease(MAC1).expect("an address").ip(), "10.77.0.50");
        assert_eq!(leases(&running.api).await[0]["reservation"], "r1");
        let state = running.api.status().await;
        assert_eq!((&state["state"], &state["dirty"]), (&json!("ready"), &json!(false)), "{state}");
        running.stop().await;
    });
}

#[test]
fn a_lease_is_released_on_request() {
    on_a_wire("serving::a_lease_is_released_on_request", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        wire.client().lease(MAC1).expect("an address");
        let path = "/v1/zones/z1/leases/10.77.0.50";
        api.delete(&format!("{path}?mac={MAC2}")).await.problem(404, "not-found");
        api.delete(&format!("{path}?mac={MAC1}")).await.expect(204);
        assert_eq!(leases(api).await, json!([]));
        api.delete(path).await.problem(404, "not-found");
        running.stop().await;
    });
}

/// A lease that cannot be released by packet, since its subnet is gone, goes with the restart that
/// removes the subnet.
#[test]
fn a_removed_subnet_takes_its_leases_along() {
    on_a_wire("serving::a_removed_subnet_takes_its_leases_along", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        wire.client().lease(MAC1).expect("an address");
        let path = "/v1/zones/z1/subnets/s1";
        let tag = api.get(path).await.tag();
        let headers = [("if-match", tag.as_str())];
        api.send("DELETE", &format!("{path}?cascade=true"), &headers, "").await.expect(204);
        let file =
            std::fs::read_to_string(directory.path().join("dhcp/dnsmasq/leases/dnsmasq.leases"));
        assert_eq!(file.unwrap(), "");
        assert!(wire.client().lease(MAC1).is_none());
        running.stop().await;
    });
}

#[test]
fn two_hundred_reservations_one_by_one_and_in_a_batch_are_served() {
    on_a_wire(
        "serving::two_hundred_reservations_one_by_one_and_in_a_batch_are_served",
        async |wire| {
            let directory = open_directory();
            let running = serving(&directory).await;
            let api = &running.api;
            for n in 1..=200 {
                if n != 200 {
                    let mac = format!("02:00:00:00:01:{n:02x}");
                    api.reserve(&format!("r{n}"), &mac, &format!("10.77.0.{}", n + 1))
                        .await
                        .expect(201);
                }
            }
            assert_eq!(
                wire.client().lease("02:00:00:00:01:c7").expect("an address").ip(),
                "10.77.0.200"
            );
            // One watched file each would be too many; they were folded, and dnsmasq did not notice.
            let files = directory.path().join("dhcp/dnsmasq");
            let watched = std::fs::read_dir(files.join("hosts.d")).unwrap().count();
            let base = std::fs::read_to_string(files.join("base.hosts")).unwrap();
            assert_eq!((base.lines().count(), watched), (192, 7));
            assert_eq!(last_apply(api).await, "add");
            assert_eq!(
                wire.client().lease("02:00:00:00:01:01").expect("an address").ip(),
                "10.77.0.2"
            );
            let subnet =
                json!({"cidr": "10.78.0.0/24", "attachment": {"kind": "shared", "name": "br0"}});
            api.put("/v1/zones/z1/subnets/s2", &subnet).await.expect(201);
            let upsert: Vec<Value> = (1..=200)
                .map(|n| {
                    json!({"id": format!("s{n}"), "mac": format!("02:00:00:00:02:{n:02x}"),
                "ipv4": format!("10.78.0.{}", n + 1), "hostname": format!("s{n}")})
                })
                .collect();
            let batch = json!({"upsert": upsert}).to_string();
            let path = "/v1/zones/z1/reservations:batch";
            api.send("POST", path, &[], batch).await.expect(200);
            // A subnet without an address of ours, on the same wire.
            assert_eq!(
                wire.client().lease("02:00:00:00:02:c8").expect("an address").ip(),
                "10.78.0.201"
            );
            running.stop().await;
        },
    );
}

/// `kill -9` of the process: the kernel takes dnsmasq along, and the next start finds its state.
#[test]
fn no_orphan_survives_the_process() {
    let test = "serving::no_orphan_survives_the_process";
    let inner = async |_wire: Wire, directory: std::path::PathBuf| {
        set_mode(&directory, 0o755);
        let running = Running::start(&directory, "", Host::system()).await;
        std::future::pending::<()>().await;
        running.stop().await;
    };
    around_a_wire(test, inner, async |child, directory| {
        let api = Api { socket: directory.join("dhcp.sock") };
        eventually("the role is up", async || api.socket.exists().then_some(())).await;
        let pid = eventually("dnsmasq serves", async || {
            api.status().await["instances"][0]["pid"].as_i64()
        })
        .await;
        assert!(is_alive(pid));
        assert_eq!(api.status().await["instances"][0]["runs_as"], "dnsmasq");
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("dnsmasq is gone", async || (!is_alive(pid)).then_some(())).await;
    });
}

/// Whether the process runs; a zombie does not.
fn is_alive(pid: i64) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

/// In a state directory closed to others dnsmasq stays root, with no more capabilities than it
/// needs.
#[test]
fn a_closed_state_directory_keeps_dnsmasq_root_without_its_powers() {
    let test = "serving::a_closed_state_directory_keeps_dnsmasq_root_without_its_powers";
    on_a_wire(test, async |wire| {
        let directory = tempfile::tempdir().unwrap();
        set_mode(directory.path(), 0o700);
        let running = serving(&directory).await;
        let api = &running.api;
        assert_eq!(api.status().await["instances"][0]["runs_as"], "root");
        api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        assert_eq!(wire.client().lease(MAC1).expect("an address").ip(), "10.77.0.50");
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid(api).await)).unwrap();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        // NET_ADMIN, NET_RAW, NET_BIND_SERVICE, and SETGID for its own start.
        assert_eq!(u64::from_str_radix(effective.trim(), 16).unwrap(), 0x3440);
        running.stop().await;
    });
}

/// Whoever holds the ports with our files is the orphan of a predecessor.
#[test]
fn an_orphan_with_our_files_is_killed() {
    on_a_wire("serving::an_orphan_with_our_files_is_killed", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        running.api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        running.stop().await;
        let main = directory.path().join("dhcp/dnsmasq/main.conf");
        let mut orphan = std::process::Command::new("dnsmasq")
            .arg(format!("--conf-file={}", main.display()))
            .arg("--user=dnsmasq")
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        eventually("the orphan serves", async || wire.client().lease(MAC1)).await;
        let running = started(&directory).await;
        assert!(!is_alive(orphan.id().into()));
        orphan.wait().unwrap();
        assert_eq!(wire.client().lease(MAC1).expect("an address").ip(), "10.77.0.50");
        running.stop().await;
    });
}

/// Two servers on one interface would each get a share of the messages.
#[test]
fn another_dhcp_server_on_the_interface_is_named_and_waited_for() {
    on_a_wire(
        "serving::another_dhcp_server_on_the_interface_is_named_and_waited_for",
        async |wire| {
            let directory = open_directory();
            let mut other = std::process::Command::new("dnsmasq")
                .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0"])
                .args(["--interface=br0", "--bind-interfaces", "--dhcp-range=10.77.0.5,10.77.0.9"])
                .arg(format!("--dhcp-leasefile={}", directory.path().join("other").display()))
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            eventually("the other one serves", async || wire.client().lease(MAC2)).await;
            let running = Running::start(directory.path(), "", Host::system()).await;
            let expected = format!("dnsmasq (pid {}) has port 67 on br0 already", other.id());
            assert!(running.degraded().contains(&expected), "{}", running.degraded());
            kill(other.id().into());
            other.wait().unwrap();
            running.api.set_up().await;
            running.api.reserve("r1", MAC1, "10.77.0.50").await;
            let given =
                eventually("the address is given", async || wire.client().lease(MAC1)).await;
            assert_eq!(given.ip(), "10.77.0.50");
            running.stop().await;
        },
    );
}

#[test]
fn a_subnet_without_an_address_of_the_interface_is_told() {
    on_a_wire("serving::a_subnet_without_an_address_of_the_interface_is_told", async |_wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let path = "/v1/zones/z1/subnets/s2";
        let tag = running.api.put(path, &json!({"cidr": "10.88.0.0/24"})).await.expect(201).tag();
        eventually("the role is degraded", async || {
            matches!(running.health.health(), Health::Degraded { .. }).then_some(())
        })
        .await;
        assert_eq!(running.degraded(), "br0 has no address in subnet s2 (10.88.0.0/24)");
        assert_eq!(running.api.status().await["alarms"][0]["alarm"], "subnet-unserved");
        running.api.send("DELETE", path, &[("if-match", &tag)], "").await.expect(204);
        eventually("the role is ready", async || {
            (running.health.health() == Health::Ready).then_some(())
        })
        .await;
        running.stop().await;
    });
}

/// An interface that appears later is served without anybody's help.
#[test]
fn an_interface_that_appears_later_is_served() {
    on_a_wire("serving::an_interface_that_appears_later_is_served", async |wire| {
        let directory = open_directory();
        wire.rename("br0", "away0");
        let running = Running::start(directory.path(), "", Host::system()).await;
        assert_eq!(running.degraded(), "interface br0 does not exist");
        running.api.set_up().await;
        running.api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        wire.rename("away0", "br0");
        let given = eventually("the address is given", async || wire.client().lease(MAC1)).await;
        assert_eq!(given.ip(), "10.77.0.50");
        eventually("the role is ready", async || {
            (running.health.health() == Health::Ready).then_some(())
        })
        .await;
        running.stop().await;
    });
}

/// What a client says is there to be read, and another server on the wire is found.
#[test]
fn a_client_is_watched_and_another_server_is_found() {
    on_a_wire("serving::a_client_is_watched_and_another_server_is_found", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(201);
        wire.client().lease("02:00:00:00:00:01").expect("a lease");
        assert_eq!(wire.client().lease("02:00:00:00:00:99"), None, "nobody knows it");
        let texts = async |mac: &str, after: u64| {
            let path = format!("/v1/trace/{mac}?after={after}");
            let answer = api.get(&path).await.expect(200).json();
            let items = answer["items"].as_array().unwrap().iter();
            let texts: Vec<String> =
                items.map(|item| item["text"].as_str().unwrap().to_owned()).collect();
            (texts, answer["next"].as_u64().unwrap())
        };
        let (lines, next) = eventually("all four messages are told", async || {
            let said = texts("02:00:00:00:00:01", 0).await;
            (said.0.len() == 4).then_some(said)
        })
        .await;
        assert!(lines[3].starts_with("DHCPACK(br0) 10.77.0.50 02:00:00:00:00:01"), "{lines:?}");
        assert_eq!(texts("02:00:00:00:00:01", next).await.0, Vec::<String>::new());
        let (ignored, _) = texts("02:00:00:00:00:99", 0).await;
        assert!(ignored[0].ends_with(" ignored"), "{ignored:?}");
        api.get("/v1/trace/nobody").await.problem(404, "not-found");

        let mut other = wire.other_server(directory.path());
        let found = eventually("the other server answers", async || {
            let answer = api.send("POST", "/v1/probe/rogue-dhcp", &[], "").await.expect(200).json();
            answer["servers"].as_array().unwrap().first().cloned()
        })
        .await;
        assert_eq!(found["ip"], "10.77.0.200", "{found}");
        assert_eq!(found["server_id"], "10.77.0.200", "{found}");
        other.kill().unwrap();
        other.wait().unwrap();
        running.stop().await;
    });
}
