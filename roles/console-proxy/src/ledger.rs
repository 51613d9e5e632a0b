//! Which console sessions were announced, which were used, and which endings the management
//! server has yet to hear of.
//!
//! The server closes a session in its books when a load report names it as removed, exactly once:
//! a second mention makes it drop the whole report. Hence two queues: sessions that the server
//! certainly holds open travel together; every other one travels alone, so that a report that the
//! server rejects spoils nothing else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::journal::Journal;

/// A link lives two minutes, but an old tab may bring it back for days; asked again about a session
/// that is closed in its books, the server would be told of its end twice.
const MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Sessions remembered. A server with more links under way than this loses only the local guard
/// against replay; its own guard remains.
const REMEMBERED: usize = 16 * 1024;
/// Endings waiting to be reported. Beyond it the oldest is forgotten: the server keeps it open.
const OWED: usize = 16 * 1024;
/// Sessions ended by operators that are remembered; their tickets live for a minute or so.
const REVOKED: usize = 1024;
/// Endings in one report: 39 bytes each.
const BATCH: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Announced,
    Used,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<String, (Use, Instant)>,
    together: VecDeque<String>,
    alone: VecDeque<String>,
    /// Ended by an operator: not to be resumed.
    revoked: VecDeque<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    pub(crate) journal: Arc<Journal>,
}

/// How surely the server holds a session open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    /// It admitted the session.
    Admitted,
    /// It denied the session, or its answer is not known.
    Doubtful,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server announced a session.
    pub(crate) fn announce(&self, session: &str) {
        let mut state = self.lock();
        make_room(&mut state.sessions);
        state.sessions.entry(session.to_owned()).or_insert((Use::Announced, Instant::now()));
    }

    /// Takes a session for use, once. `Some(announced)`, or `None` when it was used before.
    pub(crate) fn take(&self, session: &str) -> Option<bool> {
        let mut state = self.lock();
        make_room(&mut state.sessions);
        let taken = (Use::Used, Instant::now());
        match state.sessions.insert(session.to_owned(), taken) {
            Some((Use::Used, since)) if since.elapsed() < MEMORY => None,
            before => Some(matches!(before, Some((Use::Announced, _)))),
        }
    }

    /// A taken session was not presented to the server after all: it may be tried again.
    pub(crate) fn give_back(&self, session: &str) {
        self.lock().sessions.insert(session.to_owned(), (Use::Announced, Instant::now()));
    }

    /// A session that an operator ended is not resumed.
    pub(crate) fn revoke(&self, session: &str) {
        let mut state = self.lock();
        if state.revoked.len() == REVOKED {
            state.revoked.pop_front();
        }
        state.revoked.push_back(session.to_owned());
    }

    pub(crate) fn is_revoked(&self, session: &str) -> bool {
        self.lock().revoked.iter().any(|revoked| revoked == session)
    }

    /// The server has to hear that a session is over.
    pub(crate) fn owe(&self, session: String, owed: Owed) {
        self.journal.open(&session);
        let mut state = self.lock();
        let queue = match owed {
            Owed::Admitted => &mut state.together,
            Owed::Doubtful => &mut state.alone,
        };
        if queue.len() == OWED
            && let Some(forgotten) = queue.pop_front()
        {
            self.journal.settled(&forgotten);
            tracing::warn!(session = forgotten, "end of a console is not reported, too many wait");
        }
        queue.push_back(session);
    }

    /// Endings for the next ordinary report; give them to [`Ledger::settle`] afterwards.
    pub(crate) fn batch(&self) -> Vec<String> {
        let mut state = self.lock();
        let count = state.together.len().min(BATCH);
        state.together.drain(..count).collect()
    }

    /// An ending that needs a report of its own.
    pub(crate) fn single(&self) -> Option<String> {
        self.lock().alone.pop_front()
    }

    /// What became of a report that named `sessions`.
    pub(crate) fn settle(&self, sessions: Vec<String>, outcome: Settled) {
        let mut state = self.lock();
        match outcome {
            Settled::Accepted => sessions.iter().for_each(|session| self.journal.settled(session)),
            // The rejected one is closed or unknown there; a batch is taken apart to find it.
            Settled::Rejected if sessions.len() <= 1 => {
                sessions.iter().for_each(|session| self.journal.settled(session));
            }
            Settled::Rejected => state.alone.extend(sessions),
            // The report was lost, or its answer. If the server did get it, the repetition is
            // rejected, taken apart, and found to be settled.
            Settled::Unknown => {
                for session in sessions.into_iter().rev() {
                    state.together.push_front(session);
                }
            }
        }
    }

    /// As [`Ledger::settle`], for an ending that had a report of its own.
    pub(crate) fn settle_single(&self, session: String, outcome: Settled) {
        if outcome == Settled::Unknown {
            self.lock().alone.push_front(session);
        } else {
            self.journal.settled(&session);
        }
    }

    /// Endings not yet settled.
    pub(crate) fn owed(&self) -> usize {
        let state = self.lock();
        state.together.len() + state.alone.len()
    }
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Accepted,
    Rejected,
    Unknown,
}

/// Forgets sessions whose links expired long ago, and if need be the oldest of all.
fn make_room(sessions: &mut HashMap<String, (Use, Instant)>) {
    if sessions.len() < REMEMBERED {
        return;
    }
    sessions.retain(|_, (_, since)| since.elapsed() < MEMORY);
    if sessions.len() >= REMEMBERED {
        let mut ages: Vec<Instant> = sessions.values().map(|(_, since)| *since).collect();
        let (_, median, _) = ages.select_nth_unstable(REMEMBERED / 2);
        let limit = *median;
        sessions.retain(|_, (_, since)| *since > limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_is_used_once_until_its_link_is_long_dead() {
        let ledger = Ledger::default();
        assert_eq!(ledger.take("a"), Some(false));
        assert_eq!(ledger.take("a"), None);
        ledger.announce("a");
        assert_eq!(ledger.take("a"), None);
        ledger.announce("b");
        assert_eq!(ledger.take("b"), Some(true));
        ledger.give_back("b");
        assert_eq!(ledger.take("b"), Some(true));
        tokio::time::advance(MEMORY).await;
        assert_eq!(ledger.take("a"), Some(false));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_latest_stay() {
        let ledger = Ledger::default();
        for n in 0..REMEMBERED * 2 {
            ledger.announce(&n.to_string());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(ledger.lock().sessions.len() <= REMEMBERED);
        assert_eq!(ledger.take(&(REMEMBERED * 2 - 1).to_string()), Some(true));
    }

    fn owe(ledger: &Ledger, sessions: &[&str]) {
        for session in sessions {
            ledger.owe((*session).to_owned(), Owed::Admitted);
        }
    }

    #[test]
    fn an_accepted_report_settles_and_a_lost_one_is_repeated_in_order() {
        let ledger = Ledger::default();
        owe(&ledger, &["a", "b"]);
        let batch = ledger.batch();
        owe(&ledger, &["c"]);
        ledger.settle(batch, Settled::Unknown);
        let batch = ledger.batch();
        assert_eq!(batch, ["a", "b", "c"]);
        ledger.settle(batch, Settled::Accepted);
        assert_eq!(ledger.owed(), 0);
    }

    #[test]
    fn a_rejected_batch_is_taken_apart_and_a_rejected_single_is_dropped() {
        let ledger = Ledger::default();
        owe(&ledger, &["a", "bad"]);
        let batch = ledger.batch();
        ledger.settle(batch, Settled::Rejected);
        assert_eq!(ledger.batch(), Vec::<String>::new());
        let single = ledger.single().unwrap();
        assert_eq!(single, "a");
        ledger.settle_single(single, Settled::Accepted);
        let single = ledger.single().unwrap();
        ledger.settle_single(single, Settled::Rejected);
        assert_eq!(ledger.owed(), 0);
        // One that was rejected in a batch of its own is known to be the bad one.
        owe(&ledger, &["bad"]);
        let batch = ledger.batch();
        ledger.settle(batch, Settled::Rejected);
        assert_eq!(ledger.owed(), 0);
    }

    #[test]
    fn doubtful_sessions_travel_alone_until_an_answer_comes() {
        let ledger = Ledger::default();
        ledger.owe("denied".into(), Owed::Doubtful);
        assert_eq!(ledger.batch(), Vec::<String>::new());
        let single = ledger.single().unwrap();
        ledger.settle_single(single, Settled::Unknown);
        assert_eq!(ledger.single().as_deref(), Some("denied"));
    }

    #[test]
    fn a_report_names_a_bounded_number_of_endings() {
        let ledger = Ledger::default();
        for n in 0..1000 {
            ledger.owe(n.to_string(), Owed::Admitted);
        }
        assert_eq!(ledger.batch().len(), BATCH);
        assert_eq!(ledger.owed(), 1000 - BATCH);
    }
}
