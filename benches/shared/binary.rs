//! What programs that measure the release binary from outside have in common: how it is found and
//! started, the server that it registers with, what it costs.

#![allow(dead_code, reason = "each of the programs uses its part")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use management_server::{
    ConsoleMode, HostKind, HostState, ImageStore, ManagementServer, ServerConfig, SystemVm, Vm,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const STORE: &str = "nfs://127.0.0.1/b";
const TIMEOUT: Duration = Duration::from_secs(20);

/// The binary that `cargo xtask bench` built; `None` when there is nothing to measure.
pub(crate) fn given(area: &str) -> Option<PathBuf> {
    // `cargo test --benches` runs this too; figures of a debug build tell nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return None;
    }
    let binary = std::env::var_os("QUICKCLOUD_BINARY").map(PathBuf::from);
    if binary.is_none() {
        let line = format!("cargo xtask bench {area}");
        println!("run this through `{}`, which builds the release binary", line.trim_end());
    }
    binary
}

/// A process that is told to end with its owner.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it ended well.
    pub(crate) fn end(&mut self) -> bool {
        if let Ok(Some(status)) = self.0.try_wait() {
            return status.success();
        }
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        self.0.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// An address of the loopback interface that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap()
}

pub(crate) fn until_up(address: impl Into<SocketAddr>) {
    let address = address.into();
    let deadline = Instant::now() + TIMEOUT;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An embedded server with a storage host and a console proxy, whose links lead to `public`.
pub(crate) async fn server(public: SocketAddr) -> ManagementServer {
    let mut config = ServerConfig::new(SocketAddr::new(LOOPBACK, 0));
    config.stores = vec![ImageStore { url: STORE.to_owned(), writable: true }];
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
    let published = Some((public.ip().to_string(), public.port()));
    config.console.mode = ConsoleMode::Rows { published };
    config.console.websocket_port = public.port();
    config.console.session_limit = 100_000;
    config.images.stats_interval = None;
    ManagementServer::start(config).await.unwrap()
}

/// What the roles need to register with it and to be reached at `public`.
pub(crate) fn settings(
    server: &ManagementServer,
    directory: &Path,
    public: SocketAddr,
) -> Vec<String> {
    let store = directory.join("store");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::write(directory.join("ca.pem"), server.ca_pem()).unwrap();
    let dir = directory.display();
    let mut settings = vec![
        format!("supervisor.state_directory=\"{dir}\""),
        format!("management.servers=[\"{}\"]", server.address()),
        "management.zone=z1".to_owned(),
        "management.pod=p1".to_owned(),
        format!("management.ca_file=\"{dir}/ca.pem\""),
        "roles.secondary_storage.name=s-1-VM".to_owned(),
        format!("roles.secondary_storage.stores=[{{url=\"{STORE}\",directory=\"{dir}/store\"}}]"),
        "roles.console_proxy.name=v-2-VM".to_owned(),
        "roles.console_proxy.proxy_vm=2".to_owned(),
    ];
    for role in ["secondary_storage", "console_proxy"] {
        settings.push(format!("roles.{role}.private_address=127.0.0.1"));
        settings.push(format!("roles.{role}.public_address=127.0.0.1"));
        settings.push(format!("roles.{role}.listen=[\"{public}\"]"));
    }
    settings
}

pub(crate) fn run(binary: &Path, roles: &str, settings: &[String]) -> Running {
    let mut command = Command::new(binary);
    command.args(["run", "--roles", roles, "--log", "error"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    Running(command.spawn().unwrap())
}

/// Waits until so many hosts are Up.
pub(crate) async fn until_registered(server: &ManagementServer, count: usize) {
    let up = |server: &ManagementServer| {
        let up = server.hosts().iter().filter(|host| host.state == HostState::Up).count();
        (up == count).then_some(())
    };
    server.wait_for("the hosts up", TIMEOUT, up).await.unwrap();
}

/// A machine with its screen at `target`; gives the uuid that its links are asked for by.
pub(crate) fn machine(server: &ManagementServer, id: i64, target: SocketAddr) -> String {
    let uuid = format!("00000000-0000-4000-8000-{id:012}");
    server.put_vm(Vm {
        id,
        uuid: uuid.clone(),
        name: format!("i-2-{id}-VM"),
        host_address: target.ip().to_string(),
        port: target.port(),
        vnc_password: "".into(),
        keyboard: None,
        windows: false,
        running: true,
    });
    uuid
}

/// Processor time of a process and its children so far.
pub(crate) fn processor(process: u32) -> Duration {
    let own = process.to_string();
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((pid, rest)) = stat.split_once(' ') else { continue };
        let fields: Vec<&str> = rest.rsplit(") ").next().unwrap().split(' ').collect();
        if pid == own || fields[1] == own {
            // Of its own and of children that have ended, in user and in system mode.
            ticks += fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum::<u64>();
        }
    }
    Duration::from_millis(ticks * 10)
}

/// MiB of a line of `/proc/PID/status`.
pub(crate) fn memory(process: u32, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let found = status.lines().find(|found| found.starts_with(line)).unwrap();
    found.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Resident MiB.
pub(crate) fn resident(process: u32) -> f64 {
    memory(process, "VmRSS:")
}

/// Of samples: the one below which that share lies.
pub(crate) fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * share).round() as usize]
}

pub(crate) fn median(samples: impl IntoIterator<Item = f64>) -> f64 {
    percentile(&mut samples.into_iter().collect::<Vec<f64>>(), 0.5)
}
