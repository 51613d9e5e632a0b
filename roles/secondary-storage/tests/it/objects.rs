//! Every kind of object deleted, volumes moved, stores browsed: as the recorded server asks, and as
//! nobody should ask.

use agent_protocol::agent::PlainAnswer;
use agent_protocol::storage::{
    BackupDeltaTO, DataTO, DeleteCommand, ListDataStoreObjectsAnswer, ListDataStoreObjectsCommand,
    MoveVolumeCommand, SnapshotObjectTO, VolumeObjectTO,
};
use agent_protocol::{Command, Envelope};
use serde_json::Value;

use super::Bench;
use crate::bench::{STORE, store_to};

fn fill(bench: &Bench, files: &[&str]) {
    for file in files {
        let path = bench.store(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
}

fn deletion(data: impl Into<DataTO>) -> DeleteCommand {
    DeleteCommand { data: Some(data.into()), ..DeleteCommand::default() }
}

fn snapshot(path: &str) -> SnapshotObjectTO {
    SnapshotObjectTO {
        path: Some(path.to_owned()),
        data_store: Some(store_to()),
        ..SnapshotObjectTO::default()
    }
}

fn movement(from: &str, to: &str) -> MoveVolumeCommand {
    MoveVolumeCommand {
        src_path: Some(from.to_owned()),
        dest_path: Some(to.to_owned()),
        volume_name: Some("v-ok".to_owned()),
        volume_uuid: Some("c7dc9a94-8180-4e49-a9fc-77518673a598".to_owned()),
        datastore_uri: Some(STORE.into()),
        ..MoveVolumeCommand::default()
    }
}

async fn text<C: Command>(bench: &Bench, command: &C) -> (bool, String) {
    let base = bench.raw(Envelope::of(command)).await.answer_base().unwrap();
    (base.result, base.details.unwrap_or_default())
}

#[tokio::test]
async fn a_volume_is_moved_as_recorded_and_a_repeated_command_finds_it_done() {
    let bench: Bench = Bench::new().await;
    fill(&bench, &["volumes/2/10/v.qcow2", "volumes/2/10/volume.properties"]);
    let command = movement("volumes/2/10", "volumes/12/10");
    let root = bench.place("");
    let root = root.trim_end_matches('/');
    let expected = format!(
        "Moved volume [{{\"volumeName\":\"v-ok\",\"volumeUuid\":\"c7dc9a94-8180-4e49-a9fc-77518673a598\"}}] \
         from [{root}/volumes/2/10] to [{root}/volumes/12/10]."
    );
    for _time in 0..2 {
        assert_eq!(text(&bench, &command).await, (true, expected.clone()));
        let files = ["volumes/12/10/v.qcow2", "volumes/12/10/volume.properties"];
        assert_eq!(bench.files(), files);
    }
    assert!(bench.store("volumes/2").exists(), "the account's directory stays");
}

#[tokio::test]
async fn a_volume_is_never_moved_over_another_nor_out_of_its_tree() {
    let bench: Bench = Bench::new().await;
    fill(&bench, &["volumes/2/10/v", "volumes/12/10/w", "template/tmpl/2/10/t"]);
    let before = bench.files();
    let (result, details) = text(&bench, &movement("volumes/2/10", "volumes/12/10")).await;
    assert!(!result && details.contains("volumes/12/10 holds something already"), "{details}");
    for (from, to) in [
        ("volumes/2/10", "volumes/7/11"),
        ("volumes/2/10/v", "volumes/7/10"),
        ("volumes/2/10", "template/tmpl/7/10"),
        ("template/tmpl/2/10", "volumes/7/10"),
        ("volumes/2/10", "volumes/7/10/deeper"),
        ("volumes/2/10", "volumes/../7/10"),
        ("volumes/2", "volumes/7"),
        ("volumes/3/10", "volumes/7/10"),
        ("", ""),
    ] {
        let (result, details) = text(&bench, &movement(from, to)).await;
        assert!(!result && !details.is_empty(), "{from} to {to}");
    }
    assert_eq!(bench.files(), before);
}

async fn browse(bench: &Bench, path: &str, start: i32, size: i32) -> ListDataStoreObjectsAnswer {
    let command = ListDataStoreObjectsCommand {
        store: Some(store_to()),
        path: Some(path.to_owned()),
        start_index: start,
        page_size: size,
        ..ListDataStoreObjectsCommand::default()
    };
    bench.ask(&command).await
}

#[tokio::test]
async fn a_store_is_browsed_page_by_page_without_gap_or_repetition() {
    let bench: Bench = Bench::new().await;
    fill(&bench, &["template/tmpl/1/3/a", "snapshots/2/31/s"]);
    let files: Vec<String> = (0..25).map(|n| format!("volumes/2/{n:02}/v.raw")).collect();
    fill(&bench, &files.iter().map(String::as_str).collect::<Vec<_>>());
    let root = browse(&bench, "", 0, 500).await;
    assert_eq!((root.path_exists, root.count), (true, 3), "our own marker is not shown");
    assert_eq!(root.names.unwrap(), ["snapshots", "template", "volumes"]);
    assert_eq!(root.paths.unwrap(), ["/snapshots", "/template", "/volumes"]);
    let place = bench.place("volumes");
    assert_eq!(root.abs_paths.unwrap()[2], place);
    assert_eq!(root.is_dirs.unwrap(), [true, true, true]);
    assert!(root.last_modified.unwrap()[0] > 1_700_000_000_000, "milliseconds");
    let mut seen = Vec::new();
    for page in 0..4 {
        let answer = browse(&bench, "/volumes/2/", page * 10, 10).await;
        assert_eq!(answer.count, 25);
        seen.extend(answer.names.unwrap());
    }
    let expected: Vec<String> = (0..25).map(|n| format!("{n:02}")).collect();
    assert_eq!(seen, expected);
    let file = browse(&bench, "volumes/2/07/v.raw", 0, 500).await;
    assert_eq!((file.count, file.is_dirs.unwrap()), (1, vec![false]));
    assert_eq!(file.paths.unwrap(), ["/volumes/2/07/v.raw"]);
    assert_eq!(file.sizes.unwrap(), [1]);
    assert_eq!(browse(&bench, "", -5, 500).await.names.unwrap().len(), 3);
    assert_eq!(browse(&bench, "", 0, -1).await.names.unwrap().len(), 0);
    for path in ["..", "volumes/../..", "a//b"] {
        let answer = browse(&bench, path, 0, 10).await;
        assert!(!answer.base.result, "{path}");
    }
}

#[tokio::test]
async fn browsing_answers_with_the_recorded_fields() {
    let bench: Bench = Bench::new().await;
    let none = Envelope::of(&browse(&bench, "no/such", 0, 500).await);
    let recorded = "{\"pathExists\":false,\"count\":0,\"names\":[],\"paths\":[],\"absPaths\":[],\
        \"isDirs\":[],\"sizes\":[],\"lastModified\":[],\"result\":true,\"contextMap\":{},\"wait\":0,\
        \"bypassHostMaintenance\":false}";
    assert_eq!(none.body.get(), recorded);
}

#[tokio::test]
async fn snapshots_are_deleted_with_their_own_files_only() {
    let bench: Bench = Bench::new().await;
    let (one, other) =
        ("0e7f2b1c-3d51-4a0e-8c4b-2b9b3d8f6a77", "1e7f2b1c-3d51-4a0e-8c4b-2b9b3d8f6a77");
    let own = [format!("snapshots/2/31/{one}"), format!("snapshots/2/31/{one}_temp")];
    let vhd = format!("snapshots/2/31/VHD-{one}.vhd");
    let others = [format!("snapshots/2/31/{other}"), format!("snapshots/2/31/{one}a")];
    let checkpoint = format!("checkpoints/2/31/{one}");
    let all = own.iter().chain([&vhd, &checkpoint]).chain(&others);
    fill(&bench, &all.map(String::as_str).collect::<Vec<_>>());
    let mut command = snapshot(&own[0]);
    command.checkpoint_path = Some(format!("/mnt/1c1f6d7c/{checkpoint}"));
    let command = deletion(command);
    assert_eq!(text(&bench, &command).await, (true, String::new()));
    let mut expected = others.to_vec();
    expected.sort();
    assert_eq!(bench.files(), expected);
    assert_eq!(text(&bench, &command).await, (true, String::new()), "once is enough");
    for other in &others {
        assert!(text(&bench, &deletion(snapshot(other))).await.0);
    }
    assert!(!bench.store("snapshots/2/31").exists(), "the last one takes the directory along");
    // As recorded of a zone with simulated hosts.
    let answer: PlainAnswer =
        bench.ask(&deletion(snapshot("snapshots/8ee77f77-db10-4644-a8b9-ef881df722cb"))).await;
    assert_eq!(
        Envelope::of(&answer).body.get(),
        "{\"result\":true,\"details\":\"snapshot directory snapshots doesn\\u0027t exist\",\
         \"contextMap\":{},\"wait\":0,\"bypassHostMaintenance\":false}"
    );
}

/// Row 23 of the weaknesses: the original trusts every path and empties whole accounts.
#[tokio::test]
async fn row_23_no_deletion_reaches_beyond_its_object() {
    let bench: Bench = Bench::new().await;
    let files = [
        "snapshots/2/31/s",
        "snapshots/12/31/s",
        "volumes/2/99/v",
        "volumes/2/loose",
        "backups/2/31/b",
        "template/tmpl/2/99/t",
    ];
    fill(&bench, &files);
    let before = bench.files();
    for path in ["snapshots/2", "snapshots", "snapshots/2/31", "snapshots/2/31/..", "volumes/2/99"]
    {
        let (result, details) = text(&bench, &deletion(snapshot(path))).await;
        assert!(!result && !details.is_empty(), "{path}: {details}");
    }
    for path in ["volumes/2", "volumes/2/loose", "volumes", "snapshots/2/31", "../../etc/1"] {
        let volume = VolumeObjectTO {
            path: Some(path.to_owned()),
            data_store: Some(store_to()),
            ..VolumeObjectTO::default()
        };
        assert!(!text(&bench, &deletion(volume)).await.0, "{path}");
    }
    for (path, picture) in [
        ("backups/2/31", None),
        ("", None),
        ("backups", None),
        ("volumes/2/99/v", None),
        ("backups/2/31/b", Some("template/tmpl/2/99/t")),
    ] {
        let delta = BackupDeltaTO {
            path: Some(path.to_owned()),
            screenshot_path: picture.map(str::to_owned),
            data_store_to: Some(store_to()),
            id: 17,
            ..BackupDeltaTO::default()
        };
        let answer = bench.raw(Envelope::of(&deletion(delta))).await;
        assert_eq!(answer.simple_name(), "BackupDeleteAnswer", "the server casts it");
        let body: Value = serde_json::from_str(answer.body.get()).unwrap();
        assert_eq!((&body["result"], &body["backupId"]), (&false.into(), &17.into()), "{path}");
    }
    assert_eq!(bench.files(), before);
}

#[tokio::test]
async fn files_of_a_backup_go_with_their_empty_directory() {
    let bench: Bench = Bench::new().await;
    let picture = "backups/2/31/0e7f-screenshot-2026-07-24T10:22:11.123456+02:00.png";
    fill(&bench, &["backups/2/31/0e7f", picture]);
    let delta = BackupDeltaTO {
        path: Some("backups/2/31/0e7f".to_owned()),
        screenshot_path: Some(picture.to_owned()),
        data_store_to: Some(store_to()),
        id: 17,
        ..BackupDeltaTO::default()
    };
    let command = deletion(delta);
    for _time in 0..2 {
        let answer: PlainAnswer = bench.ask(&command).await;
        assert!(answer.base.result, "{answer:?}");
        assert!(!bench.store("backups/2/31").exists());
    }
    assert!(bench.store("backups/2").exists());
}

#[tokio::test]
async fn a_volume_is_deleted_as_recorded() {
    let bench: Bench = Bench::new().await;
    for path in ["volumes/2/14", "volumes/2/17/a4cce8a1-8028-38b1-ad23-59ce9360114b.qcow2"] {
        fill(
            &bench,
            &[
                "volumes/2/14/v.raw",
                "volumes/2/14/volume.properties",
                "volumes/2/17/a4cce8a1-8028-38b1-ad23-59ce9360114b.qcow2",
                "volumes/2/17/KVMHA/hb",
            ],
        );
        let volume = VolumeObjectTO {
            path: Some(path.to_owned()),
            data_store: Some(store_to()),
            id: 14,
            ..VolumeObjectTO::default()
        };
        let answer: PlainAnswer = bench.ask(&deletion(volume)).await;
        assert_eq!(
            Envelope::of(&answer).body.get(),
            "{\"result\":true,\"contextMap\":{},\"wait\":0,\"bypassHostMaintenance\":false}"
        );
        let directory = path.split('/').take(3).collect::<Vec<_>>().join("/");
        assert!(!bench.store(&directory).exists());
        assert!(bench.store("volumes/2").exists());
    }
}

/// Whatever is wrong with a command, the class is the one that its sender casts to; 4.23 takes any
/// other for a copied template.
#[tokio::test]
async fn what_moves_data_is_refused_in_the_class_of_its_sender() {
    use agent_protocol::storage::{
        CopyCommand, CreateDatadiskTemplateCommand, DeleteSnapshotsDirCommand, GetDatadisksCommand,
        HandleConfigDriveIsoCommand, QuerySnapshotZoneCopyCommand, UploadCommand,
    };
    let bench: Bench = Bench::new().await;
    for (command, class) in [
        (Envelope::of(&CopyCommand::default()), "CopyCmdAnswer"),
        (Envelope::of(&QuerySnapshotZoneCopyCommand::default()), "QuerySnapshotZoneCopyAnswer"),
        (Envelope::of(&GetDatadisksCommand::default()), "GetDatadisksAnswer"),
        (Envelope::of(&CreateDatadiskTemplateCommand::default()), "CreateDatadiskTemplateAnswer"),
        (Envelope::of(&DeleteSnapshotsDirCommand::default()), "Answer"),
        (Envelope::of(&HandleConfigDriveIsoCommand::default()), "HandleConfigDriveIsoAnswer"),
        (Envelope::of(&UploadCommand::default()), "UnsupportedAnswer"),
    ] {
        let answer = bench.raw(command).await;
        assert_eq!(answer.simple_name(), class);
        let base = answer.answer_base().unwrap();
        assert!(!base.result && !base.details.unwrap().is_empty(), "{class}");
    }
}
