//! The engine that speaks to an NFS server itself, against nfs-ganesha: another implementation of
//! everything, its port mapper included.
//!
//! The server runs in a network namespace of its own, because there is one port mapper to a network;
//! the test's thread enters it, and the sockets that it makes are there.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_protocol::storage::{DownloadStatus, ImageFormat};
use bytes::Bytes;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use role::{DoctorFinding, TaskScope};
use secondary_storage::stores::nfs::{NfsSettings, NfsStore, Target, check};
use secondary_storage::stores::{Engine, InstallPath, Modes, Work};

use crate::bench::{Bench, NAME, SOON, STORE};
use crate::images::vector;

/// Exports `sec` writable for root and `squashed` not, and starts again whenever it ends.
const SCRIPT: &str = "ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/nfs
mount -t tmpfs tmpfs /var/lib/nfs
setpriv --pdeathsig KILL rpcbind -f &
while :; do setpriv --pdeathsig KILL ganesha.nfsd -F -L $0/log -f $0/conf -p $0/pid; done";

struct Ganesha {
    supervisor: Child,
    directory: tempfile::TempDir,
}

impl Ganesha {
    /// The thread that starts it is in its network afterwards.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        for name in ["sec", "squashed"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let export = |number: u8, name: &str, squash: &str| {
            format!(
                "EXPORT {{ Export_Id = {number}; Path = {root}/{name}; Pseudo = /export/{name}; \
                 Access_Type = RW; Squash = {squash}; SecType = sys; Protocols = 3; \
                 Transports = TCP; FSAL {{ Name = VFS; }} }}\n"
            )
        };
        let config = format!(
            "NFS_CORE_PARAM {{ Protocols = 3; MNT_Port = 20048; Enable_UDP = false; \
             Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = true; }}\n{}{}",
            export(1, "sec", "No_Root_Squash"),
            export(2, "squashed", "Root_Squash"),
        );
        std::fs::write(directory.path().join("conf"), config).unwrap();
        let supervisor = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", SCRIPT])
            .arg(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare of util-linux");
        let server = Self { supervisor, directory };
        server.wait(1);
        let network = File::open(format!("/proc/{}/ns/net", server.supervisor.id())).unwrap();
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        server
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until it has started so many times.
    fn wait(&self, times: usize) {
        let until = Instant::now() + SOON;
        loop {
            let log = std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
            if log.matches("NFS SERVER INITIALIZED").count() >= times {
                return;
            }
            assert!(
                Instant::now() < until,
                "no server (needs root, nfs-ganesha-vfs, rpcbind): {log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(self.path().join("pid")).unwrap();
        kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    }
}

impl Drop for Ganesha {
    fn drop(&mut self) {
        // What it started ends with it.
        self.supervisor.kill().unwrap();
        self.supervisor.wait().unwrap();
    }
}

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
