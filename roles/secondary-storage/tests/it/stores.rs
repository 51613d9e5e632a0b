//! Stores as servers add them and operators configure them, in the three ways a server may know
//! this host.

use std::path::Path;

use agent_protocol::storage::{
    DataStoreTO, GetStorageStatsCommand, ImageFormat, ListTemplateCommand, ListVolumeCommand,
};
use axum::http::{Method, StatusCode};
use management_server::ImageState;
use serde_json::Value;

use crate::bench::{Bench, STORE, error_of, store_to};
use crate::mounts::Tmpfs;
use crate::over_link::Zone;

const OTHER: &str = "nfs://127.0.0.1/export/sec2";
const OTHER_NAME: &str = "6a95e0af-0bf0-3bb1-8b31-586af122ee52";

fn figures(url: &str) -> GetStorageStatsCommand {
    GetStorageStatsCommand {
        store: Some(DataStoreTO::nfs(url)),
        ..GetStorageStatsCommand::default()
    }
}

async fn refusal(bench: &Bench, url: &str) -> String {
    let answer = bench.ask(&figures(url)).await;
    assert!(!answer.base.result, "{answer:?}");
    answer.base.details.unwrap()
}

/// The server sends no set-up for a store that is added while we are connected.
#[tokio::test]
async fn a_store_that_is_added_while_we_run_is_found_by_its_name() {
    let bench: Bench = Bench::new().await;
    let root = bench.directory.join("mnt").join(OTHER_NAME);
    std::fs::create_dir_all(root.join("template")).unwrap();
    let list = ListTemplateCommand {
        store: Some(DataStoreTO::nfs(OTHER)),
        nfs_version: Some("null".to_owned()),
        ..ListTemplateCommand::default()
    };
    let answer = bench.ask(&list).await;
    assert!(answer.base.result, "{answer:?}");
    assert_eq!(answer.template_infos.unwrap().into_iter().count(), 0);
    let volumes =
        ListVolumeCommand { store: Some(DataStoreTO::nfs(OTHER)), ..ListVolumeCommand::default() };
    assert!(bench.ask(&volumes).await.base.result);
    assert!(root.join(".quickcloud-store").exists());
}

#[tokio::test]
async fn a_store_that_cannot_be_mounted_is_refused_with_what_to_do() {
    let bench: Bench = Bench::new().await;
    for (url, reason) in [
        ("file:///etc", "is of a kind that is not mounted here"),
        ("cifs://127.0.0.1/share", "is of a kind that is not mounted here"),
    ] {
        let text = refusal(&bench, url).await;
        for part in [
            &format!("store {url} is not mounted: mount it at {}/mnt/", bench.directory.display()),
            &format!("add {{ url = \"{url}\", directory = \"ITS DIRECTORY\" }} to"),
            "quickcloud reload",
            reason,
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }
    assert!(!Path::new("/etc/template").exists());
}

#[tokio::test]
async fn a_directory_of_this_machine_is_a_store_when_it_is_configured() {
    let temp = tempfile::tempdir().unwrap();
    let url = format!("file://{}", temp.path().display());
    let bench: Bench = Bench::with(&format!("stores = [{{ url = \"{url}\" }}]")).await;
    let answer = bench.ask(&figures(&url)).await;
    assert!(answer.base.result && answer.capacity_bytes > 0, "{answer:?}");
    assert!(temp.path().join("template/tmpl").is_dir());
}

#[tokio::test]
async fn a_mount_that_the_operator_promises_is_demanded_and_looked_at() {
    let temp = tempfile::tempdir().unwrap();
    let place = temp.path().join("sec");
    std::fs::create_dir(&place).unwrap();
    let store = |more: &str| {
        format!(
            "stores = [{{ url = \"{STORE}\", directory = \"{}\", mount = \"required\"{more} }}]",
            place.display()
        )
    };
    let bench: Bench = Bench::with(&store("")).await;
    let text = refusal(&bench, STORE).await;
    assert!(text.contains(&format!("nothing is mounted at {}", place.display())), "{text}");
    let mounted = Tmpfs::at(&place, "size=8m");
    assert!(bench.ask(&figures(STORE)).await.base.result, "tried again at the next command");
    let bench: Bench = Bench::with(&store(", source = \"10.0.0.9:/export/sec\"")).await;
    let text = refusal(&bench, STORE).await;
    assert!(
        text.contains("has quickcloud-test (tmpfs) mounted, not 10.0.0.9:/export/sec"),
        "{text}"
    );
    drop(mounted);
    let _read_only = Tmpfs::at(&place, "size=8m,ro");
    let bench: Bench = Bench::with(&store("")).await;
    assert!(bench.ask(&figures(STORE)).await.base.result, "it can be read");
    let (_, stores) = bench.admin(Method::GET, "/stores").await;
    assert_eq!(stores[0]["state"], "ready");
    assert!(stores[0]["notes"][0].as_str().unwrap().contains("read-only"), "{stores}");
    assert!(stores[0]["reason"].as_str().unwrap().contains("nothing can be stored"), "{stores}");
}

#[tokio::test]
async fn nothing_is_written_into_the_last_bytes_of_a_store() {
    let temp = tempfile::tempdir().unwrap();
    let place = temp.path().join("sec");
    std::fs::create_dir(&place).unwrap();
    let _mounted = Tmpfs::at(&place, "size=40m");
    let bench: Bench = Bench::with(&format!(
        "stores = [{{ url = \"{STORE}\", directory = \"{}\" }}]\nmin_free = \"1GiB\"",
        place.display()
    ))
    .await;
    let done = bench.finish(&bench.download("golden/tiny.qcow2", ImageFormat::Qcow2)).await;
    assert_eq!(done.download_pct, 100, "a twentieth of a small store is enough: {done:?}");
    std::fs::write(place.join("filler"), vec![1_u8; 38 << 20]).unwrap();
    let mut command = bench.download("golden/tiny.iso", ImageFormat::Iso);
    command.install_path = Some("template/tmpl/2/321".to_owned());
    command.id = 321;
    let answer = bench.finish(&command).await;
    assert!(error_of(&answer).contains("stay free (min_free)"), "{answer:?}");
    assert!(!place.join("template/tmpl/2/321").exists(), "nothing of it stays");
    assert!(bench.ask(&figures(STORE)).await.base.result);
    let (_, stores) = bench.admin(Method::GET, "/stores").await;
    assert!(stores[0]["reason"].as_str().unwrap().contains("is full"), "{stores}");
}

/// Rows 20 and 22: what cannot be looked at whole is no list, and each store is asked alone.
#[tokio::test]
async fn row_20_a_list_in_doubt_is_no_list_and_says_nothing_of_another_store() {
    let bench: Bench = Bench::new().await;
    let other = bench.directory.join("mnt").join(OTHER_NAME);
    std::fs::create_dir_all(other.join("template")).unwrap();
    let list = |url: &str| ListTemplateCommand {
        store: Some(DataStoreTO::nfs(url)),
        ..ListTemplateCommand::default()
    };
    assert!(bench.ask(&list(STORE)).await.base.result);
    assert!(bench.ask(&list(OTHER)).await.base.result);
    std::fs::remove_dir(bench.store("template/tmpl")).unwrap();
    std::fs::write(bench.store("template/tmpl"), "in the way").unwrap();
    let answer = bench.ask(&list(STORE)).await;
    assert!(!answer.base.result && answer.template_infos.is_none(), "{answer:?}");
    assert!(bench.ask(&list(OTHER)).await.base.result);
}

/// Row 14 of the weaknesses: what is left behind is reported.
#[tokio::test]
async fn an_operator_sees_the_stores_and_has_them_verified() {
    let bench: Bench = Bench::new().await;
    assert_eq!(bench.admin(Method::GET, "/stores").await, (StatusCode::OK, serde_json::json!([])));
    assert_eq!(bench.listed().await.len(), 0);
    bench.finish(&bench.download("golden/tiny.qcow2", ImageFormat::Qcow2)).await;
    let (_, stores) = bench.admin(Method::GET, "/stores").await;
    assert_eq!(stores[0]["url"], STORE);
    assert_eq!(stores[0]["orphans"], Value::Null, "nobody has looked yet");
    let (status, reports) = bench.admin(Method::POST, "/verify").await;
    assert_eq!((status, &reports[0]["objects"]), (StatusCode::OK, &Value::from(1)), "{reports}");
    assert_eq!(reports[0]["found"], 0, "{reports}");
    let image = bench.listed_path().await;
    std::fs::write(bench.store(&image), "cut").unwrap();
    let url = "nfs%3A%2F%2F127.0.0.1%2Fexport%2Fsec%2F";
    let (_, reports) = bench.admin(Method::POST, &format!("/verify?store={url}&repair=true")).await;
    assert_eq!(reports[0]["findings"][0]["kind"], "short", "{reports}");
    assert_eq!(bench.parts.surveys.status()[0].orphans, Some(1));
    let mut metrics = String::new();
    let registry = bench.parts.metrics.registry();
    prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
    let line = format!("quickcloud_ss_store_findings{{store=\"{STORE}\"}} 1");
    assert!(metrics.contains(&line), "{metrics}");
    for (query, expected) in [
        ("store=nfs%3A%2F%2Fh%2Fp", StatusCode::NOT_FOUND),
        ("store=nonsense", StatusCode::BAD_REQUEST),
        ("repair=perhaps", StatusCode::BAD_REQUEST),
        ("other=1", StatusCode::BAD_REQUEST),
    ] {
        let (status, _) = bench.admin(Method::POST, &format!("/verify?{query}")).await;
        assert_eq!(status, expected, "{query}");
    }
}

#[tokio::test]
async fn a_reload_takes_new_stores_and_moves_the_others() {
    let zone = Zone::new("").await;
    let role = zone.start().await;
    role.until_ready().await;
    let temp = zone.temp.path();
    let state = |url: &'static str| {
        let details = Value::Object(role.cx.health.details());
        let stores = details["stores"].as_array().cloned().unwrap_or_default();
        stores.into_iter().find(|store| store["url"] == url)
    };
    assert_eq!(state(OTHER), None);
    std::fs::create_dir(temp.join("second")).unwrap();
    let stores = |first: &str, second: &str| {
        format!(
            "stores = [{{ url = \"{STORE}\", directory = \"{0}/{first}\" }}, \
             {{ url = \"{OTHER}\", directory = \"{0}/{second}\" }}]",
            temp.display()
        )
    };
    let report = role.cx.reload.begin(zone.spec(&stores("sec", "second"))).unwrap().await;
    assert!(report.failed.is_empty(), "{report:?}");
    let ready = testkit::eventually("ready", crate::bench::SOON, || {
        state(OTHER).filter(|store| store["state"] == "ready")
    });
    assert!(ready.await["directory"].as_str().unwrap().ends_with("second"));
    assert_eq!(state(STORE).unwrap()["state"], "ready", "left as it was");
    std::fs::create_dir(temp.join("third")).unwrap();
    role.cx.reload.begin(zone.spec(&stores("sec", "third"))).unwrap().await;
    testkit::eventually("moved", crate::bench::SOON, || {
        state(OTHER)
            .filter(|store| store["directory"].as_str().is_some_and(|d| d.ends_with("third")))
    })
    .await;
    role.stop().await;
}

/// Way A: the server has no row of a system VM, so it sends no set-up and knows no directory.
#[tokio::test]
async fn row_25_a_standalone_host_serves_without_a_row_and_without_a_directorys_name() {
    let zone = Zone::changed("allowed_sources = [\"127.0.0.1\"]", |config| {
        config.system_vms.clear();
    })
    .await;
    let role = zone.start().await;
    role.until_ready().await;
    let id = zone.register("golden/tiny.qcow2", ImageFormat::Qcow2);
    let ready = |image: &management_server::Image| image.state == ImageState::Downloaded;
    zone.server.wait_for_image(id, crate::bench::SOON, ready).await.unwrap();
    let link = zone.server.create_link(id).await.unwrap();
    let addr = role.cx.http.addresses()[0];
    let url = format!("http://{addr}/userdata/{}/{}", link.directory, link.file);
    assert!(crate::over_link::fetch(&url).await == crate::images::vector("tiny.qcow2"));
    zone.server.delete_link(id).await.unwrap();
    zone.server.delete_image(id).await.unwrap();
    role.stop().await;
    assert!(store_to().as_nfs().is_some());
}
