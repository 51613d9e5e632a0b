//! A wire of our own: two network namespaces with a veth pair between them.
//!
//! A test that needs it runs twice: outside it makes the namespaces and starts the test binary
//! again for the same test inside the server's; there the role, its dnsmasq and the packets it
//! sends see nothing but the wire. The guard removes everything, whatever happens.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::Client;

const INSIDE: &str = "QUICKCLOUD_DHCP_WIRE";
const PREFIX: &str = "qcdhcp-";

/// The wire as a test sees it.
#[derive(Debug)]
pub(crate) struct Wire {
    server: String,
    client: String,
    owned: bool,
    socket: OnceLock<Client>,
}

/// A state directory that dnsmasq's account can reach; a temporary one is closed to others.
pub(crate) fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o755);
    directory
}

pub(crate) fn set_mode(directory: &std::path::Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(directory, mode).unwrap();
}

static NEXT: AtomicU32 = AtomicU32::new(0);

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("cannot run {program}: {error}; install it first"))
}

#[track_caller]
fn ip(arguments: &[&str]) -> String {
    let output = run("ip", arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

impl Wire {
    /// Interface br0 with 10.77.0.1/24 in the server's namespace, eth0 in the client's.
    fn new() -> Self {
        sweep();
        let name =
            format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let wire = Self {
            server: format!("{name}-s"),
            client: format!("{name}-c"),
            owned: true,
            socket: OnceLock::new(),
        };
        let Self { server, client, .. } = &wire;
        ip(&["netns", "add", server]);
        ip(&["netns", "add", client]);
        ip(&[
            "-n", server, "link", "add", "br0", "type", "veth", "peer", "name", "eth0", "netns",
            client,
        ]);
        ip(&["-n", server, "addr", "add", "10.77.0.1/24", "dev", "br0"]);
        for (namespace, device) in
            [(server, "br0"), (server, "lo"), (client, "eth0"), (client, "lo")]
        {
            ip(&["-n", namespace, "link", "set", device, "up"]);
        }
        // For queries; the server neither knows nor minds.
        ip(&["-n", client, "addr", "add", "10.77.0.200/24", "dev", "eth0"]);
        wire
    }

    /// The command that runs this test again in the server's namespace.
    fn again(&self, test: &str, mode: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.server])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(INSIDE, format!("{} {} {mode}", self.server, self.client));
        command
    }

    /// The client that sees every byte.
    pub(crate) fn client(&self) -> &Client {
        self.socket.get_or_init(|| Client::new(&self.client))
    }

    /// One exchange of a real client with this MAC: what it was given, or `None` after a second of
    /// silence.
    pub(crate) fn udhcpc(&self, mac: &str) -> Option<Given> {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        let given = directory.path().join("given");
        let text = format!("#!/bin/sh\n[ \"$1\" = bound ] && env > {}\nexit 0\n", given.display());
        std::fs::write(&script, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        ip(&["-n", &self.client, "link", "set", "eth0", "address", mac]);
        let script = script.display().to_string();
        let output = run(
            "ip",
            &[
                "netns",
                "exec",
                &self.client,
                "udhcpc",
                "-i",
                "eth0",
                "-n",
                "-q",
                "-f",
                "-t",
                "1",
                "-T",
                "1",
                "-O",
                "mtu",
                "-O",
                "ntpsrv",
                "-O",
                "search",
                "-s",
                &script,
            ],
        );
        if !output.status.success() {
            return None;
        }
        Some(Given(std::fs::read_to_string(given).unwrap()))
    }

    /// A client behind a relay in 10.78.0.0/24, which the server reaches through the wire.
    pub(crate) fn relayed(&self) -> Client {
        ip(&["-n", &self.client, "addr", "add", "10.78.0.254/24", "dev", "eth0"]);
        ip(&["route", "add", "10.78.0.0/24", "via", "10.77.0.200"]);
        Client::behind(&self.client, [10, 78, 0, 254].into(), [10, 77, 0, 1].into())
    }

    /// Another DHCP server, in the namespace of the clients; it ends with the wire.
    pub(crate) fn other_server(&self, directory: &std::path::Path) -> std::process::Child {
        let leases = directory.join("other.leases");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.client, "dnsmasq", "--keep-in-foreground"]);
        command.args(["--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file="]);
        command.args(["--interface=eth0", "--bind-interfaces", "--no-ping"]);
        command.arg("--dhcp-range=10.77.0.210,10.77.0.220");
        command.arg(format!("--dhcp-leasefile={}", leases.display()));
        command.stderr(std::process::Stdio::null()).spawn().unwrap()
    }

    /// Renames the server's interface, as from inside its namespace.
    #[expect(clippy::unused_self, reason = "only inside a wire")]
    pub(crate) fn rename(&self, from: &str, to: &str) {
        ip(&["link", "set", from, "down"]);
        ip(&["link", "set", from, "name", to]);
        ip(&["link", "set", to, "up"]);
    }

    /// `dig +short` as the client.
    pub(crate) fn dig(&self, arguments: &[&str]) -> String {
        let mut all = vec!["netns", "exec", &self.client, "dig", "+short", "+time=1", "+tries=2"];
        all.push("@10.77.0.1");
        all.extend(arguments);
        let output = run("ip", &all);
        assert!(output.status.success(), "dig {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// What a client was given, as udhcpc's script sees it.
#[derive(Debug)]
pub(crate) struct Given(String);

impl Given {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    pub(crate) fn ip(&self) -> &str {
        self.get("ip").unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.owned {
            remove(&self.server);
            remove(&self.client);
        }
    }
}

fn remove(namespace: &str) {
    let output = run("ip", &["netns", "pids", namespace]);
    for pid in String::from_utf8_lossy(&output.stdout).lines() {
        run("kill", &["-9", pid]);
    }
    let output = run("ip", &["netns", "del", namespace]);
    if !output.status.success() && !std::thread::panicking() {
        eprintln!("cannot remove {namespace}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Removes what a killed run left.
fn sweep() {
    for line in ip(&["netns", "list"]).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if let Some(owner) = owner
            && !PathBuf::from("/proc").join(owner).exists()
        {
            remove(name);
        }
    }
}

/// The wire, and how the test was started, if this is the process inside.
pub(crate) fn inside() -> Option<(Wire, String)> {
    let text = std::env::var(INSIDE).ok()?;
    let mut parts = text.split(' ').map(str::to_owned);
    let (server, client) = (parts.next().unwrap(), parts.next().unwrap());
    Some((Wire { server, client, owned: false, socket: OnceLock::new() }, parts.next().unwrap()))
}

/// Runs `body` in the server's namespace, in a process of its own.
pub(crate) fn on_a_wire(test: &str, body: impl AsyncFnOnce(Wire)) {
    if let Some((wire, _)) = inside() {
        runtime().block_on(body(wire));
        return;
    }
    let wire = Wire::new();
    let output = wire.again(test, "test").output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    // A name that matches no test succeeds, too.
    assert!(stdout.contains("1 passed"), "{test} did not run inside:\n{stdout}");
    eprint!("{stderr}");
}

/// As [`on_a_wire`], but `inner` runs until it is killed, and `outer` watches from outside.
pub(crate) fn around_a_wire(
    test: &str,
    inner: impl AsyncFnOnce(Wire, PathBuf),
    outer: impl AsyncFnOnce(&mut std::process::Child, PathBuf),
) {
    if let Some((wire, directory)) = inside() {
        runtime().block_on(inner(wire, directory.into()));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let wire = Wire::new();
    let mut command = wire.again(test, &directory.path().display().to_string());
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    runtime().block_on(outer(&mut child, directory.path().to_owned()));
}

/// As [`around_a_wire`], but `outer` starts `inner` as often as it likes, and has the clients.
pub(crate) fn again_on_a_wire(
    test: &str,
    inner: impl AsyncFnOnce(PathBuf),
    outer: impl AsyncFnOnce(&Wire, PathBuf, &dyn Fn() -> std::process::Child),
) {
    if let Some((_, directory)) = inside() {
        runtime().block_on(inner(directory.into()));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let wire = Wire::new();
    let start = || {
        let mut command = wire.again(test, &directory.path().display().to_string());
        let command = command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    runtime().block_on(outer(&wire, directory.path().to_owned(), &start));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
