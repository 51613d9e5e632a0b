//! Sessions whose viewer is gone and may come back: entered in the table, connected to nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::context::ConsoleContext;
use crate::places::Place;
use crate::sessions::{Ended, Registered};

/// How long a viewer that comes back waits for its old connection to end.
const HAND_OVER: Duration = Duration::from_secs(5);

/// A session that waits, and its place among the consoles.
pub(crate) struct Held {
    pub(crate) registered: Registered,
    /// It is not free for others meanwhile.
    pub(crate) _place: Place,
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Parked {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    stays: u64,
    /// By the session's UUID, with a number that tells one stay from the next.
    sessions: HashMap<String, (u64, Held)>,
}

impl Parked {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, held: Held) -> u64 {
        let mut waiting = self.lock();
        waiting.stays += 1;
        let (stay, uuid) = (waiting.stays, held.registered.session.uuid.clone());
        waiting.sessions.insert(uuid, (stay, held));
        drop(waiting);
        self.arrived.notify_waiters();
        stay
    }

    fn take(&self, uuid: &str) -> Option<Held> {
        self.lock().sessions.remove(uuid).map(|(_, held)| held)
    }

    /// Takes it only if it is still the same stay.
    fn end(&self, uuid: &str, stay: u64) -> Option<Held> {
        let mut waiting = self.lock();
        let same = waiting.sessions.get(uuid).is_some_and(|(other, _)| *other == stay);
        same.then(|| waiting.sessions.remove(uuid)).flatten().map(|(_, held)| held)
    }
}

impl ConsoleContext {
    /// Keeps a session for its viewer to come back; then, or when it is asked to end, it ends.
    pub(crate) fn park(self: &Arc<Self>, held: Held, window: Duration) {
        let session = Arc::clone(&held.registered.session);
        session.renew();
        let stay = self.parked.put(held);
        let context = Arc::clone(self);
        self.tasks.spawn("parked console", async move {
            tokio::select! {
                () = sleep(window) => {}
                _ = session.ended() => {}
                () = context.stop.cancelled() => {}
            }
            // Dropped outside the lock: it reports the end.
            let ended = context.parked.end(&session.uuid, stay);
            if ended.is_some() {
                tracing::debug!(session = session.uuid, "nobody came back");
            }
        });
    }

    /// The session for its viewer that came back. A connection of it that is still there is ended.
    pub(crate) async fn unpark(&self, uuid: &str) -> Option<Registered> {
        let fetch = async {
            loop {
                let arrived = self.parked.arrived.notified();
                if let Some(held) = self.parked.take(uuid) {
                    return Some(held.registered);
                }
                self.sessions.find_uuid(uuid)?.end(Ended::Resumed);
                arrived.await;
            }
        };
        timeout(HAND_OVER, fetch).await.ok().flatten()
    }
}
