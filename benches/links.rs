//! What download links give and uploads take, against nginx in the same run.
//!
//! `cargo xtask bench storage` builds the release binary and runs this. Server, peer and client share
//! the machine, so only the ratio says something. Both servers send the same file of the page cache to
//! the same client, in turns.

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
#[path = "links/uploads.rs"]
mod uploads;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;

use binary::{LOOPBACK, Running, free, until_up};

const LENGTH: usize = 1 << 30;
const ROUNDS: usize = 5;
const PARALLEL: usize = 8;
const LINK: &str = "245aa84f-36c2-4a2b-ab08-c2efa8b16f18";
const IMAGE: &str = "template/tmpl/2/320/a.qcow2";

fn main() {
    let Some(binary) = binary::given("storage") else { return };
    links(&binary);
    uploads::uploads(&binary);
}

fn free_port() -> u16 {
    free().port()
}

/// One server: its ports, and the path of the file there.
struct Server {
    http: u16,
    https: u16,
    path: String,
}

fn links(binary: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let image = store.join(IMAGE);
    std::fs::create_dir_all(image.parent().unwrap()).unwrap();
    let block: Vec<u8> =
        (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = std::fs::File::create(&image).unwrap();
    for _ in 0..LENGTH / block.len() {
        file.write_all(&block).unwrap();
    }
    // As another storage host of the zone would have made it.
    let link = store.join(".quickcloud/links").join(LINK);
    std::fs::create_dir_all(&link).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let content = format!("{{\"a.qcow2\":{{\"path\":\"{IMAGE}\",\"created_ms\":{now}}}}}");
    std::fs::write(link.join("link.json"), content).unwrap();
    let ours =
        Server { http: free_port(), https: free_port(), path: format!("/userdata/{LINK}/a.qcow2") };
    let _ours = quickcloud(binary, directory.path(), &store, &ours);
    until_up((LOOPBACK, ours.https));
    let pem = directory.path().join("state/ss/own-certificate.pem");
    let theirs = Server { http: free_port(), https: free_port(), path: format!("/{IMAGE}") };
    let Some(_theirs) = nginx(directory.path(), &store, &pem, &theirs) else {
        println!("links: nginx is not installed, nothing to compare with");
        return;
    };
    until_up((LOOPBACK, theirs.https));
    let tls = client(&pem);
    let plain = |server: &Server| fetch(server.http, &server.path, None);
    let secure = |server: &Server| fetch(server.https, &server.path, Some(&tls));
    for (what, goal, get) in [
        ("http (sendfile)", 0.95, &plain as &(dyn Fn(&Server) -> u64 + Sync)),
        ("https", 0.9, &secure),
    ] {
        for clients in [1, PARALLEL] {
            compare(what, goal, clients, &ours, &theirs, get);
        }
    }
}

/// Medians of rounds in turns.
fn compare(
    what: &str,
    goal: f64,
    clients: usize,
    ours: &Server,
    theirs: &Server,
    get: &(dyn Fn(&Server) -> u64 + Sync),
) {
    let rate = |server: &Server| {
        let start = Instant::now();
        let total: u64 = std::thread::scope(|scope| {
            let all: Vec<_> = (0..clients).map(|_| scope.spawn(|| get(server))).collect();
            all.into_iter().map(|one| one.join().unwrap()).sum()
        });
        total as f64 / 1e9 / start.elapsed().as_secs_f64()
    };
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(rate(ours));
        b.push(rate(theirs));
    }
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let (a, b) = (a[ROUNDS / 2], b[ROUNDS / 2]);
    println!(
        "links over {what}, {clients} at once: {a:.2} GB/s, nginx {b:.2} GB/s, ratio {:.2} (goal >= {goal}, medians of {ROUNDS})",
        a / b
    );
}

fn quickcloud(binary: &Path, directory: &Path, store: &Path, server: &Server) -> Running {
    let ss = "roles.secondary_storage";
    let settings = [
        format!("supervisor.state_directory=\"{}\"", directory.join("state").display()),
        format!("supervisor.admin_address=127.0.0.1:{}", free_port()),
        // Nobody is there: links are served all the same.
        format!("management.servers=[\"127.0.0.1:{}\"]", free_port()),
        format!("{ss}.name=s-1-VM"),
        format!("{ss}.private_address=127.0.0.1"),
        format!("{ss}.upload_key=\"{}\"", uploads::KEY),
        format!("{ss}.stores=[{{url=\"nfs://127.0.0.1/b\",directory=\"{}\"}}]", store.display()),
        format!("{ss}.listen=[\"127.0.0.1:{}\"]", server.http),
        format!("{ss}.tls_listen=[\"127.0.0.1:{}\"]", server.https),
    ];
    let mut command = Command::new(binary);
    command.args(["run", "--roles", "ss", "--log", "off"]);
    for setting in &settings {
        command.args(["--set", setting]);
    }
    Running(command.spawn().unwrap())
}

fn nginx(directory: &Path, store: &Path, pem: &Path, server: &Server) -> Option<Running> {
    let pem = pem.display();
    let servers = format!(
        "server {{ listen 127.0.0.1:{}; listen 127.0.0.1:{} ssl; root {};\n\
         ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_protocols TLSv1.3; }}",
        server.http,
        server.https,
        store.display(),
    );
    nginx_with(directory, "nginx.conf", &servers)
}

/// Serves with the given blocks of its configuration; `None` when it is not installed.
fn nginx_with(directory: &Path, name: &str, servers: &str) -> Option<Running> {
    let dir = directory.display();
    let config = format!(
        "daemon off; worker_processes auto; pid {dir}/nginx.pid; error_log {dir}/nginx.log; user root;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; sendfile_max_chunk 2m;\n\
         client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
         uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         {servers} }}\n"
    );
    let file = directory.join(name);
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-c", &file.display().to_string(), "-e", &format!("{dir}/nginx.log")]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok().map(Running)
}

fn client(pem: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Bytes of the body, all of which have to come.
fn fetch(port: u16, path: &str, tls: Option<&Arc<rustls::ClientConfig>>) -> u64 {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut tcp = TcpStream::connect(address).unwrap();
    match tls {
        Some(config) => {
            let name = ServerName::from(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST));
            let mut session = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
            body(&mut rustls::Stream::new(&mut session, &mut tcp), path)
        }
        None => body(&mut tcp, path),
    }
}

fn body(stream: &mut (impl Read + Write), path: &str) -> u64 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut head = Vec::new();
    let end = loop {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the answer ended in its head");
        head.extend_from_slice(&buffer[..count]);
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head[..end]));
    let mut received = head.len() - end;
    while received < LENGTH {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the answer ended after {received} bytes");
        received += count;
    }
    received as u64
}
