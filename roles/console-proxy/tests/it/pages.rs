//! The page and its files over HTTP.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{LIMIT, Options, World, start};

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

async fn request(world: &World, method: &str, path: &str, lines: &str) -> Answer {
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{lines}\r\n",
        world.addr
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

async fn get(world: &World, path: &str) -> Answer {
    request(world, "GET", path, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_link_is_served_with_its_policy_and_never_stored() {
    let world = start(Options {
        role: "frame_ancestors = [\"https://portal.example.org\"]".into(),
        ..Options::default()
    })
    .await;
    let link = world.link(1).await;
    let path = link.url.strip_prefix("http://127.0.0.1").unwrap();
    let page = get(&world, path).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let policy = page.header("content-security-policy").unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self' ws://127.0.0.1:*",
        "frame-ancestors 'self' https://portal.example.org",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    // Looking at the page uses nothing up: link previews do.
    assert!(!world.session(&link).acquired);
    let text = String::from_utf8(page.body).unwrap();
    assert!(
        !text.contains("http://") && !text.contains("https://"),
        "the page loads from elsewhere"
    );
    // Everything the page names is there, with the type that browsers insist on.
    for name in text.split('"').filter(|part| part.starts_with("app/")) {
        let file = get(&world, &format!("/resource/noVNC/{name}")).await;
        let kept = Some("public, max-age=31536000, immutable");
        assert_eq!((file.status, file.header("cache-control")), (200, kept), "{name}");
    }
}

/// The names of the page's script, style and icon.
async fn named(world: &World) -> Vec<String> {
    let page = get(world, "/resource/noVNC/vnc.html").await;
    let text = String::from_utf8(page.body).unwrap();
    let names = text.split('"').filter(|part| part.starts_with("app/"));
    names.map(|name| format!("/resource/noVNC/{name}")).collect()
}

/// What a browser moves before the first picture: few requests, few bytes.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_four_small_requests() {
    let world = start(Options::default()).await;
    let mut moved = get(&world, "/resource/noVNC/vnc.html").await.body.len();
    let names = named(&world).await;
    assert_eq!(names.len(), 3, "{names:?}");
    for (encoding, most) in [("br", 80_000), ("gzip", 95_000)] {
        let mut sum = moved;
        for path in &names {
            let lines = format!("Accept-Encoding: {encoding}\r\n");
            let file = request(&world, "GET", path, &lines).await;
            assert_eq!(file.header("content-encoding"), Some(encoding));
            assert_eq!(file.header("vary"), Some("accept-encoding"));
            sum += file.body.len();
        }
        assert!(sum < most, "{encoding}: {sum}");
    }
    let script = names.iter().find(|name| name.ends_with(".js")).unwrap();
    let script = get(&world, script).await;
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(script.header("content-encoding"), None);
    moved += script.body.len();
    assert!(moved > 100_000, "unpacked it is what it is: {moved}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_revalidated_by_tag_and_head_has_no_body() {
    let world = start(Options::default()).await;
    let path = &named(&world).await[0];
    let first = get(&world, path).await;
    let etag = first.header("etag").unwrap().to_owned();
    let again = request(&world, "GET", path, &format!("If-None-Match: \"x\", W/{etag}\r\n")).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let head = request(&world, "HEAD", path, "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), first.header("content-length"));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_is_not_found_and_old_links_are_redirected() {
    let world = start(Options::default()).await;
    for path in [
        "/",
        "/websockify?token=x",
        "/resource/noVNC/",
        "/resource/noVNC/../x",
        "/resource/noVNC/%2e%2e/x",
        "/resource/logs/agent.log",
        "/getscreen?w=1&h=1&host=127.0.0.1&port=22&sid=x",
        "/ajaximg?token=x",
        "/cmd/getstatus",
    ] {
        assert_eq!(get(&world, path).await.status, 404, "{path}");
    }
    assert_eq!(
        request(&world, "POST", "/resource/noVNC/vnc.html", "Content-Length: 0\r\n").await.status,
        405
    );
    let old = get(&world, "/ajax?token=a+b/c==&guest=windows").await;
    assert_eq!(old.status, 302);
    assert_eq!(
        old.header("location"),
        Some("resource/noVNC/vnc.html?autoconnect=true&token=a+b/c==&guest=windows"),
        "named from where the link is, so that it works below a prefix"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_own_novnc_takes_the_pages_place() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("vnc.html"), "<p>mine").unwrap();
    let role = format!("novnc_dir = {:?}", directory.path().display().to_string());
    let world = start(Options { role, ..Options::default() }).await;
    let page = get(&world, "/resource/noVNC/vnc.html?token=x").await;
    assert_eq!((page.status, &page.body[..]), (200, &b"<p>mine"[..]));
    assert_eq!(get(&world, "/resource/noVNC/LICENSE.txt").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_a_proxy_leaves_in_the_path_changes_nothing() {
    let world = start(Options::default()).await;
    let page = get(&world, "/console/resource/noVNC/vnc.html?token=x").await;
    assert_eq!((page.status, page.header("cache-control")), (200, Some("no-store")));
    let file = get(&world, "/a/b/resource/noVNC/LICENSE.txt").await;
    assert_eq!((file.status, file.header("cache-control")), (200, Some("no-cache")));
    assert_eq!(get(&world, "/console/ajax?token=x").await.status, 302);
    for path in ["/console/resource/noVNC/", "/console/resource/noVNC/../x", "/console/x"] {
        assert_eq!(get(&world, path).await.status, 404, "{path}");
    }
}

/// The status line and head of the answer to these very bytes.
async fn raw(world: &World, request: &str) -> Answer {
    let mut stream = TcpStream::connect(world.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap();
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: Vec::new() }
}

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_answered_as_their_bytes_deserve() {
    let world = start(Options::default()).await;
    let check = async |request: String, expected: u16| {
        let answer = raw(&world, &request).await;
        assert_eq!(answer.status, expected, "{request}{}", answer.head);
        answer
    };
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\n{lines}\r\n");
    let host = "Host: console.example.org\r\n";
    let good = format!("{host}{UPGRADE}");
    check(get("/websockify?token=x", &good), 101).await;
    check(get("http://other.example.org/websockify?token=x", &good), 101).await;
    let mixed = UPGRADE.replace("Connection: Upgrade", "cOnNeCtIoN: keep-alive,UPGRADE");
    check(get("/websockify", &format!("{host}{mixed}")), 101).await;
    // An older HTTP has no upgrades: the wish is ignored, and the page finds another way.
    check(format!("GET /websockify?token=x HTTP/1.0\r\n{good}\r\n"), 404).await;
    check(format!("GET /websockify?token=x HTTP/1.0\r\n{UPGRADE}\r\n"), 404).await;
    check(format!("POST /websockify HTTP/1.1\r\n{good}Content-Length: 0\r\n\r\n"), 405).await;
    // One host, no more and no less, whatever is asked for.
    for target in ["/websockify?token=x", "/resource/noVNC/vnc.html"] {
        check(get(target, UPGRADE), 400).await;
        check(get(target, &format!("{host}{good}")), 400).await;
        check(get(target, &format!("Host: a b\r\n{UPGRADE}")), 400).await;
    }
    // Lines that go on in the next, and names with a space behind them, are nothing we guess at.
    check(get("/websockify", &good.replace("Connection: ", "Connection:\r\n ")), 400).await;
    check(get("/websockify", &good.replace("Connection: ", "Connection : ")), 400).await;
    check(get("/websockify", &format!("{good}Content-Length: 3\r\n")), 400).await;
    let old = check(get("/websockify", &good.replace("Version: 13", "Version: 8")), 426).await;
    assert_eq!(old.header("sec-websocket-version"), Some("13"));
    assert_eq!(
        (old.header("upgrade"), old.header("connection")),
        (Some("websocket"), Some("Upgrade"))
    );
}
