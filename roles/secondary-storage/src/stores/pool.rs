//! The threads of one store.
//!
//! A dead NFS server leaves threads in uninterruptible sleep. If stores shared threads with each
//! other or with the rest of the process, one dead server would stop everything. So each store has
//! its own few threads in lanes: a listing never waits behind somebody reading a template, and a
//! caller never waits longer than its deadline, whatever the thread does.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// What a piece of work is, by how long it may keep a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Lists, deletes, statistics, opening files.
    Quick,
    /// Reading blocks of a file for a client.
    Serve,
    /// Reading a whole file.
    Long,
}

/// Why a piece of work gave no result in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    #[error("the store does not answer (nothing within {0:?})")]
    Stalled(Duration),
    #[error("the store is busy: too much work is waiting")]
    Busy,
    #[error("the work on the store failed unexpectedly")]
    Panicked,
}

type Work = Box<dyn FnOnce() + Send>;

/// Threads of one store. They end when the pool is dropped and their work is done.
pub struct Pool {
    quick: SyncSender<Work>,
    serve: SyncSender<Work>,
    long: SyncSender<Work>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

const QUICK_THREADS: usize = 3;
const SERVE_THREADS: usize = 4;
const LONG_THREADS: usize = 2;
const WAITING: usize = 64;

impl Pool {
    /// Starts the threads.
    pub fn start() -> std::io::Result<Self> {
        Ok(Self {
            quick: lane("ss-quick", QUICK_THREADS)?,
            serve: lane("ss-serve", SERVE_THREADS)?,
            long: lane("ss-long", LONG_THREADS)?,
        })
    }

    /// Runs `work` in a lane and waits for it, at most `deadline`. Work that is late goes on, its
    /// result is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let (tx, rx) = oneshot::channel();
        let span = tracing::Span::current();
        let boxed: Work = Box::new(move || {
            let outcome = span.in_scope(work);
            // Nobody waits any more: the caller gave up at its deadline.
            drop(tx.send(outcome));
        });
        let queue = match lane {
            Lane::Quick => &self.quick,
            Lane::Serve => &self.serve,
            Lane::Long => &self.long,
        };
        match queue.try_send(boxed) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(PoolError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(PoolError::Panicked),
        }
        match tokio::time::timeout(deadline, rx).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_dropped)) => Err(PoolError::Panicked),
            Err(_elapsed) => Err(PoolError::Stalled(deadline)),
        }
    }
}

fn lane(name: &str, threads: usize) -> std::io::Result<SyncSender<Work>> {
    let (tx, rx) = sync_channel(WAITING);
    let rx = Arc::new(Mutex::new(rx));
    for _thread in 0..threads {
        let rx: Arc<Mutex<Receiver<Work>>> = Arc::clone(&rx);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || serve(&rx))?;
    }
    Ok(tx)
}

fn serve(queue: &Mutex<Receiver<Work>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else { return };
        // A panic in one piece of work must not cost the store its thread.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        if outcome.is_err() {
            tracing::error!("work on a store panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_stuck_lane_neither_holds_its_caller_nor_the_other_lanes() {
        let pool = Pool::start().unwrap();
        let (release, gate) = sync_channel::<()>(0);
        let gate = Arc::new(Mutex::new(gate));
        for _each in 0..LONG_THREADS {
            let gate = Arc::clone(&gate);
            let stuck = move || gate.lock().unwrap().recv().is_err();
            let outcome = pool.run(Lane::Long, Duration::from_millis(20), stuck).await;
            assert_eq!(outcome, Err(PoolError::Stalled(Duration::from_millis(20))));
        }
        assert_eq!(pool.run(Lane::Quick, SOON, || 7).await, Ok(7));
        drop(release);
        assert_eq!(pool.run(Lane::Long, SOON, || 8).await, Ok(8));
    }

    #[tokio::test]
    async fn a_panic_costs_one_result_only() {
        let pool = Pool::start().unwrap();
        for _each in 0..2 * QUICK_THREADS {
            let outcome = pool.run(Lane::Quick, SOON, || -> u8 { panic!("boom") }).await;
            assert_eq!(outcome, Err(PoolError::Panicked));
        }
        assert_eq!(pool.run(Lane::Quick, SOON, || 7).await, Ok(7));
    }
}
