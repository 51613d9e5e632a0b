//! Three storage hosts of one zone, three processes of the real binary on one store: a link is
//! everybody's, and what a killed one was downloading another finishes. Rows 19 and 41 of the
//! weaknesses (10.3 of the secondary storage notes).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_protocol::storage::{
    CreateEntityDownloadURLCommand, DataStoreTO, DataTO, DeleteEntityDownloadURLCommand,
    DownloadAnswer, DownloadCommand, DownloadProgressCommand, DownloadRequest, DownloadStatus,
    ImageFormat, ResourceType, TemplateObjectTO, UploadType,
};
use management_server::{
    HostKind, HostState, ImageStore, ManagementServer, ServerConfig, StrayImages, SystemVm,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::running::LIMIT;

const STORE: &str = "nfs://127.0.0.1/export/sec";
const LENGTH: usize = 8 << 20;
const LINK: &str = "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/i.raw";

/// A RAW image, each part of it different.
fn image() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..LENGTH as u64).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes
}

/// As `sha512sum` says it.
fn sha512(path: &Path) -> String {
    let output = Command::new("sha512sum").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

/// Gives the first who asks one half and then nothing; everybody else what they ask for. Keeps the
/// heads of requests.
async fn source(image: Vec<u8>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, heads) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (image, seen) = (image.clone(), Arc::clone(&seen));
            // A client that is killed is part of the test.
            tokio::spawn(async move { drop(serve(stream, &image, &seen).await) });
        }
    });
    (addr, heads)
}

async fn serve(
    mut stream: TcpStream,
    image: &[u8],
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let nth = {
        let mut seen = seen.lock().unwrap();
        seen.push(head.clone());
        seen.len()
    };
    let from = from(&head);
    let status = from.map_or("200 OK".to_owned(), |from| {
        format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{LENGTH}", LENGTH - 1)
    });
    let from = from.unwrap_or(0);
    let head =
        format!("HTTP/1.1 {status}\r\nETag: \"v1\"\r\nContent-Length: {}\r\n\r\n", LENGTH - from);
    stream.write_all(head.as_bytes()).await?;
    if nth == 1 {
        stream.write_all(&image[..LENGTH / 2]).await?;
        return std::future::pending().await;
    }
    stream.write_all(&image[from..]).await?;
    stream.shutdown().await
}

/// The first byte that a request asks for.
fn from(head: &str) -> Option<usize> {
    let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    range.split('-').next()?.parse().ok()
}

/// A process of the binary; it ends with the value, and its log is shown when a test fails.
pub(crate) struct Running {
    child: Child,
    arguments: Vec<String>,
    log: PathBuf,
}

/// Starts the binary; what it logs goes to a file.
pub(crate) fn spawn(arguments: Vec<String>, log: &Path) -> Running {
    let child = start(&arguments, log);
    Running { child, arguments, log: log.to_owned() }
}

fn start(arguments: &[String], log: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickcloud"));
    command.args(arguments).env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

impl Running {
    fn start_again(&mut self) {
        self.child = start(&self.arguments, &self.log);
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Has it read its configuration again; `address` is the file with its admin address.
    pub(crate) fn reload(&self, address: &Path) {
        let admin = std::fs::read_to_string(address).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickcloud"));
        let output = command.args(["reload", "--admin", admin.trim()]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
    }
}

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "the log of a process is shown when its test failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        // It may have been killed already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One storage host.
struct Host {
    process: Running,
    guid: String,
    web: SocketAddr,
}

impl Host {
    fn start(directory: &Path, server: SocketAddr, number: usize) -> Self {
        let name = format!("s-{}-VM", 900 + number);
        let state = directory.join(&name);
        std::fs::create_dir_all(&state).unwrap();
        // Free now; nobody else binds it before the process does.
        let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let role = "roles.secondary_storage";
        let arguments = [
            format!("supervisor.state_directory={}", state.display()),
            "supervisor.admin_address=127.0.0.1:0".to_owned(),
            format!("management.servers=[\"{server}\"]"),
            format!("management.ca_file={}", directory.join("ca.pem").display()),
            "management.zone=z1".to_owned(),
            "management.pod=p1".to_owned(),
            format!("{role}.name={name}"),
            format!("{role}.private_address=127.0.0.1"),
            format!("{role}.listen=[\"{web}\"]"),
            format!("{role}.allowed_sources=[\"127.0.0.0/8\"]"),
            format!("{role}.answer_wait=50ms"),
            format!("{role}.takeover_after=1s"),
            format!(
                "{role}.stores=[{{url=\"{STORE}\",directory=\"{}\"}}]",
                directory.join("sec").display()
            ),
        ];
        let mut line = vec!["run".to_owned(), "--roles".to_owned(), "ss".to_owned()];
        line.extend(arguments.into_iter().flat_map(|set| ["--set".to_owned(), set]));
        let guid = format!("{name}-NfsSecondaryStorageResource");
        Self { process: spawn(line, &state.join("log")), guid, web }
    }

    /// Status and body of its link.
    async fn link(&self) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.web).await.unwrap();
        let request = format!("GET {LINK} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap();
        (status, bytes.split_off(end + 4))
    }
}

struct Zone {
    server: ManagementServer,
    hosts: Vec<Host>,
    directory: tempfile::TempDir,
}

impl Zone {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("sec")).unwrap();
        let mut config = ServerConfig::new("127.0.0.1:0".parse().unwrap());
        config.stores = vec![ImageStore { url: STORE.to_owned(), writable: true }];
        config.system_vms = (0..3)
            .map(|number| SystemVm {
                kind: HostKind::SecondaryStorage,
                id: 900 + number,
                name: format!("s-{}-VM", 900 + number),
                public_address: "127.0.0.1".to_owned(),
            })
            .collect();
        // The server did not order what this test orders itself.
        config.images.strays = StrayImages::Keep;
        let server = ManagementServer::start(config).await.unwrap();
        std::fs::write(directory.path().join("ca.pem"), server.ca_pem()).unwrap();
        let start = |number| Host::start(directory.path(), server.address(), number);
        let hosts: Vec<Host> = (0..3).map(start).collect();
        for host in &hosts {
            server.wait_for_host(&host.guid, HostState::Up, LIMIT).await.unwrap();
        }
        Self { server, hosts, directory }
    }

    fn store(&self, path: &str) -> PathBuf {
        self.directory.path().join("sec").join(path)
    }

    async fn poll(
        &self,
        host: &Host,
        command: &DownloadCommand,
        of: &DownloadAnswer,
    ) -> DownloadAnswer {
        let poll = DownloadProgressCommand {
            job_id: of.job_id.clone(),
            request: Some(DownloadRequest::GetStatus),
            download: command.clone(),
        };
        self.server.request(&host.guid, &poll, LIMIT).await.unwrap()
    }

    /// Asks `host` until the answer is as wanted.
    async fn until(
        &self,
        host: &Host,
        command: &DownloadCommand,
        of: &DownloadAnswer,
        is_it: impl Fn(&DownloadAnswer) -> bool,
    ) -> DownloadAnswer {
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.poll(host, command, of).await;
            if is_it(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Every file of objects.
    fn files(&self) -> Vec<PathBuf> {
        let list = std::fs::read_dir(self.store("template/tmpl/2/320"));
        let mut files: Vec<_> = list
            .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
            .unwrap_or_default();
        files.sort();
        files
    }
}

fn download(url: String) -> DownloadCommand {
    DownloadCommand {
        hvm: true,
        max_download_size_in_bytes: Some(53_687_091_200),
        id: 320,
        resource_type: Some(ResourceType::Template),
        install_path: Some("template/tmpl/2/320".to_owned()),
        store: Some(DataStoreTO::nfs(STORE)),
        url: Some(url.into()),
        format: Some(ImageFormat::Raw),
        account_id: 2,
        name: Some("320-2-3aeb9d60-1176-3215-bb38-fb5279d529d2".to_owned()),
        sec_url: Some(STORE.into()),
        ..DownloadCommand::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_hosts_download_is_finished_by_another_and_a_link_is_everybodys() {
    let mut zone = Zone::start().await;
    let (addr, heads) = source(image()).await;
    let command = download(format!("http://{addr}/i.raw"));
    let first = zone.server.request(&zone.hosts[0].guid, &command, LIMIT).await.unwrap();
    // Half of it is there, and known to the others.
    let shown = zone.store(".quickcloud/jobs/template+tmpl+2+320/job.json");
    let known = || {
        let shown: serde_json::Value = serde_json::from_slice(&std::fs::read(&shown).ok()?).ok()?;
        shown["record"]["checkpoint"]["received"].as_u64()
    };
    testkit::eventually("a checkpoint", LIMIT, known).await;
    let busy = zone.poll(&zone.hosts[1], &command, &first).await;
    assert_eq!(busy.download_status, Some(DownloadStatus::DownloadInProgress), "{busy:?}");
    assert!(busy.download_pct > 0 && heads.lock().unwrap().len() == 1, "{busy:?}");

    zone.hosts[0].process.kill();
    let killed = Instant::now();
    let is_done =
        |answer: &DownloadAnswer| answer.download_status == Some(DownloadStatus::Downloaded);
    let done = zone.until(&zone.hosts[1], &command, &first, is_done).await;
    eprintln!("killed, taken over and done after {:?}", killed.elapsed());
    let is_done_by_all = zone.until(&zone.hosts[2], &command, &first, is_done).await;
    assert_eq!(is_done_by_all.install_path, done.install_path);
    let kept: Vec<Option<usize>> = heads.lock().unwrap().iter().map(|head| from(head)).collect();
    assert!(kept.len() == 2 && kept[1].is_some_and(|from| from > 0), "{kept:?}");
    // The right bytes, nothing besides them, nothing left between the hosts.
    let expected = zone.directory.path().join("expected");
    std::fs::write(&expected, image()).unwrap();
    let path = done.install_path.clone().unwrap();
    assert_eq!(sha512(&zone.store(&path)), sha512(&expected));
    assert_eq!(zone.files().len(), 2, "{:?}", zone.files());
    for tree in [".quickcloud/jobs", ".quickcloud/leases"] {
        let empty = || (std::fs::read_dir(zone.store(tree)).ok()?.count() == 0).then_some(());
        testkit::eventually("given back", LIMIT, empty).await;
    }

    // The killed one comes back, and sees that there is nothing to do.
    zone.hosts[0].process.start_again();
    zone.server.wait_for_host(&zone.hosts[0].guid, HostState::Up, LIMIT).await.unwrap();
    zone.until(&zone.hosts[0], &command, &first, is_done).await;
    assert_eq!((zone.files().len(), heads.lock().unwrap().len()), (2, 2), "{:?}", zone.files());

    let create = CreateEntityDownloadURLCommand {
        install_path: Some(path.clone()),
        filename_in_extract_url: Some("i.raw".to_owned()),
        filepath_in_extract_url: Some("245aa84f-36c2-4a2b-ab08-c2efa8b16f18".to_owned()),
        data: Some(DataTO::from(TemplateObjectTO {
            path: Some(path.clone()),
            id: 320,
            image_data_store: Some(DataStoreTO::nfs(STORE)),
            ..TemplateObjectTO::default()
        })),
        ..CreateEntityDownloadURLCommand::default()
    };
    assert!(zone.server.succeeds(&zone.hosts[1].guid, &create, LIMIT).await.unwrap());
    for host in &zone.hosts {
        let (status, body) = host.link().await;
        assert_eq!((status, body.len()), (200, LENGTH));
        assert!(body == image(), "content");
    }
    let delete = DeleteEntityDownloadURLCommand {
        path: Some(path),
        extract_url: Some(format!("http://{}{LINK}", zone.hosts[1].web).into()),
        upload_type: Some(UploadType::Template),
        ..DeleteEntityDownloadURLCommand::default()
    };
    assert!(zone.server.succeeds(&zone.hosts[2].guid, &delete, LIMIT).await.unwrap());
    for host in &zone.hosts {
        assert_eq!(host.link().await.0, 410);
    }
}
