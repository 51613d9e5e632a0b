//! A real NFS server, nfs-ganesha: another implementation of everything, its port mapper included.
//!
//! It runs in a network namespace of its own, because there is one port mapper to a network; the
//! thread that starts it enters that, and the sockets that it makes are there.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(30);

/// Exports `sec` writable for root and `squashed` not, and starts again whenever it ends.
const SCRIPT: &str = "ip link set lo up
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/nfs
mount -t tmpfs tmpfs /var/lib/nfs
setpriv --pdeathsig KILL rpcbind -f &
while :; do setpriv --pdeathsig KILL ganesha.nfsd -F -L $0/log -f $0/conf -p $0/pid; done";

pub struct Ganesha {
    supervisor: Child,
    directory: tempfile::TempDir,
}

impl Ganesha {
    /// The thread that starts it is in its network afterwards.
    pub fn start() -> Self {
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

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until it has started so many times.
    pub fn wait(&self, times: usize) {
        let until = Instant::now() + LIMIT;
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

    pub fn kill(&self) {
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
