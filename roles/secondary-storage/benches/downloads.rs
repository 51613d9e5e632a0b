//! Figures of downloads: how fast one is, and what a hundred cost.
//!
//! `cargo xtask bench storage` runs this. The handlers of the role run in this process on a temporary
//! directory; the web server is a process of its own, and so are the peers, `curl` and `sha256sum`,
//! in the same run: only the ratio says something.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and ends when anything is not as expected"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_protocol::Envelope;
use agent_protocol::storage::{
    DataStoreTO, DownloadAnswer, DownloadCommand, DownloadStatus, ImageFormat, ResourceType,
};
use config_reader::Violations;
use management_link::{AnswerNow, CommandContext};
use role::ConfigInput;
use secondary_storage::config::SecondaryStorageConfig;
use secondary_storage::service::{Assembled, KIND, assemble};

const STORE: &str = "nfs://127.0.0.1/export/sec";
const BIG: usize = 1 << 30;
const ROUNDS: usize = 5;
const MANY: usize = 100;
const SMALL: usize = 20 << 20;
const SERVES: &str = "DOWNLOADS_BENCH_SERVES";
const LIMIT: Duration = Duration::from_secs(600);

fn main() {
    if let Some(directory) = std::env::var_os(SERVES) {
        return serve(Path::new(&directory));
    }
    // `cargo test --benches` runs this too; figures of a debug build tell nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let images = directory.path().join("images");
    std::fs::create_dir_all(&images).unwrap();
    fill(&images.join("big.raw"), BIG);
    fill(&images.join("small.raw"), SMALL);
    let server = Server::start(&images);
    runtime.block_on(one(directory.path(), &server));
    runtime.block_on(many(directory.path(), &server));
}

fn fill(path: &Path, length: usize) {
    let mut block: Vec<u8> =
        (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    block[510..512].copy_from_slice(b"\x55\xaa");
    let mut file = std::fs::File::create(path).unwrap();
    for _ in 0..length / block.len() {
        file.write_all(&block).unwrap();
    }
}

/// The web server, a process that ends with its owner.
struct Server {
    child: Child,
    port: String,
}

impl Server {
    fn start(images: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(SERVES, images)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, port: port.trim().to_owned() }
    }

    fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Serves files by `sendfile`, one thread for each connection.
fn serve(images: &Path) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            scope.spawn(move || answer(stream, images));
        }
    });
}

fn answer(mut stream: TcpStream, images: &Path) {
    let mut head = [0; 4096];
    let read = stream.read(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    let name = head.split(['/', ' ']).nth(2).unwrap();
    let mut file = std::fs::File::open(images.join(name)).unwrap();
    let length = file.metadata().unwrap().len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A client that goes away ends its own connection only.
    let _sent = std::io::copy(&mut file, &mut stream);
}

struct Host {
    parts: Assembled,
    cx: role::RoleContext,
}

impl Host {
    async fn new(directory: &Path) -> Self {
        std::fs::create_dir_all(directory.join("sec")).unwrap();
        let section: toml::Table = format!(
            "name = \"s-900-VM\"\nprivate_address = \"127.0.0.1\"\nallowed_sources = [\"127.0.0.1\"]\n\
             stores = [{{ url = \"{STORE}\", directory = \"{}\" }}]\nanswer_wait = \"10ms\"\n",
            directory.join("sec").display()
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
        Self { parts, cx }
    }

    async fn start(&self, url: &str, id: i64, checksum: Option<String>) -> String {
        let command = DownloadCommand {
            max_download_size_in_bytes: Some(1 << 40),
            id,
            resource_type: Some(ResourceType::Template),
            install_path: Some(format!("template/tmpl/{}/{id}", id % 7 + 2)),
            store: Some(DataStoreTO::nfs(STORE)),
            url: Some(url.into()),
            format: Some(ImageFormat::Raw),
            account_id: id % 7 + 2,
            name: Some(format!("{id}-bench")),
            checksum,
            ..DownloadCommand::default()
        };
        let cx = CommandContext {
            log_id: None,
            host_id: Some(3),
            in_sequence: false,
            sequence: 1,
            management_id: 1,
            wait: None,
            answer_now: AnswerNow::default(),
        };
        let answer = self.parts.commands.handle(Envelope::of(&command), &cx).await;
        let answer: DownloadAnswer = answer.open().unwrap();
        assert_ne!(answer.download_status, Some(DownloadStatus::DownloadError), "{answer:?}");
        answer.job_id.unwrap()
    }

    async fn end(&self, job: &str) {
        let job = self.parts.downloads.get(job).unwrap();
        assert!(job.wait(LIMIT).await);
        assert_eq!(job.phase(), secondary_storage::ingest::Phase::Done, "{:?}", job.report());
    }
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The file is on the disk, as ours is when it is called installed.
fn curl(url: &str, to: &Path) {
    run("curl", &["-s", "-o", to.to_str().unwrap(), url]);
    std::fs::File::open(to).unwrap().sync_all().unwrap();
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

async fn one(directory: &Path, server: &Server) {
    let host = Host::new(directory).await;
    let url = server.url("big.raw");
    let copy = directory.join("copy.raw");
    let (mut ours, mut alone, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut sum = String::new();
        let got = seconds(|| curl(&url, &copy));
        let summed =
            seconds(|| sum = run("sha256sum", &[copy.to_str().unwrap()]));
        std::fs::remove_file(&copy).unwrap();
        alone.push(got);
        both.push(got + summed);
        let sum = sum.split(' ').next().unwrap();
        let start = Instant::now();
        let job = host.start(&url, 400 + round as i64, Some(format!("{{SHA-256}}{sum}"))).await;
        host.end(&job).await;
        ours.push(start.elapsed().as_secs_f64());
        std::fs::remove_dir_all(directory.join("sec/template")).unwrap();
    }
    let (ours, alone, both) = (median(ours), median(alone), median(both));
    println!(
        "1 GiB with SHA-256: {ours:.2} s; curl alone {alone:.2} s, ratio {:.2} (goal <= 1.1); \
         curl and sha256sum {both:.2} s, ratio {:.2} (medians of {ROUNDS})",
        ours / alone,
        ours / both
    );
    host.cx.tasks.kill();
}

async fn many(directory: &Path, server: &Server) {
    let host = Host::new(directory).await;
    let before = resident();
    let url = server.url("small.raw");
    let start = Instant::now();
    let mut jobs = Vec::new();
    for n in 0..MANY {
        jobs.push(host.start(&url, 1_000 + n as i64, None).await);
    }
    let mut peak = 0;
    let mut ends = Vec::new();
    while !jobs.is_empty() {
        peak = peak.max(resident());
        let is_over = |id: &String| host.parts.downloads.get(id).unwrap().phase().is_over();
        let over: Vec<String> = jobs.extract_if(.., |id| is_over(id)).collect();
        for job in over {
            host.end(&job).await;
            ends.push(start.elapsed().as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let all = start.elapsed().as_secs_f64();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{MANY} downloads of {} MiB: {all:.1} s, {:.0} MiB/s; half of them ended after {:.1} s; \
         resident {:.1} MiB before, {:.1} MiB at most (goal < 48)",
        SMALL >> 20,
        mib((MANY * SMALL) as u64) / all,
        ends[MANY / 2],
        mib(before),
        mib(peak)
    );
    host.cx.tasks.kill();
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
