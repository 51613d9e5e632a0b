//! Whose work on a store a piece of work is.
//!
//! Work on a store may outlive whoever asked for it: it waits in a queue, or a thread hangs on a
//! dead server. So every operation belongs to an owner. When the owner ends, what has not begun
//! never begins, and what has begun can be waited for before anything is cleaned up after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// An owner of work; its work is given up when it is dropped.
#[derive(Debug, Default)]
pub struct Work {
    owned: Owned,
}

/// A queued piece's side of its owner.
#[derive(Debug, Clone, Default)]
pub struct Owned(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    given_up: AtomicBool,
    running: TaskTracker,
}

/// Held while a piece of work touches the store.
#[derive(Debug)]
pub struct Running(#[expect(dead_code, reason = "counts until it is dropped")] TaskTrackerToken);

impl Work {
    pub fn new() -> Self {
        Self::default()
    }

    /// What an engine keeps beside a queued piece of work.
    pub fn owned(&self) -> Owned {
        self.owned.clone()
    }

    /// From now on nothing of this owner begins.
    pub fn give_up(&self) {
        self.owned.0.given_up.store(true, Ordering::SeqCst);
        self.owned.0.running.close();
    }

    /// Gives up and waits until everything that had begun has ended.
    pub async fn ended(&self) {
        self.give_up();
        self.owned.0.running.wait().await;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Owned {
    /// Counts as work until it is dropped, given up or not: what must be over before a clean-up.
    pub fn hold(&self) -> Running {
        Running(self.0.running.token())
    }

    /// Marks the begin of a piece of work; `None` when its owner has given it up.
    pub fn begin(&self) -> Option<Running> {
        // Counted before the look: whoever gives up afterwards waits for this piece.
        let running = Running(self.0.running.token());
        (!self.0.given_up.load(Ordering::SeqCst)).then_some(running)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_has_begun_is_waited_for_and_nothing_begins_afterwards() {
        let work = Work::new();
        let owned = work.owned();
        let running = owned.begin().unwrap();
        assert!(work.ended().now_or_never().is_none());
        assert!(owned.begin().is_none());
        drop(running);
        assert!(work.ended().now_or_never().is_some());
        let dropped = Work::new();
        let owned = dropped.owned();
        drop(dropped);
        assert!(owned.begin().is_none());
    }
}
