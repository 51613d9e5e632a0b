//! Behind nginx, as operators set it up: below a path prefix, and with the HTTP/1.0 that it speaks to
//! upstreams unless told otherwise.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use management_server::ConsoleLink;

use crate::browser::{PATCHES, Program, answers, browse, free_port};
use crate::tls::tls_address;
use crate::world::{Options, World, start};

struct Nginx {
    addr: SocketAddr,
    _program: Program,
    _directory: tempfile::TempDir,
}

/// nginx in front of `world`, with this block in its server.
async fn nginx(world: &World, location: &str) -> Nginx {
    nginx_before(world.addr, location, false).await
}

/// The same in front of any listener, for browsers over TLS or not.
async fn nginx_before(upstream: SocketAddr, location: &str, tls: bool) -> Nginx {
    let directory = tempfile::tempdir().unwrap();
    let addr = free_port();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", directory.path().join(name).display()))
        .concat();
    let config = format!(
        "daemon off; worker_processes 1; pid {pid}; error_log stderr;\n{user}\n\
         events {{}}\n\
         http {{\n access_log off;\n {temporary}\n\
           map $http_upgrade $connection_upgrade {{ default upgrade; \"\" close; }}\n\
           server {{\n listen {addr}{listen}\n {location}\n }}\n\
         }}\n",
        pid = directory.path().join("pid").display(),
        user = if is_root() { "user root;" } else { "" },
        listen = if tls { certificate(directory.path()) } else { ";".to_owned() },
        location = location.replace("UPSTREAM", &upstream.to_string()),
    );
    let file = directory.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let program = Command::new("nginx")
        .arg("-c")
        .arg(&file)
        .arg("-p")
        .arg(directory.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("run `cargo xtask setup`, or install nginx");
    let program = Program(program);
    answers(addr).await;
    Nginx { addr, _program: program, _directory: directory }
}

/// The end of a `listen` line for TLS, with a certificate that no browser knows.
fn certificate(directory: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["console.test".to_owned()]).unwrap();
    let (certificate, key) = (directory.join("c.pem"), directory.join("k.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (certificate.display(), key.display());
    format!(" ssl;\n ssl_certificate {certificate};\n ssl_certificate_key {key};")
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

const UPGRADES: &str = "proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; \
                        proxy_set_header Connection $connection_upgrade;";

/// The link as a browser gets it, through this address and prefix, naming the role's own port as
/// that of its WebSockets.
fn through(world: &World, nginx: &Nginx, prefix: &str, link: &ConsoleLink) -> String {
    let port = format!("port={}", world.addr.port());
    let url = link.url.replace("port=8080", &port);
    assert!(url.contains(&port), "{url}");
    url.replace("http://127.0.0.1/", &format!("http://console.test:{}{prefix}/", nginx.addr.port()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_opens_below_a_prefix_and_its_token_goes_nowhere_else() {
    let world = start(Options::default()).await;
    for (location, prefix) in [
        ("location /console/ { proxy_pass http://UPSTREAM/; proxy_http_version 1.1; ", "/console"),
        // A prefix that is passed on.
        ("location /a/b/ { proxy_pass http://UPSTREAM; proxy_http_version 1.1; ", "/a/b"),
    ] {
        let nginx = nginx(&world, &format!("{location}{UPGRADES} }}")).await;
        let link = world.link(1).await;
        let url = through(&world, &nginx, prefix, &link);
        let said = browse(&url, &["--expect-pixels", PATCHES]).await;
        let socket = format!("ws://console.test:{}{prefix}/websockify", nginx.addr.port());
        assert_eq!(said["sockets"], serde_json::json!([socket]));
        // The older form of link, below the prefix too.
        let link = world.link(1).await;
        let (_, query) = link.url.split_once('?').unwrap();
        let old = format!("http://console.test:{}{prefix}/ajax?{query}", nginx.addr.port());
        browse(&old, &["--expect-pixels", PATCHES]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_speaks_http_1_0_is_passed_by() {
    let role = "session_reconnection_window = \"1s\"".into();
    let world = start(Options { role, ..Options::default() }).await;
    let location = format!("location / {{ proxy_pass http://UPSTREAM; {UPGRADES} }}");
    let nginx = nginx(&world, &location).await;
    let link = world.link(1).await;
    let url = through(&world, &nginx, "", &link);
    // The browser logs that the first address is none; the page goes on with the next.
    let first = "Unexpected response code: 404";
    let said = browse(&url, &["--expect-pixels", PATCHES, "--may-complain", first]).await;
    let sockets = [nginx.addr.port(), world.addr.port()]
        .map(|port| format!("ws://console.test:{port}/websockify"));
    assert_eq!(said["sockets"], serde_json::json!(sockets));
    world.closed_in_books(&link).await;
}

/// The page takes scheme, port and prefix of its WebSocket from its own address; the role is behind a
/// proxy that speaks TLS on both sides, and without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_console_over_https_opens_through_a_proxy_and_without_one() {
    let role = "tls_listen = [\"127.0.0.1:0\"]\nurl_domain = \"console.test\"".to_owned();
    let world = start(Options { role, ..Options::default() }).await;
    let tls = tls_address(&world).await;
    let location = format!(
        "location /console/ {{ proxy_pass https://UPSTREAM/; proxy_http_version 1.1; {UPGRADES} }}"
    );
    let nginx = nginx_before(tls, &location, true).await;
    for (port, prefix) in [(nginx.addr.port(), "/console"), (tls.port(), "")] {
        let link = world.link(1).await;
        let url = link.url.replace("port=8080", &format!("port={port}"));
        let url =
            url.replace("http://127.0.0.1/", &format!("https://console.test:{port}{prefix}/"));
        let said = browse(&url, &["--insecure", "--expect-pixels", PATCHES]).await;
        let socket = format!("wss://console.test:{port}{prefix}/websockify");
        assert_eq!(said["sockets"], serde_json::json!([socket]));
        assert!(said["bar"].as_str().unwrap().contains("Connected"), "{said:#}");
    }
}
