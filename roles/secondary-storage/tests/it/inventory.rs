//! Lists, figures, digests and deletions.

use agent_protocol::Command;
use agent_protocol::agent::AnswerBase;
use agent_protocol::storage::{
    ComputeChecksumCommand, DataStoreTO, DataTO, DeleteCommand, DownloadStatus,
    GetStorageStatsCommand, ImageFormat, ListTemplateCommand, ListVolumeCommand, S3TO,
    SecStorageSetupCommand, TemplateObjectTO, VolumeObjectTO,
};

use role::Health;

use super::Bench;
use crate::bench::{SOON, STORE, store_to};

fn setup(url: &str) -> SecStorageSetupCommand {
    SecStorageSetupCommand {
        store: Some(DataStoreTO::nfs(url)),
        sec_url: Some(url.into()),
        ..SecStorageSetupCommand::default()
    }
}

async fn with_template() -> (Bench, String) {
    let bench: Bench = Bench::new().await;
    let answer = bench.finish(&bench.download("golden/tiny.iso", ImageFormat::Iso)).await;
    let path = answer.install_path.unwrap();
    (bench, path)
}

async fn result<C: Command>(bench: &Bench, command: &C) -> AnswerBase {
    bench.raw(agent_protocol::Envelope::of(command)).await.answer_base().unwrap()
}

fn delete(path: &str, id: i64) -> DeleteCommand {
    DeleteCommand {
        data: Some(DataTO::from(Bench::template(path, id))),
        ..DeleteCommand::default()
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_mounted_fails_alone() {
    let bench: Bench = Bench::new().await;
    let bad = "cifs://127.0.0.1/export/other";
    let answer = bench.ask(&setup(bad)).await;
    assert!(!answer.base.result);
    assert!(answer.base.details.unwrap().contains("cifs://127.0.0.1/export/other"));
    let list = ListTemplateCommand {
        store: Some(DataStoreTO::nfs(bad)),
        ..ListTemplateCommand::default()
    };
    let answer = bench.ask(&list).await;
    assert!(!answer.base.result && answer.template_infos.is_none(), "never an empty map");
    let list =
        ListVolumeCommand { store: Some(DataStoreTO::nfs(bad)), ..ListVolumeCommand::default() };
    assert!(!bench.ask(&list).await.base.result);
    let stats = GetStorageStatsCommand {
        store: Some(DataStoreTO::nfs(bad)),
        ..GetStorageStatsCommand::default()
    };
    assert!(!bench.ask(&stats).await.base.result);
    let good = bench.ask(&setup(STORE)).await;
    assert!(good.base.result);
    assert_eq!(good.dir.as_deref(), Some("b523f0c4-0847-33cd-bb44-f46c4da95327"));
}

#[tokio::test]
async fn a_store_is_opened_by_the_first_command_that_needs_it() {
    let bench: Bench = Bench::new().await;
    let stats =
        GetStorageStatsCommand { store: Some(store_to()), ..GetStorageStatsCommand::default() };
    let answer = bench.ask(&stats).await;
    assert!(answer.base.result && answer.capacity_bytes > 0 && answer.used_bytes > 0);
    assert!(answer.used_bytes <= answer.capacity_bytes);
}

/// Row 20 of the weaknesses: the original's empty list makes the server fetch everything again.
#[tokio::test]
async fn row_20_an_emptied_store_is_never_listed_as_empty_not_even_after_a_restart() {
    let (bench, _) = with_template().await;
    std::fs::remove_dir_all(bench.store("")).unwrap();
    std::fs::create_dir(bench.store("")).unwrap();
    let list = ListTemplateCommand { store: Some(store_to()), ..ListTemplateCommand::default() };
    let answer = bench.ask(&list).await;
    assert!(!answer.base.result && answer.template_infos.is_none(), "{answer:?}");
    let bench = bench.restarted().await;
    let answer = bench.ask(&list).await;
    assert!(!answer.base.result && answer.template_infos.is_none(), "{answer:?}");
    assert!(!bench.ask(&setup(STORE)).await.base.result);
    // Not even new work is accepted there.
    let download = bench.finish(&bench.download("golden/tiny.iso", ImageFormat::Iso)).await;
    assert_eq!(download.download_status, Some(DownloadStatus::DownloadError));
    assert_eq!(std::fs::read_dir(bench.store("")).unwrap().count(), 0);
}

/// Row 39 of the weaknesses: the original stays Up and says nothing when its mount is gone.
#[tokio::test]
async fn row_39_a_store_that_is_lost_shows_in_the_roles_health_and_heals() {
    let (bench, _) = with_template().await;
    let watching = secondary_storage::stores::watch::watch(
        bench.parts.stores.clone(),
        bench.cx.health.clone(),
        bench.parts.metrics.clone(),
        bench.cx.shutdown.clone(),
        std::time::Duration::from_millis(10),
    );
    bench.cx.tasks.spawn("watch", watching);
    let health = || bench.cx.health.health();
    let aside = bench.directory.join("aside");
    std::fs::rename(bench.store(""), &aside).unwrap();
    std::fs::create_dir(bench.store("")).unwrap();
    testkit::eventually("degraded", SOON, || match health() {
        Health::Degraded { reason } if reason.contains("is not the store") => Some(()),
        _ => None,
    })
    .await;
    std::fs::remove_dir(bench.store("")).unwrap();
    std::fs::rename(&aside, bench.store("")).unwrap();
    assert_eq!(bench.listed().await.len(), 1);
    testkit::eventually("healed", SOON, || (health() == Health::Starting).then_some(())).await;
}

#[tokio::test]
async fn digests_of_files_are_computed_on_request() {
    let (bench, path) = with_template().await;
    let mut command = ComputeChecksumCommand {
        store: Some(store_to()),
        template_path: Some(path),
        algorithm: Some("SHA-256".to_owned()),
        ..ComputeChecksumCommand::default()
    };
    let answer = bench.ask(&command).await;
    let expected = "{SHA-256}39dc48e2d39839a7c12e74140e53057ad613aeab75e20c16d9bfda95498533a6";
    assert_eq!(answer.base.details.as_deref(), Some(expected));
    command.algorithm = None;
    let answer = bench.ask(&command).await;
    assert_eq!(answer.base.details.as_deref(), Some("{MD5}49459bf7916a3a42d64c5255328d620e"));
    for path in ["../../../etc/passwd", "/etc/passwd", "template/none", "template"] {
        command.template_path = Some(path.to_owned());
        assert!(!bench.ask(&command).await.base.result, "{path}");
    }
}

#[tokio::test]
async fn a_template_is_deleted_by_file_or_directory_and_once_is_enough() {
    for by_file in [true, false] {
        let (bench, path) = with_template().await;
        let directory = path.rsplit_once('/').unwrap().0;
        let command = delete(if by_file { &path } else { directory }, 320);
        let answer = bench.ask(&command).await;
        assert!(answer.base.result && answer.base.details.is_none(), "{answer:?}");
        assert!(!bench.store("template/tmpl/2/320").exists());
        assert!(bench.store("template/tmpl/2").exists(), "the account's directory stays");
        let again = bench.ask(&command).await.base;
        let told = Some("template parent directory 320 doesn't exist");
        assert_eq!((again.result, again.details.as_deref()), (true, told));
    }
}

#[tokio::test]
async fn deletions_that_name_anything_else_are_refused() {
    let (bench, _) = with_template().await;
    for path in [
        "template/tmpl/2",
        "template/tmpl",
        "template",
        "..",
        "template/tmpl/../../x/1",
        "volumes/2/320",
        "/",
    ] {
        let answer = bench.ask(&delete(path, 1)).await;
        assert!(!answer.base.result && answer.base.details.is_some(), "{path}");
    }
    assert_eq!(bench.listed().await.len(), 1);
    let volume = VolumeObjectTO {
        path: Some("template/tmpl/2/320".to_owned()),
        data_store: Some(store_to()),
        ..VolumeObjectTO::default()
    };
    let command = DeleteCommand { data: Some(DataTO::from(volume)), ..DeleteCommand::default() };
    assert!(!bench.ask(&command).await.base.result, "a volume does not lie among the templates");
    let never =
        TemplateObjectTO { image_data_store: Some(store_to()), ..TemplateObjectTO::default() };
    let command = DeleteCommand { data: Some(DataTO::from(never)), ..DeleteCommand::default() };
    assert!(bench.ask(&command).await.base.result, "what never had a place is deleted");
}

#[tokio::test]
async fn deleting_stops_the_download_that_fills_the_directory() {
    let bench: Bench = Bench::new().await;
    let command = bench.download("gated/tiny.raw", ImageFormat::Raw);
    bench.half_way(&command).await;
    assert!(bench.ask(&delete("template/tmpl/2/320", 320)).await.base.result);
    assert_eq!(bench.files(), Vec::<String>::new());
    assert!(bench.listed().await.is_empty());
}

#[tokio::test]
async fn what_is_not_handled_is_answered_by_name() {
    let bench: Bench = Bench::new().await;
    let unknown = agent_protocol::Envelope {
        class: "com.cloud.agent.api.NoSuchCommand".to_owned(),
        body: serde_json::value::RawValue::from_string("{\"wait\":0}".to_owned()).unwrap(),
    };
    let answer = bench.raw(unknown).await;
    assert_eq!(answer.simple_name(), "UnsupportedAnswer");
    let base = answer.answer_base().unwrap();
    assert!(!base.result && base.details.unwrap().contains("com.cloud.agent.api.NoSuchCommand"));
    let s3 = DataStoreTO::from(S3TO::default());
    let list = ListTemplateCommand { store: Some(s3), ..ListTemplateCommand::default() };
    assert!(!result(&bench, &list).await.result);
}
