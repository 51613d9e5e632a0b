//! Stores in a bucket: objects carried there and back, listed and deleted, over a server that fails.

use agent_protocol::Envelope;
use agent_protocol::storage::{
    CopyCmdAnswer, CopyCommand, DataStoreTO, DataTO, DeleteCommand, DeleteSnapshotsDirCommand,
    GetStorageStatsCommand, ImageFormat, ListTemplateCommand, ListVolumeCommand, SnapshotObjectTO,
    TemplateObjectTO, VolumeObjectTO,
};

use crate::bench::{Bench, OnDirectory, SOON, store_to};
use crate::images::raw;
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
}
