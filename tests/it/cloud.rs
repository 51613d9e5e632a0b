//! The demo's page in a real browser: a machine that is made there is served by the dhcp role, to a
//! real client, and forgotten when it is expunged. Everything in a network namespace of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const ADDRESS: &str = "127.0.0.1:8096";
/// Where the demo's guests are.
const CLIENT: &str = "qcdemo1";

/// The namespace and the demo in it; both end with this.
struct Demo {
    namespace: String,
    child: Child,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
        ip(&["netns", "del", &self.namespace]);
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}: {status}");
}

fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

#[test]
fn a_machine_made_on_the_page_gets_its_lease_and_is_forgotten() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: a network namespace needs root");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/cloud.mjs");
    let modules = script.with_file_name("node_modules");
    assert!(modules.is_dir(), "run `cargo xtask setup`, or npm ci --prefix tests/browser");
    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let namespace = format!("qcdev-{}", std::process::id());
    ip(&["netns", "add", &namespace]);
    ip(&["-n", &namespace, "link", "set", "lo", "up"]);
    let log = directory.path().join("log");
    let child = inside(&namespace, env!("CARGO_BIN_EXE_quickcloud"))
        .args(["dev", "--listen", ADDRESS, "--state"])
        .arg(directory.path().join("state"))
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _demo = Demo { namespace: namespace.clone(), child };
    let url = format!("http://{ADDRESS}/");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !inside(&namespace, "curl")
        .args(["-sSf", "-o", "/dev/null", &url])
        .status()
        .unwrap()
        .success()
    {
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(Instant::now() < deadline, "the demo does not start: {said}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = inside(&namespace, "node")
        .arg(script)
        .args(["--url", &url, "--client", CLIENT])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_odd| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(output.status.success(), "{said:#}\n{log}");
    let machine = &said["machine"];
    assert!(machine["ipv4"].as_str().unwrap().starts_with("10.77.0."), "{machine}");
}
