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
const ROUNDS: usize = 5;
/// Of one image of 1 GiB.
const BIG: usize = 1 << 30;
/// As the figures of the whole system count: 30 templates of 50 MB.
const USUAL: (usize, usize) = (30, 50 << 20);
/// A hundred at once, most of them of one account and one server.
const MANY: (usize, usize) = (100, 20 << 20);
const GREEDY: usize = 80;
const SERVES: &str = "DOWNLOADS_BENCH_SERVES";
/// Divides all lengths, to try this program.
const DIVISOR: &str = "DOWNLOADS_BENCH_DIVISOR";
const LIMIT: Duration = Duration::from_secs(600);

fn main() {
    if let Some(directory) = std::env::var_os(SERVES) {
        return serve(Path::new(&directory));
    }
    // `cargo test --benches` runs this too; figures of a debug build tell nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let divisor = std::env::var(DIVISOR).map_or(1, |divisor| divisor.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let images = directory.path().join("images");
    std::fs::create_dir_all(&images).unwrap();
    let image = |name: &str, length: usize| fill(&images.join(name), length / divisor);
    image("big.raw", BIG);
    image("usual.raw", USUAL.1);
    image("small.raw", MANY.1);
    let server = Server::start(&images);
    runtime.block_on(one(directory.path(), &server));
    runtime.block_on(usual(directory.path(), &server));
    runtime.block_on(many(directory.path(), &server));
}

fn fill(path: &Path, length: usize) {
    let mut block: Vec<u8> =
        (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    block[510..512].copy_from_slice(b"\x55\xaa");
    let mut file = std::fs::File::create(path).unwrap();
    for _ in 0..(length / block.len()).max(1) {
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

    /// On one of the addresses of this machine: to the role each is a server of its own.
    fn url_at(&self, address: usize, name: &str) -> String {
        format!("http://127.0.0.{address}:{}/{name}", self.port)
    }

    fn url(&self, name: &str) -> String {
        self.url_at(1, name)
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
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
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
            "name = \"s-900-VM\"\nprivate_address = \"127.0.0.1\"\nallowed_sources = [\"127.0.0.0/8\"]\n\
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
        self.start_of(id % 7 + 2, url, id, checksum).await
    }

    async fn start_of(&self, account: i64, url: &str, id: i64, checksum: Option<String>) -> String {
        let command = DownloadCommand {
            max_download_size_in_bytes: Some(1 << 40),
            id,
            resource_type: Some(ResourceType::Template),
            install_path: Some(format!("template/tmpl/{account}/{id}")),
            store: Some(DataStoreTO::nfs(STORE)),
            url: Some(url.into()),
            format: Some(ImageFormat::Raw),
            account_id: account,
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
        let summed = seconds(|| sum = run("sha256sum", &[copy.to_str().unwrap()]));
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

/// Thirty templates, one after the other and all at once.
async fn usual(directory: &Path, server: &Server) {
    let host = Host::new(directory).await;
    let url = server.url("usual.raw");
    let (count, descriptors) = (USUAL.0, open_files());
    let watch = Peak::start();
    let start = Instant::now();
    for n in 0..count {
        let job = host.start(&url, 5_000 + n as i64, None).await;
        host.end(&job).await;
    }
    let serial = (start.elapsed().as_secs_f64(), watch.end());
    let watch = Peak::start();
    let start = Instant::now();
    let starting = (0..count).map(|n| host.start(&url, 6_000 + n as i64, None));
    let jobs = futures_util::future::join_all(starting).await;
    for job in &jobs {
        host.end(job).await;
    }
    let parallel = (start.elapsed().as_secs_f64(), watch.end());
    println!(
        "{count} templates: one after the other {:.1} s, {} at most; all at once {:.1} s, {} at \
         most (goal < 48 MiB); descriptors {descriptors} before, {} after",
        serial.0,
        mib(serial.1),
        parallel.0,
        mib(parallel.1),
        open_files_settled(descriptors).await
    );
    host.cx.tasks.kill();
    std::fs::remove_dir_all(directory.join("sec/template")).unwrap();
}

/// A hundred at once: one account asks for most of them, first and from one server. The others must
/// not wait for it.
async fn many(directory: &Path, server: &Server) {
    let host = Host::new(directory).await;
    let descriptors = open_files();
    let watch = Peak::start();
    let start = Instant::now();
    let starting = (0..MANY.0).map(|n| {
        let is_greedy = n < GREEDY;
        let (account, address) = if is_greedy { (2, 1) } else { (3 + n as i64 % 4, 2 + n % 4) };
        let url = server.url_at(address, "small.raw");
        let host = &host;
        async move { (is_greedy, host.start_of(account, &url, 1_000 + n as i64, None).await) }
    });
    let mut jobs = futures_util::future::join_all(starting).await;
    let mut ends = (Vec::new(), Vec::new());
    while !jobs.is_empty() {
        let is_over = |id: &String| host.parts.downloads.get(id).unwrap().phase().is_over();
        let over: Vec<(bool, String)> = jobs.extract_if(.., |(_, id)| is_over(id)).collect();
        for (is_greedy, job) in over {
            host.end(&job).await;
            let end = start.elapsed().as_secs_f64();
            if is_greedy { ends.0.push(end) } else { ends.1.push(end) }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let all = start.elapsed().as_secs_f64();
    let last = |ends: &[f64]| ends.iter().copied().fold(0.0, f64::max) / all * 100.0;
    println!(
        "{} downloads: {all:.1} s; those of the four accounts that came last had ended after {:.0} % \
         of it, the {GREEDY} of the first account after {:.0} %; {} at most (goal < 48 MiB); \
         descriptors {descriptors} before, {} after",
        MANY.0,
        last(&ends.1),
        last(&ends.0),
        mib(watch.end()),
        open_files_settled(descriptors).await
    );
    host.cx.tasks.kill();
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Those of the end; files are closed on threads of their own.
async fn open_files_settled(before: usize) -> usize {
    for _look in 0..100 {
        if open_files() <= before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    open_files()
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The most memory that this process has from now on.
struct Peak;

impl Peak {
    fn start() -> Self {
        // Of proc(5): the mark of the highest value begins anew.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        Self
    }

    fn end(self) -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}
