//! The console relay beside haproxy and websockify, in one run: throughput, fairness, what idle
//! consoles cost.
//!
//! `cargo xtask bench console` builds the release binary and runs this. Generator and sink are here:
//! blocking threads that send one static picture and throw away what they get, so that they are not
//! the limit; "direct" says what they reach without a relay in between. Everything goes over loopback.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and ends when anything is not as expected"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use management_server::{
    ConsoleMode, HostKind, HostState, ManagementServer, ServerConfig, SystemVm, Vm,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TIME: Duration = Duration::from_secs(4);
const PACED: usize = 50;
const IDLE: usize = 1000;
/// One update of a paced session.
const UPDATE: usize = 8 * 1024;
/// What a key is answered with.
const ECHO: usize = 16 + 16 * 16 * 4;

fn main() {
    // `cargo test --benches` runs this too; figures of a debug build tell nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let Some(binary) = std::env::var_os("QUICKCLOUD_BINARY").map(PathBuf::from) else {
        println!("run this through `cargo xtask bench console`, which builds the release binary");
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::start(&binary));
    for relay in world.relays() {
        world.measure(&runtime, &relay);
    }
    world.idle(&runtime);
}

/// What the VNC server does once it was asked for a picture.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    Flood,
    Paced,
    /// Answers keys.
    Quiet,
}

fn target(kind: Target) -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming().flatten() {
            spawn(move || serve(stream, kind));
        }
    });
    addr
}

fn serve(mut stream: TcpStream, kind: Target) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = [0; 64];
    stream.write_all(b"RFB 003.008\n").ok()?;
    stream.read_exact(&mut buffer[..12]).ok()?;
    stream.write_all(&[1, 1]).ok()?;
    stream.read_exact(&mut buffer[..1]).ok()?;
    stream.write_all(&[0; 4]).ok()?;
    stream.read_exact(&mut buffer[..1]).ok()?;
    let mut init = vec![5, 0, 2, 0xd0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
    init.extend([0, 0, 0, 1, b't']);
    stream.write_all(&init).ok()?;
    match kind {
        Target::Flood => {
            let picture = vec![0x5a; 1 << 20];
            loop {
                stream.write_all(&picture).ok()?;
            }
        }
        Target::Paced => loop {
            stream.write_all(&[0x5a; UPDATE]).ok()?;
            std::thread::sleep(Duration::from_millis(30));
        },
        Target::Quiet => loop {
            stream.read_exact(&mut buffer[..8]).ok()?;
            stream.write_all(&[0x5a; ECHO]).ok()?;
        },
    }
}

/// How a viewer gets to a target.
#[derive(Clone)]
struct Way {
    addr: SocketAddr,
    /// Path of a WebSocket; plain TCP without one.
    path: Option<String>,
}

/// A viewer that came through the handshake.
struct Viewer {
    stream: TcpStream,
    is_websocket: bool,
}

impl Viewer {
    fn open(way: &Way) -> Self {
        let mut stream = TcpStream::connect(way.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        if let Some(path) = &way.path {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                way.addr
            );
            stream.write_all(request.as_bytes()).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        }
        let mut viewer = Self { stream, is_websocket: way.path.is_some() };
        viewer.take(12);
        viewer.send(b"RFB 003.008\n");
        viewer.take(2);
        viewer.send(&[1]);
        viewer.take(4);
        viewer.send(&[1]);
        // ServerInit up to its name, whose length differs.
        let init = viewer.take(24);
        let name = u32::from_be_bytes([init[20], init[21], init[22], init[23]]) as usize;
        viewer.rest(name);
        viewer
    }

    /// That many bytes of RFB, which the relays send as messages of their own.
    fn take(&mut self, count: usize) -> Vec<u8> {
        if self.is_websocket {
            let mut head = [0; 2];
            loop {
                self.stream.read_exact(&mut head).unwrap();
                if head[0] == 0x82 {
                    break;
                }
                let mut skipped = vec![0; usize::from(head[1])];
                self.stream.read_exact(&mut skipped).unwrap();
            }
            assert!(usize::from(head[1]) < 126, "a handshake message is short");
            let mut message = vec![0; usize::from(head[1])];
            self.stream.read_exact(&mut message).unwrap();
            return message;
        }
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The name of the screen, which a WebSocket's message held already.
    fn rest(&mut self, count: usize) {
        if !self.is_websocket {
            self.take(count);
        }
    }

    fn send(&mut self, payload: &[u8]) {
        let mut frame = Vec::new();
        if self.is_websocket {
            frame.extend([0x82, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0]);
        }
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// Throws bytes away until told to stop.
    fn sink(mut self, bytes: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> JoinHandle<()> {
        spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while !stop.load(Ordering::Relaxed) {
                match self.stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => bytes.fetch_add(count as u64, Ordering::Relaxed),
                };
            }
        })
    }

    /// Milliseconds from keys to their answers, for `time`.
    fn echoes(&mut self, time: Duration) -> Vec<f64> {
        let (start, mut waits) = (Instant::now(), Vec::new());
        let wanted = ECHO + if self.is_websocket { 4 } else { 0 };
        let mut answer = vec![0; wanted];
        while start.elapsed() < time {
            let pressed = Instant::now();
            self.send(&[4, 1, 0, 0, 0, 0, 0, b'k']);
            self.stream.read_exact(&mut answer).unwrap();
            waits.push(pressed.elapsed().as_secs_f64() * 1e3);
            std::thread::sleep(Duration::from_millis(10));
        }
        waits.sort_by(f64::total_cmp);
        waits
    }
}

fn percentiles(waits: &[f64]) -> String {
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    format!("p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99))
}

struct World {
    server: ManagementServer,
    children: Vec<(&'static str, Child)>,
    consoles: SocketAddr,
    targets: [SocketAddr; 3],
    peers: [Vec<SocketAddr>; 2],
    _directory: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

const KINDS: [Target; 3] = [Target::Flood, Target::Paced, Target::Quiet];

fn free() -> SocketAddr {
    TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap()
}

impl World {
    async fn start(binary: &Path) -> Self {
        let (consoles, directory) = (free(), tempfile::tempdir().unwrap());
        let targets = KINDS.map(target);
        let mut config = ServerConfig::new(SocketAddr::new(LOOPBACK, 0));
        config.system_vms = vec![SystemVm {
            kind: HostKind::ConsoleProxy,
            id: 2,
            name: "v-2-VM".to_owned(),
            public_address: LOOPBACK.to_string(),
        }];
        config.console.mode = ConsoleMode::Rows { published: None };
        config.console.session_limit = 100_000;
        let server = ManagementServer::start(config).await.unwrap();
        let set = [
            format!("supervisor.state_directory=\"{}\"", directory.path().display()),
            "supervisor.admin_address=127.0.0.1:0".to_owned(),
            "supervisor.connections_per_address=5000".to_owned(),
            format!("management.servers=[\"{}\"]", server.address()),
            "management.zone=z1".to_owned(),
            "management.pod=p1".to_owned(),
            "roles.console_proxy.name=v-2-VM".to_owned(),
            "roles.console_proxy.proxy_vm=2".to_owned(),
            "roles.console_proxy.private_address=127.0.0.1".to_owned(),
            format!("roles.console_proxy.listen=[\"{consoles}\"]"),
            "roles.console_proxy.sessions=5000".to_owned(),
            "roles.console_proxy.sessions_per_address=5000".to_owned(),
        ];
        let mut command = Command::new(binary);
        command.args(["run", "--roles", "cp", "--log", "warn"]);
        for value in set {
            command.args(["--set", &value]);
        }
        let mut children = vec![("ours", command.spawn().unwrap())];
        let up = |server: &ManagementServer| {
            server.hosts().iter().any(|host| host.state == HostState::Up).then_some(())
        };
        server.wait_for("the proxy's host", Duration::from_secs(20), up).await.unwrap();
        let peers = [haproxy(directory.path(), &targets), websockify(directory.path(), &targets)];
        let peers = peers.map(|(found, ports)| {
            children.extend(found);
            ports
        });
        for addr in peers.iter().flatten().chain([&consoles]) {
            let deadline = Instant::now() + Duration::from_secs(20);
            while TcpStream::connect(addr).is_err() {
                assert!(Instant::now() < deadline, "nothing listens on {addr}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Self { server, children, consoles, targets, peers, _directory: directory }
    }

    /// A fresh link to the `number`th VM of a target.
    async fn link(&self, kind: Target, number: usize) -> Way {
        let index = KINDS.iter().position(|other| *other == kind).unwrap();
        let uuid = format!("00000000-0000-4000-800{index}-{number:012}");
        self.server.put_vm(Vm {
            id: i64::try_from(index * 100_000 + number).unwrap(),
            uuid: uuid.clone(),
            name: "t".to_owned(),
            host_address: LOOPBACK.to_string(),
            port: self.targets[index].port(),
            vnc_password: "".into(),
            keyboard: None,
            windows: false,
            running: true,
        });
        let link = self.server.console_link(&uuid, LOOPBACK, None).await.unwrap();
        let token = link.token.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        Way { addr: self.consoles, path: Some(format!("/websockify?token={token}")) }
    }

    fn process(&self, name: &str) -> Option<u32> {
        self.children.iter().find(|(other, _)| *other == name).map(|(_, child)| child.id())
    }

    fn relays(&self) -> Vec<(&'static str, Option<u32>)> {
        let all = [("direct", None), ("ours", self.process("ours"))];
        let peers = ["haproxy", "websockify"].map(|name| (name, self.process(name)));
        all.into_iter().chain(peers.into_iter().filter(|(_, process)| process.is_some())).collect()
    }

    fn way(
        &self,
        runtime: &tokio::runtime::Runtime,
        relay: &str,
        kind: Target,
        number: usize,
    ) -> Way {
        let index = KINDS.iter().position(|other| *other == kind).unwrap();
        match relay {
            "direct" => Way { addr: self.targets[index], path: None },
            "haproxy" => Way { addr: self.peers[0][index], path: None },
            "websockify" => {
                let path = format!("/websockify?token=t{index}");
                Way { addr: self.peers[1][0], path: Some(path) }
            }
            _ => runtime.block_on(self.link(kind, number)),
        }
    }

    fn measure(&self, runtime: &tokio::runtime::Runtime, relay: &(&'static str, Option<u32>)) {
        let (name, process) = *relay;
        let open = |kind, number| Viewer::open(&self.way(runtime, name, kind, number));
        let waits = open(Target::Quiet, 1).echoes(TIME / 2);
        println!("{name:>10}  idle echo {}", percentiles(&waits));
        for sessions in [1, 10] {
            let (bytes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            let floods: Vec<Viewer> = (0..sessions).map(|n| open(Target::Flood, n + 1)).collect();
            let mut neighbour = open(Target::Quiet, 2);
            let (before, start) = (processor(process), Instant::now());
            let sinks: Vec<_> = floods
                .into_iter()
                .map(|flood| flood.sink(Arc::clone(&bytes), Arc::clone(&stop)))
                .collect();
            let waits = neighbour.echoes(TIME);
            let moved = bytes.load(Ordering::Relaxed) as f64;
            let (spent, elapsed) = (processor(process) - before, start.elapsed());
            stop.store(true, Ordering::Relaxed);
            sinks.into_iter().for_each(|sink| sink.join().unwrap());
            println!(
                "{name:>10}  {sessions:>2} flooding: {:.0} MB/s, {:.2} CPU s/GB, a neighbour's echo {}",
                moved / 1e6 / elapsed.as_secs_f64(),
                spent / (moved / 1e9),
                percentiles(&waits)
            );
        }
        let (bytes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let sinks: Vec<_> = (0..PACED)
            .map(|n| open(Target::Paced, n + 1).sink(Arc::clone(&bytes), Arc::clone(&stop)))
            .collect();
        let before = processor(process);
        std::thread::sleep(TIME);
        let spent = processor(process) - before;
        stop.store(true, Ordering::Relaxed);
        sinks.into_iter().for_each(|sink| sink.join().unwrap());
        let share = spent / TIME.as_secs_f64() * 100.0;
        println!("{name:>10}  {PACED} paced sessions: {share:.1} % of a processor");
    }

    /// What consoles at rest cost.
    fn idle(&self, runtime: &tokio::runtime::Runtime) {
        let process = self.process("ours");
        let before = resident(process.unwrap());
        let open: Vec<Viewer> = (0..IDLE)
            .map(|n| Viewer::open(&self.way(runtime, "ours", Target::Quiet, n + 10)))
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        let (kib, spent) = (resident(process.unwrap()) - before, processor(process));
        std::thread::sleep(TIME);
        let share = (processor(process) - spent) / TIME.as_secs_f64() * 100.0;
        println!(
            "      ours  {} idle sessions: {:.1} KiB each, {share:.1} % of a processor",
            open.len(),
            kib / IDLE as f64
        );
    }
}

type Peer = (Option<(&'static str, Child)>, Vec<SocketAddr>);

fn started(command: &mut Command) -> Option<Child> {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

fn haproxy(directory: &Path, targets: &[SocketAddr; 3]) -> Peer {
    let mut text =
        "global\n nbthread 2\ndefaults\n mode tcp\n timeout connect 5s\n timeout client \
                    1h\n timeout server 1h\n"
            .to_owned();
    let ports: Vec<SocketAddr> = targets.iter().map(|_| free()).collect();
    for (port, target) in ports.iter().zip(targets) {
        text += &format!("listen l{}\n bind {port}\n server s {target}\n", port.port());
    }
    let file = directory.join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    match started(Command::new("haproxy").arg("-f").arg(&file)) {
        Some(child) => (Some(("haproxy", child)), ports),
        None => (None, Vec::new()),
    }
}

/// One port for all targets, told apart by a token as with us.
fn websockify(directory: &Path, targets: &[SocketAddr; 3]) -> Peer {
    let (port, file) = (free(), directory.join("tokens"));
    let line = |(index, target): (usize, &SocketAddr)| format!("t{index}: {target}\n");
    std::fs::write(&file, targets.iter().enumerate().map(line).collect::<String>()).unwrap();
    let mut command = Command::new("websockify");
    command
        .args(["--token-plugin", "TokenFile", "--token-source"])
        .arg(&file)
        .arg(port.to_string());
    match started(&mut command) {
        Some(child) => (Some(("websockify", child)), vec![port]),
        None => (None, Vec::new()),
    }
}

/// Processor seconds of a process and its children so far.
fn processor(process: Option<u32>) -> f64 {
    let Some(process) = process else { return 0.0 };
    let mut ticks = 0.0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((pid, rest)) = stat.split_once(' ') else { continue };
        let fields: Vec<&str> = rest.rsplit(") ").next().unwrap().split(' ').collect();
        let own = process.to_string();
        if pid == own || fields[1] == own {
            ticks += fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum::<f64>();
        }
    }
    ticks / 100.0
}

/// Resident KiB of a process.
fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
