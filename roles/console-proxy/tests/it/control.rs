//! Pages that speak with the proxy beside the picture: coming back, moving, typing, operators.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::SinkExt;
use http_body_util::BodyExt;
use management_server::{ConsoleLink, EventKind, HostKind, HostState, SystemVm};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::viewer::{PATCHES, Refused, Viewer, close_of, raw_path, request, shake_hands};
use crate::world::{LIMIT, Options, World, listening, run_role, start, vm};

const CONTROL: [(&str, &str); 1] = [("sec-websocket-protocol", "quickcloud.console.1, binary")];

/// Opens a link as a page does, with a ticket or without.
async fn page(world: &World, link: &ConsoleLink, ticket: Option<&str>) -> Result<Viewer, Refused> {
    page_at(world.addr, link, ticket).await
}

/// The same at another proxy.
pub(crate) async fn page_at(
    addr: SocketAddr,
    link: &ConsoleLink,
    ticket: Option<&str>,
) -> Result<Viewer, Refused> {
    page_over(TcpStream::connect(addr).await.unwrap(), addr, link, ticket).await
}

/// The same over a connection that is there already.
pub(crate) async fn page_over(
    stream: TcpStream,
    addr: SocketAddr,
    link: &ConsoleLink,
    ticket: Option<&str>,
) -> Result<Viewer, Refused> {
    let resume = ticket.map(|ticket| format!("&resume={ticket}")).unwrap_or_default();
    page_on(stream, addr, &(raw_path(link, None) + &resume)).await
}

/// Opens any path as a page does.
pub(crate) async fn page_to(addr: SocketAddr, path: &str) -> Result<Viewer, Refused> {
    page_on(TcpStream::connect(addr).await.unwrap(), addr, path).await
}

async fn page_on(stream: TcpStream, addr: SocketAddr, path: &str) -> Result<Viewer, Refused> {
    let request = request(addr, path, &CONTROL).unwrap();
    let (socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "quickcloud.console.1");
    shake_hands(socket).await
}

async fn opened(world: &World) -> (ConsoleLink, Viewer, String) {
    let link = world.link(1).await;
    let mut viewer = page(world, &link, None).await.unwrap();
    let opened = viewer.told("opened").await;
    assert_eq!(opened["window_ms"], 60_000);
    let ticket = opened["ticket"].as_str().unwrap().to_owned();
    (link, viewer, ticket)
}

/// Questions about this session that the server was asked.
fn questions(world: &World, link: &ConsoleLink) -> usize {
    let asked = |kind: &EventKind| matches!(kind, EventKind::Console { session, .. } if *session == link.session);
    world.server.events().drain().iter().filter(|event| asked(&event.kind)).count()
}

/// An operator's request to the role's admin routes.
async fn operator(world: &World, method: &str, path: &str, body: Value) -> (StatusCode, Vec<u8>) {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::from(body.to_string())).unwrap();
    let answer = world.cx.admin.router().unwrap().oneshot(request).await.unwrap();
    let status = answer.status();
    (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

async fn id(world: &World) -> u64 {
    let (_, body) = operator(world, "GET", "/consoles", Value::Null).await;
    serde_json::from_slice::<Value>(&body).unwrap()[0]["id"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_lost_its_connection_comes_back_without_a_second_question() {
    let world = start(Options::default()).await;
    let (link, viewer, ticket) = opened(&world).await;
    let asked = questions(&world, &link);
    // Cut, without a goodbye.
    drop(viewer);
    testkit::eventually("nobody looks", LIMIT, || (world.screen.viewers() == 0).then_some(()))
        .await;
    assert_eq!(world.open(), 1, "the session waits");
    let mut viewer = page(&world, &link, Some(&ticket)).await.unwrap();
    assert_eq!(viewer.patches().await, PATCHES);
    assert_eq!(questions(&world, &link), asked);
    // Also while the proxy has not noticed that the old connection is dead.
    let ticket = viewer.told("opened").await["ticket"].as_str().unwrap().to_owned();
    let mut again = page(&world, &link, Some(&ticket)).await.unwrap();
    assert_eq!(again.patches().await, PATCHES);
    let words = "the console goes on in another window";
    assert_eq!(close_of(&mut viewer.socket).await, Some((1008, words.into())));
    assert!(!world.session(&link).removed);
    // A goodbye is one: the session ends at once, and once.
    again.socket.close(Some(CloseFrame { code: 1000.into(), reason: "".into() })).await.unwrap();
    close_of(&mut again.socket).await;
    world.closed_in_books(&link).await;
    assert_eq!(world.open(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_comes_back_too_late_or_with_another_ticket_is_let_in() {
    let role = "session_reconnection_window = \"300ms\"".to_owned();
    let world = start(Options { role, ..Options::default() }).await;
    let link = world.link(1).await;
    let mut viewer = page(&world, &link, None).await.unwrap();
    let ticket = viewer.told("opened").await["ticket"].as_str().unwrap().to_owned();
    let other = world.link(1).await;
    let words = "this console was closed too long ago; open the console again";
    let refused = page(&world, &other, Some(&ticket)).await.err().unwrap();
    assert_eq!(refused.reason, words);
    assert!(!world.session(&other).acquired, "a ticket uses no link up");
    drop(viewer);
    world.closed_in_books(&link).await;
    // Until then the server lets it in.
    let late = async {
        loop {
            if let Err(refused) = page(&world, &link, Some(&ticket)).await {
                return refused;
            }
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, late).await.unwrap().reason, words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_another_proxy_held_is_resumed_by_the_servers_leave_and_told_once() {
    let world = start(Options::default()).await;
    let (link, mut viewer, ticket) = opened(&world).await;
    // Ended here and closed in the books, as by a restart.
    viewer.socket.close(Some(CloseFrame { code: 1000.into(), reason: "".into() })).await.unwrap();
    world.closed_in_books(&link).await;
    let asked = questions(&world, &link);
    let mut viewer = page(&world, &link, Some(&ticket)).await.unwrap();
    assert_eq!(viewer.patches().await, PATCHES);
    assert_eq!(questions(&world, &link), asked + 1);
    viewer.socket.close(Some(CloseFrame { code: 1000.into(), reason: "".into() })).await.unwrap();
    close_of(&mut viewer.socket).await;
    // The next session's end is reported without trouble: nothing was told twice.
    let (next, viewer) = world.console(1).await;
    drop(viewer);
    world.closed_in_books(&next).await;
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &world.cx.health.metrics().unwrap())
        .unwrap();
    assert!(!metrics.contains("outcome=\"rejected\""), "{metrics}");
}

/// As behind a balancer: nothing of a session is known at one proxy alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_at_any_proxy_and_its_page_comes_back_at_another() {
    let second = SystemVm {
        kind: HostKind::ConsoleProxy,
        id: 902,
        name: "v-902-VM".into(),
        public_address: "127.0.0.1".into(),
    };
    let server = Box::new(|config: &mut management_server::ServerConfig| {
        config.system_vms.push(second);
    });
    let world = start(Options { server, ..Options::default() }).await;
    let directory = tempfile::tempdir().unwrap();
    let (other, _role) = run_role(&world.server, 902, ("", ""), None, directory.path());
    let _stop = other.shutdown.clone().drop_guard();
    let guid = "Proxy.902-ConsoleProxyResource";
    world.server.wait_for_host(guid, HostState::Up, LIMIT).await.unwrap();
    let elsewhere = listening(&other).await;
    // The session is announced to the first proxy, and its link opened at the second.
    let link = world.link(1).await;
    let mut viewer = page_at(elsewhere, &link, None).await.unwrap();
    assert_eq!(viewer.patches().await, PATCHES);
    let ticket = viewer.told("opened").await["ticket"].as_str().unwrap().to_owned();
    drop(viewer);
    let mut viewer = page(&world, &link, Some(&ticket)).await.unwrap();
    assert_eq!(viewer.patches().await, PATCHES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_moves_is_followed() {
    let world = start(Options::default()).await;
    let (link, mut viewer, ticket) = opened(&world).await;
    // Another host with the same machine.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.server.put_vm(vm(1, listener.local_addr().unwrap()));
    let (there, stop) = (world.screen.clone(), CancellationToken::new());
    let _stop = stop.clone().drop_guard();
    tokio::spawn(async move { there.serve(listener, stop).await });
    world.stop_screen();
    viewer.told("moving").await;
    let words = "the virtual machine was moved";
    assert_eq!(close_of(&mut viewer.socket).await, Some((4000, words.into())));
    assert!(!world.session(&link).removed);
    let mut viewer = page(&world, &link, Some(&ticket)).await.unwrap();
    assert_eq!(viewer.patches().await, PATCHES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_typed_at_its_pace_and_stopped_at_once() {
    let world = start(Options::default()).await;
    let (_link, mut viewer, _) = opened(&world).await;
    let stroke = |letter: u8| [json!([1, letter, 0]), json!([0, letter, 0])];
    let text =
        |letters: &[u8]| -> Vec<Value> { letters.iter().copied().flat_map(stroke).collect() };
    viewer.say(&json!({"type": "type", "id": 1, "pace_ms": 2, "events": text(b"hello")})).await;
    let done = viewer.told("typing").await;
    assert_eq!(done, json!({"type": "typing", "id": 1, "done": 10, "total": 10, "state": "done"}));
    testkit::eventually("the text", LIMIT, || (world.screen.typed_text() == "hello").then_some(()))
        .await;
    // A long one, stopped after a while: what was under way is over, and another may begin.
    viewer
        .say(&json!({"type": "type", "id": 2, "pace_ms": 20, "events": text(&[b'x'; 2000])}))
        .await;
    viewer.say(&json!({"type": "type", "id": 3, "events": text(b"no")})).await;
    assert_eq!(viewer.told("typing").await["state"], "refused");
    assert_eq!(viewer.told("typing").await["state"], "running");
    viewer.say(&json!({"type": "cancel"})).await;
    let stopped = loop {
        let told = viewer.told("typing").await;
        if told["state"] != "running" {
            break told;
        }
    };
    assert_eq!(stopped["state"], "cancelled");
    let typed = world.screen.typed_text().len();
    viewer.say(&json!({"type": "type", "id": 4, "pace_ms": 2, "events": text(b"!")})).await;
    assert_eq!(viewer.told("typing").await["state"], "done");
    testkit::eventually("the last key", LIMIT, || {
        world.screen.typed_text().ends_with('!').then_some(())
    })
    .await;
    assert!(world.screen.typed_text().len() <= typed + 2, "keys went out after the stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_without_the_protocol_say_nothing_and_odd_pages_are_closed() {
    let world = start(Options::default()).await;
    let (_link, mut viewer, _) = opened(&world).await;
    viewer.socket.send(Message::text("not JSON")).await.unwrap();
    let words = "text messages are not accepted";
    assert_eq!(close_of(&mut viewer.socket).await, Some((1003, words.into())));
    let (_link, plain) = world.console(1).await;
    assert!(plain.texts.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_makes_a_viewer_watch_tells_it_something_and_ends_it_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let audit = directory.path().join("audit.jsonl");
    let role = format!("audit_log = \"{}\"", audit.display());
    let world = start(Options { role, ..Options::default() }).await;
    let (link, mut viewer, ticket) = opened(&world).await;
    let number = id(&world).await;
    let post = async |verb: &str, body: Value| {
        operator(&world, "POST", &format!("/consoles/{number}/{verb}"), body).await.0
    };
    assert_eq!(post("view-only", json!({"on": true})).await, StatusCode::OK);
    assert_eq!(viewer.told("view_only").await["on"], true);
    viewer.key(b'a').await;
    // The picture goes on, and comes after the key was dropped.
    assert_eq!(viewer.patches().await, PATCHES);
    assert_eq!(post("view-only", json!({"on": false})).await, StatusCode::OK);
    viewer.told("view_only").await;
    viewer.key(b'b').await;
    testkit::eventually("the key", LIMIT, || (world.screen.typed_text() == "b").then_some(()))
        .await;
    assert_eq!(post("message", json!({"text": "at\nnoon"})).await, StatusCode::OK);
    assert_eq!(viewer.told("notice").await["text"], "at noon");
    assert_eq!(post("message", json!({"text": " "})).await, StatusCode::CONFLICT);
    assert_eq!(post("message", json!({"words": "x"})).await, StatusCode::BAD_REQUEST);
    let (status, png) =
        operator(&world, "POST", &format!("/consoles/{number}/screenshot"), Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&png));
    assert_eq!(png[..4], *b"\x89PNG");
    assert_eq!(png[16..24], [0, 0, 0, 160, 0, 0, 0, 120]);
    assert_eq!(post("end", json!({"message": "maintenance"})).await, StatusCode::OK);
    assert_eq!(close_of(&mut viewer.socket).await, Some((4001, "maintenance".into())));
    world.closed_in_books(&link).await;
    let refused = page(&world, &link, Some(&ticket)).await.err().unwrap();
    assert_eq!(refused.reason, "this console was ended by an operator");
    assert_eq!(post("end", json!({})).await, StatusCode::NOT_FOUND);
    let events = testkit::eventually("the audit log", LIMIT, || {
        let text = std::fs::read_to_string(&audit).ok()?;
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let events: Vec<Value> = lines.collect();
        events.iter().any(|line| line["event"] == "refused").then_some(events)
    })
    .await;
    let names: Vec<&str> = events.iter().filter_map(|line| line["event"].as_str()).collect();
    let expected =
        ["opened", "view_only", "may_type", "message", "screenshot", "ended", "closed", "refused"];
    assert_eq!(names, expected);
    assert_eq!(events[6]["reason"], "kicked");
    assert_eq!(events[0]["client"], "127.0.0.1");
    assert!(!std::fs::read_to_string(&audit).unwrap().contains("vncpassw"));
}
