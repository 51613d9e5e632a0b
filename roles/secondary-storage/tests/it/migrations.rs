//! Objects copied from one store to another: answers as recorded, files whole, holes kept.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use agent_protocol::Envelope;
use agent_protocol::storage::{
    CopyCmdAnswer, CopyCommand, DataStoreTO, DataTO, ListTemplateCommand, SnapshotObjectTO,
    TemplateObjectTO, VolumeObjectTO,
};

use crate::bench::{Bench, InMemory, OnDirectory, SOON, STORE, context, store_to};
use crate::scripted;

const OTHER: &str = "nfs://127.0.0.1/export/sec2";

/// A host with two stores.
struct Two {
    bench: Bench<OnDirectory>,
    temp: tempfile::TempDir,
}

impl Two {
    async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        std::fs::create_dir_all(&from).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        let stores = format!(
            "stores = [{{ url = \"{STORE}\", directory = \"{}\" }}, \
             {{ url = \"{OTHER}\", directory = \"{}\" }}]",
            from.display(),
            to.display()
        );
        Self { bench: Bench::with(&stores).await, temp }
    }

    fn from(&self, path: &str) -> PathBuf {
        self.temp.path().join("from").join(path)
    }

    fn to(&self, path: &str) -> PathBuf {
        self.temp.path().join("to").join(path)
    }

    fn fill(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.from(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    async fn copy(&self, from: impl Into<DataTO>, to: impl Into<DataTO>) -> CopyCmdAnswer {
        self.bench.ask(&command(from, to)).await
    }
}

fn command(from: impl Into<DataTO>, to: impl Into<DataTO>) -> CopyCommand {
    CopyCommand { src_to: Some(from.into()), dest_to: Some(to.into()), ..CopyCommand::default() }
}

fn template(path: &str, store: DataStoreTO) -> TemplateObjectTO {
    TemplateObjectTO {
        path: Some(path.to_owned()),
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

fn snapshot(path: &str, store: DataStoreTO) -> SnapshotObjectTO {
    SnapshotObjectTO {
        path: Some(path.to_owned()),
        data_store: Some(store),
        ..SnapshotObjectTO::default()
    }
}

fn other() -> DataStoreTO {
    DataStoreTO::nfs(OTHER)
}

/// Every file below a directory but the marker, with its content.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if !path.ends_with(".quickcloud-store") {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

const PROPERTIES: &str = "uniquename=215-2-x\nfilename=d.qcow2\nvirtualsize=65536\nsize=86016\n\
    qcow2=true\nqcow2.filename=d.qcow2\nqcow2.size=86016\nqcow2.virtualsize=65536\nid=215\npublic=true\n";

#[tokio::test]
async fn a_template_is_copied_with_all_that_lies_beside_it_and_listed_last() {
    let two = Two::new().await;
    let image = scripted::image();
    two.fill("template/tmpl/2/215/d.qcow2", &image);
    two.fill("template/tmpl/2/215/template.properties", PROPERTIES);
    two.fill("template/tmpl/2/215/deep/er/note.txt", "x");
    two.fill("template/tmpl/2/215/dnld1tmp_", "another host's download");
    let from = template("template/tmpl/2/215/d.qcow2", store_to());
    let to = template("template/tmpl/2/215", other());
    let answer = two.bench.raw(Envelope::of(&command(from.clone(), to.clone()))).await;
    let recorded = "{\"newData\":{\"org.apache.cloudstack.storage.to.TemplateObjectTO\":{\"path\":\
        \"template/tmpl/2/215/d.qcow2\",\"id\":0,\"format\":\"QCOW2\",\"accountId\":0,\"hvm\":false,\
        \"size\":65536,\"physicalSize\":86016,\"bootable\":false,\"directDownload\":false,\
        \"deployAsIs\":false,\"followRedirects\":false}},\"result\":true,\"contextMap\":{},\"wait\":0,\
        \"bypassHostMaintenance\":false}";
    assert_eq!(answer.simple_name(), "CopyCmdAnswer");
    assert_eq!(answer.body.get(), recorded);
    let copied = tree(&two.to("template"));
    assert_eq!(copied.len(), 3, "{:?}", copied.keys());
    assert_eq!(copied["tmpl/2/215/d.qcow2"], image);
    assert_eq!(copied["tmpl/2/215/template.properties"], PROPERTIES.as_bytes());
    assert!(two.from("template/tmpl/2/215/d.qcow2").exists(), "the server deletes it");
    let list = ListTemplateCommand { store: Some(other()), ..ListTemplateCommand::default() };
    let listed = two.bench.ask(&list).await.template_infos.unwrap();
    assert_eq!(listed.into_iter().next().unwrap().0, "215-2-x");
    // The answer was lost and the command comes again.
    let again = two.copy(from, to).await;
    assert!(again.base.result);
    assert_eq!(tree(&two.to("template")), copied);
}

#[tokio::test]
async fn volumes_and_snapshots_are_copied_as_the_server_names_them() {
    let two = Two::new().await;
    two.fill("volumes/2/31/v.qcow2", scripted::image());
    two.fill("volumes/2/31/volume.properties", "x");
    two.fill("snapshots/2/45/one", "first");
    two.fill("snapshots/2/45/two", "second");
    two.fill("snapshots/2/46/u/u.ovf", "ovf");
    two.fill("snapshots/2/46/u/u-disk0.vmdk", "disk");
    let from = volume("volumes/2/31/v.qcow2", store_to());
    let answer = two.bench.raw(Envelope::of(&command(from, volume("volumes/2/31", other())))).await;
    assert!(
        answer.body.get().starts_with(
            "{\"newData\":{\"org.apache.cloudstack.storage.to.VolumeObjectTO\":{\"size\":65536,\
             \"path\":\"volumes/2/31/v.qcow2\",\"accountId\":0,\"id\":0,"
        ),
        "{}",
        answer.body.get()
    );
    // Two of one volume at a time, as recorded.
    let copy = |name: &'static str| {
        let from = snapshot(name, store_to());
        two.copy(from, snapshot("snapshots/2/45", other()))
    };
    let (one, second) = tokio::join!(copy("snapshots/2/45/one"), copy("snapshots/2/45/two"));
    for (answer, path) in [(one, "snapshots/2/45/one"), (second, "snapshots/2/45/two")] {
        assert!(answer.base.result, "{answer:?}");
        let Some(DataTO::Snapshot(made)) = answer.new_data else { panic!("{path}") };
        assert_eq!((made.path.as_deref(), made.physical_size), (Some(path), 0));
    }
    let from = snapshot("snapshots/2/46/u/u", store_to());
    let answer = two.copy(from, snapshot("snapshots/2/46", other())).await;
    let Some(DataTO::Snapshot(made)) = answer.new_data else { panic!("{:?}", answer.base) };
    assert_eq!(made.path.as_deref(), Some("snapshots/2/46/u/u"));
    assert_eq!(tree(&two.to("")), tree(&two.from("")));
}

#[tokio::test]
async fn what_is_not_there_or_not_a_place_is_refused_by_name() {
    let two = Two::new().await;
    two.fill("template/tmpl/2/215/d.qcow2", "x");
    two.fill("template/tmpl/2/216/e.qcow2", "x");
    two.fill("snapshots/2/45/one", "x");
    for (from, to, told) in [
        ("template/tmpl/2/215/other.qcow2", "template/tmpl/2/215", "there is no file"),
        ("template/tmpl/2/999", "template/tmpl/2/999", "there is no file"),
        ("template/tmpl/2", "template/tmpl/2/215", "is not a place of a template"),
        ("template/tmpl/2/215/d.qcow2", "volumes/2/215", "is not a place of a template"),
        ("template/tmpl/2/215/d.qcow2", "template/tmpl/2", "is not a place of a template"),
        ("../etc", "template/tmpl/2/215", "is not a path below a store"),
        ("", "template/tmpl/2/215", "is not a path below a store"),
    ] {
        let answer = two.copy(template(from, store_to()), template(to, other())).await;
        let details = answer.base.details.unwrap();
        assert!(!answer.base.result && details.contains(told), "{from} to {to}: {details}");
    }
    for from in ["snapshots/2/45/missing", "snapshots/2/45", "snapshots/2/45/one/x"] {
        let to = snapshot("snapshots/2/45", other());
        let answer = two.copy(snapshot(from, store_to()), to).await;
        assert!(!answer.base.result, "{from}");
    }
    let answer =
        two.copy(volume("volumes/2/1/v", store_to()), snapshot("snapshots/2/45", other())).await;
    assert!(answer.base.details.unwrap().contains("VolumeObjectTO to SnapshotObjectTO"));
    assert!(tree(&two.to("")).is_empty());
}

#[tokio::test]
async fn holes_are_kept() {
    let two = Two::new().await;
    two.fill("volumes/2/31/v.raw", "");
    let file =
        std::fs::OpenOptions::new().write(true).open(two.from("volumes/2/31/v.raw")).unwrap();
    let length = 10_u64 << 30;
    file.set_len(length).unwrap();
    for at in [0, 3 << 30, length - 4096] {
        file.write_all_at(&[7; 4096], at).unwrap();
    }
    let from = volume("volumes/2/31/v.raw", store_to());
    let answer = two.copy(from, volume("volumes/2/31", other())).await;
    assert!(answer.base.result, "{answer:?}");
    let copy = std::fs::File::open(two.to("volumes/2/31/v.raw")).unwrap();
    let metadata = copy.metadata().unwrap();
    assert_eq!(metadata.len(), length);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let mut bytes = [0; 4096];
    for at in [0, 3 << 30, length - 4096] {
        copy.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(bytes, [7; 4096], "{at}");
    }
}

/// On a store without holes and without a kernel that copies.
#[tokio::test]
async fn a_store_of_another_kind_gets_the_same_bytes() {
    let bench = Bench::<InMemory>::new().await;
    let memory = bench.memory.clone().unwrap();
    let mut image = vec![0_u8; 5 << 20];
    image[1_000_000..1_300_000].fill(1);
    image.extend_from_slice(b"end");
    memory.write("template/tmpl/2/1/d.raw", &image);
    let to = template("template/tmpl/2/2", store_to());
    let answer = bench.ask(&command(template("template/tmpl/2/1/d.raw", store_to()), to)).await;
    assert!(answer.base.result, "{answer:?}");
    assert_eq!(memory.read("template/tmpl/2/2/d.raw").unwrap(), image);
}

#[tokio::test]
async fn a_copy_that_fails_or_dies_at_any_step_leaves_nothing() {
    let image = vec![3_u8; 3 << 20];
    for step in ["create", "write", "finish", "rename"] {
        for dies in [false, true] {
            let mut bench = Bench::<InMemory>::new().await;
            let memory = bench.memory.clone().unwrap();
            memory.write("template/tmpl/2/1/d.raw", &image);
            memory.write("template/tmpl/2/1/template.properties", PROPERTIES.as_bytes());
            let before = bench.files();
            let from = template("template/tmpl/2/1/d.raw", store_to());
            let command = command(from, template("template/tmpl/2/2", store_to()));
            if dies {
                memory.hang(step);
                let stuck = || (memory.stuck() > 0).then_some(());
                tokio::select! {
                    answer = bench.ask(&command) => panic!("{step}: {answer:?}"),
                    () = testkit::eventually("at the step", SOON, stuck) => {}
                }
                bench = bench.restarted_after(|| memory.die()).await;
                bench.parts.moves.recover(bench.cx.shutdown.clone()).await;
            } else {
                memory.fail(step, 1);
                let answer = bench.ask(&command).await;
                assert!(answer.base.details.unwrap().contains(&format!("{step} fails")));
            }
            assert_eq!(bench.files(), before, "{step}, dies: {dies}");
            assert!(bench.ask(&command).await.base.result);
            assert_eq!(bench.files().len(), before.len() + 2);
        }
    }
}

#[tokio::test]
async fn a_source_that_changes_meanwhile_is_an_error() {
    let two = Two::new().await;
    two.fill("volumes/2/31/v.raw", vec![1; 1 << 20]);
    let moves = &two.bench.parts.moves;
    let stores = &two.bench.parts.stores;
    let store = stores.open(&STORE.parse().unwrap(), None).await.unwrap();
    let path = "volumes/2/31/v.raw".parse().unwrap();
    let original = secondary_storage::moving::copy::Original::open(&store, &path).await.unwrap();
    original.verify().await.unwrap();
    two.fill("volumes/2/31/v.raw", vec![2; 1 << 20]);
    let error = original.verify().await.unwrap_err().to_string();
    assert!(error.starts_with("volumes/2/31/v.raw changed while it was copied"), "{error}");
    std::fs::remove_file(two.from("volumes/2/31/v.raw")).unwrap();
    original.verify().await.unwrap_err();
    assert!(!moves.is_busy(store.url(), &path));
}

#[tokio::test]
async fn a_copy_ends_with_the_servers_patience() {
    let bench = Bench::<InMemory>::new().await;
    let memory = bench.memory.clone().unwrap();
    memory.write("template/tmpl/2/1/d.raw", &[3; 1 << 20]);
    let from = template("template/tmpl/2/1/d.raw", store_to());
    let copy = command(from, template("template/tmpl/2/2", store_to()));
    memory.hang("write");
    let mut context = context();
    context.wait = Some(std::time::Duration::from_millis(20));
    let handling = bench.parts.commands.handle(Envelope::of(&copy), &context);
    let answer: CopyCmdAnswer = handling.await.open().unwrap();
    let details = answer.base.details.unwrap();
    assert!(details.starts_with("timeout: it was not finished within 20ms"), "{details}");
}

#[tokio::test]
async fn a_copy_ends_with_a_deletion() {
    use agent_protocol::storage::DeleteCommand;
    let bench = Bench::<InMemory>::new().await;
    let memory = bench.memory.clone().unwrap();
    memory.write("template/tmpl/2/1/d.raw", &[3; 1 << 20]);
    let from = template("template/tmpl/2/1/d.raw", store_to());
    let copy = command(from, template("template/tmpl/2/2", store_to()));
    memory.hang("finish");
    let deleting = async {
        testkit::eventually("at the step", SOON, || (memory.stuck() > 0).then_some(())).await;
        let data = DataTO::from(template("template/tmpl/2/2/d.raw", store_to()));
        let delete = DeleteCommand { data: Some(data), ..DeleteCommand::default() };
        let deleted = bench.ask(&delete);
        let release = async {
            tokio::task::yield_now().await;
            memory.release();
        };
        tokio::join!(deleted, release).0
    };
    let (copied, deleted) = tokio::join!(bench.ask(&copy), deleting);
    assert!(copied.base.details.unwrap().contains("ended this one"));
    assert!(deleted.base.result);
    assert_eq!(bench.files(), ["template/tmpl/2/1/d.raw"]);
}
