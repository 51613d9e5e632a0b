//! The engine that speaks to an NFS server itself, against nfs-ganesha: another implementation of
//! everything, its port mapper included.

use agent_protocol::storage::{DownloadStatus, ImageFormat};
use bytes::Bytes;
use role::{DoctorFinding, TaskScope};
use secondary_storage::stores::nfs::{NfsSettings, NfsStore, Target, check};
use secondary_storage::stores::{Engine, InstallPath, Modes, Work};

use crate::bench::{Bench, NAME, SOON, STORE};
use crate::ganesha_server::Ganesha;
use crate::images::vector;

fn target(export: &str) -> Target {
    Target {
        host: "127.0.0.1".to_owned(),
        export: export.to_owned(),
        settings: NfsSettings::default(),
        deadline: SOON,
        tasks: TaskScope::new(),
    }
}

fn path(text: &str) -> InstallPath {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_real_server_is_written_read_listed_and_survived() {
    let server = Ganesha::start();
    let modes = Modes { directory: 0o777, file: 0o666 };
    let store = NfsStore::connect(target("/export/sec"), modes).await.unwrap();
    let work = Work::new();
    let space = store.probe(&work).await.unwrap();
    assert!(space.capacity > space.used && space.used > 0, "{space:?}");
    let content: Bytes =
        (0..20 << 20).map(|at: u32| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>().into();
    let directory = || path("template/tmpl/2/204");
    let mut part = store.create(&work, directory(), "dnld".parse().unwrap()).await.unwrap();
    for (at, chunk) in content.chunks(300_000).enumerate() {
        if at == 30 {
            server.kill();
        }
        part.write(at as u64 * 300_000, Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    let file = part.finish().await.unwrap();
    server.wait(2);
    server.kill();
    assert!(file.read(0..file.length()).await.unwrap() == content, "read back");
    let image = || "image.qcow2".parse().unwrap();
    store.rename(&work, directory(), "dnld".parse().unwrap(), image()).await.unwrap();
    let on_disk = std::fs::read(server.path().join("sec/template/tmpl/2/204/image.qcow2"));
    assert!(on_disk.unwrap() == content, "on the disk");
    let index = || "template.properties".parse().unwrap();
    for n in 0..300 {
        let properties = path(&format!("template/tmpl/3/{n}/template.properties"));
        store.ensure(&work, path(&format!("template/tmpl/3/{n}"))).await.unwrap();
        let content = Bytes::from(format!("id={n}"));
        store.put(&work, properties, "aside".parse().unwrap(), content).await.unwrap();
    }
    let listed = store.list(&work, path("template/tmpl"), index()).await.unwrap();
    assert_eq!(listed.len(), 300);
    assert!(listed.iter().any(|object| object.index == "id=299"));
    assert!(store.relocate(&work, path("template/tmpl/3/7"), path("volumes/9/7")).await.unwrap());
    let taken = store.relocate(&work, path("template/tmpl/3/8"), path("volumes/9/7")).await;
    assert!(taken.unwrap_err().to_string().contains("exists already"));
    assert!(store.remove_tree(&work, path("template/tmpl/3"), index()).await.unwrap());
    let left = store.entries(&work, Some(path("template/tmpl"))).await.unwrap().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn a_template_is_downloaded_to_a_real_server() {
    let server = Ganesha::start();
    let line = format!("stores = [{{ url = \"{STORE}\", engine = \"nfs\" }}]");
    let bench: Bench = Bench::at_with(server.path(), &line).await;
    let answer = bench.finish(&bench.download("golden/tiny.qcow2", ImageFormat::Qcow2)).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert!(bench.read(&answer.install_path.unwrap()) == vector("tiny.qcow2"));
    assert_eq!(bench.listed().await, [NAME]);
}

#[tokio::test]
async fn what_a_real_server_refuses_is_told_with_a_remedy() {
    let _server = Ganesha::start();
    let url = STORE.parse().unwrap();
    let look = async |export: &str| check(&url, target(export)).await;
    let found = look("/export/sec").await;
    assert!(
        matches!(&found, DoctorFinding::Warning { problem, .. } if problem.contains("empty")),
        "{found:?}"
    );
    let found = look("/export/squashed").await;
    let DoctorFinding::Fault { problem, remedy } = &found else { panic!("{found:?}") };
    assert!(problem.contains("may not write in 127.0.0.1:/export/squashed"), "{problem}");
    assert!(remedy.contains("no_root_squash"), "{remedy}");
    let found = look("/export/none").await;
    let DoctorFinding::Fault { problem, remedy } = &found else { panic!("{found:?}") };
    assert!(problem.contains("refuses export /export/none"), "{problem}");
    assert!(remedy.contains("export"), "{remedy}");
}
