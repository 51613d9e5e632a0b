//! Limits and lists that change while consoles are open.

use crate::viewer::{PATCHES, raw_path, upgrade};
use crate::world::{Options, World, spec, start, vm};

async fn reload(world: &World, extra: &str) {
    let spec = spec(world.server.address(), world.addr, extra, world.directory.path());
    let report = world.cx.reload.begin(spec).expect("the role handles reloads").await;
    assert_eq!((report.failed.len(), report.needs_restart.len()), (0, 0), "{report:?}");
}

/// The status of the answer to an upgrade that is turned away.
async fn turned_away(world: &World, link: &management_server::ConsoleLink) -> String {
    upgrade(world.addr, &raw_path(link, None)).await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_what_is_admitted_and_touches_no_open_console() {
    let world = start(Options { role: "sessions = 1".into(), ..Options::default() }).await;
    world.server.put_vm(vm(2, world.screen_addr));
    let (_first, mut open) = world.console(1).await;
    let link = world.link(2).await;
    assert!(turned_away(&world, &link).await.contains("503"));
    reload(&world, "sessions = 2").await;
    let (_second, mut other) = world.console(2).await;
    reload(&world, "sessions = 1\nidle_timeout = \"1h\"").await;
    let link = world.link(1).await;
    assert!(turned_away(&world, &link).await.contains("503"));
    assert_eq!((open.patches().await, other.patches().await), (PATCHES.into(), PATCHES.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_whom_the_listener_believes() {
    let world = start(Options {
        server: Box::new(|config| config.console.source_address_check = true),
        ..Options::default()
    })
    .await;
    let forwarded = [("X-Forwarded-For", "[2001:db8::1]")];
    let client = "2001:db8::1".parse().unwrap();
    let link = world.link_for(1, client, None).await;
    let refused = world.open_behind(&link, &forwarded).await.err().unwrap();
    assert_eq!(refused.reason, "this console link was made for another client address");
    let notes = world.cx.health.details()["notes"].to_string();
    assert!(notes.contains("127.0.0.1 sends X-Forwarded-For"), "{notes}");
    reload(&world, "trusted_proxies = [\"127.0.0.0/8\"]").await;
    assert!(world.open_behind(&link, &forwarded).await.is_ok());
    assert_eq!(world.session(&link).client_address.as_deref(), Some("2001:db8::1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_which_pages_may_open_consoles() {
    let world = start(Options::default()).await;
    let origin = [("Origin", "https://portal.example.org")];
    let link = world.link(1).await;
    assert!(world.open_behind(&link, &origin).await.is_ok());
    reload(&world, "allowed_origins = [\"https://cloud.example.org\"]").await;
    let link = world.link(1).await;
    let refused = world.upgrade_behind(&link, &origin).await.err().unwrap();
    assert!(refused.to_string().contains("403"), "{refused}");
}
