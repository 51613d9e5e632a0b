//! Screens of every protocol version, with and without password, and those that give none.

use demo_screen::DemoOptions;
use rfb::Version;

use crate::viewer::PATCHES;
use crate::world::{Options, start, vm};

#[tokio::test(flavor = "multi_thread")]
async fn screens_of_every_version_are_shown_and_take_keys() {
    for version in [Version::V3, Version::V7, Version::V8] {
        for password in [None, Some("vncpassw".to_owned())] {
            let screen = DemoOptions {
                version,
                password,
                width: 160,
                height: 120,
                ..DemoOptions::default()
            };
            let world = start(Options { screen, ..Options::default() }).await;
            let (_link, mut viewer) = world.console(1).await;
            assert_eq!(viewer.patches().await, PATCHES, "{version}");
            viewer.key(b'v').await;
            testkit::eventually("the key", crate::world::LIMIT, || {
                (world.screen.typed_text() == "v").then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_that_cannot_be_had_is_explained_and_closed_in_the_books() {
    let world = start(Options {
        screen: DemoOptions { password: Some("another".into()), ..DemoOptions::default() },
        role: "handshake_timeout = \"1s\"".into(),
        ..Options::default()
    })
    .await;
    let check = async |number: usize, words: &str| {
        let link = world.link(number).await;
        let refused = world.open_link(&link).await.err().unwrap();
        assert_eq!(
            refused.reason,
            format!("the virtual machine's screen cannot be reached: {words}")
        );
        world.closed_in_books(&link).await;
    };
    check(1, "the VNC server did not accept the password: wrong password").await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.server.put_vm(vm(2, closed));
    check(2, "connection refused").await;
    // Something else listens there: our own web page.
    world.server.put_vm(vm(3, world.addr));
    let link = world.link(3).await;
    let refused = world.open_link(&link).await.err().unwrap();
    assert!(
        refused.reason.contains("no answer within")
            || refused.reason.contains("closed the connection"),
        "{refused:?}"
    );
}
