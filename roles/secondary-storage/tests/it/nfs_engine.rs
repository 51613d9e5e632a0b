//! The engine that speaks to an NFS server itself, against a server with every fault there is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use role::{DoctorFinding, TaskScope};
use secondary_storage::stores::nfs::{NfsSettings, NfsStore, Target, check};
use secondary_storage::stores::{
    Engine, EngineError, EntryKind, InstallPath, Modes, Opened, Part, Work,
};

use crate::bench::{Bench, OnNfs, STORE};
use crate::nfs_server::{Endless, Faults, NfsServer, procedure};

pub const MODES: Modes = Modes { directory: 0o777, file: 0o666 };
pub const SOON: Duration = Duration::from_secs(20);
pub const AT_ONCE: Duration = Duration::from_millis(300);
pub const DIRECTORY: &str = "template/tmpl/2/204";

/// Makes a server do something wrong.
type Change<'a> = &'a dyn Fn(&mut Faults);

pub struct Rig {
    pub temp: tempfile::TempDir,
    pub server: NfsServer,
    pub work: Work,
}

pub fn path(text: &str) -> InstallPath {
    text.parse().unwrap()
}

impl Rig {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let server = NfsServer::start(temp.path());
        Self { temp, server, work: Work::new() }
    }

    pub fn target(&self, deadline: Duration) -> Target {
        let port = Some(self.server.addr.port());
        Target {
            host: "127.0.0.1".to_owned(),
            export: "/export/sec".to_owned(),
            settings: NfsSettings { port, mount_port: port, ..NfsSettings::default() },
            deadline,
            tasks: TaskScope::new(),
        }
    }

    pub async fn store_within(&self, deadline: Duration) -> Result<NfsStore, EngineError> {
        NfsStore::connect(self.target(deadline), MODES).await
    }

    pub async fn store(&self) -> NfsStore {
        self.store_within(SOON).await.unwrap()
    }

    pub async fn create(&self, store: &NfsStore) -> Box<dyn Part> {
        let name = "dnld1tmp_".parse().unwrap();
        store.create(&self.work, path(DIRECTORY), name).await.unwrap()
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.temp.path().join(file)).unwrap()
    }

    pub fn fill(&self, files: &[&str]) {
        for file in files {
            let file = self.temp.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "content").unwrap();
        }
    }
}

/// Bytes of which no two parts are alike, and none is zero.
pub fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from((at / 251 + at * 7) % 255).unwrap() | 1).collect()
}

pub async fn write_all(part: &mut Box<dyn Part>, content: &Bytes) -> Result<(), EngineError> {
    let mut offset = 0;
    // Neither the server's size nor a divisor of it.
    for chunk in content.chunks(100_003) {
        part.write(offset as u64, Bytes::copy_from_slice(chunk)).await?;
        offset += chunk.len();
    }
    Ok(())
}

pub async fn read_all(file: &dyn Opened) -> Result<Bytes, EngineError> {
    file.read(0..file.length()).await
}

/// Writes and reads back a file under `faults`; it must come out as it went in.
async fn survives(what: &str, faults: impl FnOnce(&mut Faults)) -> Rig {
    let rig = Rig::new();
    let store = rig.store().await;
    rig.server.faults(faults);
    let content = pattern(9 << 20 | 77);
    let mut part = rig.create(&store).await;
    write_all(&mut part, &content).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let file = part.finish().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    // What was acknowledged outlives every restart from now on.
    rig.server.restart();
    let read = read_all(&*file).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(read == content, "{what}: what is read");
    assert!(rig.read(&format!("{DIRECTORY}/dnld1tmp_")) == content, "{what}: what is on the disk");
    rig
}

/// Whoever shows the store's figures keeps it; its connections do not hold up the role's stop.
#[tokio::test]
async fn a_scope_that_ends_does_not_wait_for_idle_connections() {
    let rig = Rig::new();
    let target = rig.target(SOON);
    let tasks = target.tasks.clone();
    let store = NfsStore::connect(target, MODES).await.unwrap();
    tasks.close();
    tokio::time::timeout(SOON, tasks.wait()).await.expect("its connections end");
    drop(store);
}

#[tokio::test]
async fn a_file_survives_everything_a_server_may_do() {
    survives("nothing", |_| {}).await;
    survives("fragments", |faults| faults.fragments = Some(1000)).await;
    survives("short reads and writes", |faults| faults.short = Some(50_001)).await;
    survives("no optional attributes", |faults| faults.bare = true).await;
    survives("cut before writes", |faults| {
        faults.cut_before.insert(procedure::WRITE, 5);
    })
    .await;
    survives("cut after writes", |faults| {
        faults.cut_after.insert(procedure::WRITE, 5);
    })
    .await;
    survives("cut at reads", |faults| {
        faults.cut_after.insert(procedure::READ, 3);
    })
    .await;
    survives("later", |faults| {
        faults.refuse.insert(procedure::WRITE, (10008, 2));
    })
    .await;
}

#[tokio::test]
async fn what_a_restarted_server_lost_is_written_again() {
    let rig = survives("restarts at commit", |faults| faults.restart_at_commit = 3).await;
    let pieces = (9 << 20) / (128 << 10);
    assert!(rig.server.calls(procedure::WRITE) > pieces, "something was written twice");
}

#[tokio::test]
async fn a_server_that_loses_everything_again_and_again_is_no_success() {
    let rig = Rig::new();
    let store = rig.store().await;
    rig.server.faults(|faults| faults.restart_at_commit = usize::MAX);
    let mut part = rig.create(&store).await;
    let written = write_all(&mut part, &pattern(300_000)).await;
    let finished = match written {
        Ok(()) => part.finish().await.map(drop),
        Err(error) => Err(error),
    };
    // Each restart takes the answer to the COMMIT with it, so the deadline may come first.
    let error = finished.unwrap_err().to_string();
    assert!(
        error.contains("lost") || error.contains("broke") || error.contains("answer"),
        "{error}"
    );
}

#[tokio::test]
async fn handles_that_the_server_forgot_are_looked_up_again() {
    let rig = Rig::new();
    let store = rig.store().await;
    store.pin(&rig.work, None).await.unwrap();
    let content = pattern(3 << 20);
    let mut part = rig.create(&store).await;
    part.write(0, content.slice(..1 << 20)).await.unwrap();
    rig.server.forget();
    part.write(1 << 20, content.slice(1 << 20..)).await.unwrap();
    let file = part.finish().await.unwrap();
    rig.server.forget();
    assert!(read_all(&*file).await.unwrap() == content);
    rig.server.forget();
    let (directory, image) = (path(DIRECTORY), "a.qcow2".parse().unwrap());
    store.rename(&rig.work, directory, "dnld1tmp_".parse().unwrap(), image).await.unwrap();
    assert!(rig.read(&format!("{DIRECTORY}/a.qcow2")) == content);
    // The file has another name now: under the old one there is nothing.
    rig.server.forget();
    let error = read_all(&*file).await.unwrap_err().to_string();
    assert_eq!(error, "dnld1tmp_ was removed or replaced since it was opened");
}

#[tokio::test]
async fn another_directory_under_the_export_is_not_the_store() {
    let rig = Rig::new();
    let store = rig.store().await;
    let (marker, aside) = (path(".quickcloud-store"), "aside".parse().unwrap());
    let text = "12345678-1234-1234-1234-123456789abc";
    store.put(&rig.work, marker, aside, Bytes::from_static(text.as_bytes())).await.unwrap();
    store.pin(&rig.work, Some(text.to_owned())).await.unwrap();
    store.probe(&rig.work).await.unwrap();
    std::fs::remove_file(rig.temp.path().join(".quickcloud-store")).unwrap();
    let lost = |error: EngineError| matches!(error, EngineError::Lost(_));
    assert!(lost(store.probe(&rig.work).await.unwrap_err()));
    let index = || "template.properties".parse().unwrap();
    assert!(lost(store.list(&rig.work, path("template"), index()).await.unwrap_err()));
    // Nor is it after the server forgot the old one.
    rig.server.forget();
    assert!(lost(store.kind(&rig.work, path("template")).await.unwrap_err()));
}

#[tokio::test]
async fn a_call_that_was_executed_before_the_connection_broke_is_a_success() {
    let rig = Rig::new();
    let store = rig.store().await;
    rig.fill(&["volumes/2/9/v.qcow2", "volumes/2/9/volume.properties", "volumes/2/8/old"]);
    rig.server.faults(|faults| {
        for number in [9, procedure::REMOVE, 13, procedure::RENAME] {
            faults.cut_after.insert(number, 1);
        }
    });
    let (directory, new) = (path("volumes/2/8"), "new".parse().unwrap());
    store.rename(&rig.work, directory, "old".parse().unwrap(), new).await.unwrap();
    assert!(rig.temp.path().join("volumes/2/8/new").exists());
    store.ensure(&rig.work, path("a/b")).await.unwrap();
    let first = "volume.properties".parse().unwrap();
    assert!(store.remove_tree(&rig.work, path("volumes/2/9"), first).await.unwrap());
    assert!(!rig.temp.path().join("volumes/2/9").exists());
}

#[tokio::test]
async fn a_silent_server_fails_its_own_operations_within_their_deadline() {
    let rig = Rig::new();
    let store = Arc::new(rig.store_within(AT_ONCE).await.unwrap());
    let other = Rig::new();
    let other_store = other.store().await;
    let mut part = rig.create(&store).await;
    rig.server.faults(|faults| faults.silent = true);
    for _round in 0..2 {
        let probe = store.probe(&rig.work).await;
        assert!(matches!(probe, Err(EngineError::Stalled(limit)) if limit == AT_ONCE), "{probe:?}");
        other_store.probe(&other.work).await.unwrap();
    }
    part.write(0, pattern(1000)).await.unwrap();
    assert!(matches!(part.sync().await, Err(EngineError::Stalled(_))));
    // Nothing of it is under way any more.
    tokio::time::timeout(SOON, rig.work.ended()).await.unwrap();
    rig.server.faults(|faults| faults.silent = false);
    store.probe(&Work::new()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_waited_for() {
    let rig = Rig::new();
    let store = rig.store().await;
    rig.server.faults(|faults| faults.down = true);
    rig.server.restart();
    let probing = store.probe(&rig.work);
    let back = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        rig.server.faults(|faults| faults.down = false);
    };
    let (probed, ()) = tokio::join!(probing, back);
    assert!(probed.unwrap().capacity > 0);
}

#[tokio::test]
async fn listings_are_complete_or_an_error() {
    let rig = Rig::new();
    let store = rig.store().await;
    let files: Vec<String> =
        (0..150).map(|n| format!("template/tmpl/2/{n}/template.properties")).collect();
    rig.fill(&files.iter().map(String::as_str).collect::<Vec<_>>());
    rig.fill(&["template/tmpl/2/7/image.qcow2", "template/tmpl/2/none/x"]);
    std::os::unix::fs::symlink("/etc", rig.temp.path().join("template/tmpl/2/link")).unwrap();
    let list =
        || store.list(&rig.work, path("template/tmpl"), "template.properties".parse().unwrap());
    let faults = |change: &dyn Fn(&mut Faults)| {
        rig.server.faults(|faults| {
            *faults = Faults::default();
            change(faults);
        })
    };
    let small = |faults: &mut Faults| faults.part = Some(10);
    for (what, change) in [
        ("nothing", (&|_: &mut Faults| {}) as &dyn Fn(&mut Faults)),
        ("small parts", &small),
        ("names only", &|faults| faults.bare = true),
        ("no READDIRPLUS", &|faults| {
            faults.refuse.insert(procedure::READDIRPLUS, (10004, usize::MAX));
        }),
        ("positions lost", &|faults| {
            small(faults);
            faults.directory_changes = 3;
        }),
        ("cut", &|faults| {
            faults.cut_after.insert(procedure::READDIRPLUS, 4);
        }),
        ("one handle stale", &|faults| {
            faults.refuse.insert(procedure::READDIRPLUS, (70, 1));
        }),
    ] {
        faults(change);
        let listed = list().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(listed.len(), 150, "{what}");
        let seventh = listed.iter().find(|o| o.directory == path("template/tmpl/2/7")).unwrap();
        let mut names = seventh.names.clone();
        names.sort();
        assert_eq!(names, ["image.qcow2", "template.properties"], "{what}");
        assert_eq!(seventh.index, "content", "{what}");
    }
    for (what, change, expected) in [
        (
            "no end",
            (&|faults: &mut Faults| faults.endless = Some(Endless::Names)) as &dyn Fn(&mut Faults),
            "has too many entries",
        ),
        ("a circle", &|faults| faults.endless = Some(Endless::Circle), "in circles"),
        ("empty parts", &|faults| faults.endless = Some(Endless::Nothing), "without end"),
        (
            "always changing",
            &|faults| {
                small(faults);
                faults.directory_changes = usize::MAX;
            },
            "changes all the time",
        ),
        (
            "an error at the end",
            &|faults| {
                faults.refuse.insert(procedure::LOOKUP, (5, usize::MAX));
            },
            "input/output error",
        ),
    ] {
        faults(change);
        let error = list().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[tokio::test]
async fn hostile_replies_are_errors_and_cost_nothing() {
    let cases: [(&str, Change<'_>); 6] = [
        ("a record of 2 GiB", &|faults| faults.header = Some([0xff, 0xff, 0xff, 0xff])),
        ("endless empty fragments", &|faults| faults.header = Some([0, 0, 0, 0])),
        ("the reply to another call", &|faults| faults.wrong_xid = true),
        ("an unknown type", &|faults| {
            faults.instead.insert(procedure::GETATTR, vec![0, 0, 0, 0, 0, 0, 0, 99]);
        }),
        ("half a reply", &|faults| {
            faults.instead.insert(procedure::GETATTR, vec![0; 12]);
        }),
        ("a status that nobody knows", &|faults| {
            faults.refuse.insert(procedure::GETATTR, (4711, usize::MAX));
        }),
    ];
    for (what, change) in cases {
        let rig = Rig::new();
        rig.server.faults(|faults| change(faults));
        let outcome = rig.store_within(AT_ONCE).await;
        let error = outcome.map(|_| ()).unwrap_err();
        assert!(!bedrock::chain(&error).is_empty(), "{what}");
    }
    // A handle and data that are longer than the reply.
    let rig = Rig::new();
    let store = rig.store().await;
    rig.fill(&["a/f"]);
    for (number, reply) in [
        (procedure::LOOKUP, [0_u32, 0x7fff_ffff, 0, 0].map(u32::to_be_bytes).concat()),
        (procedure::READ, [0_u32, 0, 7, 1, 0xffff_fff0].map(u32::to_be_bytes).concat()),
    ] {
        rig.server.faults(|faults| {
            faults.instead.clear();
            faults.instead.insert(number, reply);
        });
        let error = store.get(&rig.work, path("a/f")).await.unwrap_err();
        assert!(bedrock::chain(&error).contains("cannot be read"), "{error}");
    }
}

#[tokio::test]
async fn links_are_found_and_never_followed() {
    let rig = Rig::new();
    let store = rig.store().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    let link = |name: &str, to: &std::path::Path| {
        std::os::unix::fs::symlink(to, rig.temp.path().join(name)).unwrap();
    };
    link("template", outside.path());
    link("file", &outside.path().join("secret"));
    let error = store.get(&rig.work, path("template/secret")).await.unwrap_err().to_string();
    assert_eq!(error, "template is a symbolic link, which is not followed");
    assert!(store.get(&rig.work, path("file")).await.is_err());
    assert!(store.open(&rig.work, path("file")).await.is_err());
    assert!(store.ensure(&rig.work, path("template/x")).await.is_err());
    let kind = store.kind(&rig.work, path("file")).await.unwrap();
    assert_eq!(kind, Some(EntryKind::Other));
    std::fs::create_dir(rig.temp.path().join("tree")).unwrap();
    link("tree/link", outside.path());
    let first = || "none".parse().unwrap();
    assert!(store.remove_tree(&rig.work, path("tree"), first()).await.unwrap());
    assert!(!store.remove_tree(&rig.work, path("tree"), first()).await.unwrap(), "twice is fine");
    assert!(outside.path().join("secret").exists());
}

#[tokio::test]
async fn refusals_say_who_was_refused_and_what_helps() {
    let rig = Rig::new();
    rig.server.faults(|faults| faults.refuse_mount = Some(13));
    let error = bedrock::chain(&rig.store_within(SOON).await.map(|_| ()).unwrap_err());
    let expected = "the NFS server refuses export /export/sec: access denied: this host is not in \
                    the export's list of clients";
    assert_eq!(error, expected);
    rig.server.faults(|faults| {
        faults.refuse_mount = None;
        faults.flavours = Some(vec![390_003]);
    });
    let error = rig.store_within(SOON).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("wants Kerberos"), "{error}");
    rig.server.faults(|faults| faults.flavours = None);
    let store = rig.store().await;
    rig.server.faults(|faults| {
        faults.refuse.insert(9, (13, 1));
    });
    let error = store.ensure(&rig.work, path("template")).await.unwrap_err().to_string();
    assert!(error.starts_with("template: permission denied (MKDIR)"), "{error}");
    assert!(error.contains("user 0, group 0") && error.contains("no_root_squash"), "{error}");
    // A full disk is told apart: a store that is full is still a store.
    rig.server.faults(|faults| {
        faults.refuse.insert(procedure::WRITE, (28, usize::MAX));
    });
    let mut part = rig.create(&store).await;
    part.write(0, pattern(1000)).await.unwrap();
    let EngineError::Io(error) = part.sync().await.unwrap_err() else { panic!("an I/O error") };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("no space left on the server"), "{error}");
}

#[tokio::test]
async fn the_server_is_called_as_configured() {
    let rig = Rig::new();
    let mut target = rig.target(SOON);
    target.settings = NfsSettings {
        uid: 107,
        gid: 64055,
        privileged_port: Some(false),
        ..target.settings.clone()
    };
    NfsStore::connect(target, MODES).await.unwrap();
    assert_eq!(rig.server.callers(), [(107, 64055)]);
    assert!(rig.server.peers().iter().all(|port| *port >= 1024), "{:?}", rig.server.peers());
    if nix::unistd::geteuid().is_root() {
        let rig = Rig::new();
        rig.store().await;
        assert!(rig.server.peers().iter().all(|port| *port < 1024), "{:?}", rig.server.peers());
    }
}

#[tokio::test]
async fn a_check_names_what_is_wrong() {
    let rig = Rig::new();
    let url = STORE.parse().unwrap();
    let look = || check(&url, rig.target(SOON));
    let found = look().await;
    assert!(
        matches!(&found, DoctorFinding::Warning { problem, .. } if problem.contains("empty")),
        "{found:?}"
    );
    rig.fill(&["template/tmpl/x"]);
    let found = look().await;
    assert!(
        matches!(&found, DoctorFinding::Good(text) if text.contains("holds store")),
        "{found:?}"
    );
    rig.server.faults(|faults| {
        // ACCESS that grants nothing but reading.
        faults.instead.insert(4, [0_u32, 0, 3].map(u32::to_be_bytes).concat());
    });
    let found = look().await;
    assert!(
        matches!(&found, DoctorFinding::Fault { problem, remedy }
            if problem.contains("user 0, group 0 may not write") && remedy.contains("no_root_squash")),
        "{found:?}"
    );
    rig.server.faults(|faults| faults.refuse_mount = Some(2));
    let found = look().await;
    assert!(
        matches!(&found, DoctorFinding::Fault { problem, .. } if problem.contains("no such export")),
        "{found:?}"
    );
    let mut target = rig.target(SOON);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    target.settings.mount_port = Some(free.local_addr().unwrap().port());
    drop(free);
    let found = check(&url, target).await;
    assert!(
        matches!(&found, DoctorFinding::Fault { problem, remedy }
            if problem.contains("Connection refused") && remedy.contains("2049")),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_download_survives_a_restart_of_its_server() {
    let bench = Bench::<OnNfs>::new().await;
    let server = bench.server.as_ref().unwrap();
    server.faults(|faults| faults.restart_at_commit = 1);
    let command = bench.download("golden/tiny.qcow2", agent_protocol::storage::ImageFormat::Qcow2);
    let answer = bench.finish(&command).await;
    let path = answer.install_path.unwrap();
    assert!(bench.read(&path) == crate::images::vector("tiny.qcow2"));
    assert_eq!(bench.listed().await, [crate::bench::NAME]);
}
