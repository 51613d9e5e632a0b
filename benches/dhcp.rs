//! What the DHCP role costs, measured on the binary from outside: how soon a new host is served, how
//! fast clients are, what an unchanged zone costs.
//!
//! `cargo xtask bench dhcp` builds the release binary and runs this as root. Server and clients live in
//! two network namespaces of their own with a wire between them; this program runs again inside that
//! of the clients. The rate of exchanges is compared with a dnsmasq that nobody supervises, with the
//! same hosts, in the same run.

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
#[path = "dhcp/peers.rs"]
mod peers;

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use demo_api::{DemoApi, Keys, World};
use http_client::{Client, Method};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use binary::{Running, processor, resident};

const SERVER: &str = "qcbench-s";
const CLIENTS: &str = "qcbench-c";
/// Set for the process in the namespace of the clients.
const INSIDE: &str = "QUICKCLOUD_BENCH_INSIDE";
const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);
/// Above the 5,000 hosts of the comparison lie those that are added while the clock runs.
const NEW: usize = 60_000;

fn main() {
    let Some(binary) = binary::given("dhcp") else { return };
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(measure(&binary, &Scale::of_environment()));
        return;
    }
    let _wire = Wire::new();
    let status = Command::new("ip")
        .args(["netns", "exec", CLIENTS])
        .arg(std::env::current_exe().unwrap())
        .arg("--bench")
        .env(INSIDE, "1")
        .status();
    assert!(status.unwrap().success(), "the part inside failed");
}

/// How much; QUICKCLOUD_BENCH_SMALL tries everything out within seconds.
struct Scale {
    hosts: &'static [usize],
    samples: usize,
    bulk: usize,
    machines: usize,
    most: usize,
    rounds: usize,
}

impl Scale {
    fn of_environment() -> Self {
        match std::env::var_os("QUICKCLOUD_BENCH_SMALL") {
            Some(_) => Self {
                hosts: &[0, 100],
                samples: 5,
                bulk: 200,
                machines: 100,
                most: 1000,
                rounds: 1,
            },
            None => Self {
                hosts: &[0, 1000, 5000],
                samples: 200,
                bulk: 5000,
                machines: 5000,
                most: 50_000,
                rounds: 5,
            },
        }
    }
}

async fn measure(binary: &Path, scale: &Scale) {
    for hosts in scale.hosts {
        new_hosts(binary, *hosts, scale.samples).await;
    }
    bulk(binary, scale.bulk).await;
    synced(binary, scale.machines, scale.samples.min(20)).await;
    peers::exchanges(binary, scale.bulk, scale.rounds).await;
    peers::names(binary, scale.bulk, scale.rounds).await;
    memory(binary, scale.most).await;
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("cannot run {program}: {error}; install it first"))
}

fn ip(arguments: &[&str]) {
    let output = run("ip", arguments);
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
}

/// The two namespaces; they go with this.
struct Wire;

impl Wire {
    fn new() -> Self {
        Self::remove();
        for namespace in [SERVER, CLIENTS] {
            ip(&["netns", "add", namespace]);
        }
        let wire = Self;
        ip(&[
            "-n", SERVER, "link", "add", "br0", "type", "veth", "peer", "name", "eth0", "netns",
            CLIENTS,
        ]);
        ip(&["-n", SERVER, "addr", "add", "10.77.0.1/16", "dev", "br0"]);
        ip(&["-n", CLIENTS, "addr", "add", "10.77.0.200/16", "brd", "+", "dev", "eth0"]);
        for (namespace, device) in
            [(SERVER, "br0"), (SERVER, "lo"), (CLIENTS, "eth0"), (CLIENTS, "lo")]
        {
            ip(&["-n", namespace, "link", "set", device, "up"]);
        }
        wire
    }

    fn remove() {
        for namespace in [SERVER, CLIENTS] {
            let pids = run("ip", &["netns", "pids", namespace]);
            for pid in String::from_utf8_lossy(&pids.stdout).lines() {
                run("kill", &["-9", pid]);
            }
            run("ip", &["netns", "del", namespace]);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        Self::remove();
    }
}

fn in_server(program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", SERVER]).arg(program).stdout(Stdio::null());
    command.stderr(Stdio::null());
    command
}

/// The role and a client of its API.
struct Role {
    client: Client,
    process: Running,
    directory: tempfile::TempDir,
}

fn open(directory: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(directory, mode).unwrap();
}

impl Role {
    async fn start(binary: &Path, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // dnsmasq's account passes through.
        open(directory.path());
        let socket = directory.path().join("dhcp.sock");
        let config = directory.path().join("quickcloud.toml");
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        open(&state);
        let text = format!(
            "[supervisor]\nstate_directory = \"{}\"\nadmin_address = \"127.0.0.1:0\"\n\
             [roles.dhcp]\ninterface = \"br0\"\napi_socket = \"{}\"\n{}",
            state.display(),
            socket.display(),
            more.replace("DIRECTORY", &directory.path().display().to_string()),
        );
        for key in ["key", "secret"] {
            let path = directory.path().join(key);
            fs::write(&path, "EXAMPLE\n").unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&path, mode).unwrap();
        }
        fs::write(&config, text).unwrap();
        let child = in_server(binary)
            .args(["run", "--roles", "dhcp", "--config"])
            .arg(&config)
            .spawn()
            .unwrap();
        let process = Running(child);
        let client = Client::unix(socket).timeout(Duration::from_secs(300));
        let role = Self { client, process, directory };
        role.until(|status| status["state"] == "ready").await;
        role
    }

    /// A zone whose one subnet is the wire.
    async fn with_subnet(binary: &Path) -> Self {
        let role = Self::start(binary, "").await;
        role.put("/v1/zones/z1", &json!({"domain": "cs.example"})).await;
        let subnet = json!({"cidr": "10.77.0.0/16", "gateway": "10.77.0.254"});
        role.put("/v1/zones/z1/subnets/s1", &subnet).await;
        role
    }

    async fn put(&self, path: &str, body: &Value) {
        self.client.call::<Value>(Method::PUT, path, Some(body)).await.unwrap();
    }

    async fn status(&self) -> Option<Value> {
        self.client.get("/v1/status").await.ok()
    }

    async fn until(&self, is_it: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            let status = self.status().await;
            if status.as_ref().is_some_and(&is_it) {
                return;
            }
            assert!(Instant::now() < deadline, "not within three minutes: {status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Reservations 0 to `count`, in one batch; the time until they are in effect.
    async fn fill(&self, count: usize) -> Duration {
        if count == 0 {
            return Duration::ZERO;
        }
        let upsert: Vec<Value> = (0..count)
            .map(|index| {
                let mut body = host(index);
                body["id"] = json!(format!("h{index}"));
                body
            })
            .collect();
        let body = json!({"upsert": upsert});
        let begun = Instant::now();
        let path = "/v1/zones/z1/reservations:batch";
        self.client.call::<Value>(Method::POST, path, Some(&body)).await.unwrap();
        // What takes long is answered before.
        self.until(|status| status["generation"] == status["applied_generation"]).await;
        begun.elapsed()
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }
}

fn mac(index: usize) -> [u8; 6] {
    let [.., a, b, c] = index.to_be_bytes();
    [2, 0, 0, a, b, c]
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// 10.77.1.1 and following.
fn address(index: usize) -> Ipv4Addr {
    let index = u32::try_from(index).unwrap();
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 1, 1).to_bits() + index)
}

fn host(index: usize) -> Value {
    json!({"mac": text(mac(index)), "ipv4": address(index), "hostname": format!("vm-{index}")})
}

/// A DHCP client: discover, offer, request, acknowledgement, asked for by broadcast.
struct Dhcp(UdpSocket);

impl Dhcp {
    fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).unwrap();
        socket.set_broadcast(true).unwrap();
        Self(socket)
    }

    fn exchange(&self, mac: [u8; 6], kind: u8, more: &[u8], wait: Duration) -> Option<Vec<u8>> {
        let [.., a, b, c] = mac;
        let id = [kind, a, b, c];
        let mut packet = vec![1, 1, 6, 0];
        packet.extend(id);
        packet.extend([0, 0, 0x80, 0]);
        packet.extend([0; 16]);
        packet.extend(mac);
        packet.extend([0; 10 + 64 + 128]);
        packet.extend([99, 130, 83, 99, 53, 1, kind]);
        packet.extend(more);
        packet.push(255);
        packet.resize(packet.len().max(300), 0);
        self.0.send_to(&packet, (Ipv4Addr::new(10, 77, 255, 255), 67)).unwrap();
        let deadline = Instant::now() + wait;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.0.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            match self.0.recv(&mut buffer) {
                Ok(length) if buffer[4..8] == id => return Some(buffer[..length].to_vec()),
                _ if left.is_zero() => return None,
                _ => {}
            }
        }
    }

    /// The address that is acknowledged; `None` when nobody offers one.
    fn lease(&self, mac: [u8; 6], wait: Duration) -> Option<Ipv4Addr> {
        let offer = self.exchange(mac, 1, &[], wait)?;
        let address = [offer[16], offer[17], offer[18], offer[19]];
        let mut more = vec![50, 4];
        more.extend(address);
        more.extend([54, 4, 10, 77, 0, 1]);
        let given = self.exchange(mac, 3, &more, Duration::from_secs(5)).unwrap();
        // The first option is the kind of message.
        assert_eq!(given[240..243], [53, 1, 5], "acknowledged");
        Some(address.into())
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Half, and 99 of 100.
fn percentiles(mut samples: Vec<Duration>) -> (f64, f64) {
    samples.sort();
    let at = |share: usize| ms(samples[(samples.len() * share / 100).min(samples.len() - 1)]);
    (at(50), at(99))
}

/// From before the PUT of a host that was never seen until its client has its address.
async fn new_hosts(binary: &Path, hosts: usize, samples: usize) {
    let role = Role::with_subnet(binary).await;
    role.fill(hosts).await;
    let dhcp = Dhcp::new();
    let (mut all, mut puts) = (Vec::new(), Vec::new());
    for index in NEW..NEW + samples {
        let begun = Instant::now();
        role.put(&format!("/v1/zones/z1/reservations/n{index}"), &host(index)).await;
        puts.push(begun.elapsed());
        let given = dhcp.lease(mac(index), Duration::from_secs(2));
        assert_eq!(given, Some(address(index)));
        all.push(begun.elapsed());
    }
    let status = role.status().await.unwrap();
    assert_eq!(status["instances"][0]["restarts"], 0, "{status}");
    let ((half, most), (put, _)) = (percentiles(all), percentiles(puts));
    println!(
        "REST PUT → ACK of a new host, {hosts} hosts: p50 {half:.1} p99 {most:.1} ms of {samples} \
         (goal p99 < 100 ms); the answer to the PUT p50 {put:.1} ms"
    );
}

async fn bulk(binary: &Path, count: usize) {
    let role = Role::with_subnet(binary).await;
    let elapsed = role.fill(count).await;
    let given = Dhcp::new().lease(mac(count - 1), Duration::from_secs(2));
    assert_eq!(given, Some(address(count - 1)));
    println!("bulk of {count} hosts → in effect: {:.2} s (goal < 5 s)", elapsed.as_secs_f64());
}

/// A cloud of so many machines on the wire.
fn world(machines: usize) -> World {
    let mut world = World::basic("bench");
    for (name, value) in [
        ("netmask", "255.255.0.0"),
        ("cidr", "10.77.0.0/16"),
        ("startip", "10.77.1.0"),
        ("endip", "10.77.255.250"),
    ] {
        world.ranges[0][name] = json!(value);
    }
    for index in 0..machines {
        let (mac, address) = (text(mac(index)), address(index).to_string());
        world.deploy_with(&format!("vm-{index}"), &mac, &address);
    }
    world
}

/// The sync with a server: what an unchanged zone costs, and how soon a new machine is served.
async fn synced(binary: &Path, machines: usize, samples: usize) {
    let stop = CancellationToken::new();
    let keys = Keys { api: "EXAMPLE".to_owned(), secret: "EXAMPLE".to_owned() };
    let listen = (OUR_ADDRESS, 0).into();
    let (cloud, serving) =
        DemoApi::start(listen, world(machines), keys, stop.clone()).await.unwrap();
    tokio::spawn(serving);
    let table = format!(
        "[roles.dhcp.sync]\nurls = [\"{}\"]\nzone = \"bench\"\n\
         api_key_file = \"DIRECTORY/key\"\nsecret_key_file = \"DIRECTORY/secret\"\n\
         starting_interval = \"1s\"\n",
        cloud.url()
    );
    let role = Role::start(binary, &table).await;
    let count = json!(machines);
    role.until(|status| {
        status["sync"]["reservations"] == count
            && status["generation"] == status["applied_generation"]
    })
    .await;
    let rounds = 10;
    let idle = processor(role.pid());
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = (processor(role.pid()) - idle).div_f64(begun.elapsed().as_secs_f64());
    let before = processor(role.pid());
    let begun = Instant::now();
    for _ in 0..rounds {
        role.client.call::<Value>(Method::POST, "/v1/sync", None::<&()>).await.unwrap();
    }
    let beside = idle.mul_f64(begun.elapsed().as_secs_f64());
    let each = (processor(role.pid()) - before).saturating_sub(beside) / rounds;
    println!(
        "CPU of a full listing of an unchanged zone of {machines} machines: {:.0} ms (goal < 50 ms); \
         idle beside it: {:.1} ms a second",
        ms(each),
        ms(idle)
    );
    let calls = async || role.status().await.unwrap()["sync"]["calls"].as_u64().unwrap();
    let before = calls().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let calls = calls().await - before;
    println!("calls of the server's API while nothing happens: {} a minute", calls * 6);
    let dhcp = Dhcp::new();
    let mut seen = Vec::new();
    for index in NEW..NEW + samples {
        let (name, mac_text) = (format!("new-{index}"), text(mac(index)));
        let begun = Instant::now();
        cloud.with(|world| {
            let id = world.deploy_with(&name, &mac_text, &address(index).to_string());
            world.set(&id, "state", "Starting");
        });
        while dhcp.lease(mac(index), Duration::from_millis(20)).is_none() {
            assert!(begun.elapsed() < Duration::from_secs(30), "{name} is never served");
        }
        seen.push(begun.elapsed());
    }
    let (half, most) = percentiles(seen);
    println!(
        "machine in the API → ACK, fast poll every 1000 ms, {machines} machines: p50 {half:.0} p99 \
         {most:.0} ms of {samples} (goal: the interval + 100 ms)"
    );
    stop.cancel();
}

async fn memory(binary: &Path, count: usize) {
    let role = Role::with_subnet(binary).await;
    let elapsed = role.fill(count).await;
    let after = resident(role.pid());
    let body = host(NEW);
    let begun = Instant::now();
    role.put("/v1/zones/z1/reservations/new", &body).await;
    let put = begun.elapsed();
    let state = role.directory.path().join("state/dhcp/desired.json");
    let mib = fs::metadata(state).unwrap().len() as f64 / f64::from(1 << 20);
    println!(
        "{count} reservations: in effect after {:.1} s, resident {after:.0} MiB, at most {:.0} MiB \
         (goal < 200 MiB); one more is answered after {:.0} ms; the state is a file of {mib:.0} MiB",
        elapsed.as_secs_f64(),
        binary::memory(role.pid(), "VmHWM:"),
        ms(put)
    );
}
