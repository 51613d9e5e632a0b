//! The threads of one store.
//!
//! A dead NFS server leaves threads in uninterruptible sleep. If stores shared threads with each
//! other or with the rest of the process, one dead server would stop everything. So each store has
//! its own few threads in lanes: a listing never waits behind somebody reading a template, and a
//! caller never waits longer than its deadline, whatever the thread does.

use std::fmt;
use std::fs::File;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::stores::engine::EngineError;
use crate::stores::work::{Owned, Running};

/// What a piece of work is, by how long it may keep a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Lists, deletes, statistics, opening files.
    Quick,
    /// Reading blocks of a file.
    Serve,
}

type Piece = Box<dyn FnOnce() + Send>;

/// A bounded queue with threads of its own. They end when it is dropped and their work is done.
#[derive(Clone)]
pub struct Queue(SyncSender<Piece>);

/// Threads of one store.
#[derive(Debug)]
pub struct Pool {
    quick: Queue,
    serve: Queue,
    closing: Queue,
    /// Stands in the place of a file that is being closed.
    nothing: Arc<File>,
    /// For work that comes again and again; what waits here is not in the queue.
    pub(super) turns: Semaphore,
}

const QUICK_THREADS: usize = 3;
const SERVE_THREADS: usize = 4;
const WAITING: usize = 64;
const TURNS: usize = WAITING / 4;

impl Pool {
    /// Starts the threads.
    pub fn start() -> std::io::Result<Self> {
        Ok(Self {
            quick: Queue::start("ss-quick", QUICK_THREADS)?,
            serve: Queue::start("ss-serve", SERVE_THREADS)?,
            closing: Queue::start("ss-close", 1)?,
            nothing: Arc::new(File::open("/dev/null")?),
            turns: Semaphore::new(TURNS),
        })
    }

    /// A file that is none.
    pub fn nothing(&self) -> Arc<File> {
        Arc::clone(&self.nothing)
    }

    /// Closes a file on a thread of the store: closing waits for the server, and may wait long. It is
    /// work of the owner: on NFS a removed file keeps a name while it is open.
    pub fn close(&self, file: Arc<File>, owned: Running) {
        let close: Piece = Box::new(move || {
            drop(file);
            drop(owned);
        });
        if let Err(TrySendError::Full(close) | TrySendError::Disconnected(close)) =
            self.closing.0.try_send(close)
        {
            // As many files as are open are closed at the same time; each was a thread's work before.
            let name = "ss-close".to_owned();
            if let Err(error) = std::thread::Builder::new().name(name).spawn(close) {
                tracing::warn!(%error, "a file of a store was closed where others may wait for it");
            }
        }
    }

    pub const fn lane(&self, lane: Lane) -> &Queue {
        match lane {
            Lane::Quick => &self.quick,
            Lane::Serve => &self.serve,
        }
    }
}

impl Queue {
    pub fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let (tx, rx) = sync_channel(WAITING);
        let rx = Arc::new(Mutex::new(rx));
        for _thread in 0..threads {
            let rx: Arc<Mutex<Receiver<Piece>>> = Arc::clone(&rx);
            std::thread::Builder::new().name(name.to_owned()).spawn(move || serve(&rx))?;
        }
        Ok(Self(tx))
    }

    /// Runs `work` for its owner and waits for it, at most `deadline`. Work that is late goes on,
    /// its result is dropped; work whose owner has given up meanwhile never begins.
    pub async fn run<T: Send + 'static>(
        &self,
        owner: Owned,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EngineError> {
        let (tx, rx) = oneshot::channel();
        let span = tracing::Span::current();
        let boxed: Piece = Box::new(move || {
            let Some(_running) = owner.begin() else {
                drop(tx.send(Err(EngineError::GivenUp)));
                return;
            };
            let outcome = span.in_scope(work);
            // Nobody waits any more: the caller gave up at its deadline.
            drop(tx.send(Ok(outcome)));
        });
        match self.0.try_send(boxed) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(EngineError::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(EngineError::Panicked),
        }
        match tokio::time::timeout(deadline, rx).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_dropped)) => Err(EngineError::Panicked),
            Err(_elapsed) => Err(EngineError::Stalled(deadline)),
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

fn serve(queue: &Mutex<Receiver<Piece>>) {
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::stores::work::Work;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_stuck_lane_neither_holds_its_caller_nor_the_other_lanes() {
        let pool = Pool::start().unwrap();
        let work = Work::new();
        let (release, gate) = sync_channel::<()>(0);
        let gate = Arc::new(Mutex::new(gate));
        let short = Duration::from_millis(20);
        for _each in 0..SERVE_THREADS {
            let gate = Arc::clone(&gate);
            let stuck = move || gate.lock().unwrap().recv().is_err();
            let outcome = pool.lane(Lane::Serve).run(work.owned(), short, stuck).await;
            assert!(matches!(outcome, Err(EngineError::Stalled(_))), "{outcome:?}");
        }
        let quick = pool.lane(Lane::Quick).run(work.owned(), SOON, || 7).await;
        assert_eq!(quick.unwrap(), 7);
        // What waits behind it never runs when its owner ends first.
        let late = Work::new();
        let ran = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ran);
        let waiting = pool.lane(Lane::Serve).run(late.owned(), short, move || {
            seen.store(true, Ordering::Relaxed);
        });
        assert!(matches!(waiting.await, Err(EngineError::Stalled(_))));
        late.ended().await;
        drop(release);
        let serve = pool.lane(Lane::Serve);
        assert_eq!(serve.run(work.owned(), SOON, || 8).await.unwrap(), 8);
        let refused = serve.run(late.owned(), SOON, || 9).await;
        assert!(matches!(refused, Err(EngineError::GivenUp)));
        assert!(!ran.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_panic_costs_one_result_only() {
        let queue = Queue::start("test", 1).unwrap();
        let work = Work::new();
        let outcome = queue.run(work.owned(), SOON, || -> u8 { panic!("boom") }).await;
        assert!(matches!(outcome, Err(EngineError::Panicked)), "{outcome:?}");
        assert_eq!(queue.run(work.owned(), SOON, || 7).await.unwrap(), 7);
        work.ended().await;
    }
}
