//! Links over real HTTP.

use std::net::SocketAddr;

use agent_protocol::storage::{
    Certificates, CreateEntityDownloadURLCommand, DataTO, DeleteCommand,
    DeleteEntityDownloadURLCommand, ImageFormat, PortConfig, SecStorageFirewallCfgCommand,
    SecStorageSetupCommand, SecStorageVMSetupCommand, UploadType,
};
use http_front::{Registration, Site, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Bench;
use crate::bench::STORE;
use crate::images::vector;

pub struct Reply {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }
}

pub struct Web {
    addr: SocketAddr,
    _registration: Registration,
}

/// Serves everything that the role serves, at an address of its own.
pub async fn web(bench: &Bench, tls: bool) -> Web {
    let service = bench.parts.web();
    let certificates = tls.then(|| service.certificates.served());
    let site = Site {
        owner: "ss",
        addr: "127.0.0.1:0".parse().unwrap(),
        prefixes: &["/"],
        router: service.router,
        tasks: bench.cx.tasks.clone(),
        trusted_proxies: service.trusted_proxies,
        transport: Transport { certificates, ..Transport::default() },
    };
    let registration = bench.cx.http.register_files(site, service.files).await.unwrap();
    Web { addr: registration.local_addr(), _registration: registration }
}

pub async fn fetch(web: &Web, method: &str, path: &str, headers: &str) -> Reply {
    let stream = tokio::net::TcpStream::connect(web.addr).await.unwrap();
    exchange(stream, method, path, headers).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &str,
) -> Reply {
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
        data: Some(DataTO::from(Bench::template(path, 320))),
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
    let web = web(&bench, false).await;
    let image = vector("tiny.qcow2");
    let whole = fetch(&web, "GET", LINK, "").await;
    assert_eq!((whole.status, whole.header("content-length").as_deref()), (200, Some("524288")));
    assert!(whole.body == image);
    assert_eq!(whole.header("content-type").as_deref(), Some("application/octet-stream"));
    let disposition = whole.header("content-disposition");
    assert_eq!(disposition.as_deref(), Some("attachment; filename=\"g-plain.qcow2\""));
    let head = fetch(&web, "HEAD", LINK, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length").as_deref(), Some("524288"));
    let part = fetch(&web, "GET", LINK, "Range: bytes=500000-\r\n").await;
    assert_eq!(part.status, 206);
    assert_eq!(part.header("content-range").as_deref(), Some("bytes 500000-524287/524288"));
    assert!(part.body == image[500_000..]);
    let etag = whole.header("etag").unwrap();
    let same = fetch(&web, "GET", LINK, &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    let outside = fetch(&web, "GET", LINK, "Range: bytes=524288-\r\n").await;
    assert_eq!(
        (outside.status, outside.header("content-range").as_deref()),
        (416, Some("bytes */524288"))
    );
}

#[tokio::test]
async fn nothing_but_links_is_served() {
    let (bench, path) = with_link().await;
    let web = web(&bench, false).await;
    let direct = format!("/userdata/{path}");
    for other in [
        "/userdata/",
        "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/",
        "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/other.qcow2",
        "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/..%2f..%2fetc%2fpasswd",
        "/userdata/%2e%2e/%2e%2e",
        "/userdata/../etc/passwd",
        "/userdata/245aa84f-36c2-4a2b-ab08-c2efa8b16f18/%ff",
        "/userdata/.quickcloud/links",
        direct.as_str(),
        "/nothing",
    ] {
        assert_eq!(fetch(&web, "GET", other, "").await.status, 404, "{other}");
    }
    let post = fetch(&web, "POST", LINK, "Content-Length: 0\r\n").await;
    assert_eq!((post.status, post.header("allow").as_deref()), (405, Some("GET, HEAD")));
}

/// Row 24 of the weaknesses: the original never takes a link away.
#[tokio::test]
async fn a_link_survives_a_restart_and_ends_when_the_server_says_so() {
    let (bench, path) = with_link().await;
    let bench = bench.restarted().await;
    let web = web(&bench, false).await;
    assert_eq!(fetch(&web, "GET", LINK, "").await.status, 200);
    let remove = DeleteEntityDownloadURLCommand {
        path: Some(path.clone()),
        extract_url: Some(format!("http://10.77.1.2{LINK}").into()),
        upload_type: Some(UploadType::Template),
        parent_path: Some("b523f0c4-0847-33cd-bb44-f46c4da95327".to_owned()),
        ..DeleteEntityDownloadURLCommand::default()
    };
    let answer = bench.ask(&remove).await;
    assert!(answer.base.result && answer.base.details.as_deref() == Some(""));
    let gone = fetch(&web, "GET", LINK, "").await;
    let text = String::from_utf8(gone.body).unwrap();
    assert_eq!(gone.status, 410);
    assert!(text.starts_with("This link ended at 20") && text.contains(" UTC."), "{text}");
    assert!(bench.store(&path).exists(), "the template itself stays");
    assert!(bench.ask(&remove).await.base.result, "twice is fine");
}

/// Row 25 of the weaknesses: a server without a row of this host names no directory.
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
    let expected = bench.place("template/tmpl/2/320/none.qcow2");
    assert_eq!(answer.base.details, Some(format!("Error in finding the file {expected}")));
    assert!(!answer.base.result);
    assert!(!bench.ask(&create("template/tmpl/2/320")).await.base.result, "not a directory");
    let web = web(&bench, false).await;
    let delete = DeleteCommand {
        data: Some(DataTO::from(Bench::template(&path, 320))),
        ..DeleteCommand::default()
    };
    // Somebody else removed the file: the link is one of ours, what it leads to is gone.
    std::fs::remove_file(bench.store(&path)).unwrap();
    assert_eq!(fetch(&web, "GET", LINK, "").await.status, 410);
    // The server says nothing of the links of what it deletes.
    assert!(bench.ask(&delete).await.base.result);
    assert_eq!(fetch(&web, "GET", LINK, "").await.status, 410);
    assert_eq!(bench.parts.links.status(i64::MAX / 2).count, 0);
}

/// Bytes of a template that is larger than what a socket takes at once, over each way there is.
#[tokio::test]
async fn a_large_file_comes_whole_over_http_and_https() {
    let (bench, path) = with_link().await;
    let mut large = Vec::new();
    while large.len() < 20 << 20 {
        large.extend_from_slice(&u64::try_from(large.len()).unwrap().to_le_bytes());
    }
    std::fs::write(bench.store(&path), &large).unwrap();
    let (plain, tls) = (web(&bench, false).await, web(&bench, true).await);
    let own = bench.parts.web().certificates.list().remove(0);
    for range in ["", "Range: bytes=1000001-\r\n"] {
        let skipped = if range.is_empty() { 0 } else { 1_000_001 };
        let fast = fetch(&plain, "GET", LINK, range).await;
        // With a length of its own it is the library's.
        let slow = fetch(&plain, "GET", LINK, &format!("{range}Content-Length: 0\r\n")).await;
        let stream = connect_tls(&tls, &own.key.cert[0]).await;
        let secure = exchange(stream, "GET", LINK, range).await;
        for (reply, way) in [(fast, "sendfile"), (slow, "library"), (secure, "tls")] {
            assert_eq!(reply.status, if range.is_empty() { 200 } else { 206 }, "{way}");
            assert!(reply.body == large[skipped..], "{way}: {} bytes", reply.body.len());
            assert!(reply.header("etag").is_some() && reply.header("date").is_some(), "{way}");
        }
    }
}

async fn connect_tls(
    web: &Web,
    root: &rustls::pki_types::CertificateDer<'static>,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = tokio::net::TcpStream::connect(web.addr).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    connector.connect(name, stream).await.unwrap()
}

/// 10.3 of the secondary storage notes, row 27: the certificate that the server sends is served at the
/// next handshake, a download under way goes on.
#[tokio::test]
async fn the_servers_certificate_is_served_without_a_break() {
    let (bench, _path) = with_link().await;
    let tls = web(&bench, true).await;
    let before = bench.parts.web().certificates.list().remove(0);
    let mut under_way = connect_tls(&tls, &before.key.cert[0]).await;
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certs = Certificates {
        priv_key: Some(bedrock::Secret::new(made.signing_key.serialize_pem())),
        priv_cert: Some(made.cert.pem()),
        ..Certificates::default()
    };
    let setup = |certs| SecStorageSetupCommand {
        store: Some(crate::bench::store_to()),
        sec_url: Some(STORE.into()),
        certs: Some(certs),
        ..SecStorageSetupCommand::default()
    };
    assert!(bench.ask(&setup(certs.clone())).await.base.result);
    let stream = connect_tls(&tls, made.cert.der()).await;
    assert_eq!(exchange(stream, "GET", LINK, "").await.status, 200);
    under_way.flush().await.unwrap();
    assert_eq!(exchange(under_way, "GET", LINK, "").await.status, 200);
    // A bad one is told and changes nothing; the store is set up nevertheless.
    let bad = Certificates { priv_cert: Some("nonsense".to_owned()), ..certs };
    assert!(bench.ask(&setup(bad)).await.base.result);
    let page = exchange(connect_tls(&tls, made.cert.der()).await, "GET", "/", "").await;
    let text = String::from_utf8(page.body).unwrap();
    assert!(text.contains("management server") && text.contains("127.0.0.1"), "{text}");
    // And after a restart, before the server has sent anything.
    let bench = bench.restarted().await;
    let tls = web(&bench, true).await;
    connect_tls(&tls, made.cert.der()).await;
}

/// 10.3 of the secondary storage notes, row 26; as other zones' hosts fetch templates.
#[tokio::test]
async fn copies_are_served_to_named_hosts_and_to_nobody_else() {
    let more = "trusted_proxies = [\"127.0.0.1\"]\ncopy_allowed = [\"198.51.100.0/24\"]\n";
    let bench: Bench = Bench::with(more).await;
    let answer = bench.finish(&bench.download("golden/tiny.qcow2", ImageFormat::Qcow2)).await;
    let path = answer.install_path.unwrap();
    let web = web(&bench, false).await;
    let directory = "b523f0c4-0847-33cd-bb44-f46c4da95327";
    let url = |directory: &str, path: &str| format!("/copy/SecStorage/{directory}/{path}");
    let from = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let known = from("198.51.100.7");
    for directory in [directory, "null"] {
        let copy = fetch(&web, "GET", &url(directory, &path), &known).await;
        assert_eq!(copy.status, 200, "{directory}");
        assert!(copy.body == vector("tiny.qcow2"));
        let range = format!("{known}Range: bytes=500000-\r\n");
        let part = fetch(&web, "GET", &url(directory, &path), &range).await;
        assert_eq!((part.status, part.body.len()), (206, 24_288));
    }
    let refused = fetch(&web, "GET", &url(directory, &path), &from("203.0.113.9")).await;
    let text = String::from_utf8(refused.body).unwrap();
    assert_eq!(refused.status, 403);
    assert!(text.contains("203.0.113.9 may not copy") && text.contains("copy_allowed"), "{text}");
    // Named by the server, the host may.
    let named = PortConfig {
        add: true,
        source_ip: Some("203.0.113.9".to_owned()),
        ..PortConfig::default()
    };
    let firewall = SecStorageFirewallCfgCommand {
        port_configs: Some(vec![named]),
        is_append_a_ip: true,
        ..SecStorageFirewallCfgCommand::default()
    };
    assert!(bench.ask(&firewall).await.base.result);
    let copy = fetch(&web, "GET", &url(directory, &path), &from("203.0.113.9")).await;
    assert_eq!(copy.status, 200);
    // Or it has what the server gave out.
    let setup = SecStorageVMSetupCommand {
        copy_user_name: Some("cloud".to_owned()),
        copy_password: Some(bedrock::Secret::new("ZV8ve8PTSc2s".to_owned())),
        ..SecStorageVMSetupCommand::default()
    };
    assert!(bench.ask(&setup).await.base.result);
    let basic = |pair: &str| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair);
        format!("{}Authorization: Basic {encoded}\r\n", from("192.0.2.1"))
    };
    let right = fetch(&web, "GET", &url(directory, &path), &basic("cloud:ZV8ve8PTSc2s")).await;
    assert_eq!(right.status, 200);
    let wrong = fetch(&web, "GET", &url(directory, &path), &basic("cloud:x")).await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.header("www-authenticate").is_some());
    // Only files of stores, and no link out of one.
    std::os::unix::fs::symlink("/etc/passwd", bench.store("template/tmpl/2/320/out")).unwrap();
    for (odd, status) in [
        ("template/tmpl/2/320", 404),
        ("template/tmpl/2/320/", 404),
        ("template/tmpl/2/320/none", 404),
        ("template/tmpl/2/320/out", 404),
        ("../../etc/passwd", 404),
        ("%2e%2e/%2e%2e/etc/passwd", 404),
        (".quickcloud-store", 404),
        (".quickcloud/links/x/link.json", 404),
    ] {
        let reply = fetch(&web, "GET", &url(directory, odd), &known).await;
        assert_eq!(reply.status, status, "{odd}");
        assert!(!String::from_utf8_lossy(&reply.body).contains("root:"), "{odd}");
    }
    let unknown = fetch(&web, "GET", &url("other", &path), &known).await;
    assert_eq!(unknown.status, 404);
}
