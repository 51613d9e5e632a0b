//! The API without a dnsmasq: everything is validated, stored, rendered and answered; the role is
//! degraded and says why.

use crate::harness::{Running, spec};
use role::{Health, Host};
use serde_json::{Value, json};

const ABSENT: &str = "dnsmasq = \"/nonexistent/dnsmasq\"";

async fn started(directory: &tempfile::TempDir) -> Running {
    let running = Running::start(directory.path(), ABSENT, Host::system()).await;
    running.api.set_up().await;
    running
}

const RESERVATIONS: &str = "/v1/zones/z1/reservations";

#[tokio::test]
async fn without_dnsmasq_the_role_is_degraded_and_its_api_works() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let reason = running.degraded();
    assert!(reason.contains("/nonexistent/dnsmasq") || reason.contains("net_admin"), "{reason}");
    let stored = running.api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(202);
    let change = stored.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(running.api.get(&change).await.json()["state"], "stored");
    // Rendered all the same.
    let hosts = running.api.get("/v1/instances/main/config?file=hosts").await.expect(200);
    assert_eq!(hosts.text, "02:00:00:00:00:01,10.77.0.50,vm-r1\n");
    let status = running.api.status().await;
    assert_eq!((&status["state"], &status["dirty"]), (&json!("degraded"), &json!(true)));
    running.api.get("/v1/healthz").await.expect(200);
    running.api.get("/v1/readyz").await.problem(503, "instance-down");
    assert!(running.health.details().contains_key("dhcp"));
    assert!(running.health.metrics().is_some());
    running.stop().await;
}

#[tokio::test]
async fn a_reservation_is_created_read_changed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let api = &running.api;
    api.reserve("r1", "02-00-00-00-00-01", "10.77.0.50").await.expect(202);
    let path = &format!("{RESERVATIONS}/r1");
    let read = api.get(path).await.expect(200);
    let body = read.json();
    assert_eq!(body["mac"], "02:00:00:00:00:01");
    assert_eq!((&body["subnet"], &body["source"]), (&json!("s1"), &json!("api")));
    assert_eq!(body["status"]["leased"], false);
    // What was read can be sent back, and changes nothing.
    let again = api.put(path, &body).await.expect(202);
    assert_eq!(again.tag(), read.tag());
    let mut changed = body.clone();
    changed["hostname"] = json!("other");
    let tag = read.tag();
    let headers = [("if-match", tag.as_str())];
    let answer = api.send("PUT", path, &headers, changed.to_string()).await.expect(202);
    assert_ne!(answer.tag(), tag);
    api.send("PUT", path, &headers, body.to_string()).await.problem(412, "precondition-failed");
    let only_new = [("if-none-match", "*")];
    api.send("PUT", path, &only_new, body.to_string()).await.problem(412, "precondition-failed");
    api.get(&format!("{RESERVATIONS}/by-mac/02:00:00:00:00:01")).await.expect(200);
    assert_eq!(
        api.get(&format!("{RESERVATIONS}/by-ip/10.77.0.50")).await.json()["hostname"],
        "other"
    );
    api.delete(path).await.expect(202);
    api.delete(path).await.problem(404, "not-found");
    api.get(path).await.problem(404, "not-found");
    running.stop().await;
}

/// Every fault of a body is reported at once, with field, value and remedy.
#[tokio::test]
async fn invalid_bodies_name_field_value_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let api = &running.api;
    let path = &format!("{RESERVATIONS}/r1");
    let body = json!({
        "mac": "02:00:00:00:00", "ipv4": "10.77.0.300", "hostname": "a,b", "default_route": 1,
        "lease_time": 5, "labels": {"a b": 1},
        "options": [{"code": 53, "value": 1}, {"code": 42, "value": "x\ny"}],
    });
    let problem = api.put(path, &body).await.problem(422, "invalid-value");
    let fields: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|e| &e["field"]).collect();
    for field in [
        "mac",
        "ipv4",
        "hostname",
        "default_route",
        "lease_time",
        "labels.a b",
        "options[0]",
        "options[1]",
    ] {
        assert!(fields.contains(&&json!(field)), "{field} is missing in {fields:?}");
    }
    let mac = &problem["errors"][0];
    assert_eq!(mac["value"], "02:00:00:00:00");
    assert!(mac["remedy"].as_str().unwrap().contains("six hexadecimal pairs"), "{mac}");
    assert_eq!(problem["instance"], json!(path));
    let unknown = json!({"mac": "02:00:00:00:00:01", "ipv4": "10.77.0.50", "hostnam": "x"});
    api.put(path, &unknown).await.problem(400, "unknown-field");
    api.send("PUT", path, &[], "{").await.problem(400, "malformed-request");
    api.put(path, &json!([1])).await.problem(400, "malformed-request");
    api.send("PUT", path, &[], vec![b' '; 2 * 1024 * 1024]).await.problem(413, "too-large");
    let outside = json!({"mac": "02:00:00:00:00:01", "ipv4": "10.78.0.50"});
    api.put(path, &outside).await.problem(422, "invalid-value");
    let gateway = json!({"mac": "02:00:00:00:00:01", "ipv4": "10.77.0.254"});
    api.put(path, &gateway).await.problem(422, "invalid-value");
    let problem =
        api.put("/v1/zones/a%20b", &json!({"domain": "x"})).await.problem(422, "invalid-value");
    assert_eq!(problem["errors"][0]["field"], "id");
    api.get("/v1/zones/a%20b").await.problem(404, "not-found");
    let body = json!({"domain": "x.example"}).to_string();
    let put =
        async |prefer| api.send("PUT", "/v1/zones/z2", &[("prefer", prefer)], body.clone()).await;
    put("wait=soon").await.problem(400, "malformed-request");
    // The framework's own refusals are problems, too.
    api.get("/v1/zones/%ff").await.problem(400, "malformed-request");
    api.get("/v1/nothing").await.problem(404, "not-found");
    api.send("POST", path, &[], "").await.problem(405, "method-not-allowed");
    api.get(&format!("{RESERVATIONS}?limt=1")).await.problem(400, "malformed-request");
    assert_eq!(api.status().await["generation"], 2, "nothing was stored");
    // Preferences of others are not a fault.
    put("handling=lenient, respond-async").await.expect(202);
    running.stop().await;
}

#[tokio::test]
async fn conflicts_name_the_owner() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let api = &running.api;
    api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(202);
    let problem =
        api.reserve("r2", "02:00:00:00:00:02", "10.77.0.50").await.problem(409, "address-conflict");
    assert_eq!(problem["conflicts_with"], "reservation r1 of zone z1");
    assert_eq!((&problem["field"], &problem["value"]), (&json!("ipv4"), &json!("10.77.0.50")));
    api.reserve("r2", "02:00:00:00:00:01", "10.77.0.51").await.problem(409, "mac-conflict");
    let name = json!({"mac": "02:00:00:00:00:02", "ipv4": "10.77.0.51", "hostname": "VM-r1"});
    api.put(&format!("{RESERVATIONS}/r2"), &name).await.problem(409, "hostname-conflict");
    let overlap = json!({"cidr": "10.77.0.128/25"});
    api.put("/v1/zones/z1/subnets/s2", &overlap).await.problem(409, "subnet-overlap");
    let other = json!({"cidr": "10.78.0.0/24", "attachment": {"kind": "interface", "name": "br1"}});
    api.put("/v1/zones/z1/subnets/s2", &other).await.problem(422, "invalid-value");
    running.stop().await;
}

#[tokio::test]
async fn zones_subnets_and_ranges_have_a_life() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let api = &running.api;
    let subnet = api.get("/v1/zones/z1/subnets/s1").await.expect(200);
    assert_eq!(subnet.json()["state"], "unserved", "the test machine has no address in it");
    let smaller = json!({"cidr": "10.77.0.0/25"});
    api.put("/v1/zones/z1/subnets/s1", &smaller).await.problem(428, "precondition-required");
    let tag = subnet.tag();
    let headers = [("if-match", tag.as_str())];
    let disabled =
        json!({"cidr": "10.77.0.0/24", "gateway": null, "state": "disabled", "mtu": 1450});
    let answer = api
        .send("PUT", "/v1/zones/z1/subnets/s1", &headers, disabled.to_string())
        .await
        .expect(202);
    assert_eq!(answer.json()["state"], "disabled");
    let ranges = "/v1/zones/z1/subnets/s1/ranges";
    let range = json!({"start": "10.77.0.100", "end": "10.77.0.110", "purpose": "excluded"});
    api.put(&format!("{ranges}/x"), &range).await.expect(202);
    let reservation = json!({"mac": "02:00:00:00:00:01", "ipv4": "10.77.0.105"});
    api.put(&format!("{RESERVATIONS}/r1"), &reservation).await.problem(422, "invalid-value");
    let backwards = json!({"start": "10.77.0.110", "end": "10.77.0.100", "purpose": "reserved"});
    api.put(&format!("{ranges}/y"), &backwards).await.problem(422, "invalid-value");
    assert_eq!(api.get(ranges).await.json()["items"].as_array().unwrap().len(), 1);
    api.delete(&format!("{ranges}/x")).await.expect(202);
    api.put(&format!("{RESERVATIONS}/r1"), &reservation).await.expect(202);
    let zone = api.get("/v1/zones/z1").await.tag();
    api.delete("/v1/zones/z1").await.problem(428, "precondition-required");
    let headers = [("if-match", zone.as_str())];
    api.send("DELETE", "/v1/zones/z1", &headers, "").await.problem(409, "not-empty");
    api.send("DELETE", "/v1/zones/z1?cascade=true", &headers, "").await.expect(202);
    assert_eq!(api.get("/v1/zones").await.json()["items"], json!([]));
    running.stop().await;
}

#[tokio::test]
async fn collections_are_paged_and_filtered() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let api = &running.api;
    let upsert: Vec<Value> = (10..35)
        .map(|n| json!({"id": format!("r{n}"), "mac": format!("02:00:00:00:00:{n}"), "ipv4": format!("10.77.0.{n}")}))
        .collect();
    let batch = json!({"upsert": upsert, "delete": []}).to_string();
    let answer = api.send("POST", &format!("{RESERVATIONS}:batch"), &[], batch).await.expect(202);
    let results = answer.json()["results"].clone();
    assert_eq!(results.as_array().unwrap().len(), 25);
    assert_eq!(results[0], json!({"id": "r10", "result": "created", "revision": 3}));
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("{RESERVATIONS}?limit=10{cursor}")).await.expect(200).json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|r| r["id"].clone()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 25);
    let filtered = api.get(&format!("{RESERVATIONS}?ip=10.77.0.20&leased=false")).await.json();
    assert_eq!(filtered["items"][0]["id"], "r20");
    // A batch is all or nothing.
    let bad = json!({"upsert": [{"id": "a", "mac": "02:00:00:00:01:01", "ipv4": "10.77.0.40"},
        {"id": "b", "mac": "02:00:00:00:01:02", "ipv4": "10.77.0.40"}], "delete": ["r10"]});
    let path = format!("{RESERVATIONS}:batch");
    api.send("POST", &path, &[], bad.to_string()).await.problem(409, "address-conflict");
    api.get(&format!("{RESERVATIONS}/r10")).await.expect(200);
    let mixed = json!({"upsert": [
            {"id": "r11", "mac": "02:00:00:00:00:11", "ipv4": "10.77.0.11"},
            {"id": "r12", "mac": "02:00:00:00:00:12", "ipv4": "10.77.0.112"},
        ], "delete": ["r13", "nobody"]});
    let answer = api.send("POST", &path, &[], mixed.to_string()).await.expect(202).json();
    let results: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|entry| &entry["result"]).collect();
    assert_eq!(results, ["unchanged", "updated", "deleted", "absent"]);
    let bad = json!({"upsert": [{"id": "a", "mac": "x", "ipv4": "10.77.0.40"}]});
    let problem = api.send("POST", &path, &[], bad.to_string()).await.problem(422, "invalid-value");
    assert_eq!(problem["errors"][0]["field"], "upsert[0].mac");
    running.stop().await;
}

#[tokio::test]
async fn records_know_what_they_cost() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let api = &running.api;
    let put = async |path: &str, values: Value| {
        api.put(&format!("/v1/zones/z1/records/{path}"), &json!({"values": values})).await
    };
    assert_eq!(put("gate/A", json!(["10.77.0.1"])).await.expect(202).json()["applied_by"], "names");
    let srv = put("_ldap._tcp/srv", json!(["0 5 389 vm.cs.example"])).await.expect(202);
    assert_eq!(srv.json()["applied_by"], "restart");
    put("gate/A", json!(["x"])).await.problem(422, "invalid-value");
    put("gate/TXT", json!(["a\nserver=6.6.6.6"])).await.problem(422, "invalid-value");
    put("gate/MX", json!(["x"])).await.problem(404, "not-found");
    api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(202);
    put("vm-r1/A", json!(["10.77.0.1"])).await.problem(409, "hostname-conflict");
    let main = api.get("/v1/instances/main/config").await.text;
    assert!(main.contains("srv-host=_ldap._tcp.cs.example,vm.cs.example,389,0,5\n"), "{main}");
    api.delete("/v1/zones/z1/records/gate/A").await.expect(202);
    assert_eq!(api.get("/v1/zones/z1/records").await.json()["items"].as_array().unwrap().len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn the_state_survives_a_restart_of_the_role() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    running.api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(202);
    let before = running.api.get(RESERVATIONS).await.json();
    running.stop().await;
    let running = Running::start(directory.path(), ABSENT, Host::system()).await;
    assert_eq!(running.api.get(RESERVATIONS).await.json(), before);
    running.stop().await;
}

#[tokio::test]
async fn a_second_role_with_the_same_files_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let tasks = role::TaskScope::new();
    let cx = role::RoleContext::new(
        dhcp::DESCRIPTOR.kind,
        tokio_util::sync::CancellationToken::new(),
        tasks.clone(),
        role::Heartbeat::new(),
        http_front::HttpFront::new(tasks),
        Host::system(),
    );
    let outcome = spec(directory.path(), ABSENT).build().run(cx).await;
    assert!(matches!(outcome, Err(role::RoleError::Dependency(..))), "{outcome:?}");
    let text = bedrock::chain(&outcome.unwrap_err());
    assert!(text.ends_with("another quickcloud serves from this directory"), "{text}");
    assert!(matches!(running.health.health(), Health::Degraded { .. }));
    running.stop().await;
}

#[tokio::test]
async fn preflight_names_only_what_the_api_needs() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::system();
    assert_eq!(spec(directory.path(), ABSENT).preflight(&host).await, []);
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let found = spec(&file, ABSENT).preflight(&host).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].problem.contains("file"), "{found:?}");
}

/// Who changed what, as a list and as it happens; a listener that was away is told what it missed.
#[tokio::test]
async fn changes_are_listed_told_and_kept_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let more = "dnsmasq = \"/nonexistent/dnsmasq\"";
    let running = Running::start(directory.path(), more, Host::system()).await;
    running.api.set_up().await;
    running.stop().await;
    let running = Running::start(directory.path(), more, Host::system()).await;
    let api = &running.api;
    api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(202);
    let list = api.get("/v1/changes?limit=2").await.expect(200).json();
    assert_eq!(
        list["items"][0]["what"],
        "put reservation r1 of z1: 02:00:00:00:00:01 gets 10.77.0.50"
    );
    assert_eq!(list["items"][1]["what"], "put subnet s1 of z1");
    assert_eq!((&list["items"][0]["by"], &list["items"][0]["id"]), (&json!("api"), &json!(3)));
    let first = api.send("GET", "/v1/events", &[("last-event-id", "2")], "").await.expect(200).text;
    assert!(first.contains("event: change") && first.contains("id: 3"), "{first}");
    let alarms = api.get("/v1/events").await.expect(200).text;
    assert!(alarms.contains("event: alarms") && alarms.contains("instance-down"), "{alarms}");
    running.stop().await;
}

#[tokio::test]
async fn a_client_without_an_address_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let more = "dnsmasq = \"/nonexistent/dnsmasq\"";
    let running = Running::start(directory.path(), more, Host::system()).await;
    let api = &running.api;
    api.set_up().await;
    api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(202);
    let reasons = async |who: &str| {
        let answer = api.get(&format!("/v1/explain/{who}")).await.expect(200).json();
        assert_eq!(answer["served"], false);
        (answer["reservations"].clone(), answer["reasons"].to_string())
    };
    for who in ["02:00:00:00:00:01", "10.77.0.50", "vm-r1", "VM-R1.cs.example."] {
        let (found, text) = reasons(who).await;
        assert_eq!(found, json!(["r1"]), "{who}");
        assert!(text.contains("02:00:00:00:00:01 gets 10.77.0.50"), "{text}");
        assert!(text.contains("dnsmasq does not serve") && text.contains("is not there"), "{text}");
    }
    for who in ["02:00:00:00:00:02", "10.77.0.51", "vm-r1.other.example"] {
        let (found, text) = reasons(who).await;
        assert_eq!(found, json!([]), "{who}");
        assert!(text.contains("there is no reservation"), "{text}");
    }
    api.get("/v1/explain/a%20b").await.problem(404, "not-found");
    running.stop().await;
}

/// Everything of the API in a zone, read, replaced, rehearsed; what the sync owns is not touched.
#[tokio::test]
async fn everything_of_the_api_is_replaced_as_a_whole() {
    let directory = tempfile::tempdir().unwrap();
    let more = "dnsmasq = \"/nonexistent/dnsmasq\"";
    let running = Running::start(directory.path(), more, Host::system()).await;
    let api = &running.api;
    api.set_up().await;
    let path = "/v1/zones/z1/desired";
    let reservation = |last: u8| {
        json!({"id": format!("r{last}"), "mac": format!("02:00:00:00:00:{last:02x}"),
            "ipv4": format!("10.77.0.{last}"), "hostname": format!("vm-{last}")})
    };
    let subnet = json!({"id": "s1", "cidr": "10.77.0.0/24", "gateway": "10.77.0.254"});
    let body = |range: std::ops::Range<u8>| {
        json!({"source": "api", "subnets": [subnet], "reservations":
            range.map(reservation).collect::<Vec<_>>(),
            "records": [{"name": "gate", "type": "A", "values": ["10.77.0.1"]}]})
    };
    let first = api.put(path, &body(10..40)).await.expect(202).json();
    assert_eq!(first["reservations"]["created"].as_array().unwrap().len(), 30, "{first}");
    assert_eq!(first["subnets"], json!({"created": [], "updated": [], "deleted": []}));
    // What is shown can be put again, and changes nothing.
    let shown = api.get(path).await.expect(200).json();
    let again = api.put(path, &shown).await.expect(202).json();
    assert_eq!(again["change"], Value::Null, "{again}");
    // A rehearsal says what would go and stores nothing; so much needs force.
    api.put(path, &body(10..20)).await.problem(409, "mass-delete-held");
    let rehearsal = api.put(&format!("{path}?dry_run=true&force=true"), &body(10..20)).await;
    let rehearsal = rehearsal.expect(200).json();
    assert_eq!(rehearsal["reservations"]["deleted"].as_array().unwrap().len(), 20);
    assert_eq!(api.get(path).await.json()["reservations"].as_array().unwrap().len(), 30);
    let forced = api.put(&format!("{path}?force=true"), &body(10..20)).await.expect(202).json();
    assert_eq!(forced["reservations"]["deleted"].as_array().unwrap().len(), 20);
    // One fault, and all stays as it is.
    let mut broken = body(10..15);
    broken["reservations"][0]["ipv4"] = json!("10.99.0.1");
    broken["records"][0]["type"] = json!("MX");
    let problem = api.put(path, &broken).await.problem(422, "invalid-value");
    assert_eq!(problem["errors"][0]["pointer"], "/records/0/type", "{problem}");
    broken["records"] = json!([]);
    broken["reservations"][0]["ipv4"] = json!("10.77.0.254");
    broken["reservations"][1]["mac"] = json!("02:00:00:00:00:0e");
    let problem = api.put(path, &broken).await.problem(422, "invalid-value");
    let faults = problem["errors"].as_array().unwrap().iter();
    let pointers: Vec<&Value> = faults.map(|fault| &fault["pointer"]).collect();
    assert_eq!(pointers, ["/reservations/0/ipv4", "/reservations/4/mac"], "{problem}");
    api.put(path, &json!({"source": "cloudstack"})).await.problem(422, "invalid-value");
    assert_eq!(api.get(path).await.json()["reservations"].as_array().unwrap().len(), 10);
    let others = api.get(&format!("{path}?source=cloudstack")).await.expect(200).json();
    assert_eq!(others["reservations"], json!([]));
    running.stop().await;
}

/// Over TCP nothing is told without a token, and a token allows what its role may.
#[tokio::test]
async fn over_tcp_a_token_decides() {
    use dhcp::access::{AccessRole, mint};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().unwrap();
    let (reader, first) = mint("look", AccessRole::Reader);
    let (writer, second) = mint("reserve", AccessRole::Writer);
    let (admin, third) = mint("all", AccessRole::Admin);
    let file = directory.path().join("tokens");
    std::fs::write(&file, format!("{first}\n{second}\n{third}\n")).unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let more = format!(
        "dnsmasq = \"/nonexistent/dnsmasq\"\napi_listen = \"127.0.0.1:{port}\"\n\
         api_tokens_file = {:?}",
        file.display().to_string()
    );
    let running = Running::start(directory.path(), &more, Host::system()).await;
    running.api.set_up().await;
    let send = async |method: &str, path: &str, token: &str, body: &str| {
        let mut stream = crate::harness::eventually("the port is open", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        let authorization = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), answer)
    };
    let reservation = r#"{"mac":"02:00:00:00:00:01","ipv4":"10.77.0.50"}"#;
    let path = "/v1/zones/z1/reservations/r1";
    for wrong in ["", "qcd_0", &first] {
        let (status, text) = send("GET", "/v1/status", wrong, "").await;
        assert_eq!(status, 401, "{text}");
        assert!(text.contains("urn:quickcloud:dhcp:unauthenticated"), "{text}");
    }
    assert_eq!(send("GET", "/v1/healthz", "", "").await.0, 200);
    assert_eq!(send("GET", "/v1/status", &reader, "").await.0, 200);
    let (status, text) = send("PUT", path, &reader, reservation).await;
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("the token look is a reader's") && !text.contains(&reader), "{text}");
    assert_eq!(send("PUT", path, &writer, reservation).await.0, 202);
    let zone = r#"{"domain":"b.example"}"#;
    assert_eq!(send("PUT", "/v1/zones/z2", &writer, zone).await.0, 403);
    assert_eq!(send("PUT", "/v1/zones/z2", &admin, zone).await.0, 202);
    running.stop().await;
}
