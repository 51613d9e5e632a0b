//! What the NFS engine of the role reads and writes, against `dd` on the server's own directory.
//!
//! `cargo xtask bench storage` runs this, as root: nfs-ganesha serves a directory in a network of its
//! own, and in the same run `dd` reads and writes there without any server. Both make everything
//! durable. Only the ratio says something.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a measuring program: it prints, and ends when anything is not as expected"
)]

#[path = "../tests/it/ganesha_server.rs"]
#[expect(dead_code, reason = "its tests kill it, this program does not")]
mod ganesha_server;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use ganesha_server::Ganesha;
use role::TaskScope;
use secondary_storage::stores::nfs::{NfsSettings, NfsStore, Target};
use secondary_storage::stores::{Engine, InstallPath, Modes, Work};

const LENGTH: u64 = 512 << 20;
const ROUNDS: usize = 5;
/// As downloads write, and as links read.
const BLOCK: u64 = 256 << 10;
const AHEAD: usize = 4;
/// Divides the length, to try this program.
const DIVISOR: &str = "NFS_BENCH_DIVISOR";

fn main() {
    // `cargo test --benches` runs this too; figures of a debug build tell nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let divisor: u64 = std::env::var(DIVISOR).map_or(1, |divisor| divisor.parse().unwrap());
    let length = LENGTH / divisor / BLOCK * BLOCK;
    let server = Ganesha::start();
    // Its threads are in the server's network, as the one that makes them.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let export = server.path().join("sec");
    let mut writes = (Vec::new(), Vec::new());
    let mut reads = (Vec::new(), Vec::new());
    let local = export.join("local");
    for _round in 0..ROUNDS {
        let (write, read) = runtime.block_on(ours(length));
        writes.0.push(write);
        reads.0.push(read);
        let size = format!("bs=256K count={}", length / BLOCK);
        writes.1.push(dd(Path::new("/dev/zero"), &local, &format!("{size} conv=fsync")));
        reads.1.push(dd(&local, Path::new("/dev/null"), "bs=256K"));
    }
    let rate = |seconds: f64| length as f64 / seconds / f64::from(1 << 20);
    for (name, (ours, theirs)) in [("write", writes), ("read", reads)] {
        let (ours, theirs) = (median(ours), median(theirs));
        println!(
            "NFS {name} of {} MiB: {:.0} MiB/s, dd on the server's directory {:.0} MiB/s, ratio \
             {:.2} (medians of {ROUNDS})",
            length >> 20,
            rate(ours),
            rate(theirs),
            theirs / ours
        );
    }
}

fn path(text: &str) -> InstallPath {
    text.parse().unwrap()
}

/// Seconds to write a file until it is durable, and to read it.
async fn ours(length: u64) -> (f64, f64) {
    let target = Target {
        host: "127.0.0.1".to_owned(),
        export: "/export/sec".to_owned(),
        settings: NfsSettings::default(),
        deadline: Duration::from_secs(60),
        tasks: TaskScope::new(),
    };
    let modes = Modes { directory: 0o777, file: 0o666 };
    let store = NfsStore::connect(target, modes).await.unwrap();
    let work = Work::new();
    let block: Bytes = (0..BLOCK).map(|n| (n % 251) as u8).collect();
    let begun = Instant::now();
    let name = "image.raw".parse().unwrap();
    let mut part = store.create(&work, path("template/tmpl/2/204"), name).await.unwrap();
    for at in (0..length).step_by(BLOCK as usize) {
        part.write(at, block.clone()).await.unwrap();
    }
    let file = part.finish().await.unwrap();
    let written = begun.elapsed();
    assert_eq!(file.length(), length);
    let begun = Instant::now();
    let blocks = (0..length).step_by(BLOCK as usize).map(|at| file.read(at..at + BLOCK));
    let mut blocks = stream::iter(blocks).buffered(AHEAD);
    while let Some(read) = blocks.try_next().await.unwrap() {
        // What is between its ends is compared by tests: it takes as long as `dd`.
        assert_eq!(read.len(), block.len());
        assert_eq!((read.first(), read.last()), (block.first(), block.last()));
    }
    let read = begun.elapsed();
    drop(blocks);
    drop(file);
    let index = "template.properties".parse().unwrap();
    assert!(store.remove_tree(&work, path("template/tmpl/2/204"), index).await.unwrap());
    (written.as_secs_f64(), read.as_secs_f64())
}

fn dd(from: &Path, to: &Path, how: &str) -> f64 {
    let begun = Instant::now();
    let files = [format!("if={}", from.display()), format!("of={}", to.display())];
    let output = Command::new("dd").args(files).args(how.split(' ')).output().unwrap();
    assert!(output.status.success(), "dd: {output:?}");
    begun.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
