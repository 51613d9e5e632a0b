//! Consoles on disk and in the page again.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::browser::{PATCHES as PICTURE, browse};
use crate::control::page_to;
use crate::viewer::{PATCHES, Viewer, close_of, open_at};
use crate::world::{LIMIT, Options, World, start};

/// noVNC's: red first.
const FORMAT: [u8; 20] = [0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0];

async fn admin(world: &World, method: &str, path: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let answer = world.cx.admin.router().unwrap().oneshot(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn recording(more: &str) -> (World, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display();
    let role =
        format!("recordings_directory = \"{path}/new\"\naudit_log = \"{path}/audit\"\n{more}");
    (start(Options { role, ..Options::default() }).await, directory)
}

/// The only recording, once it is whole.
async fn done(world: &World) -> String {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let (status, list) = admin(world, "GET", "/recordings").await;
        assert_eq!(status, StatusCode::OK, "{list}");
        if list[0]["recording"] == false && list[0]["bytes"].as_u64().unwrap() > 0 {
            return list[0]["name"].as_str().unwrap().to_owned();
        }
        assert!(tokio::time::Instant::now() < deadline, "{list}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A console in the page's pixel format, with a picture, a key and another picture.
async fn watch(world: &World) -> Viewer {
    let link = world.link(1).await;
    let mut viewer =
        page_to(world.addr, &format!("/websockify?token={}", link.token)).await.unwrap();
    assert_eq!(viewer.told("opened").await["recorded"], true);
    viewer.send(&FORMAT).await;
    assert!(viewer.picture().await > 0);
    viewer.key(b'k').await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(viewer.picture().await > 0);
    viewer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_viewer_was_shown_is_kept_and_shown_again_forward_and_back() {
    let (world, directory) = recording("session_reconnection_window = \"0s\"").await;
    drop(watch(&world).await);
    let name = done(&world).await;
    let file = directory.path().join("new").join(&name);
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"FBS 001.001\n") && name.contains("-vm1-"), "{name}");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions()) & 0o77,
        0
    );

    let (status, link) = admin(&world, "POST", &format!("/recordings/{name}/replay")).await;
    assert_eq!(status, StatusCode::OK, "{link}");
    let (_, query) = link["path"].as_str().unwrap().split_once('?').unwrap();
    let path = format!("/websockify?{query}");
    let mut viewer = page_to(world.addr, &path).await.unwrap();
    let opened = viewer.told("opened").await;
    assert_eq!((&opened["view_only"], &viewer.init.name[..]), (&json!(true), name.as_bytes()));
    let ticket = opened["ticket"].as_str().unwrap().to_owned();
    assert!(viewer.told("replay").await["length_ms"].as_u64().unwrap() >= 300);
    // As it was recorded: the first update message of the screen.
    assert_eq!(viewer.exactly(2).await, [0, 0]);
    viewer.say(&json!({"type": "seek", "to_ms": 1_000_000})).await;
    loop {
        let told = viewer.told("replay").await;
        if told["at_ms"] == told["length_ms"] {
            break;
        }
    }
    viewer.say(&json!({"type": "pause", "on": true})).await;
    viewer.say(&json!({"type": "seek", "to_ms": 0})).await;
    let words = "the recording goes back".to_owned();
    assert_eq!(close_of(&mut viewer.socket).await, Some((4000, words)));
    let mut viewer = page_to(world.addr, &format!("{path}&resume={ticket}")).await.unwrap();
    assert_eq!(viewer.told("opened").await["ticket"], ticket);
    assert!(viewer.told("replay").await["at_ms"].as_u64().unwrap() < 300);
    drop(viewer);
    // The link is no other's.
    let refused = open_at(world.addr, &path).await.err().unwrap();
    assert_eq!(refused.reason, "this console link was used already; open the console again");
    testkit::eventually("the audit log", LIMIT, || {
        let text = std::fs::read_to_string(directory.path().join("audit")).ok()?;
        let has =
            |event: &str| text.contains(&format!("\"event\":\"{event}\"")) && text.contains(&name);
        (has("recorded") && has("replayed")).then_some(())
    })
    .await;
    // In a browser, with its bar.
    let (_, link) = admin(&world, "POST", &format!("/recordings/{name}/replay")).await;
    let url =
        format!("http://console.test:{}{}", world.addr.port(), link["path"].as_str().unwrap());
    browse(&url, &["--expect-pixels", PICTURE, "--expect-replay"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_have_limits_and_names_lead_nowhere_else() {
    let more = "recording_limit = \"1MiB\"\nrecordings_limit = \"1MiB\"\nsession_reconnection_window = \"0s\"";
    let (world, directory) = recording(more).await;
    let new = directory.path().join("new");
    // An old one that has all the room.
    std::fs::write(new.join("old.fbs"), vec![0; 1 << 20]).unwrap();
    std::fs::write(new.join("notes.txt"), "kept").unwrap();
    std::fs::write(directory.path().join("outside.fbs"), "FBS 001.001\n").unwrap();
    let (_link, mut viewer) = world.console(1).await;
    // Larger than one may have: the console goes on.
    for _ in 0..20 {
        assert_eq!(viewer.patches().await, PATCHES);
    }
    drop(viewer);
    testkit::eventually("the old one is gone", LIMIT, || {
        (!new.join("old.fbs").exists()).then_some(())
    })
    .await;
    let name = done(&world).await;
    assert!(new.join(&name).metadata().unwrap().len() <= 1 << 20);
    assert!(new.join("notes.txt").exists());
    for bad in ["..%2Foutside.fbs", "outside.fbs", "notes.txt", "%2e%2e", "x%00.fbs"] {
        let (status, _) = admin(&world, "POST", &format!("/recordings/{bad}/replay")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{bad}");
    }
    // One that another viewer's pixels are in is not for the page.
    let (_, link) = admin(&world, "POST", &format!("/recordings/{name}/replay")).await;
    let (_, query) = link["path"].as_str().unwrap().split_once('?').unwrap();
    let refused = open_at(world.addr, &format!("/websockify?{query}")).await.err().unwrap();
    assert!(refused.reason.contains("had another pixel format than the page"), "{refused:?}");
    let plain = start(Options::default()).await;
    assert_eq!(admin(&plain, "GET", "/recordings").await.0, StatusCode::CONFLICT);
}
