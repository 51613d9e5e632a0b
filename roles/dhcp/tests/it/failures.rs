//! What dnsmasq may do instead of serving, played by a double of the program runner.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use role::host::{CommandError, CommandOutput};
use role::{BoxFuture, CommandRunner, CommandSpec, Host};

use crate::harness::{Running, eventually};

/// A machine whose dnsmasq is whatever shell script `start` is.
struct Machine {
    version: &'static str,
    /// stderr and exit code of `dnsmasq --test`.
    test: (&'static str, i32),
    start: String,
    starts: Arc<AtomicUsize>,
}

const VERSION: &str = "Dnsmasq version 2.90  Copyright\nCompile time options: DHCP inotify\n";

impl CommandRunner for Machine {
    fn run(&self, spec: CommandSpec) -> BoxFuture<'static, Result<CommandOutput, CommandError>> {
        let is_test = spec.arguments.iter().any(|argument| argument == "--test");
        let (stderr, code) = if is_test { self.test } else { ("", 0) };
        let stdout = if is_test { "" } else { self.version };
        let output = CommandOutput {
            code: Some(code),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        };
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
    _directory: tempfile::TempDir,
}

async fn play(version: &'static str, test: (&'static str, i32), start: &str) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let starts = Arc::new(AtomicUsize::new(0));
    let machine = Machine { version, test, start: start.to_owned(), starts: Arc::clone(&starts) };
    let host = Host { runner: Arc::new(machine), ..Host::system() };
    // The account is ours: a script of a test is not a dnsmasq to drop privileges for.
    let more = "interface = \"qcnone0\"\nuser = \"root\"";
    let running = Running::start(directory.path(), more, host).await;
    Scene { running, starts, _directory: directory }
}

const OK: (&str, i32) = ("dnsmasq: syntax check OK.", 0);

/// Confirms start and reloads like dnsmasq. The `sleep` is in the background, so that the shell
/// takes its signals.
const SERVES: &str = "echo 'dnsmasq: started, version 2.90' >&2; \
    tell() { echo 'dnsmasq[1]: read DIR/names.d/base - 0 names' >&2; \
             echo 'dnsmasq-dhcp[1]: read DIR/base.hosts' >&2; \
             echo 'dnsmasq-dhcp[1]: read DIR/base.opts' >&2; }; \
    trap tell HUP; trap 'kill $!; exit 0' TERM; tell; \
    while :; do sleep 60 & wait; kill $!; done";

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
    let scene = play(VERSION, ("dnsmasq: bad option at line 7 of main.conf", 1), SERVES).await;
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
