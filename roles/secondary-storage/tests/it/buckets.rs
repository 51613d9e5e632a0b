//! Stores in a bucket: objects carried there and back, listed and deleted, over a server that fails.

use agent_protocol::Envelope;
use agent_protocol::storage::{
    CopyCmdAnswer, CopyCommand, CreateEntityDownloadURLCommand, DataStoreTO, DataTO, DeleteCommand,
    DeleteSnapshotsDirCommand, DownloadCommand, DownloadStatus, GetStorageStatsCommand,
    ImageFormat, ListTemplateCommand, ListVolumeCommand, SnapshotObjectTO, TemplateObjectTO,
    VolumeObjectTO,
};

use axum::http::{Method, StatusCode};
use serde_json::Value;

use crate::bench::{Bench, NAME, OnDirectory, SOON, STORE, error_of, store_to};
use crate::images::{raw, vector};
use crate::links;
use crate::s3_server::{Fault, S3Server};
use crate::scripted;

const KEY: &str = "template/tmpl/2/215/215-2-name/d.qcow2";

async fn start() -> (Bench<OnDirectory>, S3Server) {
    (Bench::new().await, S3Server::start().await)
}

fn fill(bench: &Bench<OnDirectory>, path: &str, content: &[u8]) {
    let path = bench.store(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn template(path: &str, store: DataStoreTO) -> TemplateObjectTO {
    TemplateObjectTO {
        path: Some(path.to_owned()),
        id: 215,
        format: Some(ImageFormat::Qcow2),
        name: Some("215-2-name".to_owned()),
        image_data_store: Some(store),
        ..TemplateObjectTO::default()
    }
}

fn volume(path: &str, store: DataStoreTO) -> VolumeObjectTO {
    VolumeObjectTO {
        path: Some(path.to_owned()),
        data_store: Some(store),
        ..VolumeObjectTO::default()
    }
}

async fn copy(
    bench: &Bench<OnDirectory>,
    from: impl Into<DataTO>,
    to: impl Into<DataTO>,
) -> CopyCmdAnswer {
    let (src_to, dest_to) = (Some(from.into()), Some(to.into()));
    bench.ask(&CopyCommand { src_to, dest_to, ..CopyCommand::default() }).await
}

#[tokio::test]
async fn objects_go_into_the_bucket_and_come_back() {
    let (bench, server) = start().await;
    let image = scripted::image();
    fill(&bench, "template/tmpl/2/215/d.qcow2", &image);
    let from = template("template/tmpl/2/215/d.qcow2", store_to());
    let to = template("template/tmpl/2/215/215-2-name", server.to());
    let answer = copy(&bench, from, to).await;
    let Some(DataTO::Template(made)) = answer.new_data else { panic!("{:?}", answer.base) };
    assert_eq!(made.path.as_deref(), Some(KEY));
    assert_eq!((made.size, made.physical_size), (Some(65_536), Some(86_016)));
    assert_eq!((made.format, made.name), (Some(ImageFormat::Qcow2), None));
    assert_eq!(server.read(KEY).unwrap(), image);
    let answer =
        copy(&bench, template(KEY, server.to()), template("template/tmpl/3/215", store_to())).await;
    let Some(DataTO::Template(made)) = answer.new_data else { panic!("{:?}", answer.base) };
    let path = made.path.unwrap();
    assert!(path.starts_with("template/tmpl/3/215/") && path.ends_with(".qcow2"), "{path}");
    assert_eq!(made.name.as_deref(), path.rsplit('/').next());
    assert_eq!(bench.read(&path), image);
    assert_eq!(bench.listed().await, ["215-2-name"]);
    fill(&bench, "volumes/2/31/v.qcow2", &image);
    let from = volume("volumes/2/31/v.qcow2", store_to());
    let answer = copy(&bench, from, volume("volumes/2/31", server.to())).await;
    let Some(DataTO::Volume(made)) = answer.new_data else { panic!("{:?}", answer.base) };
    assert_eq!((made.path.as_deref(), made.size), (Some("volumes/2/31/v.qcow2"), Some(86_016)));
    assert_eq!(server.unfinished(), 0);
}

#[tokio::test]
async fn long_objects_go_in_parts_through_a_server_that_fails() {
    let (bench, server) = start().await;
    let image = raw(20 << 20);
    fill(&bench, "volumes/2/31/v.raw", &image);
    server.fail("partNumber=2", 1, Fault::Reset);
    server.fail("partNumber=1", 2, Fault::Refused("SlowDown"));
    server.fail("partNumber=3", 1, Fault::Stalled);
    let from = volume("volumes/2/31/v.raw", store_to());
    let answer = copy(&bench, from, volume("volumes/2/31", server.to())).await;
    assert!(answer.base.result, "{answer:?}");
    assert!(server.read("volumes/2/31/v.raw").unwrap() == image);
    server.fail("GET /secondary/volumes/2/31/v.raw", 5, Fault::Cut);
    let from = volume("volumes/2/31/v.raw", server.to());
    let answer = copy(&bench, from, volume("volumes/2/32", store_to())).await;
    let Some(DataTO::Volume(made)) = answer.new_data else { panic!("{:?}", answer.base) };
    assert!(bench.read(made.path.as_deref().unwrap()) == image);
    assert_eq!(server.unfinished(), 0);
}

#[tokio::test]
async fn an_upload_that_fails_leaves_nothing_and_says_why() {
    let (bench, server) = start().await;
    fill(&bench, "volumes/2/31/v.raw", &raw(9 << 20));
    let attempt = async || {
        let from = volume("volumes/2/31/v.raw", store_to());
        let answer = copy(&bench, from, volume("volumes/2/31", server.to())).await;
        assert!(!answer.base.result);
        answer.base.details.unwrap()
    };
    server.fail("partNumber=1", 4, Fault::Refused("SlowDown"));
    let details = attempt().await;
    assert!(details.contains("503 SlowDown later"), "{details}");
    server.fail("POST /secondary/volumes/2/31/v.raw?uploadId", 1, Fault::LateError);
    let details = attempt().await;
    assert!(details.contains("InternalError late"), "{details}");
    assert_eq!((server.unfinished(), server.keys().len()), (0, 0));
    let mut wrong = server.s3();
    wrong.secret_key = Some("wrong".into());
    let from = volume("volumes/2/31/v.raw", store_to());
    let answer = copy(&bench, from, volume("volumes/2/31", DataStoreTO::from(wrong))).await;
    let details = answer.base.details.unwrap();
    assert!(details.contains("403 SignatureDoesNotMatch"), "{details}");
    let missing = volume("volumes/2/31/none", store_to());
    let answer = copy(&bench, missing, volume("volumes/2/31", server.to())).await;
    let details = answer.base.details.unwrap();
    assert!(details.starts_with("Can't find src file:"), "{details}");
}

#[tokio::test]
async fn bytes_that_arrive_damaged_are_sent_again_or_never_become_an_object() {
    let (bench, server) = start().await;
    let image = raw(9 << 20);
    fill(&bench, "volumes/2/31/v.raw", &image);
    let attempt = async || {
        let from = volume("volumes/2/31/v.raw", store_to());
        copy(&bench, from, volume("volumes/2/31", server.to())).await.base
    };
    server.fail("partNumber=1", 3, Fault::Damaged);
    assert!(attempt().await.result);
    assert!(server.read("volumes/2/31/v.raw").unwrap() == image);
    server.remove("volumes/2/31/v.raw");
    server.fail("partNumber=2", 4, Fault::Damaged);
    let details = attempt().await.details.unwrap();
    assert!(details.contains("has other bytes than were sent"), "{details}");
    // The parts were right, what was made of them is not.
    server.fail("POST /secondary/volumes/2/31/v.raw?uploadId", 1, Fault::Damaged);
    let details = attempt().await.details.unwrap();
    assert!(details.contains("has other bytes than were sent"), "{details}");
    fill(&bench, "volumes/2/31/v.raw", &raw(1000));
    server.fail("PUT /secondary/volumes/2/31/v.raw", 4, Fault::Damaged);
    let details = attempt().await.details.unwrap();
    assert!(details.contains("has other bytes than were sent"), "{details}");
    assert_eq!(server.unfinished(), 0);
}

#[tokio::test]
async fn a_template_is_registered_straight_into_the_bucket() {
    let (bench, server) = start().await;
    let command = |path: &str, format: ImageFormat| DownloadCommand {
        install_path: Some(format!("template/tmpl/2/320/{NAME}")),
        store: Some(server.to()),
        sec_url: None,
        ..bench.download(path, format)
    };
    let answer = bench.finish(&command("golden/tiny.qcow2.gz", ImageFormat::Qcow2)).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    let key = format!("template/tmpl/2/320/{NAME}/tiny.qcow2");
    assert_eq!(answer.install_path.as_deref(), Some(key.as_str()));
    let image = vector("tiny.qcow2");
    assert!(server.read(&key).unwrap() == image);
    assert_eq!(answer.template_physical_size, i64::try_from(image.len()).unwrap());
    assert!(answer.template_size > answer.template_physical_size, "{answer:?}");
    assert_eq!((bench.files(), server.keys()), (Vec::new(), vec![key.clone()]));
    let list = ListTemplateCommand { store: Some(server.to()), ..ListTemplateCommand::default() };
    let infos = bench.ask(&list).await.template_infos.unwrap();
    assert_eq!(infos.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), [NAME]);
    // What has another digest, or is no image, never is there, and what was there stays.
    let wrong = DownloadCommand {
        checksum: Some(format!("{{SHA-256}}{}", "0".repeat(64))),
        ..command("golden/tiny.raw", ImageFormat::Raw)
    };
    let answer = bench.finish(&wrong).await;
    assert!(error_of(&answer).contains("SHA-256"), "{answer:?}");
    let answer = bench.finish(&command("golden/tiny.raw", ImageFormat::Qcow2)).await;
    assert!(error_of(&answer).contains("mismatch"), "{answer:?}");
    assert_eq!((server.keys(), server.unfinished()), (vec![key.clone()], 0));
    // A deletion ends what is still on its way there.
    let gated = bench.half_way(&command("gated/tiny.raw", ImageFormat::Raw)).await;
    let data = Some(template(&key, server.to()).into());
    let delete = DeleteCommand { data, ..DeleteCommand::default() };
    assert!(bench.raw(Envelope::of(&delete)).await.answer_base().unwrap().result);
    assert_eq!(server.keys(), Vec::<String>::new());
    let job = bench.parts.downloads.get(gated.job_id.as_deref().unwrap()).unwrap();
    assert!(job.wait(SOON).await && server.keys().is_empty());
}

#[tokio::test]
async fn an_object_of_the_bucket_has_a_link() {
    let (bench, server) = start().await;
    server.put(KEY, b"an image");
    let create = CreateEntityDownloadURLCommand {
        install_path: Some(KEY.to_owned()),
        filepath_in_extract_url: Some("3f0c2d6e-0000-4000-8000-000000000001".to_owned()),
        filename_in_extract_url: Some("d.qcow2".to_owned()),
        data: Some(template(KEY, server.to()).into()),
        ..CreateEntityDownloadURLCommand::default()
    };
    let answer = bench.ask(&create).await;
    assert!(answer.base.result, "{answer:?}");
    let web = links::web(&bench, false).await;
    let path = "/userdata/3f0c2d6e-0000-4000-8000-000000000001/d.qcow2";
    let reply = links::fetch(&web, "GET", path, "").await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"an image"[..]));
}

#[tokio::test]
async fn a_copy_is_shown_and_can_be_cancelled() {
    let (bench, server) = start().await;
    fill(&bench, "volumes/2/31/v.raw", &raw(9 << 20));
    server.fail("partNumber=1", 1, Fault::Stalled);
    let mut to = server.s3();
    to.socket_timeout = Some(60_000);
    let from = volume("volumes/2/31/v.raw", store_to());
    let copying = copy(&bench, from, volume("volumes/2/31", DataStoreTO::from(to)));
    let cancelling = async {
        let shown =
            || bench.parts.moves.status().into_iter().find(|copy| copy.done_bytes == 9 << 20);
        let shown = testkit::eventually("a copy is shown", SOON, shown).await;
        assert_eq!((shown.path.as_str(), shown.total_bytes), ("volumes/2/31/v.raw", 9 << 20));
        let (_, jobs) = bench.admin(Method::GET, "/jobs").await;
        assert_eq!(
            (&jobs[0]["state"], &jobs[0]["job"]),
            (&"copying".into(), &shown.job.clone().into())
        );
        let cancel = format!("/jobs/{}/cancel", shown.job);
        let (status, body) = bench.admin(Method::POST, &cancel).await;
        assert_eq!((status, &body["state"]), (StatusCode::OK, &"cancelled".into()));
        server.let_go();
    };
    let (answer, ()) = tokio::join!(copying, cancelling);
    let details = answer.base.details.unwrap();
    assert!(details.contains("an operator of the storage host cancelled"), "{details}");
    assert_eq!((server.keys(), server.unfinished()), (Vec::new(), 0));
    assert_eq!(bench.parts.moves.status(), []);
}

#[tokio::test]
async fn listings_are_complete_over_pages_and_fail_as_a_whole() {
    let (bench, server) = start().await;
    for id in 1..=8 {
        server.put(&format!("template/tmpl/2/{id}/{id}-2-name/t.qcow2"), &[1; 10]);
        server.put(&format!("volumes/2/{id}/v.raw"), &[1; 20]);
    }
    let list = ListTemplateCommand { store: Some(server.to()), ..ListTemplateCommand::default() };
    let answer = bench.ask(&list).await;
    let infos = answer.template_infos.unwrap();
    assert_eq!(infos.into_iter().count(), 8);
    assert_eq!(&*answer.sec_url.unwrap(), "secondary");
    let volumes = ListVolumeCommand { store: Some(server.to()), ..ListVolumeCommand::default() };
    let infos = bench.ask(&volumes).await.template_infos.unwrap();
    let ids: Vec<String> = infos.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    // A page in the middle that never comes.
    server.fail("continuation-token", 4, Fault::Refused("InternalError"));
    let answer = bench.ask(&list).await;
    assert!(!answer.base.result && answer.template_infos.is_none(), "never a short list");
    let stats =
        GetStorageStatsCommand { store: Some(server.to()), ..GetStorageStatsCommand::default() };
    let answer = bench.ask(&stats).await;
    assert_eq!((answer.capacity_bytes, answer.used_bytes), (2_147_483_647, 0));
}

#[tokio::test]
async fn deletions_take_what_is_below_and_nothing_that_only_begins_alike() {
    let (bench, server) = start().await;
    for key in [
        "snapshots/2/1/a",
        "snapshots/2/1/b",
        "snapshots/2/1/c",
        "snapshots/2/1/d",
        "snapshots/2/10/e",
    ] {
        server.put(key, b"x");
    }
    server.put(KEY, b"x");
    server.put("template/tmpl/2/2150/2150-2-name/d.qcow2", b"x");
    let delete = async |data: DataTO| {
        let delete = DeleteCommand { data: Some(data), ..DeleteCommand::default() };
        bench.raw(Envelope::of(&delete)).await.answer_base().unwrap()
    };
    server.fail("DELETE", 4, Fault::Refused("InternalError"));
    let base = delete(template(KEY, server.to()).into()).await;
    let details = base.details.unwrap();
    let told = format!(
        "Failed to delete template {KEY} from bucket secondary due to the following error: "
    );
    assert!(!base.result && details.starts_with(&told), "{details}");
    let base = delete(template(KEY, server.to()).into()).await;
    let expected = format!("Deleted template {KEY} from bucket secondary.");
    assert_eq!((base.result, base.details), (true, Some(expected)));
    let one = SnapshotObjectTO {
        path: Some("snapshots/2/1/a".to_owned()),
        data_store: Some(server.to()),
        ..SnapshotObjectTO::default()
    };
    assert!(delete(one.into()).await.result);
    let all = DeleteSnapshotsDirCommand {
        store: Some(server.to()),
        directory: Some("snapshots/2/1".to_owned()),
        ..DeleteSnapshotsDirCommand::default()
    };
    assert!(bench.raw(Envelope::of(&all)).await.answer_base().unwrap().result);
    assert_eq!(server.keys(), ["snapshots/2/10/e", "template/tmpl/2/2150/2150-2-name/d.qcow2"]);
}

#[tokio::test]
async fn a_template_of_a_snapshot_goes_into_the_bucket_and_not_onto_the_store() {
    let (bench, server) = start().await;
    fill(&bench, "snapshots/2/31/s", &scripted::image());
    let snapshot = SnapshotObjectTO {
        path: Some("snapshots/2/31/s".to_owned()),
        hypervisor_type: Some("KVM".to_owned()),
        data_store: Some(store_to()),
        ..SnapshotObjectTO::default()
    };
    let to = template("template/tmpl/2/215/215-2-name", server.to());
    let answer = copy(&bench, snapshot, to).await;
    let Some(DataTO::Template(made)) = answer.new_data else { panic!("{:?}", answer.base) };
    assert_eq!(made.path.as_deref(), Some("template/tmpl/2/215/215-2-name/s.qcow2"));
    assert_eq!((made.name, made.size), (None, Some(65_536)));
    assert_eq!(bench.files(), ["snapshots/2/31/s"]);
    assert_eq!(server.keys(), ["template/tmpl/2/215/215-2-name/s.qcow2"]);
}

/// A server whose zone has a bucket and a staging store asks for the bucket's lists before the host is
/// ready, and has templates downloaded to the staging store.
#[tokio::test]
async fn the_recorded_conversation_of_a_zone_with_a_bucket_is_followed() {
    let (bench, server) = start().await;
    server.put("volumes/2/31/v.raw", &[1; 20]);
    let text = include_str!("../../../../tests/vectors/conversations/ss-s3.jsonl");
    let mut bound = vec![
        ("127.0.0.1:9000".to_owned(), server.addr.to_string()),
        ("http://10.77.0.2:8000/tiny.qcow2".to_owned(), bench.images.url("golden/tiny.qcow2")),
        ("nfs://127.0.0.1/export/staging".to_owned(), STORE.to_owned()),
    ];
    let mut played = Vec::new();
    let messages: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_request = |message: &Value| message["flag_names"].to_string().contains("\"request\"");
    for message in messages.iter().filter(|it| it["dir"] == "m2a" && is_request(it)) {
        let (class, body) = message["json"][0].as_object().unwrap().iter().next().unwrap();
        if class.ends_with(".ReadyCommand") {
            continue;
        }
        let mut text = body.to_string();
        for (from, to) in &bound {
            text = text.replace(from, to);
        }
        let body = serde_json::value::RawValue::from_string(text).unwrap();
        let answer = bench.raw(Envelope { class: class.clone(), body }).await;
        let told: Value = serde_json::from_str(answer.body.get()).unwrap();
        assert_eq!(told["result"], true, "{class}: {told}");
        if let Some(job) = told["jobId"].as_str() {
            bound.push(("eac15423-b408-40b7-9347-0f825291db02".to_owned(), job.to_owned()));
            // The last question is the one after which it is forgotten.
            if let Some(job) = bench.parts.downloads.get(job) {
                assert!(job.wait(SOON).await);
            }
        }
        played.push((answer.simple_name().to_owned(), told));
    }
    let names: Vec<&str> = played.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "Answer",
        "Answer",
        "ListVolumeAnswer",
        "ListTemplateAnswer",
        "DownloadAnswer",
        "DownloadAnswer",
        "DownloadAnswer",
        "DownloadAnswer",
    ];
    assert_eq!(names, expected);
    assert_eq!(played[2].1["templateInfos"]["31"]["installPath"], "volumes/2/31/v.raw");
    let last = &played.last().unwrap().1;
    assert_eq!(
        (&last["downloadStatus"], &last["downloadPct"]),
        (&"DOWNLOADED".into(), &100.into())
    );
    assert_eq!(server.keys(), ["volumes/2/31/v.raw"]);
}

#[tokio::test]
async fn uploads_of_processes_that_died_are_given_up() {
    let (bench, server) = start().await;
    server.begin("volumes/2/31/v.raw");
    server.begin("other/programs/upload");
    let stats =
        GetStorageStatsCommand { store: Some(server.to()), ..GetStorageStatsCommand::default() };
    assert!(bench.ask(&stats).await.base.result);
    let cleared = || (server.unfinished() < 2).then_some(());
    testkit::eventually("an upload is given up", SOON, cleared).await;
    assert_eq!(server.unfinished(), 1, "what is not ours stays");
    // One that died a moment ago: its successor at the same key ends it.
    server.begin("volumes/2/31/v.raw");
    fill(&bench, "volumes/2/31/v.raw", &raw(9 << 20));
    let from = volume("volumes/2/31/v.raw", store_to());
    assert!(copy(&bench, from, volume("volumes/2/31", server.to())).await.base.result);
    assert_eq!(server.unfinished(), 1);
}

#[tokio::test]
async fn a_registration_goes_on_after_a_restart_without_another_command() {
    let (bench, server) = start().await;
    let command = DownloadCommand {
        install_path: Some(format!("template/tmpl/2/320/{NAME}")),
        store: Some(server.to()),
        sec_url: None,
        ..bench.download("gated/tiny.raw", ImageFormat::Raw)
    };
    let answer = bench.half_way(&command).await;
    assert_eq!((server.keys(), server.unfinished()), (Vec::new(), 0));
    let bench = bench.restarted().await;
    bench.images.open_gate();
    bench.images.open_gate();
    let done = bench.until_over(&command, answer).await;
    assert_eq!(done.download_status, Some(DownloadStatus::Downloaded), "{done:?}");
    assert!(server.read(&done.install_path.unwrap()).unwrap() == vector("tiny.raw"));
}
