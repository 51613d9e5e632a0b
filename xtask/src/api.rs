//! The DHCP role's REST API against its own document: the document by a public linter, the API by
//! schemathesis, which makes requests up from it. Both come from PyPI.
//!
//! The role runs as built, with a real dnsmasq, in a network namespace. No request may end in a
//! server's error, no answer be another than documented, and whatever was stored by then, dnsmasq
//! must still serve it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::run::{command, output, root, step};
use crate::setup;

const PROGRAMS: &[(&str, &str)] =
    &[("ip", "iproute2"), ("dnsmasq", "dnsmasq-base"), ("python3", "python3"), ("curl", "curl")];
const TOOLS: [&str; 2] = ["schemathesis==4.32.5", "openapi-spec-validator==0.9.0"];
const DOCUMENT: &str = "crates/dhcp-api/openapi.json";
const NAMESPACE: &str = "qc-api";
const BINARY: &str = "target/debug/quickcloud";
const LISTEN: &str = "127.0.0.1:8443";
/// What an answer is held against. Whether odd input is refused is the business of tests that know
/// what it means.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance,use_after_free,\
                      ignored_auth";

/// The role; it ends with this, and the namespace with it.
struct Role {
    child: Child,
    socket: PathBuf,
}

impl Drop for Role {
    fn drop(&mut self) {
        command("kill", &[&self.child.id().to_string()]).status().ok();
        self.child.wait().ok();
        remove_namespace();
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let seconds = arguments.first().map_or("60", String::as_str);
    setup::packages(PROGRAMS)?;
    let tools = tools()?;
    let validator = tools.join("bin/openapi-spec-validator").display().to_string();
    python(&tools, &[&validator, DOCUMENT])?;
    if !setup::is_root() {
        bail!("the API is tried in a network namespace: run this as root");
    }
    step("cargo", &["build", "--locked", "-p", "quickcloud"])?;
    let directory = root().join("target/api");
    let (role, token) = start(&directory)?;
    let schemathesis = tools.join("bin/schemathesis").display().to_string();
    let (url, header) =
        (format!("http://{LISTEN}/v1/openapi.json"), format!("Authorization: Bearer {token}"));
    let mut fuzzing = command("ip", &["netns", "exec", NAMESPACE, "python3", &schemathesis, "run"]);
    let status = fuzzing
        .args([&url, "-H", &header, "--checks", CHECKS, "--max-time", seconds, "-w", "1"])
        // One worker: Python 3.11 loses count of its recursion when two threads compile.
        // Of events there is no end.
        .args(["--exclude-path", "/v1/events", "--suppress-health-check", "all"])
        .args(["--request-timeout", "60", "--continue-on-failure", "--warnings", "off"])
        .env("PYTHONPATH", &tools)
        .current_dir(&directory)
        .status()?;
    ensure!(status.success(), "schemathesis found faults: {status}");
    served(&role)
}

/// The tools from PyPI, in a folder of their own.
fn tools() -> Result<PathBuf> {
    let folder = root().join("target/api-tools");
    let stamp = folder.join("installed");
    let wanted = TOOLS.join(" ");
    if fs::read_to_string(&stamp).unwrap_or_default() != wanted {
        let target = folder.display().to_string();
        let mut arguments = vec!["-m", "pip", "install", "-q", "--upgrade", "--target", &target];
        arguments.extend(TOOLS);
        step("python3", &arguments)?;
        fs::write(&stamp, wanted)?;
    }
    Ok(folder)
}

fn python(tools: &Path, arguments: &[&str]) -> Result<()> {
    let status = command("python3", arguments).env("PYTHONPATH", tools).status()?;
    ensure!(status.success(), "{} failed: {status}", arguments.join(" "));
    Ok(())
}

fn remove_namespace() {
    let mut command = Command::new("ip");
    command.args(["netns", "del", NAMESPACE]).stderr(Stdio::null()).status().ok();
}

/// Starts the role with one zone and one subnet, so that made-up paths find something.
fn start(directory: &Path) -> Result<(Role, String)> {
    remove_namespace();
    fs::remove_dir_all(directory).ok();
    fs::create_dir_all(directory)?;
    step("ip", &["netns", "add", NAMESPACE])?;
    let ip = |arguments: &[&str]| step("ip", &[&["-n", NAMESPACE][..], arguments].concat());
    ip(&["link", "add", "br0", "type", "veth", "peer", "name", "eth0"])?;
    ip(&["addr", "add", "10.77.0.1/24", "dev", "br0"])?;
    for device in ["lo", "br0", "eth0"] {
        ip(&["link", "set", device, "up"])?;
    }
    let minted = command(BINARY, &["dhcp", "token", "schemathesis", "--role", "admin"]).output()?;
    let token = String::from_utf8(minted.stderr)?.trim().to_owned();
    let path = |name: &str| directory.join(name).display().to_string();
    fs::write(path("tokens"), minted.stdout)?;
    let log = File::create(path("log"))?;
    let mut started = command("ip", &["netns", "exec", NAMESPACE, BINARY, "run"]);
    started.args(["--roles", "dhcp", "--set", "roles.dhcp.interface=br0"]);
    for (key, value) in [
        ("supervisor.state_directory", path("state")),
        ("supervisor.admin_address", "127.0.0.1:0".to_owned()),
        ("roles.dhcp.api_socket", path("socket")),
        ("roles.dhcp.api_listen", LISTEN.to_owned()),
        ("roles.dhcp.api_tokens_file", path("tokens")),
    ] {
        started.arg("--set").arg(format!("{key}={value}"));
    }
    let child = started.stdout(Stdio::null()).stderr(log).spawn()?;
    let role = Role { child, socket: directory.join("socket") };
    let deadline = Instant::now() + Duration::from_secs(30);
    while curl(&role.socket, &["http://x/v1/readyz"]).is_err() {
        ensure!(Instant::now() < deadline, "the role does not start; see {}", path("log"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let zone = r#"{"domain":"cs.example"}"#;
    curl(&role.socket, &["-X", "PUT", "http://x/v1/zones/z1", "-d", zone])?;
    let subnet = r#"{"cidr":"10.77.0.0/24","gateway":"10.77.0.254"}"#;
    curl(&role.socket, &["-X", "PUT", "http://x/v1/zones/z1/subnets/s1", "-d", subnet])?;
    Ok((role, token))
}

fn curl(socket: &Path, arguments: &[&str]) -> Result<String> {
    let socket = socket.display().to_string();
    let all = [&["-sSf", "--unix-socket", &socket][..], arguments].concat();
    output("curl", &all)
}

/// Whatever was stored, the same dnsmasq serves it.
fn served(role: &Role) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status: Value = serde_json::from_str(&curl(&role.socket, &["http://x/v1/status"])?)
            .context("the status is not JSON")?;
        let at = |path: &str| status.pointer(path).cloned().unwrap_or_default();
        let (wanted, applied) = (at("/generation"), at("/applied_generation"));
        if wanted == applied && at("/instances/0/state") == "serving" {
            let restarts = at("/instances/0/restarts");
            ensure!(restarts == 0, "dnsmasq died of what was stored: {status:#}");
            println!("API: generation {wanted} is served, dnsmasq never died");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "what was stored is not served: {status:#}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
