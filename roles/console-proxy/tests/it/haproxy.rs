//! Several console proxies behind one haproxy: any of them takes any link, and a page comes back at
//! whichever it is sent to.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use management_server::{ConsoleLink, HostKind, HostState, ServerConfig, SystemVm};
use role::RoleContext;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::browser::{PATCHES as PICTURE, Program, answers, browse, free_port};
use crate::control::{page_at, page_over};
use crate::viewer::PATCHES;
use crate::world::{LIMIT, Options, World, listening, run_role, start};

/// Two roles of one server; the second one's context, and what keeps it.
struct Pair {
    world: World,
    other: RoleContext,
    elsewhere: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
    _directory: tempfile::TempDir,
}

async fn pair(role: &str) -> Pair {
    let second = SystemVm {
        kind: HostKind::ConsoleProxy,
        id: 902,
        name: "v-902-VM".into(),
        public_address: "127.0.0.1".into(),
    };
    let server = Box::new(|config: &mut ServerConfig| {
        config.system_vms.push(second);
        config.console.source_address_check = true;
    });
    let world = start(Options { server, role: role.to_owned(), ..Options::default() }).await;
    let directory = tempfile::tempdir().unwrap();
    let (other, _role) = run_role(&world.server, 902, (role, ""), None, directory.path());
    let stop = other.shutdown.clone().drop_guard();
    let guid = "Proxy.902-ConsoleProxyResource";
    world.server.wait_for_host(guid, HostState::Up, LIMIT).await.unwrap();
    let elsewhere = listening(&other).await;
    Pair { world, other, elsewhere, _stop: stop, _directory: directory }
}

impl Pair {
    /// Clients of the open consoles, at the one proxy and at the other.
    fn clients(&self) -> [Vec<String>; 2] {
        [&self.world.cx, &self.other].map(|cx| {
            let consoles = cx.health.details()["consoles"].as_array().unwrap().clone();
            let connected = consoles.iter().filter(|console| console["connected"] == true);
            connected.map(|console| console["client"].as_str().unwrap().to_owned()).collect()
        })
    }
}

/// haproxy in front of both, in turns.
async fn haproxy(pair: &Pair, mode: &str, send: &str) -> (Program, SocketAddr) {
    let addr = free_port();
    let mode = if mode == "http" { "http\n option forwardfor" } else { mode };
    let config = format!(
        "defaults\n mode {mode}\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n \
         timeout tunnel 1m\nlisten consoles\n bind {addr}\n balance roundrobin\n \
         server a {} {send}\n server b {} {send}\n",
        pair.world.addr, pair.elsewhere
    );
    let file = pair.world.directory.path().join(format!("haproxy-{}.cfg", addr.port()));
    std::fs::write(&file, config).unwrap();
    let program = Command::new("haproxy")
        .arg("-f")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run `cargo xtask setup`, or install haproxy");
    let program = Program(program);
    answers(addr).await;
    (program, addr)
}

fn at(link: &ConsoleLink, addr: SocketAddr) -> String {
    link.url.replace("http://127.0.0.1/", &format!("http://console.test:{}/", addr.port()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_comes_back_through_haproxy_is_served_by_the_other_proxy() {
    let pair = pair("trusted_proxies = [\"127.0.0.1\"]").await;
    let (_haproxy, addr) = haproxy(&pair, "http", "").await;
    // Twice, so that each proxy meets links that were announced to the first one.
    for _ in 0..2 {
        testkit::eventually("nobody's console", LIMIT, || {
            pair.clients().concat().is_empty().then_some(())
        })
        .await;
        let link = pair.world.link(1).await;
        let mut viewer = page_at(addr, &link, None).await.unwrap();
        assert_eq!(viewer.patches().await, PATCHES);
        let ticket = viewer.told("opened").await["ticket"].as_str().unwrap().to_owned();
        let before = pair.clients().map(|clients| clients.len());
        assert_eq!(before.iter().sum::<usize>(), 1);
        drop(viewer);
        // haproxy goes in turns, and so does the page's next attempt.
        let mut viewer = page_at(addr, &link, Some(&ticket)).await.unwrap();
        assert_eq!(viewer.patches().await, PATCHES);
        let mut after = before;
        after.reverse();
        testkit::eventually("the other proxy's console", LIMIT, || {
            (pair.clients().map(|clients| clients.len()) == after).then_some(())
        })
        .await;
        // So that the next round begins at the other one.
        let mut one = tokio::net::TcpStream::connect(addr).await.unwrap();
        one.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        one.read_to_end(&mut Vec::new()).await.unwrap();
    }
    // And for a browser, whose files come from both.
    let link = pair.world.link(1).await;
    browse(&at(&link, addr), &["--expect-pixels", PICTURE]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_headers_of_haproxy_tell_each_clients_address() {
    let pair = pair("proxy_protocol = [\"127.0.0.1\"]").await;
    for send in ["send-proxy", "send-proxy-v2"] {
        let (_haproxy, addr) = haproxy(&pair, "tcp", send).await;
        for client in ["127.0.0.2", "127.0.0.3"] {
            let client: IpAddr = client.parse().unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((client, 0).into()).unwrap();
            let stream = socket.connect(addr).await.unwrap();
            // The server's check of the address holds for the client's own.
            let link = pair.world.link_for(1, client, None).await;
            let mut viewer = page_over(stream, addr, &link, None).await.unwrap();
            assert_eq!(viewer.patches().await, PATCHES);
            let clients = pair.clients().concat();
            assert!(clients.contains(&client.to_string()), "{send}: {clients:?}");
        }
    }
}
