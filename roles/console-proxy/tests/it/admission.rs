//! Which links open a console, and what the others are told.

use agent_protocol::Body;
use agent_protocol::console::ConsoleAccessAuthenticationCommand;
use management_server::{Action, Event, EventKind, Gate, HostState, Point};
use role::LinkState;

use crate::viewer::{PATCHES, Refused, open_at, raw_path, upgrade};
use crate::world::{GUID, LIMIT, LOCAL, Options, World, start, static_mode};

fn refused(reason: &str) -> Option<Refused> {
    Some(Refused { reason: reason.into(), close: Some((1008, reason.into())) })
}

const REPLAY: &str = "this console link was used already; open the console again";

#[tokio::test(flavor = "multi_thread")]
async fn a_good_link_shows_the_screen_takes_keys_and_is_closed_in_the_books() {
    let world = start(Options::default()).await;
    let (link, mut viewer) = world.console(1).await;
    assert_eq!(viewer.init.name, b"vm1 ");
    assert_eq!(viewer.patches().await, PATCHES);
    viewer.key(b'q').await;
    testkit::eventually("the key", LIMIT, || (world.screen.typed_text() == "q").then_some(()))
        .await;
    let session = world.session(&link);
    assert!(session.acquired && !session.removed);
    assert_eq!(session.client_address.as_deref(), Some("127.0.0.1"));
    let shown = world.cx.health.details()["consoles"][0].clone();
    assert_eq!(
        (&shown["session"], &shown["name"], &shown["inputs"]),
        (&link.session.clone().into(), &"vm1".into(), &2.into())
    );
    let text = shown.to_string();
    assert!(!text.contains("vncpassw") && !text.contains(&link.token), "{text}");
    testkit::eventually("one reported console", LIMIT, || {
        (world.server.proxy_loads().get(&901)?.connections == 1).then_some(())
    })
    .await;
    viewer.socket.close(None).await.unwrap();
    world.closed_in_books(&link).await;
    testkit::eventually("no reported console", LIMIT, || {
        (world.server.proxy_loads().get(&901)?.connections == 0).then_some(())
    })
    .await;
    assert_eq!(world.open(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_works_once_and_its_replay_never_reaches_the_server() {
    let world = start(Options::default()).await;
    let (link, viewer) = world.console(1).await;
    assert_eq!(world.open_link(&link).await.err(), refused(REPLAY));
    drop(viewer);
    world.closed_in_books(&link).await;
    assert_eq!(world.open_link(&link).await.err(), refused(REPLAY));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_work_in_every_spelling_that_clients_use() {
    let world = start(Options::default()).await;
    let escape = |text: &str| text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let spellings: [fn(&str) -> String; 4] = [
        |token| format!("/websockify?token={token}"),
        |token| format!("/websockify?token={}", token.trim_end_matches('=')),
        |token| format!("/websockify/websockify?token={token}"),
        |token| format!("/resource/noVNC/websockify?x=1&token={token}&extra="),
    ];
    for spelling in spellings {
        let link = world.link(1).await;
        let mut viewer =
            open_at(world.addr, &spelling(&link.token)).await.unwrap_or_else(|r| panic!("{r:?}"));
        assert_eq!(viewer.patches().await, PATCHES);
    }
    let link = world.link(1).await;
    open_at(world.addr, &format!("/websockify?token={}", escape(&link.token)))
        .await
        .map(drop)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_server_announces_nothing_and_its_links_work_once() {
    let world = start(Options { server: Box::new(static_mode), ..Options::default() }).await;
    let (link, mut viewer) = world.console(1).await;
    assert_eq!(viewer.patches().await, PATCHES);
    assert_eq!(world.open_link(&link).await.err(), refused(REPLAY));
}

/// Another letter in the middle.
fn damage(token: &str) -> String {
    let letter = |(at, c)| if at == 40 { if c == 'A' { 'B' } else { 'A' } } else { c };
    token.chars().enumerate().map(letter).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_links_are_refused_in_words_and_guessing_is_slowed_down() {
    let world =
        start(Options { role: "failed_tokens_per_minute = 3".into(), ..Options::default() }).await;
    let link = world.link(1).await;
    let damaged = format!("/websockify?token={}", damage(&link.token));
    let words = "this console link is damaged or was issued with another key";
    for path in [damaged.as_str(), "/websockify?token=", "/websockify"] {
        assert_eq!(open_at(world.addr, path).await.err(), refused(words), "{path}");
    }
    let error = upgrade(world.addr, &damaged).await.unwrap_err();
    assert!(error.to_string().contains("429"), "{error}");
    // Behind a proxy that is not configured everybody has this address: good links go on.
    assert!(world.open_link(&link).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_links_of_viewers_that_never_listen_count_at_once() {
    let world =
        start(Options { role: "failed_tokens_per_minute = 3".into(), ..Options::default() }).await;
    let mut silent = Vec::new();
    let error = loop {
        match upgrade(world.addr, "/websockify?token=broken").await {
            Ok(socket) => silent.push(socket),
            Err(error) => break error,
        }
        assert!(silent.len() < 100, "each of them may hold a place until its handshake times out");
    };
    assert!(error.to_string().contains("429"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clients_link_is_refused_without_being_used_up() {
    let world = start(Options {
        server: Box::new(|config| config.console.source_address_check = true),
        role: "trusted_proxies = [\"127.0.0.1\"]".into(),
        ..Options::default()
    })
    .await;
    let link = world.link_for(1, "192.0.2.7".parse().unwrap(), None).await;
    let words = "this console link was made for another client address";
    assert_eq!(world.open_link(&link).await.err(), refused(words));
    assert!(!world.session(&link).acquired);
    // The right client, whose address a trusted proxy passes on.
    assert!(world.open_behind(&link, &[("X-Forwarded-For", "192.0.2.7")]).await.is_ok());
    assert_eq!(world.session(&link).client_address.as_deref(), Some("192.0.2.7"));
    // IPv6 in every form that proxies write, several hops, and what hides or contradicts itself.
    let client = "2001:db8::1".parse().unwrap();
    for lines in [
        &[("X-Forwarded-For", "[2001:db8::1]")][..],
        &[("X-Forwarded-For", "[2001:DB8:0::1]:50123")],
        &[("X-Forwarded-For", "2001:db8:0:0:0:0:0:1")],
        &[("X-Forwarded-For", "203.0.113.9, 2001:db8::1, 127.0.0.1")],
        &[("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "2001:db8::1")],
        &[("Forwarded", "for=\"[2001:db8::1]:_port\";proto=https;by=127.0.0.1")],
        &[("Forwarded", "for=_hidden, FOR=\"[2001:db8::1]\";host=\"a,b\"")],
    ] {
        let link = world.link_for(1, client, None).await;
        assert!(world.open_behind(&link, lines).await.is_ok(), "{lines:?}");
    }
    for lines in [
        &[("X-Forwarded-For", "2001:db8::1, 203.0.113.9")][..],
        &[("X-Forwarded-For", "2001:db8::1, unknown")],
        &[("Forwarded", "for=\"[2001:db8::1]\", for=_hidden")],
        &[("X-Forwarded-For", "2001:db8::1"), ("Forwarded", "for=203.0.113.9")],
    ] {
        let link = world.link_for(1, client, None).await;
        let refused = world.open_behind(&link, lines).await.err();
        assert_eq!(refused.unwrap().reason, words, "{lines:?}");
    }
    let own = world.link(1).await;
    assert!(world.open_link(&own).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_extra_security_token_must_be_there() {
    let world = start(Options::default()).await;
    let link = world.link_for(1, LOCAL, Some("s3cret")).await;
    let words = "this console link lacks its extra security token, or it is wrong";
    assert_eq!(world.open_link(&link).await.err(), refused(words));
    assert_eq!(open_at(world.addr, &raw_path(&link, Some("s3cre"))).await.err(), refused(words));
    assert!(!world.session(&link).acquired);
    assert!(open_at(world.addr, &raw_path(&link, Some("s3cret"))).await.is_ok());
}

const DENIED: &str =
    "the management server denied this console; the link may have expired, open the console again";

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_console_is_closed_in_the_books() {
    let world = start(Options::default()).await;
    let link = world.link(1).await;
    world.server.remove_vm(&crate::world::vm(1, world.screen_addr).uuid);
    assert_eq!(world.open_link(&link).await.err(), refused(DENIED));
    assert!(world.session(&link).acquired);
    world.closed_in_books(&link).await;
}

async fn wait_detached(world: &World) {
    testkit::eventually("link lost", LIMIT, || {
        (world.link_state() != LinkState::Attached).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_server_nothing_opens_and_the_link_stays_good() {
    let world = start(Options::default()).await;
    let link = world.link(1).await;
    world.server.script().always(Point::Accepted, Action::Close);
    world.server.strike(GUID, Action::Close).await.unwrap();
    wait_detached(&world).await;
    let words = "the management server cannot be asked at the moment; try again";
    assert_eq!(world.open_link(&link).await.err(), refused(words));
    assert!(!world.session(&link).acquired);
    world.server.script().clear();
    testkit::eventually("attached", LIMIT, || {
        (world.link_state() == LinkState::Attached).then_some(())
    })
    .await;
    assert!(world.open_link(&link).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn consoles_and_unreported_ends_survive_a_lost_link() {
    let world = start(Options::default()).await;
    let (first, mut viewer) = world.console(1).await;
    world.server.put_vm(crate::world::vm(2, world.screen_addr));
    let (second, other) = world.console(2).await;
    world.server.script().always(Point::Accepted, Action::Close);
    world.server.strike(GUID, Action::Close).await.unwrap();
    wait_detached(&world).await;
    assert_eq!(viewer.patches().await, PATCHES);
    drop(other);
    world.until_open(1).await;
    world.server.script().clear();
    world.server.wait_for_host(GUID, HostState::Up, LIMIT).await.unwrap();
    world.closed_in_books(&second).await;
    assert!(!world.session(&first).removed);
    assert_eq!(viewer.patches().await, PATCHES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_admits_nobody() {
    let world =
        start(Options { role: "verdict_timeout = \"300ms\"".into(), ..Options::default() }).await;
    let link = world.link(1).await;
    world.server.script().always(Point::Control, Action::Swallow);
    let words = "the management server did not answer; open the console again";
    assert_eq!(world.open_link(&link).await.err(), refused(words));
    world.server.script().clear();
    // Whether the server took the question is not known: it is told in any case.
    world.closed_in_books(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_leaves_during_the_question_leaves_no_open_session() {
    let world = start(Options::default()).await;
    let link = world.link(1).await;
    let gate = Gate::new();
    world.server.script().once(Point::Control, Action::Hold(gate.clone()));
    let socket = upgrade(world.addr, &raw_path(&link, None)).await.unwrap();
    let question = |event: &Event| match &event.kind {
        EventKind::Received(message) => {
            message.has(ConsoleAccessAuthenticationCommand::CLASS).then_some(())
        }
        _ => None,
    };
    world.server.events().find("the question", LIMIT, question).await.unwrap();
    drop(socket);
    gate.open();
    world.closed_in_books(&link).await;
    assert_eq!(world.open(), 0);
}
