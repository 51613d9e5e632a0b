//! How consoles end, and what viewer and server hear of it.

use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::viewer::{PATCHES, close_of, raw_path, upgrade};
use crate::world::{LIMIT, Options, run_role, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_console_of_a_vm_replaces_the_first() {
    let world = start(Options::default()).await;
    let (first, mut old) = world.console(1).await;
    let (second, mut new) = world.console(1).await;
    let words = "the console was opened in another window";
    assert_eq!(close_of(&mut old.socket).await, Some((1008, words.into())));
    world.closed_in_books(&first).await;
    assert_eq!(new.patches().await, PATCHES);
    assert!(!world.session(&second).removed);
    assert_eq!(world.open(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_stops_ends_its_console_with_a_reason() {
    let world = start(Options::default()).await;
    let (link, mut viewer) = world.console(1).await;
    world.stop_screen();
    let words = "the virtual machine closed its screen; it was stopped or moved";
    assert_eq!(close_of(&mut viewer.socket).await, Some((1000, words.into())));
    world.closed_in_books(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_role_says_goodbye_to_viewers_and_books() {
    let mut world = start(Options::default()).await;
    let (link, mut viewer) = world.console(1).await;
    world.cx.shutdown.cancel();
    let words = "the console proxy is being stopped";
    assert_eq!(close_of(&mut viewer.socket).await, Some((1001, words.into())));
    timeout(LIMIT, &mut world.role).await.unwrap().unwrap().unwrap();
    assert!(world.session(&link).removed);
    assert!(tokio::net::TcpStream::connect(world.addr).await.is_err());
    world.cx.tasks.close();
    timeout(LIMIT, world.cx.tasks.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_says_goodbye_hears_its_own_code_again() {
    let world = start(Options::default()).await;
    let (link, mut viewer) = world.console(1).await;
    let goodbye = CloseFrame { code: CloseCode::Away, reason: "tab closed".into() };
    viewer.socket.close(Some(goodbye)).await.unwrap();
    assert_eq!(close_of(&mut viewer.socket).await, Some((1001, "tab closed".into())));
    world.closed_in_books(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_is_gone_and_nobody_at_the_keyboard_are_told_apart() {
    let world = start(Options {
        role: "ping_interval = \"100ms\"\nidle_timeout = \"300ms\"\nsession_timeout = \"600ms\""
            .into(),
        ..Options::default()
    })
    .await;
    // Nobody polls this viewer's socket, so nobody answers.
    let (link, gone) = world.console(1).await;
    world.closed_in_books(&link).await;
    drop(gone);
    // This one answers every ping and touches nothing.
    let (link, mut viewer) = world.console(1).await;
    let words = "nothing was typed and nothing was shown for too long";
    assert_eq!(close_of(&mut viewer.socket).await, Some((1008, words.into())));
    world.closed_in_books(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_never_shakes_hands_is_closed_and_reported() {
    let world =
        start(Options { role: "handshake_timeout = \"300ms\"".into(), ..Options::default() }).await;
    let link = world.link(1).await;
    let mut socket = upgrade(world.addr, &raw_path(&link, None)).await.unwrap();
    let words = "the viewer did not complete the RFB handshake";
    assert_eq!(close_of(&mut socket).await, Some((1002, words.into())));
    world.closed_in_books(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_still_opening_is_replaced_too() {
    let world = start(Options::default()).await;
    // A screen that accepts and says nothing.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.server.put_vm(crate::world::vm(2, mute.local_addr().unwrap()));
    let first = world.link(2).await;
    let (refused, _second) = tokio::join!(world.open_link(&first), async {
        world.until_open(1).await;
        world.server.put_vm(crate::world::vm(2, world.screen_addr));
        world.console(2).await
    });
    assert_eq!(refused.err().unwrap().reason, "the console was opened in another window");
    world.closed_in_books(&first).await;
}

/// As by kill -9: no goodbye, no report. The journal tells the next run.
#[tokio::test(flavor = "multi_thread")]
async fn the_consoles_of_a_killed_run_are_closed_in_the_books_by_the_next() {
    let world = start(Options::default()).await;
    let (link, viewer) = world.console(1).await;
    let journal = world.directory.path().join("cp/open-sessions");
    let is_written = |session: &str| {
        std::fs::read_to_string(&journal).is_ok_and(|text| text.contains(session)).then_some(())
    };
    testkit::eventually("the journal", LIMIT, || is_written(&link.session)).await;
    world.cx.tasks.kill();
    world.role.abort();
    drop(viewer);
    assert!(!world.session(&link).removed);
    let (cx, _role) = run_role(&world.server, 901, ("", ""), None, world.directory.path());
    let _stop = cx.shutdown.clone().drop_guard();
    world.closed_in_books(&link).await;
    testkit::eventually("an empty journal", LIMIT, || {
        std::fs::read_to_string(&journal).is_ok_and(|text| text.is_empty()).then_some(())
    })
    .await;
}
