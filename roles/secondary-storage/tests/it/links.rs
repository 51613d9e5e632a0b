//! Links over real HTTP.

use std::net::SocketAddr;

use agent_protocol::storage::{
    CreateEntityDownloadURLCommand, DataTO, DeleteCommand, DeleteEntityDownloadURLCommand,
    ImageFormat, UploadType,
};
use http_front::{HttpLimits, Listener, serve};
use secondary_storage::links::serve::router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, OnDirectory};
use crate::images::vector;

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }
}

async fn listen(bench: &Bench) -> SocketAddr {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = router(bench.parts.link_service());
    let (tasks, shutdown) = (bench.cx.tasks.clone(), bench.cx.shutdown.clone());
    bench.cx.tasks.spawn("links", serve(listener, router, HttpLimits::default(), tasks, shutdown));
    addr
}

async fn fetch(addr: SocketAddr, method: &str, path: &str, headers: &str) -> Reply {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head, body: bytes[end + 4..].to_vec() }
}

fn create(path: &str) -> CreateEntityDownloadURLCommand {
    CreateEntityDownloadURLCommand {
        install_path: Some(path.to_owned()),
        parent: Some("b523f0c4-0847-33cd-bb44-f46c4da95327".to_owned()),
        filename_in_extract_url: Some("g-plain.qcow2".to_owned()),
        filepath_in_extract_url: Some("245aa84f-36c2-4a2b-ab08-c2efa8b16f18".to_owned()),
        data: Some(DataTO::from(Bench::<OnDirectory>::template(path, 320))),
        ..CreateEntityDownloadURLCommand::default()
    }
}

const LINK: &str = "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/g-plain.qcow2";

async fn with_link() -> (Bench, String) {
    let bench: Bench = Bench::new().await;
    let answer = bench.finish(&bench.download("golden/tiny.qcow2", ImageFormat::Qcow2)).await;
    let path = answer.install_path.unwrap();
    let answer = bench.ask(&create(&path)).await;
    assert!(answer.base.result && answer.base.details.as_deref() == Some(""), "{answer:?}");
    (bench, path)
}

#[tokio::test]
async fn a_link_serves_the_file_whole_and_in_parts() {
    let (bench, path) = with_link().await;
    assert!(bench.ask(&create(&path)).await.base.result, "the same link again");
    let addr = listen(&bench).await;
    let image = vector("tiny.qcow2");
    let whole = fetch(addr, "GET", LINK, "").await;
    assert_eq!((whole.status, whole.header("content-length").as_deref()), (200, Some("524288")));
    assert!(whole.body == image);
    assert_eq!(whole.header("content-type").as_deref(), Some("application/octet-stream"));
    let disposition = whole.header("content-disposition");
    assert_eq!(disposition.as_deref(), Some("attachment; filename=\"g-plain.qcow2\""));
    let head = fetch(addr, "HEAD", LINK, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length").as_deref(), Some("524288"));
    let part = fetch(addr, "GET", LINK, "Range: bytes=500000-\r\n").await;
    assert_eq!(part.status, 206);
    assert_eq!(part.header("content-range").as_deref(), Some("bytes 500000-524287/524288"));
    assert!(part.body == image[500_000..]);
    let etag = whole.header("etag").unwrap();
    let same = fetch(addr, "GET", LINK, &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    let outside = fetch(addr, "GET", LINK, "Range: bytes=524288-\r\n").await;
    assert_eq!(
        (outside.status, outside.header("content-range").as_deref()),
        (416, Some("bytes */524288"))
    );
}

#[tokio::test]
async fn nothing_but_links_is_served() {
    let (bench, path) = with_link().await;
    let addr = listen(&bench).await;
    let direct = format!("/userdata/{path}");
    for other in [
        "/userdata/",
        "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/",
        "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/other.qcow2",
        "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/..%2f..%2fetc%2fpasswd",
        "/userdata/%2e%2e/%2e%2e",
        "/userdata/../etc/passwd",
        direct.as_str(),
        "/",
    ] {
        assert_eq!(fetch(addr, "GET", other, "").await.status, 404, "{other}");
    }
    let post = fetch(addr, "POST", LINK, "Content-Length: 0\r\n").await;
    assert_eq!((post.status, post.header("allow").as_deref()), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn a_link_survives_a_restart_and_ends_when_the_server_says_so() {
    let (bench, path) = with_link().await;
    let bench = bench.restarted().await;
    let addr = listen(&bench).await;
    assert_eq!(fetch(addr, "GET", LINK, "").await.status, 200);
    let remove = DeleteEntityDownloadURLCommand {
        path: Some(path.clone()),
        extract_url: Some(format!("http://10.77.1.2{LINK}").into()),
        upload_type: Some(UploadType::Template),
        parent_path: Some("b523f0c4-0847-33cd-bb44-f46c4da95327".to_owned()),
        ..DeleteEntityDownloadURLCommand::default()
    };
    let answer = bench.ask(&remove).await;
    assert!(answer.base.result && answer.base.details.as_deref() == Some(""));
    assert_eq!(fetch(addr, "GET", LINK, "").await.status, 404);
    assert!(bench.store(&path).exists(), "the template itself stays");
    assert!(bench.ask(&remove).await.base.result, "twice is fine");
}

#[tokio::test]
async fn a_volume_copied_for_its_link_goes_with_it() {
    let bench: Bench = Bench::new().await;
    let path = "volumes/2/47/74eeb2c6.qcow2";
    std::fs::create_dir_all(bench.store("volumes/2/47")).unwrap();
    std::fs::write(bench.store(path), "image").unwrap();
    // No directory name and no object: the one configured store is meant.
    let command = CreateEntityDownloadURLCommand { data: None, parent: None, ..create(path) };
    let answer = bench.ask(&command).await;
    assert!(answer.base.result, "{answer:?}");
    let remove = |path: &str| DeleteEntityDownloadURLCommand {
        path: Some(path.to_owned()),
        extract_url: Some(format!("http://10.77.1.2{LINK}").into()),
        upload_type: Some(UploadType::Volume),
        ..DeleteEntityDownloadURLCommand::default()
    };
    for odd in ["volumes", "volumes/2/47", "../x/1/1/f", "template/tmpl/2/320/a"] {
        assert!(!bench.ask(&remove(odd)).await.base.result, "{odd}");
    }
    assert!(bench.ask(&remove(path)).await.base.result);
    assert!(!bench.store("volumes/2/47").exists() && bench.store("volumes/2").exists());
}

#[tokio::test]
async fn a_missing_file_gives_no_link_and_a_deletion_drops_the_links() {
    let (bench, path) = with_link().await;
    let answer = bench.ask(&create("template/tmpl/2/320/none.qcow2")).await;
    let expected = bench.store("template/tmpl/2/320/none.qcow2").display().to_string();
    assert_eq!(answer.base.details, Some(format!("Error in finding the file {expected}")));
    assert!(!answer.base.result);
    assert!(!bench.ask(&create("template/tmpl/2/320")).await.base.result, "not a directory");
    let addr = listen(&bench).await;
    let delete = DeleteCommand {
        data: Some(DataTO::from(Bench::<OnDirectory>::template(&path, 320))),
        ..DeleteCommand::default()
    };
    // Somebody else removed the file: the link is one of ours, what it leads to is gone.
    std::fs::remove_file(bench.store(&path)).unwrap();
    assert_eq!(fetch(addr, "GET", LINK, "").await.status, 410);
    // The server says nothing of the links of what it deletes.
    assert!(bench.ask(&delete).await.base.result);
    assert_eq!(fetch(addr, "GET", LINK, "").await.status, 404);
    let links = std::fs::read_to_string(bench.directory.join("state/ss/links.json")).unwrap();
    assert_eq!(links, "{}");
}
