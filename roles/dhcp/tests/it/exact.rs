//! What a client gets is what was asked for, byte for byte, with a real dnsmasq on a real wire.

use role::Host;
use serde_json::{Value, json};

use crate::client::Asks;
use crate::harness::{Running, eventually};
use crate::namespace::{Wire, on_a_wire, open_directory};

const MAC1: &str = "02:00:00:00:00:01";

async fn serving(directory: &tempfile::TempDir) -> Running {
    let running = Running::start(directory.path(), "", Host::system()).await;
    running.api.set_up().await;
    running
}

fn domains(names: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
    }
    bytes
}

/// Compression pointers of RFC 1035 written out.
fn expanded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (mut here, mut end) = (at, None);
        loop {
            let length = usize::from(bytes[here]);
            if length >= 0xc0 {
                end.get_or_insert(here + 2);
                here = (length & 0x3f) << 8 | usize::from(bytes[here + 1]);
                continue;
            }
            out.extend(&bytes[here..=here + length]);
            here += length + 1;
            if length == 0 {
                break;
            }
        }
        at = end.unwrap_or(here);
    }
    out
}

/// What is put, and what must arrive.
type Case = (u8, Value, Vec<u8>);

/// Bytes in every form that dnsmasq would read as something else.
fn bytes() -> Vec<Case> {
    let hex = |bytes: &[u8]| {
        Value::from(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    vec![
        // One byte: a letter pair is text to dnsmasq, digits are a decimal number.
        (43, json!("0a"), vec![0x0a]),
        (125, json!("10"), vec![0x10]),
        (43, json!("e1"), vec![0xe1]),
        (43, json!("00"), vec![0]),
        (43, json!("ff"), vec![255]),
        // Like a MAC or an IPv6 address, and with digits in front.
        (43, json!("01:02:03:04:05:06"), vec![1, 2, 3, 4, 5, 6]),
        (125, json!("fd:00:00:01"), vec![0xfd, 0, 0, 1]),
        (43, json!("1234"), vec![0x12, 0x34]),
        (43, hex(&[0xab; 255]), vec![0xab; 255]),
    ]
}

fn texts() -> Vec<Case> {
    let text = |text: &str| text.as_bytes().to_vec();
    let zero_ended = |text: &str| [text.as_bytes(), &[0]].concat();
    let long = "x".repeat(255);
    vec![
        (60, json!("a,b"), text("a,b")),
        (60, json!("say \"x\" \\ and \\t, not a tab"), text("say \"x\" \\ and \\t, not a tab")),
        (60, json!("\\"), text("\\")),
        (60, json!(" spaces "), text(" spaces ")),
        (60, json!("# no comment"), text("# no comment")),
        (60, json!("tag:x"), text("tag:x")),
        (60, json!("10"), text("10")),
        (60, json!("12s"), text("12s")),
        (60, json!("b"), text("b")),
        (60, json!("aa:bb"), text("aa:bb")),
        (60, json!("fd00::1"), text("fd00::1")),
        (114, json!("https://a.example/x?y=1,2"), text("https://a.example/x?y=1,2")),
        (114, json!(long), text(&long)),
        (17, json!("10.0.0.1:/root"), text("10.0.0.1:/root")),
        (40, json!("1"), text("1")),
        (47, json!("ab"), text("ab")),
        (64, json!("a.example"), text("a.example")),
        // These two always end with a zero byte; clients must bear it (RFC 2132, 2).
        (66, json!("10.1.1.9"), zero_ended("10.1.1.9")),
        (67, json!("a,b"), zero_ended("a,b")),
    ]
}

fn typed() -> Vec<Case> {
    vec![
        (1, json!("255.255.0.0"), vec![255, 255, 0, 0]),
        (28, json!("10.77.255.255"), vec![10, 77, 255, 255]),
        (42, json!(["10.1.1.9", "10.1.1.10"]), vec![10, 1, 1, 9, 10, 1, 1, 10]),
        (42, json!(vec!["100.100.100.100"; 60]), vec![100; 240]),
        (33, json!(["10.0.0.1", "10.0.0.2"]), vec![10, 0, 0, 1, 10, 0, 0, 2]),
        (16, json!("10.1.1.1"), vec![10, 1, 1, 1]),
        (2, json!(-3600), (-3600i32).to_be_bytes().to_vec()),
        (35, json!(4_294_967_295u32), vec![255; 4]),
        (38, json!(1), vec![0, 0, 0, 1]),
        (26, json!(1450), 1450u16.to_be_bytes().to_vec()),
        (13, json!(0), vec![0, 0]),
        (23, json!(64), vec![64]),
        (46, json!(8), vec![8]),
        (19, json!(true), vec![1]),
        (20, json!(false), vec![0]),
        (119, json!(["b.cs.example", "a.example", "10.20"]), {
            domains(&["b.cs.example", "a.example", "10.20"])
        }),
        (120, json!(["10.1.1.9"]), vec![1, 10, 1, 1, 9]),
        (120, json!("10.20"), [vec![0], domains(&["10.20"])].concat()),
        (120, json!("sip.example"), [vec![0], domains(&["sip.example"])].concat()),
        (
            121,
            json!(["0.0.0.0/0 10.1.1.1", "10.0.0.0/8 0.0.0.0", "10.1.2.3/32 10.1.1.1"]),
            vec![0, 10, 1, 1, 1, 8, 10, 0, 0, 0, 0, 32, 10, 1, 2, 3, 10, 1, 1, 1],
        ),
        (121, json!(vec!["100.100.100.100/32 100.100.100.100"; 28]), {
            [vec![32], vec![100; 8]].concat().repeat(28)
        }),
    ]
}

/// Every kind of value. All reservations come in one batch, so that dnsmasq starts anew once.
#[test]
fn options_arrive_byte_for_byte() {
    let cases = [bytes(), texts(), typed()].concat();
    on_a_wire("exact::options_arrive_byte_for_byte", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let mac = |index: usize| format!("02:00:00:00:03:{index:02x}");
        let upsert: Vec<Value> = cases
            .iter()
            .enumerate()
            .map(|(index, (code, value, _))| {
                json!({"id": format!("r{index}"), "mac": mac(index),
                    "ipv4": format!("10.77.0.{}", index + 10),
                    "options": [{"code": code, "value": value}]})
            })
            .collect();
        let body = json!({"upsert": upsert}).to_string();
        let path = "/v1/zones/z1/reservations:batch";
        running.api.send("POST", path, &[], body).await.expect(200);
        for (index, (code, value, expected)) in cases.iter().enumerate() {
            let asks = Asks { options: &[1, *code], largest: Some(1400), ..Asks::default() };
            let given = wire.client().offer(&mac(index), asks);
            let got = given.options.get(code).cloned().unwrap_or_default();
            let got = match code {
                119 => expanded(&got),
                120 if got[0] == 0 => [vec![0], expanded(&got[1..])].concat(),
                _ => got,
            };
            assert_eq!(got, *expected, "option {code} of {value}");
        }
        let status = running.api.status().await;
        assert_eq!(status["alarms"], json!([]), "{status}");
        running.stop().await;
    });
}

/// A Windows guest gets option 43 from dnsmasq, unless somebody says what it gets.
#[test]
fn a_vendor_gets_the_option_that_was_set_and_nothing_else() {
    on_a_wire("exact::a_vendor_gets_the_option_that_was_set_and_nothing_else", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        let body = json!({"mac": "02:00:00:00:00:01", "ipv4": "10.77.0.50",
            "options": [{"code": 43, "value": "01:a0"}, {"code": 255, "value": "10.77.0.9"}]});
        api.put("/v1/zones/z1/reservations/set", &body).await.expect(201);
        api.reserve("plain", "02:00:00:00:00:02", "10.77.0.51").await.expect(201);
        let asks = Asks { options: &[43], vendor: Some("MSFT 5.0"), ..Asks::default() };
        let given = wire.client().offer("02:00:00:00:00:01", asks);
        assert_eq!(given.options[&43], [1, 0xa0]);
        assert_eq!(given.next_server.to_string(), "10.77.0.9");
        let given = wire.client().offer("02:00:00:00:00:02", asks);
        assert_eq!(given.options[&43], [2, 4, 0, 0, 0, 1, 255]);
        // For the whole subnet, too.
        let path = "/v1/zones/z1/subnets/s1";
        let tag = api.get(path).await.tag();
        let subnet = json!({"cidr": "10.77.0.0/24", "options": [{"code": 43, "value": "07"}]});
        let headers = [("if-match", tag.as_str())];
        api.send("PUT", path, &headers, subnet.to_string()).await.expect(200);
        let given = wire.client().offer("02:00:00:00:00:02", asks);
        assert_eq!(given.options[&43], [7]);
        running.stop().await;
    });
}

/// What a client gets of option sets: the nearest of each code, and a change of the set at once.
#[test]
fn the_options_of_a_set_arrive_and_change_for_everybody() {
    on_a_wire("exact::the_options_of_a_set_arrive_and_change_for_everybody", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        let sets = "/v1/zones/z1/option-sets";
        let text = |code: u8, text: &str| json!({"code": code, "value": text});
        let pxe = |file| json!({"options": [text(66, "10.77.0.9"), text(67, file)]});
        api.put(&format!("{sets}/pxe"), &pxe("a.0")).await.expect(201);
        let all = json!({"options": [text(114, "all"), text(67, "all"), text(17, "all")],
            "subnets": ["s1"]});
        api.put(&format!("{sets}/all"), &all).await.expect(201);
        let own = json!([text(67, "own")]);
        let cases =
            [(1, json!([]), json!(["pxe"])), (2, own, json!(["pxe"])), (3, json!([]), json!([]))];
        for (last, options, named) in cases {
            let body = json!({"mac": format!("02:00:00:00:00:0{last}"),
                "ipv4": format!("10.77.0.5{last}"), "options": options, "option_sets": named});
            api.put(&format!("/v1/zones/z1/reservations/r{last}"), &body).await.expect(201);
        }
        let asks = Asks { options: &[17, 66, 67, 114], largest: Some(1400), ..Asks::default() };
        let given = |mac: &str| {
            let offer = wire.client().offer(mac, asks);
            let text = |code| offer.text(code).map(|text| text.trim_end_matches('\0').to_owned());
            [17, 66, 67, 114].map(|code| text(code).unwrap_or_default())
        };
        assert_eq!(given("02:00:00:00:00:01"), ["all", "10.77.0.9", "a.0", "all"]);
        assert_eq!(given("02:00:00:00:00:02"), ["all", "10.77.0.9", "own", "all"]);
        assert_eq!(given("02:00:00:00:00:03"), ["all", "", "all", "all"]);
        let before = api.status().await["instances"][0]["pid"].clone();
        api.put(&format!("{sets}/pxe"), &pxe("b.0")).await.expect(200);
        assert_eq!(given("02:00:00:00:00:01")[2], "b.0");
        assert_eq!(given("02:00:00:00:00:02")[2], "own");
        let status = api.status().await;
        assert_eq!(status["instances"][0]["pid"], before, "a reload is enough");
        assert_eq!(status["alarms"], json!([]), "{status}");
        running.stop().await;
    });
}

/// A client that takes only small answers does not get everything, and somebody is told.
#[test]
fn an_option_that_does_not_fit_raises_an_alarm() {
    on_a_wire("exact::an_option_that_does_not_fit_raises_an_alarm", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        let long = "x".repeat(250);
        let body = json!({"mac": "02:00:00:00:00:01", "ipv4": "10.77.0.50", "options": [
            {"code": 114, "value": long}, {"code": 17, "value": long}, {"code": 47, "value": long}]});
        api.put("/v1/zones/z1/reservations/r1", &body).await.expect(201);
        let asks = |largest| Asks { options: &[17, 47, 114], largest, ..Asks::default() };
        let whole = wire.client().offer("02:00:00:00:00:01", asks(Some(1400)));
        assert!([17, 47, 114].iter().all(|code| whole.options[code].len() == 250), "{whole:?}");
        let small = wire.client().offer("02:00:00:00:00:01", asks(None));
        assert!(small.options.len() < whole.options.len(), "not all of them fit: {small:?}");
        let text = eventually("the alarm is raised", async || {
            let alarms = api.status().await["alarms"].clone();
            let alarm = alarms.as_array().unwrap().iter().find(|a| a["alarm"] == "option-dropped");
            alarm.map(|alarm| alarm["text"].as_str().unwrap().to_owned())
        })
        .await;
        assert!(text.contains("no space left in packet"), "{text}");
        running.stop().await;
    });
}

/// Texts as dig prints them, quotes and backslashes escaped.
#[test]
fn records_are_answered_as_they_were_put() {
    on_a_wire("exact::records_are_answered_as_they_were_put", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(201);
        let long = "\\".repeat(255);
        let texts = ["a,b", "say \"x\"", "c\\d\\", " x ", "# x", "s", "1", "v=spf1 -all", &long];
        let records: Vec<(String, &str, Value)> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| (format!("t{index}"), "TXT", json!([text])))
            .chain([
                ("_ldap._tcp".to_owned(), "SRV", json!(["0 65535 389 vm-r1.cs.example"])),
                ("www".to_owned(), "CNAME", json!(["alias.cs.example"])),
                ("alias".to_owned(), "CNAME", json!(["vm-r1.cs.example"])),
                ("60.0.77.10.in-addr.arpa".to_owned(), "PTR", json!(["x.example"])),
                ("six".to_owned(), "AAAA", json!(["fd00::1", "::ffff:10.0.0.1"])),
                ("@".to_owned(), "A", json!(["10.77.0.1"])),
            ])
            .collect();
        for (name, kind, values) in &records {
            // One start of dnsmasq for all of them, with the last.
            let headers = [("prefer", "respond-async")];
            let path = format!("/v1/zones/z1/records/{name}/{kind}");
            let body = json!({"values": values}).to_string();
            api.send("PUT", &path, &headers, body).await.expect(202);
        }
        api.put("/v1/zones/z1/records/last/TXT", &json!({"values": ["x"]})).await.expect(201);
        for (index, text) in texts.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            assert_eq!(
                wire.dig(&[&format!("t{index}.cs.example"), "TXT"]),
                format!("\"{escaped}\"")
            );
        }
        let srv = wire.dig(&["_ldap._tcp.cs.example", "SRV"]);
        assert_eq!(srv, "0 65535 389 vm-r1.cs.example.");
        let www = wire.dig(&["www.cs.example", "A"]);
        assert_eq!(www, "alias.cs.example.\nvm-r1.cs.example.\n10.77.0.50");
        assert_eq!(wire.dig(&["-x", "10.77.0.60"]), "x.example.");
        assert_eq!(wire.dig(&["-x", "10.77.0.50"]), "vm-r1.cs.example.");
        assert_eq!(wire.dig(&["cs.example", "A"]), "10.77.0.1");
        let mut six: Vec<String> =
            wire.dig(&["six.cs.example", "AAAA"]).lines().map(str::to_owned).collect();
        six.sort();
        assert_eq!(six, ["::ffff:10.0.0.1", "fd00::1"]);
        running.stop().await;
    });
}

/// The three bad aliases that once stopped everything, and one whose end goes away.
#[test]
fn a_bad_alias_is_refused_and_holds_nothing_back() {
    on_a_wire("exact::a_bad_alias_is_refused_and_holds_nothing_back", async |wire: Wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        let alias = async |zone: &str, name: &str, target: &str| {
            let path = format!("/v1/zones/{zone}/records/{name}/CNAME");
            api.put(&path, &json!({"values": [target]})).await
        };
        api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(201);
        api.put("/v1/zones/z2", &json!({"domain": "cs.example"})).await.expect(201);
        let problem = alias("z1", "self", "self.cs.example").await.problem(422, "invalid-value");
        assert_eq!(problem["errors"][0]["pointer"], "/values/0");
        alias("z1", "ext", "www.example.org").await.problem(422, "invalid-value");
        let first = alias("z1", "www", "vm-r1.cs.example").await.expect(201).json();
        assert_eq!(first["status"], json!({"served": true}));
        let problem =
            alias("z2", "www", "vm-r1.cs.example").await.problem(409, "hostname-conflict");
        assert_eq!(problem["conflicts_with"], "record www CNAME of zone z1");
        assert_eq!(wire.dig(&["www.cs.example", "A"]), "vm-r1.cs.example.\n10.77.0.50");
        // What came after them is served.
        api.reserve("r2", "02:00:00:00:00:02", "10.77.0.51").await.expect(201);
        assert_eq!(wire.client().lease("02:00:00:00:00:02").expect("a lease").ip(), "10.77.0.51");
        api.delete("/v1/zones/z1/reservations/r1").await.expect(204);
        let record = api.get("/v1/zones/z1/records/www/CNAME").await.json();
        assert_eq!(record["status"]["served"], true);
        let warning = record["status"]["warning"].as_str().unwrap();
        assert!(
            warning.contains("vm-r1.cs.example is not a name that is served here"),
            "{warning}"
        );
        running.stop().await;
    });
}

/// A state of an older program with a record that dnsmasq refuses and an option it drops: the role
/// starts, says so, and serves everything else.
#[test]
fn a_poisoned_state_is_served_but_for_the_poison() {
    on_a_wire("exact::a_poisoned_state_is_served_but_for_the_poison", async |wire: Wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        running.api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(201);
        let record = json!({"values": ["vm-r1.cs.example"]});
        running.api.put("/v1/zones/z1/records/www/CNAME", &record).await.expect(201);
        running.stop().await;
        let file = directory.path().join("dhcp/desired.json");
        let mut stored: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let zone = &mut stored["zones"]["z1"];
        let mut poison = zone["records"][0].clone();
        poison["name"] = json!("self");
        poison["values"] = json!(["self.cs.example"]);
        zone["records"].as_array_mut().unwrap().push(poison);
        zone["reservations"]["r1"]["options"] = json!([
            {"code": 60, "value": "i"}, {"code": 42, "value": ["0.0.0.0"]},
            {"code": 47, "value": "kept"}]);
        zone["reservations"]["r2"] = json!({"id": "r2", "mac": "none"});
        std::fs::write(&file, stored.to_string()).unwrap();
        let running = Running::start(directory.path(), "", Host::system()).await;
        let api = &running.api;
        let asks = Asks { options: &[42, 47, 60], ..Asks::default() };
        let given = wire.client().offer("02:00:00:00:00:01", asks);
        assert_eq!((given.ip().as_str(), given.text(47).as_deref()), ("10.77.0.50", Some("kept")));
        assert!(!given.options.contains_key(&42) && !given.options.contains_key(&60));
        assert_eq!(wire.dig(&["www.cs.example", "A"]), "vm-r1.cs.example.\n10.77.0.50");
        let status = api.status().await;
        let kinds: Vec<&Value> =
            status["alarms"].as_array().unwrap().iter().map(|alarm| &alarm["alarm"]).collect();
        assert_eq!(kinds, ["quarantined", "quarantined", "quarantined", "record-withheld"]);
        assert_eq!(status["state"], "degraded");
        let reason = running.degraded();
        assert!(reason.contains("kept aside"), "{reason}");
        let record = api.get("/v1/zones/z1/records/self/CNAME").await.json();
        assert_eq!(record["status"]["served"], false, "{record}");
        // Settled one by one, the role is ready again.
        api.delete("/v1/zones/z1/records/self/CNAME").await.expect(204);
        api.delete("/v1/zones/z1/reservations/r2").await.expect(204);
        api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(200);
        eventually("the role is ready", async || {
            (running.health.health() == role::Health::Ready).then_some(())
        })
        .await;
        running.stop().await;
    });
}

/// One MAC in two subnets, one of them behind a relay: each reservation has its own options.
#[test]
fn a_mac_in_two_subnets_gets_the_options_of_the_one_it_is_in() {
    on_a_wire("exact::a_mac_in_two_subnets_gets_the_options_of_the_one_it_is_in", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        let subnet = json!({"cidr": "10.78.0.0/24", "gateway": "10.78.0.1",
            "attachment": {"kind": "relay", "relays": ["10.78.0.254"]}});
        api.put("/v1/zones/z1/subnets/s2", &subnet).await.expect(201);
        let mac = "02:00:00:00:00:01";
        let here = json!({"mac": mac, "ipv4": "10.77.0.50", "hostname": "here",
            "options": [{"code": 66, "value": "first"}]});
        api.put("/v1/zones/z1/reservations/here", &here).await.expect(201);
        let there = json!({"mac": mac, "ipv4": "10.78.0.50", "hostname": "there",
            "default_route": false, "options": [{"code": 67, "value": "second"}]});
        api.put("/v1/zones/z1/reservations/there", &there).await.expect(201);
        let asks = Asks { options: &[3, 6, 12, 15, 66, 67], ..Asks::default() };
        let given = wire.client().offer(mac, asks);
        assert_eq!(given.ip(), "10.77.0.50");
        assert_eq!(given.text(66).as_deref(), Some("first\0"));
        assert!(given.options.contains_key(&3) && !given.options.contains_key(&67), "{given:?}");
        let given = wire.relayed().offer(mac, asks);
        assert_eq!(given.ip(), "10.78.0.50");
        assert_eq!(given.text(67).as_deref(), Some("second\0"));
        assert!([3, 6, 15, 66].iter().all(|code| !given.options.contains_key(code)), "{given:?}");
        running.stop().await;
    });
}

/// A client that finds somebody else at its address gets none until a reload, and the status says so.
#[test]
fn a_declined_address_is_told_and_comes_back_with_a_reload() {
    on_a_wire("exact::a_declined_address_is_told_and_comes_back_with_a_reload", async |wire| {
        let directory = open_directory();
        let running = serving(&directory).await;
        let api = &running.api;
        api.reserve("r1", MAC1, "10.77.0.50").await.expect(201);
        let given = wire.client().lease(MAC1).expect("an address");
        wire.client().decline(MAC1, &given);
        eventually("the declined address is told", async || {
            let alarms = api.status().await["alarms"].to_string();
            (alarms.contains("declined-address") && alarms.contains("10.77.0.50")).then_some(())
        })
        .await;
        assert!(wire.client().lease(MAC1).is_none());
        let body = json!({"mac": MAC1, "ipv4": "10.77.0.50", "hostname": "renamed"});
        api.put("/v1/zones/z1/reservations/r1", &body).await.expect(200);
        assert_eq!(wire.client().lease(MAC1).expect("an address").ip(), "10.77.0.50");
        assert!(!api.status().await["alarms"].to_string().contains("declined-address"));
        running.stop().await;
    });
}
