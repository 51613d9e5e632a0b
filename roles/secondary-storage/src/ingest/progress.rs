//! How far a file is: what is written of it, and digests of its beginnings.
//!
//! A download that goes on after a restart of the process must know what it has. The length of a
//! file does not tell: after a crash of the machine a file may be longer than what reached the disk.
//! So now and then the digest of what has come so far is kept, and compared with what is found.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::digest::{Checksum, Running};

/// Between two digests of a beginning.
const MARK_EVERY: u64 = 4 << 20;
/// More bytes than are on their way between digest and store.
const MARKS: usize = 16;
/// What a written file is compared by with what was received.
const HEAD: usize = 64;

/// The digest of the first bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub length: u64,
    pub digest: Checksum,
}

/// Cloneable; clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    received: OnceLock<Bytes>,
    head: OnceLock<Bytes>,
    marks: Mutex<VecDeque<Mark>>,
    marked: AtomicU64,
}

impl Progress {
    /// The digest has taken everything up to here. `is_end` keeps it whatever the distance.
    pub(super) fn digested(&self, length: u64, running: &Running, is_end: bool) {
        let before = self.0.marked.load(Ordering::Relaxed);
        if length < before.saturating_add(MARK_EVERY) && !is_end {
            return;
        }
        self.0.marked.store(length, Ordering::Relaxed);
        let mut marks = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() >= MARKS {
            marks.pop_front();
        }
        marks.push_back(Mark { length, digest: running.so_far() });
    }

    /// The store has taken everything up to here.
    pub(super) fn written(&self, length: u64) {
        self.0.written.store(length, Ordering::Relaxed);
    }

    /// The first bytes that are written.
    pub(super) fn begins_with(&self, bytes: &[u8]) {
        let head = bytes.get(..HEAD).unwrap_or(bytes);
        self.0.head.get_or_init(|| Bytes::copy_from_slice(head));
    }

    /// The first bytes that are received.
    pub(crate) fn receives(&self, bytes: &[u8]) {
        let head = bytes.get(..HEAD).unwrap_or(bytes);
        self.0.received.get_or_init(|| Bytes::copy_from_slice(head));
    }

    /// The longest beginning that is on the store and whose digest is known; `None` when what is
    /// written is not what was received.
    pub(crate) fn mark(&self) -> Option<Mark> {
        let (received, written) = (self.0.received.get()?, self.0.head.get()?);
        let length = received.len().min(written.len());
        if received.get(..length) != written.get(..length) {
            return None;
        }
        let written = self.0.written.load(Ordering::Relaxed);
        let marks = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.iter().rev().find(|mark| mark.length <= written).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::digest::Expectation;

    #[test]
    fn a_mark_is_of_what_is_written_and_was_received_like_that() {
        let progress = Progress::default();
        let mut running = Expectation::compute("SHA-256").unwrap().start();
        assert_eq!(progress.mark(), None);
        let block = vec![7; 1 << 20];
        for n in 1..=9 {
            running.update(&block);
            progress.digested(n << 20, &running, false);
        }
        running.update(b"end");
        progress.digested((9 << 20) + 3, &running, true);
        progress.receives(&block);
        progress.begins_with(&block);
        assert_eq!(progress.mark(), None, "nothing is written");
        progress.written(5 << 20);
        assert_eq!(progress.mark().unwrap().length, 4 << 20);
        progress.written((9 << 20) + 3);
        let mark = progress.mark().unwrap();
        assert_eq!((mark.length, mark.digest), ((9 << 20) + 3, running.finish()));
        let unpacked = Progress::default();
        unpacked.receives(b"\x1f\x8b\x08");
        unpacked.begins_with(b"QFI\xfb");
        unpacked.written(9 << 20);
        let mut running = Expectation::compute("SHA-256").unwrap().start();
        running.update(&block);
        unpacked.digested(1 << 20, &running, true);
        assert_eq!(unpacked.mark(), None, "it was packed");
    }
}
