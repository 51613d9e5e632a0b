//! A store whose server is dead: its own commands fail in time, and nobody else notices.

use std::time::{Duration, Instant};

use agent_protocol::Envelope;
use agent_protocol::agent::CheckHealthCommand;
use agent_protocol::storage::{
    DataStoreTO, DataTO, DeleteCommand, DownloadStatus, GetStorageStatsCommand, ImageFormat,
    ListTemplateCommand, ListVolumeCommand,
};
use futures_util::FutureExt;
use management_server::{ImageState, ImageStore};

use crate::bench::{Bench, OnDirectory, OnNfs, SOON, STORE, error_of};
use crate::images::raw;
use crate::mounts::Stalled;
use crate::over_link::{GUID, Zone};

const OTHER: &str = "nfs://127.0.0.1/export/sec2";

fn commands_for(url: &str) -> Vec<Envelope> {
    let store = || Some(DataStoreTO::nfs(url));
    let mut template = Bench::<OnDirectory>::template("template/tmpl/2/320", 320);
    template.image_data_store = store();
    vec![
        Envelope::of(&ListTemplateCommand { store: store(), ..ListTemplateCommand::default() }),
        Envelope::of(&ListVolumeCommand { store: store(), ..ListVolumeCommand::default() }),
        Envelope::of(&GetStorageStatsCommand {
            store: store(),
            ..GetStorageStatsCommand::default()
        }),
        Envelope::of(&DeleteCommand {
            data: Some(DataTO::from(template)),
            ..DeleteCommand::default()
        }),
    ]
}

/// Row 21 of the weaknesses: one dead NFS server stops every command of the original.
#[tokio::test]
async fn row_21_every_command_for_a_dead_store_is_answered_within_its_deadline() {
    let bench: Bench = Bench::with("store_timeout = \"300ms\"").await;
    assert_eq!(bench.listed().await.len(), 0, "the store works");
    let stalled = Stalled::over(&bench.store(""));
    for command in commands_for(STORE) {
        let class = command.class.clone();
        let answer = bench.raw(command).await.answer_base().unwrap();
        let details = answer.details.unwrap_or_default();
        assert!(!answer.result && details.contains("does not answer"), "{class}: {details}");
    }
    assert!(stalled.end() > 0, "it was asked");
    // Whoever hung there is free again, and so is the store.
    testkit::eventually("usable again", SOON, || {
        let usable = std::fs::read_dir(bench.store("template")).is_ok();
        usable.then_some(())
    })
    .await;
    let mut list = commands_for(STORE);
    let list = list.remove(0);
    let answer = bench.raw(list).await.answer_base().unwrap();
    assert!(answer.result, "{answer:?}");
}

/// A server that stops answering in the middle of a download: the error comes within the deadline, and
/// the store is usable as soon as its server is.
#[tokio::test]
async fn a_download_ends_when_the_nfs_server_stops_answering() {
    let bench = Bench::<OnNfs>::with("store_timeout = \"400ms\"\nmax_downloads = 1").await;
    bench.images.put("a.raw", raw(12 << 20));
    let command = bench.download("gated/a.raw", ImageFormat::Raw);
    let answer = bench.half_way(&command).await;
    let server = bench.server.as_ref().unwrap();
    server.faults(|faults| faults.silent = true);
    bench.images.open_gate();
    let failed = bench.until_over(&command, answer).await;
    let text = error_of(&failed);
    assert!(text.starts_with("cannot store template 320: cannot write a file in store"), "{text}");
    assert!(text.contains(STORE) && text.contains("does not answer"), "{text}");
    server.faults(|faults| faults.silent = false);
    let job = bench.parts.downloads.get(failed.job_id.as_deref().unwrap()).unwrap();
    assert!(job.wait_for_place(SOON).await);
    bench.images.open_gate();
    let again = bench.finish(&command).await;
    assert_eq!(again.download_status, Some(DownloadStatus::Downloaded), "{again:?}");
}

/// Rows 21 and 22: while one store hangs, the link, its pings and the other stores go on. The test
/// has one thread for everything: a single wait on it would end it.
#[tokio::test]
async fn row_22_a_dead_store_holds_up_neither_the_link_nor_other_stores() {
    let zone = Zone::changed("store_timeout = \"25s\"", |config| {
        config.stores.push(ImageStore { url: OTHER.to_owned(), writable: true });
    })
    .await;
    let name = "6a95e0af-0bf0-3bb1-8b31-586af122ee52";
    let second = zone.temp.path().join("mnt").join(name);
    std::fs::create_dir_all(second.join("template")).unwrap();
    let role = zone.start().await;
    role.until_ready().await;
    let stalled = Stalled::over(&second);
    let server = &zone.server;
    let commands: Vec<Envelope> = (0..5).flat_map(|_| commands_for(OTHER)).collect();
    let hanging = commands.into_iter().map(|command| server.send(GUID, command, false, SOON));
    let mut hanging = Box::pin(futures_util::future::join_all(hanging));
    assert!((&mut hanging).now_or_never().is_none());
    let mut waits = Vec::new();
    for _round in 0..100 {
        let begun = Instant::now();
        let health = Envelope::of(&CheckHealthCommand::default());
        let answer = server.send(GUID, health, false, SOON).await.unwrap();
        assert!(answer.answer_base().unwrap().result);
        waits.push(begun.elapsed());
    }
    for command in commands_for(STORE) {
        let answer = server.send(GUID, command, false, SOON).await.unwrap();
        assert!(answer.answer_base().unwrap().result);
    }
    // One answer after the other, each while the others' commands hang.
    assert!((&mut hanging).now_or_never().is_none(), "they do hang");
    waits.sort();
    let p99: Duration = waits[98];
    eprintln!("p99 of 100 questions while a store hangs: {p99:?}");
    let before = role.cx.health.health();
    assert!(stalled.end() > 0, "it was asked");
    for answer in hanging.await {
        let base = answer.unwrap().answer_base().unwrap();
        assert!(base.result || base.details.is_some(), "answered, one way or the other");
    }
    let id = zone.register("golden/tiny.iso", ImageFormat::Iso);
    let ready = |image: &management_server::Image| image.state == ImageState::Downloaded;
    zone.server.wait_for_image(id, SOON, ready).await.unwrap();
    eprintln!("health while it hung: {before:?}");
    role.stop().await;
}
