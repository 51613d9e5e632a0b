//! Figures of copies: between stores, of a chain of snapshots, there and back with a bucket.
//!
//! `cargo xtask bench move` runs this. The handlers of the role run in this process on a temporary
//! directory; the peers (`cp`, `qemu-img`, boto3) do the same in the same run and make it durable, too:
//! only the ratio says something. The object server is s3s-fs, for both.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and ends when anything is not as expected"
)]

use std::io::{Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_protocol::Envelope;
use agent_protocol::storage::{
    CopyCmdAnswer, CopyCommand, DataStoreTO, DataTO, S3TO, SnapshotObjectTO, TemplateObjectTO,
    VolumeObjectTO,
};
use config_reader::Violations;
use management_link::{AnswerNow, CommandContext};
use role::ConfigInput;
use secondary_storage::config::SecondaryStorageConfig;
use secondary_storage::service::{Assembled, KIND, assemble};

const FROM: &str = "nfs://127.0.0.1/export/from";
const TO: &str = "nfs://127.0.0.1/export/to";
const ROUNDS: usize = 5;
/// Data of what is copied; a hole of the same length follows.
const LENGTH: u64 = 1 << 30;
/// Data of each image of the chain.
const LAYER: u64 = 128 << 20;
const LAYERS: u64 = 4;
/// Divides all lengths, to try this program.
const DIVISOR: &str = "MOVES_BENCH_DIVISOR";
/// Where the tools are that `cargo xtask bench move` installs.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target");

fn main() {
    // `cargo test --benches` runs this too; figures of a debug build tell nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let divisor: u64 = std::env::var(DIVISOR).map_or(1, |divisor| divisor.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let host = runtime.block_on(Host::new(directory.path()));
    runtime.block_on(between_stores(&host, LENGTH / divisor));
    runtime.block_on(of_a_chain(&host, LAYER / divisor));
    runtime.block_on(with_a_bucket(&host, LENGTH / divisor));
    host.cx.tasks.kill();
}

struct Host {
    parts: Assembled,
    cx: role::RoleContext,
    directory: PathBuf,
}

impl Host {
    async fn new(directory: &Path) -> Self {
        for name in ["from", "to"] {
            std::fs::create_dir_all(directory.join(name)).unwrap();
        }
        let section: toml::Table = format!(
            "name = \"s-900-VM\"\nprivate_address = \"127.0.0.1\"\nstores = [\
             {{ url = \"{FROM}\", directory = \"{0}/from\" }}, {{ url = \"{TO}\", directory = \"{0}/to\" }}]\n",
            directory.display()
        )
        .parse()
        .unwrap();
        let management: toml::Table = "servers = [\"127.0.0.1\"]".parse().unwrap();
        let state = directory.join("state");
        let input =
            ConfigInput { section: &section, management: &management, state_directory: &state };
        let mut violations = Violations::new();
        let config = SecondaryStorageConfig::read(input, &mut violations).unwrap();
        let cx = testkit::context(KIND);
        let parts = assemble(&config, &cx).await.unwrap();
        Self { parts, cx, directory: directory.to_owned() }
    }

    /// Seconds that a copy took.
    async fn copy(&self, from: impl Into<DataTO>, to: impl Into<DataTO>) -> f64 {
        let (src_to, dest_to) = (Some(from.into()), Some(to.into()));
        let command = CopyCommand { src_to, dest_to, ..CopyCommand::default() };
        let cx = CommandContext {
            log_id: None,
            host_id: Some(3),
            in_sequence: false,
            sequence: 1,
            management_id: 1,
            wait: None,
            answer_now: AnswerNow::default(),
        };
        let start = Instant::now();
        let answer = self.parts.commands.handle(Envelope::of(&command), &cx).await;
        let took = start.elapsed().as_secs_f64();
        let answer: CopyCmdAnswer = answer.open().unwrap();
        assert!(answer.base.result, "{:?}", answer.base.details);
        took
    }

    fn from(&self, path: &str) -> PathBuf {
        self.directory.join("from").join(path)
    }

    fn to(&self, path: &str) -> PathBuf {
        self.directory.join("to").join(path)
    }
}

fn volume(path: &str, store: DataStoreTO) -> VolumeObjectTO {
    VolumeObjectTO {
        path: Some(path.to_owned()),
        data_store: Some(store),
        ..VolumeObjectTO::default()
    }
}

fn fill(path: &Path, length: u64, whole: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let block: Vec<u8> =
        (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = std::fs::File::create(path).unwrap();
    for _ in 0..(length / (1 << 20)).max(1) {
        file.write_all(&block).unwrap();
    }
    file.set_len(whole.max(length)).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.sync_all().unwrap();
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn sync(path: &Path) {
    std::fs::File::open(path).unwrap().sync_all().unwrap();
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

async fn between_stores(host: &Host, length: u64) {
    let (source, copy) = (host.from("volumes/2/31/v.raw"), host.to("peer.raw"));
    fill(&source, length, 2 * length);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        theirs.push(seconds(|| {
            let mut cp = Command::new("cp");
            run(cp.args(["--reflink=auto", "--sparse=always"]).arg(&source).arg(&copy));
            sync(&copy);
        }));
        std::fs::remove_file(&copy).unwrap();
        let to = volume("volumes/2/31", DataStoreTO::nfs(TO));
        ours.push(host.copy(volume("volumes/2/31/v.raw", DataStoreTO::nfs(FROM)), to).await);
        let blocks = host.to("volumes/2/31/v.raw").metadata().unwrap().blocks();
        assert!(blocks * 512 < length + length / 8, "the hole is kept");
        std::fs::remove_dir_all(host.to("volumes")).unwrap();
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "copy of {} and a hole: {ours:.2} s, cp --reflink=auto --sparse=always {theirs:.2} s, ratio \
         {:.2} (goal <= 1.0; medians of {ROUNDS})",
        mib(length),
        ours / theirs
    );
    std::fs::remove_file(source).unwrap();
}

async fn of_a_chain(host: &Host, layer: u64) {
    let directory = host.from("snapshots/2/31");
    std::fs::create_dir_all(&directory).unwrap();
    let size = (2 * LAYERS * layer).to_string();
    for n in 0..LAYERS {
        let (name, before) = (format!("s{n}"), format!("s{}", n.saturating_sub(1)));
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2"]).current_dir(&directory);
        if n > 0 {
            create.args(["-b", &before, "-F", "qcow2"]);
        }
        run(create.args([name.as_str(), &size]));
        let write = format!("write -P {} {} {layer}", n + 1, n * layer * 3 / 2);
        run(Command::new("qemu-io").args(["-c", &write, &name]).current_dir(&directory));
    }
    let youngest = format!("s{}", LAYERS - 1);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        let peer = host.to("peer.qcow2");
        theirs.push(seconds(|| {
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-O", "qcow2", &youngest]).arg(&peer);
            run(convert.current_dir(&directory));
            sync(&peer);
        }));
        std::fs::remove_file(&peer).unwrap();
        let snapshot = SnapshotObjectTO {
            path: Some(format!("snapshots/2/31/{youngest}")),
            hypervisor_type: Some("KVM".to_owned()),
            data_store: Some(DataStoreTO::nfs(FROM)),
            ..SnapshotObjectTO::default()
        };
        let template = TemplateObjectTO {
            path: Some("template/tmpl/2/230".to_owned()),
            name: Some("230-2-name".to_owned()),
            image_data_store: Some(DataStoreTO::nfs(TO)),
            ..TemplateObjectTO::default()
        };
        ours.push(host.copy(snapshot, template).await);
        std::fs::remove_dir_all(host.to("template/tmpl/2")).unwrap();
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "chain of {LAYERS} images with {} each: {ours:.2} s, qemu-img convert {theirs:.2} s, ratio \
         {:.2} (goal <= 1.1; medians of {ROUNDS})",
        mib(layer),
        ours / theirs
    );
}

/// The object server, a process that ends with its owner.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(directory: &Path) -> Self {
        // Free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = directory.join("objects");
        std::fs::create_dir_all(root.join("secondary")).unwrap();
        let child = Command::new(Path::new(TOOLS).join("s3s-fs/bin/s3s-fs"))
            .args(["--access-key", "bench", "--secret-key", "bench-secret"])
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .arg(root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < until, "the object server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address }
    }

    fn bucket(&self) -> S3TO {
        S3TO {
            id: Some(1),
            access_key: Some("bench".into()),
            secret_key: Some("bench-secret".into()),
            end_point: Some(self.address.as_str().into()),
            bucket_name: Some("secondary".to_owned()),
            https_flag: Some(false),
            ..S3TO::default()
        }
    }

    /// What a script of the peer takes, in its own words.
    fn boto(&self, call: &str) -> f64 {
        let script = format!(
            "import boto3, time\n\
             s3 = boto3.client('s3', endpoint_url='http://{}', region_name='us-east-1', \
             aws_access_key_id='bench', aws_secret_access_key='bench-secret')\n\
             start = time.time()\ns3.{call}\nprint(time.time() - start)\n",
            self.address
        );
        let output = Command::new("python3")
            .args(["-c", &script])
            .env("PYTHONPATH", Path::new(TOOLS).join("moto"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

async fn with_a_bucket(host: &Host, length: u64) {
    let server = Server::start(&host.directory);
    let source = host.from("volumes/2/32/v.raw");
    fill(&source, length, length);
    let key = "volumes/2/32/v.raw";
    let (mut puts, mut gets) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    let peer = host.to("peer.raw");
    // Nothing of the other figures counts.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    for _round in 0..ROUNDS {
        let call = format!("upload_file('{}', 'secondary', 'peer')", source.display());
        puts.1.push(server.boto(&call));
        let from = volume(key, DataStoreTO::nfs(FROM));
        puts.0.push(host.copy(from, volume("volumes/2/32", server.bucket().into())).await);
        let call = format!("download_file('secondary', 'peer', '{}')", peer.display());
        gets.1.push(server.boto(&call) + seconds(|| sync(&peer)));
        std::fs::remove_file(&peer).unwrap();
        let from = volume(key, server.bucket().into());
        gets.0.push(host.copy(from, volume("volumes/2/33", DataStoreTO::nfs(TO))).await);
        std::fs::remove_dir_all(host.to("volumes")).unwrap();
    }
    let memory = peak();
    for (name, (ours, theirs)) in [("put", puts), ("get", gets)] {
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "S3 {name} of {}: {ours:.2} s, boto3 {theirs:.2} s, {:.2} times as fast (goal >= 1.0; \
             medians of {ROUNDS})",
            mib(length),
            theirs / ours
        );
    }
    println!("S3 put and get: {} at most (goal < 64 MiB)", mib(memory));
}

/// The most memory that was resident since it was asked for last.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}
