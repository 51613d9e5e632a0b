//! The whole command line in a process of its own, with test roles in place of the real ones: what
//! real roles cannot be made to do on demand, such as refusing to stop.
//!
//! The child is this very test binary, told by its environment to be `quickcloud`.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use config_reader::{Section, Violations};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use role::{ConfigInput, RoleDescriptor, RoleKind, RoleSpec};
use tempfile::TempDir;
use testkit::eventually;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

use crate::reloading;
use crate::roles::{BAD, Behaviour, GOOD, STUCK, TestRole, spec};
use crate::running::{LIMIT, request};

const ARGUMENTS: &str = "QUICKCLOUD_TEST_ARGUMENTS";

const REGISTRY: &[RoleDescriptor] = &[
    RoleDescriptor::new(GOOD, reloading::configure).reloading(&["roles.good.name"]),
    RoleDescriptor::new(BAD, |input, found| role(input, found, BAD)),
    RoleDescriptor::new(STUCK, |input, found| role(input, found, STUCK)),
];

fn role(
    input: ConfigInput<'_>,
    violations: &mut Violations,
    kind: RoleKind,
) -> Option<Arc<dyn RoleSpec>> {
    Section::new(format!("roles.{}", kind.section), input.section, violations).finish();
    let behaviour = match kind {
        BAD => Behaviour::NeverStop,
        _stuck => {
            let (gate, blocked) = mpsc::channel();
            // Never dropped: the role blocks its thread for ever.
            std::mem::forget(gate);
            Behaviour::Block(Arc::new(Mutex::new(blocked)))
        }
    };
    Some(spec(&TestRole::new(kind, behaviour)))
}

/// Not a test: the child's `main`, when the environment says so.
#[test]
#[allow(clippy::exit, reason = "this is the end of the child's main")]
fn be_quickcloud() {
    let Some(arguments) = std::env::var_os(ARGUMENTS) else { return };
    let arguments = arguments.into_string().unwrap();
    let arguments = arguments.split('\n').map(std::ffi::OsString::from);
    let outcome = quickcloud::cli::main_with(arguments, REGISTRY);
    std::process::exit(i32::from(outcome.code()));
}

struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    state: TempDir,
}

impl Running {
    fn start(roles: &str, more: &[&str], environment: &[(&str, String)]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let directory = format!("supervisor.state_directory={}", state.path().display());
        let mut arguments = vec!["quickcloud", "run", "--roles", roles, "--set", &directory];
        arguments.extend(["--set", "supervisor.admin_address=127.0.0.1:0"]);
        arguments.extend(more);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child::be_quickcloud", "--nocapture"])
            .env_remove("NOTIFY_SOCKET")
            .env(ARGUMENTS, arguments.join("\n"))
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, state }
    }

    /// Reads log lines up to one that contains `part`.
    async fn line_with(&mut self, part: &str) -> String {
        let search = async {
            let (mut log, mut line) = (String::new(), String::new());
            loop {
                let length = self.stderr.read_line(&mut line).await.unwrap();
                assert_ne!(length, 0, "{part:?} is not in the log:\n{log}");
                if line.contains(part) {
                    return line;
                }
                log.push_str(&line);
                line.clear();
            }
        };
        tokio::time::timeout(LIMIT, search).await.expect(part)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        kill(pid, signal).unwrap();
    }

    /// Exit code, and what was logged since the last line read.
    async fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        let end = async {
            self.stderr.read_to_string(&mut log).await.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(LIMIT, end).await.expect("does not end");
        (status.code(), log)
    }

    fn address_file(&self) -> PathBuf {
        self.state.path().join("admin.addr")
    }

    async fn admin(&self) -> std::net::SocketAddr {
        eventually("admin.addr", LIMIT, || {
            std::fs::read_to_string(self.address_file()).ok()?.trim().parse().ok()
        })
        .await
    }
}

#[tokio::test]
async fn sigterm_and_sigint_stop_gracefully() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running = Running::start("good", &[], &[]);
        running.line_with("role ready").await;
        running.signal(signal);
        let address_file = running.address_file();
        let (code, log) = running.end().await;
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("role stopped"), "{log}");
        assert!(!address_file.exists());
    }
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let mut running = Running::start("good,bad", &["--set", "supervisor.shutdown_grace=1h"], &[]);
    running.line_with("role{role=bad}: role ready").await;
    running.signal(Signal::SIGTERM);
    running.line_with("role{role=good}: role stopped").await;
    // A signal right behind the first is the same request; a patient operator's is a second one.
    let pid = Pid::from_raw(running.child.id().unwrap().try_into().unwrap());
    let insisting = tokio::spawn(async move {
        while kill(pid, Signal::SIGTERM).is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let (code, log) = running.end().await;
    insisting.abort();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("asked to end at once roles=\"bad\""), "{log}");
}

#[tokio::test]
async fn two_signals_in_one_moment_are_one_stop_request() {
    let mut running = Running::start("good", &[], &[]);
    running.line_with("role ready").await;
    running.signal(Signal::SIGTERM);
    running.signal(Signal::SIGINT);
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("second signal"), "{log}");
}

#[tokio::test]
async fn the_grace_period_ends_a_role_that_does_not_stop() {
    let grace = ["--set", "supervisor.shutdown_grace=100ms"];
    let mut running = Running::start("bad", &grace, &[]);
    running.line_with("role ready").await;
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().await.0, Some(1));
}

#[tokio::test]
async fn a_role_that_blocks_its_thread_does_not_keep_the_process_from_ending() {
    let grace = ["--set", "supervisor.shutdown_grace=100ms"];
    let mut running = Running::start("good,stuck", &grace, &[]);
    running.line_with("role{role=stuck}: role ready").await;
    running.signal(Signal::SIGTERM);
    let (code, log) = running.end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("role{role=good}: role stopped"), "{log}");
}

#[tokio::test]
async fn json_logs_are_one_object_per_line() {
    let mut running = Running::start("good", &["--log-format", "json"], &[]);
    let line = running.line_with("role ready").await;
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["level"], "INFO");
    assert_eq!(object["message"], "role ready");
    assert_eq!(object["spans"][0]["role"], "good");
    running.signal(Signal::SIGTERM);
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0));
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect(line);
    }
}

#[tokio::test]
async fn the_log_filter_can_be_changed_while_running() {
    let mut running = Running::start("good", &["--log", "error"], &[]);
    let addr = running.admin().await;
    let put = |filter: &str| {
        format!(
            "PUT /log-filter HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{filter}",
            filter.len()
        )
    };
    assert_eq!(request(addr, &put("a=b=c")).await.0, 422);
    assert_eq!(request(addr, &put("info")).await, (200, "info\n".to_owned()));
    running.line_with("log filter changed").await;
    running.signal(Signal::SIGTERM);
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("role stopped"), "{log}");
}

#[tokio::test]
async fn status_finds_the_running_process_by_its_state_directory() {
    let mut running = Running::start("good", &[], &[]);
    running.line_with("role ready").await;
    let directory = format!("supervisor.state_directory={}", running.state.path().display());
    let status = |json: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickcloud"));
        command.args(["status", "--set", &directory]);
        if json {
            command.arg("--json");
        }
        command.output()
    };
    let output = status(false).await.unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(table.lines().any(|line| line.starts_with("good  ready ")), "{table}");
    let document: serde_json::Value =
        serde_json::from_slice(&status(true).await.unwrap().stdout).unwrap();
    assert_eq!(document["roles"][0]["health"], "ready");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().await.0, Some(0));
}

#[tokio::test]
async fn the_service_manager_hears_ready_watchdog_and_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let environment =
        [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", "200000".to_owned())];
    let mut running = Running::start("good", &[], &environment);
    running.line_with("role ready").await;
    let mut heard = String::new();
    let mut hear = move |part: &str, times: usize| {
        let begun = std::time::Instant::now();
        while heard.matches(part).count() < times {
            assert!(begun.elapsed() < LIMIT, "{part} was not heard {times} times: {heard}");
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer).expect(part);
            heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
    };
    hear("READY=1", 1);
    hear("STATUS=good ready", 1);
    hear("WATCHDOG=1", 3);
    running.signal(Signal::SIGTERM);
    hear("STOPPING=1", 1);
    assert_eq!(running.end().await.0, Some(0));
}

#[tokio::test]
async fn an_admin_address_in_use_exits_71() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = format!("supervisor.admin_address={}", taken.local_addr().unwrap());
    let running = Running::start("good", &["--set", &addr], &[]);
    let (code, log) = running.end().await;
    assert_eq!(code, Some(71));
    assert!(log.contains("Address already in use"), "{log}");
}

#[tokio::test]
async fn below_journald_lines_carry_priorities_and_no_time() {
    let environment = [("JOURNAL_STREAM", "8:1".to_owned())];
    let mut running = Running::start("good", &[], &environment);
    let line = running.line_with("role ready").await;
    assert_eq!(line, "<6> INFO role{role=good}: role ready\n");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().await.0, Some(0));
}

/// Keeps the helper honest: a child that was never asked to stop goes on.
#[tokio::test]
async fn a_running_process_does_not_end_by_itself() {
    let mut running = Running::start("good", &[], &[]);
    running.line_with("role ready").await;
    let waited = tokio::time::timeout(Duration::from_millis(200), running.child.wait()).await;
    assert!(waited.is_err(), "{waited:?}");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().await.0, Some(0));
}

#[tokio::test]
async fn a_second_process_on_the_same_state_is_told_who_has_it() {
    let mut running = Running::start("good", &[], &[]);
    running.line_with("role ready").await;
    let directory = format!("supervisor.state_directory={}", running.state.path().display());
    let second = Running::start("good", &["--set", &directory], &[]);
    let (code, log) = second.end().await;
    assert_eq!(code, Some(75), "{log}");
    let holder = format!("in use by another process (pid {} since 2", running.child.id().unwrap());
    assert!(log.contains(&holder), "{log}");
    assert!(running.address_file().exists());
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().await.0, Some(0));
}

/// A process with a configuration file that a test changes.
struct Configured {
    running: Running,
    file: PathBuf,
    _directory: TempDir,
}

impl Configured {
    async fn start(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("quickcloud.toml");
        std::fs::write(&file, text).unwrap();
        let mut running = Running::start("good", &["--config", file.to_str().unwrap()], &[]);
        running.line_with("role ready").await;
        Self { running, file, _directory: directory }
    }

    /// Exit code, answers and complaints of `quickcloud reload`.
    async fn reload(&self, more: &[&str]) -> (Option<i32>, String, String) {
        let admin = self.running.admin().await.to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickcloud"));
        let output = command.args(["reload", "--admin", &admin]).args(more).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

#[tokio::test]
async fn a_reload_says_what_is_in_force_and_what_needs_a_restart() {
    let mut configured = Configured::start("[roles.good]\nname = 'a'\n").await;
    let (code, out, _) = configured.reload(&[]).await;
    assert_eq!((code, out.as_str()), (Some(0), "nothing to change\n"));
    let text = "[log]\nfilter = 'info,good=trace'\n[supervisor]\nshutdown_grace = '3s'\n\
                [roles.good]\nname = 'b'\nfixed = 'b'\n";
    std::fs::write(&configured.file, text).unwrap();
    let expected = "supervisor  applied        log.filter\n\
                    supervisor  applied        supervisor.shutdown_grace\n\
                    good        applied        roles.good.name\n\
                    good        applied        secrets of b\n\
                    good        needs restart  roles.good.fixed\n";
    let (code, out, complaints) = configured.reload(&[]).await;
    assert_eq!((code, out.as_str(), complaints.as_str()), (Some(0), expected, ""));
    configured.running.line_with("name is b now").await;
    configured.running.line_with("configuration reloaded role=\"good\"").await;
    // What waits for a restart still does; what is in force is not reported as a change again.
    let (code, out, _) = configured.reload(&["--json"]).await;
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(answer["supervisor"]["applied"], serde_json::json!([]));
    assert_eq!(answer["roles"][0]["needs_restart"], serde_json::json!(["roles.good.fixed"]));
    configured.running.signal(Signal::SIGTERM);
    assert_eq!(configured.running.end().await.0, Some(0));
}

#[tokio::test]
async fn a_faulty_file_changes_nothing() {
    let mut configured = Configured::start("[roles.good]\nname = 'a'\n").await;
    std::fs::write(&configured.file, "[log]\nfilter = 'trace'\n[roles.good]\nnam = 'b'\n").unwrap();
    let (code, out, complaints) = configured.reload(&[]).await;
    assert_eq!((code, out.as_str()), (Some(78), "nothing changed\n"));
    let expected = "error: roles.good.nam: is not a known key\n       did you mean \"name\"?\n";
    assert_eq!(complaints, expected);
    configured.running.line_with("configuration is faulty, nothing changed place=").await;
    let filter = "GET /log-filter HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let addr = configured.running.admin().await;
    assert_eq!(request(addr, filter).await, (200, "info\n".to_owned()));
    std::fs::write(&configured.file, "[roles.good\n").unwrap();
    let (code, _, complaints) = configured.reload(&[]).await;
    assert_eq!(code, Some(78));
    assert!(complaints.contains("quickcloud.toml:1:"), "{complaints}");
    configured.running.signal(Signal::SIGTERM);
    assert_eq!(configured.running.end().await.0, Some(0));
}

#[tokio::test]
async fn a_hangup_signal_reloads_and_does_not_stop() {
    let mut configured = Configured::start("[roles.good]\nname = 'a'\n").await;
    std::fs::write(&configured.file, "[roles.good]\nname = 'c'\n").unwrap();
    configured.running.signal(Signal::SIGHUP);
    configured.running.line_with("name is c now").await;
    configured.running.line_with("reload done ok=true").await;
    configured.running.signal(Signal::SIGTERM);
    assert_eq!(configured.running.end().await.0, Some(0));
}

#[tokio::test]
async fn a_reload_that_a_role_cannot_do_is_a_failure_and_the_role_goes_on() {
    let mut configured = Configured::start("[roles.good]\nname = 'a'\n").await;
    for (name, problem) in [("panic", "panicked"), ("refuse", "no such name")] {
        std::fs::write(&configured.file, format!("[roles.good]\nname = '{name}'\n")).unwrap();
        let (code, out, complaints) = configured.reload(&[]).await;
        assert_eq!(code, Some(1), "{out}");
        assert!(complaints.contains(problem), "{complaints}");
    }
    std::fs::write(&configured.file, "[roles.good]\nname = 'd'\n").unwrap();
    assert_eq!(configured.reload(&[]).await.0, Some(0));
    configured.running.line_with("name is d now").await;
    configured.running.signal(Signal::SIGTERM);
    assert_eq!(configured.running.end().await.0, Some(0));
}

#[tokio::test]
async fn a_role_that_was_given_up_is_started_again_with_another_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("quickcloud.toml");
    let write = |name: &str| {
        let text =
            format!("[supervisor]\nshutdown_grace = '100ms'\n[roles.good]\nname = '{name}'\n");
        std::fs::write(&file, text).unwrap();
    };
    write("hopeless");
    let mut running = Running::start("good,bad", &["--config", file.to_str().unwrap()], &[]);
    running.line_with("role failed and will not be restarted").await;
    write("sound");
    running.signal(Signal::SIGHUP);
    running.line_with("starting the role with its new configuration").await;
    running.line_with("role{role=good}: role ready").await;
    running.signal(Signal::SIGTERM);
    // The other role never stops.
    assert_eq!(running.end().await.0, Some(1));
}
