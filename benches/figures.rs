//! The figures of README.md: frames per second, start-up, memory, the console relay.
//!
//! `cargo xtask bench` builds the release binary and runs this. Everything is measured on the
//! binary from outside, but for frame decoding, which is a library call. The relay is compared
//! with websockify in the same run, so that the ratio does not depend on the machine.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and ends when anything is not as expected"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_protocol::agent::CheckHealthCommand;
use agent_protocol::frame::Frame;
use agent_protocol::storage::StorageCommand;
use base64::Engine as _;
use futures_util::{SinkExt, StreamExt};
use management_server::{
    ConsoleMode, HostKind, HostState, ImageStore, ManagementServer, ServerConfig, SystemVm, Vm,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Bytes, Message};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const INTERFACE: &str = "qcbench0";
const RELAY_TIME: Duration = Duration::from_secs(3);
const STARTS: usize = 7;

fn main() {
    // `cargo test --benches` runs this too; figures of a debug build tell nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let Some(binary) = std::env::var_os("QUICKCLOUD_BINARY").map(PathBuf::from) else {
        println!("run this through `cargo xtask bench`, which builds the release binary");
        return;
    };
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
        resident(environment.child.id())
    );
    commands(&environment).await;
    relay(&environment).await;
    println!("resident memory after that: {:.1} MiB", resident(environment.child.id()));
    environment.stop().await;
    if interface {
        ip(&["link", "del", INTERFACE]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The binary with its roles, registered with an embedded server of this process.
struct Environment {
    server: ManagementServer,
    child: Child,
    ready_after: Duration,
    directory: tempfile::TempDir,
}

fn free_port() -> u16 {
    StdListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap().port()
}

impl Environment {
    async fn start(binary: &Path, roles: &str) -> Self {
        let (public, admin) = (free_port(), free_port());
        let mut config = ServerConfig::new(SocketAddr::new(LOOPBACK, 0));
        config.stores = vec![ImageStore { url: "nfs://127.0.0.1/b".to_owned(), writable: true }];
        let row = |kind, id, name: &str| SystemVm {
            kind,
            id,
            name: name.to_owned(),
            public_address: LOOPBACK.to_string(),
        };
        config.system_vms = vec![
            row(HostKind::SecondaryStorage, 1, "s-1-VM"),
            row(HostKind::ConsoleProxy, 2, "v-2-VM"),
        ];
        config.console.mode = ConsoleMode::Rows { published: Some((LOOPBACK.to_string(), public)) };
        config.console.websocket_port = public;
        config.images.stats_interval = None;
        let server = ManagementServer::start(config).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let child = spawn(binary, roles, &server, directory.path(), public, admin);
        let started = Instant::now();
        let up = |server: &ManagementServer| {
            let up = server.hosts().iter().filter(|host| host.state == HostState::Up).count();
            (up == 2).then_some(())
        };
        server.wait_for("both hosts up", Duration::from_secs(20), up).await.unwrap();
        while !ready(admin).await {
            assert!(started.elapsed() < Duration::from_secs(20), "not ready in time");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self { server, child, ready_after: started.elapsed(), directory }
    }

    async fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "the roles did not end well");
        self.server.shutdown().await;
        self.directory.close().unwrap();
    }
}

fn spawn(
    binary: &Path,
    roles: &str,
    server: &ManagementServer,
    directory: &Path,
    public: u16,
    admin: u16,
) -> Child {
    let store = directory.join("store");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::write(directory.join("ca.pem"), server.ca_pem()).unwrap();
    let dir = directory.display();
    let mut settings = vec![
        format!("supervisor.state_directory=\"{dir}\""),
        format!("supervisor.admin_address=127.0.0.1:{admin}"),
        format!("management.servers=[\"{}\"]", server.address()),
        "management.zone=z1".to_owned(),
        "management.pod=p1".to_owned(),
        format!("management.ca_file=\"{dir}/ca.pem\""),
        "roles.secondary_storage.name=s-1-VM".to_owned(),
        format!(
            "roles.secondary_storage.stores=[{{url=\"nfs://127.0.0.1/b\",directory=\"{dir}/store\"}}]"
        ),
        "roles.console_proxy.name=v-2-VM".to_owned(),
        "roles.console_proxy.proxy_vm=2".to_owned(),
    ];
    for role in ["secondary_storage", "console_proxy"] {
        settings.push(format!("roles.{role}.private_address=127.0.0.1"));
        settings.push(format!("roles.{role}.public_address=127.0.0.1"));
        settings.push(format!("roles.{role}.listen=[\"127.0.0.1:{public}\"]"));
    }
    if roles.contains("dhcp") {
        settings.push(format!("roles.dhcp.interface={INTERFACE}"));
        settings.push(format!("roles.dhcp.api_socket=\"{dir}/dhcp.sock\""));
    }
    let mut command = Command::new(binary);
    command.args(["run", "--roles", roles, "--log", "error"]);
    for setting in &settings {
        command.args(["--set", setting]);
    }
    command.spawn().unwrap()
}

async fn ready(admin: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((LOOPBACK, admin)).await else { return false };
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

/// A VNC server that floods, behind QuickCloud and behind websockify.
async fn relay(environment: &Environment) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(flood(stream));
        }
    });
    let uuid = "00000000-0000-4000-8000-0000000000b1";
    environment.server.put_vm(Vm {
        id: 1,
        uuid: uuid.to_owned(),
        name: "flood".to_owned(),
        host_address: target.ip().to_string(),
        port: target.port(),
        vnc_password: "".into(),
        keyboard: None,
        windows: false,
        running: true,
    });
    let websockify = {
        let port = free_port();
        let child = Command::new("websockify")
            .args([format!("127.0.0.1:{port}"), target.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        child.map(|child| (child, port))
    };
    let Ok((mut peer, peer_port)) = websockify else {
        println!("console relay: websockify is not installed, nothing to compare with");
        return;
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((LOOPBACK, peer_port)).await.is_err() {
        assert!(Instant::now() < deadline, "websockify does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let link = environment.server.console_link(uuid, LOOPBACK, None).await.unwrap();
        let token = link.token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let url = format!("ws://{}:{}/websockify?token={token}", link.host, link.port);
        ours.push(watch(&url).await);
        theirs.push(watch(&format!("ws://127.0.0.1:{peer_port}/websockify")).await);
    }
    peer.kill().unwrap();
    peer.wait().unwrap();
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    println!(
        "console relay, one session: {:.0} MB/s, websockify {:.0} MB/s, ratio {:.1} (medians of 3)",
        ours[1],
        theirs[1],
        ours[1] / theirs[1]
    );
}

/// RFB 3.8 without password, then framebuffer updates as fast as they are taken.
async fn flood(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    let talk = async {
        stream.write_all(b"RFB 003.008\n").await?;
        stream.read_exact(&mut buffer[..12]).await?;
        stream.write_all(&[1, 1]).await?;
        stream.read_exact(&mut buffer[..1]).await?;
        stream.write_all(&[0; 4]).await?;
        stream.read_exact(&mut buffer[..1]).await?;
        let mut init = vec![1, 0, 1, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
        init.extend([0, 0, 0, 5]);
        init.extend(b"flood");
        stream.write_all(&init).await?;
        // One update: a raw rectangle of 128 x 128 pixels.
        let mut update = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 128, 0, 128, 0, 0, 0, 0];
        update.resize(16 + 128 * 128 * 4, 0x5a);
        loop {
            stream.write_all(&update).await?;
        }
    };
    let ended: std::io::Result<()> = talk.await;
    drop(ended);
}

/// MB/s that a viewer gets through a WebSocket after the RFB handshake.
async fn watch(url: &str) -> f64 {
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "binary".parse().unwrap());
    let authority = request.uri().authority().unwrap().as_str().to_owned();
    let tcp = TcpStream::connect(authority).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, tcp).await.unwrap();
    let mut pending = Vec::new();
    take(&mut socket, &mut pending, 12).await;
    send(&mut socket, b"RFB 003.008\n").await;
    let count = take(&mut socket, &mut pending, 1).await[0];
    take(&mut socket, &mut pending, usize::from(count)).await;
    send(&mut socket, &[1]).await;
    take(&mut socket, &mut pending, 4).await;
    send(&mut socket, &[1]).await;
    take(&mut socket, &mut pending, 24).await;
    let start = Instant::now();
    let mut bytes = 0_usize;
    while start.elapsed() < RELAY_TIME {
        if let Message::Binary(data) = socket.next().await.unwrap().unwrap() {
            bytes += data.len();
        }
    }
    bytes as f64 / 1e6 / start.elapsed().as_secs_f64()
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn send(socket: &mut Socket, bytes: &[u8]) {
    socket.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.unwrap();
}

async fn take(socket: &mut Socket, pending: &mut Vec<u8>, count: usize) -> Vec<u8> {
    while pending.len() < count {
        if let Message::Binary(data) = socket.next().await.unwrap().unwrap() {
            pending.extend_from_slice(&data);
        }
    }
    pending.drain(..count).collect()
}
