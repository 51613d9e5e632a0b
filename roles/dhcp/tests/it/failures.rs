//! What dnsmasq may do instead of serving, played by a double of the program runner.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use role::host::{CommandError, CommandOutput};
use role::{BoxFuture, CommandRunner, CommandSpec, Host};

use serde_json::json;

use crate::harness::{Answer, Running, eventually, spec};

/// A main file → stderr and exit code of `dnsmasq --test`.
type Test = fn(&str) -> (String, i32);

/// A machine whose dnsmasq is whatever shell script `start` is.
struct Machine {
    version: &'static str,
    test: Test,
    start: String,
    starts: Arc<AtomicUsize>,
}

const VERSION: &str = "Dnsmasq version 2.90  Copyright\nCompile time options: DHCP inotify\n";

impl CommandRunner for Machine {
    fn run(&self, spec: CommandSpec) -> BoxFuture<'static, Result<CommandOutput, CommandError>> {
        let is_test = spec.arguments.iter().any(|argument| argument == "--test");
        let main_file = spec
            .arguments
            .iter()
            .find_map(|argument| argument.to_str()?.strip_prefix("--conf-file="))
            .map(|path| std::fs::read_to_string(path).unwrap());
        let (stderr, code) = match main_file {
            Some(text) if is_test => (self.test)(&text),
            _ => (String::new(), 0),
        };
        let stdout = if is_test { "" } else { self.version };
        let output = CommandOutput { code: Some(code), stdout: stdout.to_owned(), stderr };
        Box::pin(async move { Ok(output) })
    }

    fn start(&self, spec: CommandSpec) -> Result<tokio::process::Child, CommandError> {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let directory = spec.arguments.iter().find_map(|argument| {
            argument.to_str()?.strip_prefix("--conf-file=")?.strip_suffix("/main.conf")
        });
        let script = self.start.replace("DIR", directory.unwrap());
        let shell = CommandSpec::new("/bin/sh", spec.timeout).arg("-c").arg(script);
        Host::system().runner.start(shell)
    }
}

struct Scene {
    running: Running,
    starts: Arc<AtomicUsize>,
    directory: tempfile::TempDir,
}

async fn play(version: &'static str, test: Test, start: &str) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let starts = Arc::new(AtomicUsize::new(0));
    let machine = Machine { version, test, start: start.to_owned(), starts: Arc::clone(&starts) };
    let host = Host { runner: Arc::new(machine), ..Host::system() };
    // The account is ours: a script of a test is not a dnsmasq to drop privileges for.
    let more = "interface = \"qcnone0\"\nuser = \"root\"";
    let running = Running::start(directory.path(), more, host).await;
    Scene { running, starts, directory }
}

const OK: Test = |_| ("dnsmasq: syntax check OK.".to_owned(), 0);

/// Confirms start and reloads like dnsmasq. The `sleep` is in the background, so that the shell
/// takes its signals.
const SERVES: &str = "echo 'dnsmasq: started, version 2.90' >&2; \
    tell() { echo 'dnsmasq[1]: read DIR/base.names - 0 names' >&2; \
             echo 'dnsmasq-dhcp[1]: read DIR/base.hosts' >&2; \
             echo 'dnsmasq-dhcp[1]: read DIR/base.opts' >&2; }; \
    trap tell HUP; trap 'kill $!; exit 0' TERM; tell; \
    while :; do sleep 60 >/dev/null 2>&1 & wait; kill $!; done";

#[tokio::test]
async fn a_dnsmasq_that_exits_at_once_is_retried_and_its_words_are_kept() {
    let script =
        "echo 'dnsmasq: failed to create listening socket: Address already in use' >&2; exit 2";
    let scene = play(VERSION, OK, script).await;
    let reason = scene.running.degraded();
    assert!(reason.contains("exit status: 2") && reason.contains("already in use"), "{reason}");
    eventually("it is started again", async || {
        (scene.starts.load(Ordering::Relaxed) >= 3).then_some(())
    })
    .await;
    let exit = eventually("the API shows it down", async || {
        let instance = scene.running.api.status().await["instances"][0].clone();
        (instance["state"] == "down").then(|| instance["last_exit"].as_str().unwrap().to_owned())
    })
    .await;
    assert!(exit.contains("already in use"), "{exit}");
    scene.running.api.set_up().await;
    scene.running.stop().await;
}

#[tokio::test]
async fn a_refused_configuration_never_reaches_dnsmasq() {
    let scene =
        play(VERSION, |_| ("dnsmasq: bad option at line 7 of main.conf".to_owned(), 1), SERVES)
            .await;
    let reason = scene.running.degraded();
    assert!(reason.contains("refuses its configuration") && reason.contains("line 7"), "{reason}");
    let zone = serde_json::json!({"domain": "cs.example"});
    let problem = scene.running.api.put("/v1/zones/z1", &zone).await.problem(502, "apply-failed");
    assert!(problem["detail"].as_str().unwrap().contains("line 7"), "{problem}");
    // Stored it is.
    scene.running.api.get("/v1/zones/z1").await.expect(200);
    assert_eq!(scene.starts.load(Ordering::Relaxed), 0);
    scene.running.stop().await;
}

#[tokio::test]
async fn a_program_that_is_no_dnsmasq_or_too_old_is_not_started() {
    for (version, expected) in [
        ("BusyBox v1.35", "does not say its version"),
        ("Dnsmasq version 2.40\nCompile time options: DHCP inotify\n", "2.40 is too old"),
        ("Dnsmasq version 2.90\nCompile time options: no-DHCP\n", "built without DHCP"),
    ] {
        let scene = play(version, OK, SERVES).await;
        let reason = scene.running.degraded();
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(scene.starts.load(Ordering::Relaxed), 0);
        scene.running.stop().await;
    }
}

#[tokio::test]
async fn a_missing_interface_is_a_condition_and_dnsmasq_waits_for_it() {
    let scene = play(VERSION, OK, SERVES).await;
    assert_eq!(scene.running.degraded(), "interface qcnone0 does not exist");
    assert_eq!(scene.running.api.status().await["instances"][0]["state"], "serving");
    scene.running.stop().await;
}

/// `dnsmasq --test` finds nothing, and dnsmasq dies of it: the generation before is served again,
/// later changes, too, once what killed it is taken back.
#[tokio::test]
async fn a_generation_that_kills_dnsmasq_is_rolled_back() {
    let dies = "if grep -q 10.77.0.66 DIR/base.hosts; then kill -SEGV $$; fi; ";
    let script = SERVES.replace("trap tell HUP", &format!("trap '{dies}tell' HUP"));
    let scene = play(VERSION, OK, &format!("{dies}{script}")).await;
    let api = &scene.running.api;
    api.set_up().await;
    api.reserve("good", "02:00:00:00:00:01", "10.77.0.50").await.expect(201);
    let body = json!({"upsert": [{"id": "poison", "mac": "02:00:00:00:00:66", "ipv4": "10.77.0.66"}],
        "delete": ["good"]});
    let batch = "/v1/zones/z1/reservations:batch";
    // dnsmasq is down when it is answered: stored it is.
    let answer = api.send("POST", batch, &[], body.to_string()).await.expect(202).json();
    let generation = answer["results"][0]["revision"].as_u64().unwrap();
    let change = eventually("the generation is given up", async || {
        let change = api.get(&format!("/v1/changes/{generation}")).await.json();
        (change["state"] == "rolled_back").then_some(change)
    })
    .await;
    let error = change["error"].as_str().unwrap();
    assert!(
        error.contains("does not survive generation") && error.contains("signal: 11"),
        "{error}"
    );
    let status = eventually("the older generation is served", async || {
        let status = api.status().await;
        (status["instances"][0]["state"] == "serving").then_some(status)
    })
    .await;
    let alarms = status["alarms"].to_string();
    assert!(alarms.contains("generation-poisoned"), "{alarms}");
    assert!(scene.running.degraded().contains("does not survive generation"));
    assert_eq!(status["dirty"], true);
    let hosts = api.get("/v1/instances/main/config?file=hosts").await.text;
    assert!(hosts.contains("10.77.0.50") && !hosts.contains("10.77.0.66"), "{hosts}");
    // Taken back: served at once, without a try in between.
    let body = json!({"upsert": [{"id": "good", "mac": "02:00:00:00:00:01", "ipv4": "10.77.0.50",
        "hostname": "vm-good"}], "delete": ["poison"]});
    api.send("POST", batch, &[("prefer", "wait=20")], body.to_string()).await.expect(200);
    assert!(!api.status().await["alarms"].to_string().contains("poisoned"));
    scene.running.stop().await;
}

/// A reload that is not confirmed is not believed.
#[tokio::test]
async fn a_dnsmasq_that_ignores_a_reload_is_started_anew() {
    let deaf = SERVES.replace("trap tell HUP", "trap : HUP");
    let scene = play(VERSION, OK, &format!("trap : HUP; {deaf}")).await;
    let api = &scene.running.api;
    api.set_up().await;
    api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(201);
    let before = scene.starts.load(Ordering::Relaxed);
    api.delete("/v1/zones/z1/reservations/r1").await.expect(204);
    assert!(scene.starts.load(Ordering::Relaxed) > before);
    scene.running.stop().await;
}

#[tokio::test]
async fn a_dnsmasq_that_does_not_take_a_line_is_reported() {
    let line = "duplicate dhcp-host IP address 10.77.0.50 at line 1 of DIR/base.hosts";
    let script = SERVES.replace("tell() { ", &format!("tell() {{ echo 'dnsmasq[1]: {line}' >&2; "));
    let scene = play(VERSION, OK, &script).await;
    assert!(scene.running.degraded().contains("dnsmasq does not take: duplicate"));
    let alarms = scene.running.api.status().await["alarms"].clone();
    let kinds: Vec<_> = alarms.as_array().unwrap().iter().map(|alarm| &alarm["alarm"]).collect();
    assert_eq!(kinds, ["interface-missing", "reservation-rejected"], "{alarms}");
    scene.running.stop().await;
}

async fn put_record(scene: &Scene, path: &str, value: &str) -> Answer {
    let path = format!("/v1/zones/z1/records/{path}");
    scene.running.api.put(&path, &json!({"values": [value]})).await
}

/// A record that no check of ours knows to be bad is left out; the rest is served, and it comes
/// back when it is changed.
#[tokio::test]
async fn a_record_that_dnsmasq_refuses_is_left_out_and_everything_else_is_served() {
    let by_line: Test = |text| match text.lines().position(|line| line.contains("poison")) {
        Some(line) => (format!("dnsmasq: bad TXT at line {} of main.conf.new", line + 1), 1),
        None => ("dnsmasq: syntax check OK.".to_owned(), 0),
    };
    // Some complaints name no line: then no record of the main file is given to dnsmasq.
    let by_word: Test = |text| match text.contains("poison") {
        true => ("dnsmasq: something about poison.".to_owned(), 1),
        false => ("dnsmasq: syntax check OK.".to_owned(), 0),
    };
    for (test, others_are_served) in [(by_line, true), (by_word, false)] {
        let scene = play(VERSION, test, SERVES).await;
        let api = &scene.running.api;
        api.set_up().await;
        put_record(&scene, "good/TXT", "x").await.expect(201);
        let problem = put_record(&scene, "bad/TXT", "poison").await.problem(502, "apply-failed");
        assert!(problem["detail"].as_str().unwrap().contains("dnsmasq refuses it"), "{problem}");
        // Reservations go on.
        api.reserve("r1", "02:00:00:00:00:01", "10.77.0.50").await.expect(201);
        let status = async |name: &str| {
            api.get(&format!("/v1/zones/z1/records/{name}/TXT")).await.json()["status"].clone()
        };
        assert_eq!(status("bad").await["served"], false);
        assert_eq!(status("good").await["served"], others_are_served);
        let main = api.get("/v1/instances/main/config").await.text;
        assert!(!main.contains("poison") && main.contains("\"x\"") == others_are_served, "{main}");
        let alarms = api.status().await["alarms"].clone();
        assert!(alarms.to_string().contains("record-withheld"), "{alarms}");
        put_record(&scene, "bad/TXT", "sound").await.expect(200);
        assert_eq!(status("bad").await, json!({"served": true}));
        scene.running.stop().await;
    }
}

/// A line that dnsmasq drops is not applied, and whose it is is known.
#[tokio::test]
async fn an_option_that_dnsmasq_drops_is_not_applied() {
    let complain = "for n in $(grep -n poison DIR/base.opts | cut -d: -f1); do \
        echo \"dnsmasq[1]: bad dhcp-option at line $n of DIR/base.opts\" >&2; done;";
    let script = SERVES.replace("tell() { ", &format!("tell() {{ {complain} "));
    let scene = play(VERSION, OK, &script).await;
    let api = &scene.running.api;
    api.set_up().await;
    let reservation = |last: u8, text: &str| {
        json!({"mac": format!("02:00:00:00:00:{last:02x}"), "ipv4": format!("10.77.0.{last}"),
            "options": [{"code": 66, "value": text}]})
    };
    let path = |id: &str| format!("/v1/zones/z1/reservations/{id}");
    api.put(&path("good"), &reservation(50, "x")).await.expect(201);
    let answer = api.put(&path("bad"), &reservation(51, "poison")).await;
    let problem = answer.problem(502, "apply-failed");
    assert!(problem["detail"].as_str().unwrap().contains("bad dhcp-option"), "{problem}");
    let status = async |id: &str| api.get(&path(id)).await.json()["status"].clone();
    assert_eq!(status("good").await["applied"], true);
    let bad = status("bad").await;
    assert_eq!(bad["applied"], false);
    assert!(bad["warnings"][0].as_str().unwrap().contains("bad dhcp-option"), "{bad}");
    api.put(&path("bad"), &reservation(51, "sound")).await.expect(200);
    assert_eq!(status("bad").await["applied"], true);
    // The same for a subnet.
    let tag = api.get("/v1/zones/z1/subnets/s1").await.tag();
    let subnet = json!({"cidr": "10.77.0.0/24", "options": [{"code": 66, "value": "poison"}]});
    let headers = [("if-match", tag.as_str())];
    let answer = api.send("PUT", "/v1/zones/z1/subnets/s1", &headers, subnet.to_string()).await;
    answer.problem(502, "apply-failed");
    scene.running.stop().await;
}

/// What a reload puts in force while the role runs.
#[tokio::test]
async fn a_reload_takes_over_upstreams_and_lease_time() {
    let scene = play(VERSION, OK, SERVES).await;
    let api = &scene.running.api;
    api.set_up().await;
    let main = async || api.get("/v1/instances/main/config").await.text;
    assert!(!main().await.contains("server=10.0.0.53"));
    let more = "interface = \"qcnone0\"\nupstreams = [\"10.0.0.53\"]\nlease_time = \"7200\"";
    let report = scene.running.reload(scene.directory.path(), more).await;
    assert_eq!(report.failed, []);
    eventually("dnsmasq is given them", async || {
        let main = main().await;
        (main.contains("server=10.0.0.53\n") && main.contains(",7200\n")).then_some(())
    })
    .await;
    for key in dhcp::DESCRIPTOR.reloadable {
        assert!(["roles.dhcp.upstreams", "roles.dhcp.lease_time"].contains(key), "{key}");
    }
    scene.running.stop().await;
}

#[tokio::test]
async fn the_doctor_names_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let more = "interface = \"qcnone0\"\ndnsmasq = \"/nonexistent/dnsmasq\"";
    let checks = spec(directory.path(), more).doctor();
    let mut found = Vec::new();
    for check in checks {
        let finding = check.ask(role::DoctorContext::new(Host::system())).await;
        if let role::DoctorFinding::Fault { problem, remedy } = finding {
            assert!(!problem.is_empty() && !remedy.is_empty());
            found.push(check.name);
        }
    }
    assert!(found.starts_with(&["dhcp.dnsmasq"]), "{found:?}");
    assert!(found.contains(&"dhcp.interface"), "{found:?}");
}
