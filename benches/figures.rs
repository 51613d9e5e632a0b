//! The figures of README.md: frames per second, start-up, memory; those of a role have programs of
//! their own.
//!
//! `cargo xtask bench` builds the release binary and runs this. Everything is measured on the
//! binary from outside, but for frame decoding, which is a library call.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and ends when anything is not as expected"
)]

#[path = "shared/binary.rs"]
mod binary;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent_protocol::agent::CheckHealthCommand;
use agent_protocol::frame::Frame;
use agent_protocol::storage::StorageCommand;
use base64::Engine as _;
use management_server::ManagementServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use binary::{Running, free, resident};

const INTERFACE: &str = "qcbench0";
const STARTS: usize = 7;

fn main() {
    let Some(binary) = binary::given("") else { return };
    decode();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(&binary));
}

/// Frame bytes → frame → envelopes → closed command enum, over the recorded requests of the server.
fn decode() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("crates/agent-protocol/tests/vectors/messages.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let frames: Vec<Vec<u8>> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|message| message["dir"] == "m2a" && message["peer"] == "ss")
        .map(|message| message["raw"].as_str().unwrap().to_owned())
        .map(|raw| base64::engine::general_purpose::STANDARD.decode(raw).unwrap())
        // Two recordings carry a whole configuration drive, compressed.
        .filter(|bytes| bytes.get(3).is_some_and(|flags| flags & 0x80 == 0))
        .collect();
    let start = Instant::now();
    let mut count = 0_u64;
    while start.elapsed() < Duration::from_secs(2) {
        for bytes in &frames {
            let frame = Frame::decode(bytes, 1 << 20).unwrap();
            for envelope in frame.envelopes().unwrap() {
                std::hint::black_box(StorageCommand::decode(envelope).is_ok());
            }
            count += 1;
        }
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!(
        "decode + dispatch: {rate:.0} frames/s ({} recorded requests, one core)",
        frames.len()
    );
}

async fn measure(binary: &Path) {
    let root = std::fs::metadata("/proc/self")
        .is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0);
    let interface =
        root && ip(&["link", "add", INTERFACE, "type", "veth", "peer", "name", "qcbench1"]);
    let roles = if interface { "ss,cp,dhcp" } else { "ss,cp" };
    if interface {
        ip(&["addr", "add", "10.98.0.1/24", "dev", INTERFACE]);
        ip(&["link", "set", INTERFACE, "up"]);
    }
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let environment = Environment::start(binary, roles).await;
        starts.push(environment.ready_after);
        environment.stop().await;
    }
    starts.sort();
    let ms = |index: usize| starts[index].as_secs_f64() * 1000.0;
    println!(
        "start → every role ready ({roles}): min {:.0} median {:.0} max {:.0} ms of {STARTS} (goal < 300 ms)",
        ms(0),
        ms(STARTS / 2),
        ms(STARTS - 1)
    );
    let environment = Environment::start(binary, roles).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!(
        "resident memory, idle, {roles}: {:.1} MiB (goal < 30 MiB)",
        resident(environment.process.id())
    );
    commands(&environment).await;
    environment.stop().await;
    if interface {
        ip(&["link", "del", INTERFACE]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// The binary with its roles, registered with an embedded server of this process.
struct Environment {
    server: ManagementServer,
    process: Running,
    ready_after: Duration,
    directory: tempfile::TempDir,
}

impl Environment {
    async fn start(binary: &Path, roles: &str) -> Self {
        let (public, admin) = (free(), free());
        let server = binary::server(public).await;
        let directory = tempfile::tempdir().unwrap();
        let mut settings = binary::settings(&server, directory.path(), public);
        settings.push(format!("supervisor.admin_address={admin}"));
        if roles.contains("dhcp") {
            settings.push(format!("roles.dhcp.interface={INTERFACE}"));
            let socket = directory.path().join("dhcp.sock");
            settings.push(format!("roles.dhcp.api_socket=\"{}\"", socket.display()));
        }
        let process = binary::run(binary, roles, &settings);
        let started = Instant::now();
        binary::until_registered(&server, 2).await;
        while !ready(admin).await {
            assert!(started.elapsed() < Duration::from_secs(20), "not ready in time");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self { server, process, ready_after: started.elapsed(), directory }
    }

    async fn stop(mut self) {
        assert!(self.process.end(), "the roles did not end well");
        self.server.shutdown().await;
        self.directory.close().unwrap();
    }
}

async fn ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin).await else { return false };
    let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    if stream.write_all(request).await.is_err() {
        return false;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200")
}

/// Commands over the real link, 32 at a time: TLS, decode, dispatch, answer, and back.
async fn commands(environment: &Environment) {
    let guid =
        environment.server.hosts().iter().find(|host| host.name == "s-1-VM").unwrap().guid.clone();
    let start = Instant::now();
    let workers = (0..32).map(|_| async {
        let mut count = 0_u64;
        while start.elapsed() < Duration::from_secs(2) {
            let command = CheckHealthCommand::default();
            environment.server.request(&guid, &command, Duration::from_secs(10)).await.unwrap();
            count += 1;
        }
        count
    });
    let total: u64 = futures_util::future::join_all(workers).await.iter().sum();
    let rate = total as f64 / start.elapsed().as_secs_f64();
    println!(
        "commands answered over the link: {rate:.0}/s (32 in flight, server on the same machine)"
    );
}
