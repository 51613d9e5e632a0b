//! File systems that a test mounts and takes away again: a small one, and one that never answers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A file system in memory.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `options` as of mount(8), with a size.
    pub fn at(point: &Path, options: &str) -> Self {
        let read_only = options.split(',').any(|option| option == "ro");
        let options: Vec<&str> = options.split(',').filter(|option| *option != "ro").collect();
        let flags = if read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        let options = options.join(",");
        mount(Some("quickcloud-test"), point, Some("tmpfs"), flags, Some(options.as_str()))
            .expect("mounting needs root");
        Self(point.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// A file system whose server takes every request and answers none, as a dead NFS server does. It
/// lies over a directory until it is dropped; then whoever waits for it gets an error.
pub struct Stalled {
    point: PathBuf,
    server: Option<std::thread::JoinHandle<usize>>,
}

/// `FUSE_INIT` (linux/fuse.h).
const INIT: u32 = 26;

impl Stalled {
    pub fn over(point: &Path) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("stalled"), point, Some("fuse.stalled"), flags, Some(options.as_str()))
            .expect("mounting needs root");
        let server = std::thread::spawn(move || serve(device));
        Self { point: point.to_owned(), server: Some(server) }
    }

    /// Takes it away; how many requests it left without an answer.
    pub fn end(mut self) -> usize {
        self.take_away().unwrap()
    }

    fn take_away(&mut self) -> Option<usize> {
        let server = self.server.take()?;
        // Forced: the connection is aborted, and with it everything that waits.
        umount2(&self.point, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();
        Some(server.join().unwrap())
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.take_away();
    }
}

/// Answers the first request as version 7.22 does, and none after it.
fn serve(mut device: File) -> usize {
    let mut request = vec![0_u8; 1 << 20];
    let mut unanswered = 0;
    // The read fails once the file system is gone.
    while let Ok(length) = device.read(&mut request) {
        let number = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        if length < 40 || number(4) != INIT {
            unanswered += 1;
            continue;
        }
        let mut answer = Vec::new();
        answer.extend_from_slice(&40_u32.to_ne_bytes());
        answer.extend_from_slice(&0_i32.to_ne_bytes());
        answer.extend_from_slice(&request[8..16]);
        for field in [7_u32, 22, 0, 0, 0, 1 << 16] {
            answer.extend_from_slice(&field.to_ne_bytes());
        }
        device.write_all(&answer).unwrap();
    }
    unanswered
}
