//! The consoles open now.
//!
//! One map behind a short lock, never held across an await. A session enters when the management
//! server admitted it and leaves by the drop of its [`Registered`], whatever ended it: that is
//! the one place from which an end is reported.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bedrock::Secret;
use role::host::Clock;
use status_api::ConsoleStatus;
use tokio::sync::{Notify, mpsc, watch};

use crate::bridge::{Outgoing, Window};
use crate::control::ToPage;
use crate::ledger::{Ledger, Owed};
use crate::metrics::Metrics;
use crate::upstream::Upstream;

/// Why a console ends from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Another viewer opened the same VM's console.
    Replaced,
    /// The same viewer came back by another connection.
    Resumed,
    /// By an operator.
    Kicked,
    Shutdown,
}

/// Moves of a session within that time, at most.
const MOVES: u32 = 5;
const MOVES_WITHIN_MS: i64 = 60_000;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One open console.
pub(crate) struct Session {
    /// Counts up from 1 in this process.
    pub(crate) id: u32,
    /// The server's name of the session.
    pub(crate) uuid: String,
    key: String,
    pub(crate) vm: String,
    pub(crate) display_name: String,
    pub(crate) client: IpAddr,
    pub(crate) host: String,
    pub(crate) port: i32,
    upstream: Mutex<Upstream>,
    pub(crate) sid: Secret<String>,
    pub(crate) created_ms: i64,
    pub(crate) last_used_ms: AtomicI64,
    pub(crate) to_viewer: AtomicU64,
    pub(crate) to_vm: AtomicU64,
    pub(crate) inputs: AtomicU64,
    /// Messages of picture.
    pub(crate) messages: AtomicU64,
    /// The connection to the host is encrypted.
    pub(crate) encrypted: AtomicBool,
    /// The viewer may only watch.
    pub(crate) view_only: AtomicBool,
    /// Where its page hears of things.
    page: Mutex<Option<mpsc::Sender<Outgoing>>>,
    farewell: Mutex<Option<String>>,
    /// Moves to other hosts, and when the first of them was.
    moves: Mutex<(u32, i64)>,
    end: watch::Sender<Option<Ended>>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("uuid", &self.uuid).finish()
    }
}

impl Session {
    /// Data flowed: the session is in use now.
    pub(crate) fn touch(&self) {
        self.last_used_ms.store(self.clock.unix_ms(), Ordering::Relaxed);
    }

    /// Where the screen is.
    pub(crate) fn upstream(&self) -> Upstream {
        locked(&self.upstream).clone()
    }

    pub(crate) fn set_upstream(&self, upstream: Upstream) {
        *locked(&self.upstream) = upstream;
    }

    /// Whether it may be looked for once more: a host that hangs up at once would go on for ever.
    pub(crate) fn may_move(&self) -> bool {
        let now = self.clock.unix_ms();
        let mut moves = locked(&self.moves);
        if now - moves.1 > MOVES_WITHIN_MS {
            *moves = (0, now);
        }
        moves.0 += 1;
        moves.0 <= MOVES
    }

    /// A ticket for its page.
    pub(crate) fn ticket(&self, window: &Window) -> String {
        // Renewed after a third of the window: the whole window is left at the last moment.
        let length = window.length + window.length / 3;
        window.tickets.issue(&self.uuid, self.clock.unix_ms(), length)
    }

    /// How its page is reached from now on.
    pub(crate) fn reach_by(&self, page: Option<mpsc::Sender<Outgoing>>) {
        *locked(&self.page) = page;
    }

    /// Tells the page something; false when it cannot be told.
    pub(crate) fn tell(&self, message: ToPage) -> bool {
        let page = locked(&self.page).clone();
        page.is_some_and(|page| page.try_send(Outgoing::Page(message)).is_ok())
    }

    /// Ends it for good, with these words for the viewer.
    pub(crate) fn kick(&self, words: Option<String>) {
        *locked(&self.farewell) = words;
        self.end(Ended::Kicked);
    }

    pub(crate) fn farewell(&self) -> Option<String> {
        locked(&self.farewell).clone()
    }

    /// It goes on although its connection was asked to end: its viewer came back.
    pub(crate) fn renew(&self) {
        self.end.send_if_modified(|end| {
            let resumed = *end == Some(Ended::Resumed);
            if resumed {
                *end = None;
            }
            resumed
        });
    }

    /// Asks the session to end.
    pub(crate) fn end(&self, why: Ended) {
        self.end.send_if_modified(|end| end.is_none() && end.replace(why).is_none());
    }

    /// Waits until somebody asked it to end.
    pub(crate) async fn ended(&self) -> Ended {
        let mut end = self.end.subscribe();
        let why = end.wait_for(Option::is_some).await.map(|why| *why);
        // The sender lives as long as `self`.
        why.ok().flatten().unwrap_or(Ended::Shutdown)
    }

    /// For `/status`: what an operator asks, and nothing secret.
    pub(crate) fn status(&self) -> ConsoleStatus {
        let now = self.clock.unix_ms();
        let ago = |then: i64| u64::try_from(now - then).unwrap_or_default();
        ConsoleStatus {
            id: self.id,
            session: self.uuid.clone(),
            vm: self.vm.clone(),
            name: self.display_name.clone(),
            client: self.client.to_string(),
            screen: self.upstream().to_string(),
            opened_ago_ms: ago(self.created_ms),
            last_used_ago_ms: ago(self.last_used_ms.load(Ordering::Relaxed)),
            bytes_to_viewer: self.to_viewer.load(Ordering::Relaxed),
            bytes_to_vm: self.to_vm.load(Ordering::Relaxed),
            inputs: self.inputs.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            encrypted: self.encrypted.load(Ordering::Relaxed),
            view_only: self.view_only.load(Ordering::Relaxed),
            connected: locked(&self.page).is_some(),
        }
    }
}

/// What a new session is.
#[derive(Debug, Clone)]
pub(crate) struct NewSession {
    pub(crate) uuid: String,
    /// A second session with the same key replaces the first.
    pub(crate) key: String,
    pub(crate) vm: String,
    pub(crate) display_name: String,
    pub(crate) client: IpAddr,
    /// As in the token, for the load report.
    pub(crate) host: String,
    pub(crate) port: i32,
    /// What is dialled.
    pub(crate) upstream: Upstream,
    /// Password of the VM's VNC server.
    pub(crate) sid: Secret<String>,
    /// Its end is to be reported.
    pub(crate) owed: bool,
}

/// The open consoles, and what wakes the reporter.
pub(crate) struct Sessions {
    open: Mutex<HashMap<String, Arc<Session>>>,
    next_id: AtomicU32,
    clock: Arc<dyn Clock>,
    pub(crate) ledger: Ledger,
    /// Something changed that the server should hear of.
    pub(crate) changed: Notify,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("open", &self.len()).finish_non_exhaustive()
    }
}

impl Sessions {
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            open: Mutex::default(),
            next_id: AtomicU32::new(1),
            clock,
            ledger: Ledger::default(),
            changed: Notify::new(),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an admitted session. One of the same key is asked to end and is out at once.
    pub(crate) fn enter(self: &Arc<Self>, new: NewSession) -> Registered {
        let now = self.clock.unix_ms();
        let session = Arc::new(Session {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            uuid: new.uuid,
            key: new.key,
            vm: new.vm,
            display_name: new.display_name,
            client: new.client,
            host: new.host,
            port: new.port,
            upstream: Mutex::new(new.upstream),
            sid: new.sid,
            created_ms: now,
            last_used_ms: AtomicI64::new(now),
            to_viewer: AtomicU64::new(0),
            to_vm: AtomicU64::new(0),
            inputs: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            encrypted: AtomicBool::new(false),
            view_only: AtomicBool::new(false),
            page: Mutex::default(),
            farewell: Mutex::default(),
            moves: Mutex::default(),
            end: watch::Sender::new(None),
            clock: Arc::clone(&self.clock),
        });
        let replaced = self.lock().insert(session.key.clone(), Arc::clone(&session));
        if let Some(replaced) = replaced {
            replaced.end(Ended::Replaced);
        }
        if new.owed {
            self.ledger.journal.open(&session.uuid);
        }
        self.metrics.opened();
        self.changed.notify_one();
        Registered { sessions: Arc::clone(self), session, owed: new.owed }
    }

    /// Asks every session to end.
    pub(crate) fn end_all(&self, why: Ended) {
        for session in self.lock().values() {
            session.end(why);
        }
    }

    /// Open consoles, oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Session>> {
        let mut list: Vec<_> = self.lock().values().map(Arc::clone).collect();
        list.sort_by_key(|session| session.id);
        list
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Consoles of this VM.
    pub(crate) fn of_vm(&self, vm: &str) -> usize {
        self.lock().values().filter(|session| session.vm == vm).count()
    }

    /// The open session of that id.
    pub(crate) fn find(&self, id: u32) -> Option<Arc<Session>> {
        self.lock().values().find(|session| session.id == id).cloned()
    }

    /// The open session that the server calls so.
    pub(crate) fn find_uuid(&self, uuid: &str) -> Option<Arc<Session>> {
        self.lock().values().find(|session| session.uuid == uuid).cloned()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.unix_ms()
    }

    /// For `/status`.
    pub(crate) fn status(&self) -> Vec<ConsoleStatus> {
        self.list().iter().map(|session| session.status()).collect()
    }
}

/// A session in the table; leaving by drop, and then owed to the server as removed.
#[derive(Debug)]
pub(crate) struct Registered {
    sessions: Arc<Sessions>,
    pub(crate) session: Arc<Session>,
    owed: bool,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut open = self.sessions.lock();
        if open.get(&self.session.key).is_some_and(|held| held.id == self.session.id) {
            open.remove(&self.session.key);
        }
        drop(open);
        self.sessions.metrics.closed();
        if self.owed {
            self.sessions.ledger.owe(self.session.uuid.clone(), Owed::Admitted);
        }
        self.sessions.changed.notify_one();
    }
}

/// A session whose admission is awaited. If it is dropped undecided (the browser left, the server
/// denied or fell silent), the server may hold the session open for ever: it is owed as doubtful.
#[derive(Debug)]
pub(crate) struct Asked {
    sessions: Arc<Sessions>,
    uuid: Option<String>,
}

impl Asked {
    /// `uuid` was taken from the ledger and is about to be presented to the server.
    pub(crate) fn new(sessions: &Arc<Sessions>, uuid: String) -> Self {
        sessions.ledger.journal.open(&uuid);
        Self { sessions: Arc::clone(sessions), uuid: Some(uuid) }
    }

    /// The server never saw the question: the link may be used again.
    pub(crate) fn not_presented(mut self) {
        if let Some(uuid) = self.uuid.take() {
            self.sessions.ledger.give_back(&uuid);
            self.sessions.ledger.journal.settled(&uuid);
        }
    }

    /// The server admitted it: from now on [`Registered`] answers for its end.
    pub(crate) fn admitted(mut self) {
        self.uuid = None;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(uuid) = self.uuid.take() {
            self.sessions.ledger.owe(uuid, Owed::Doubtful);
            self.sessions.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Arc<Sessions> {
        Arc::new(Sessions::new(role::Host::system().clock, Arc::new(Metrics::default())))
    }

    fn new(uuid: &str, key: &str) -> NewSession {
        NewSession {
            uuid: uuid.into(),
            key: key.into(),
            vm: key.into(),
            display_name: "vm".into(),
            client: [127, 0, 0, 1].into(),
            host: "2001:db8::1".into(),
            port: 5900,
            upstream: Upstream::tcp("2001:db8::1", 5900).unwrap(),
            sid: "s".into(),
            owed: true,
        }
    }

    #[tokio::test]
    async fn a_second_console_of_a_vm_replaces_the_first_and_both_ends_are_owed_once() {
        let sessions = sessions();
        let first = sessions.enter(new("s1", "vm"));
        let second = sessions.enter(new("s2", "vm"));
        assert_eq!(first.session.ended().await, Ended::Replaced);
        assert_eq!(sessions.list().iter().map(|s| s.uuid.clone()).collect::<Vec<_>>(), ["s2"]);
        drop(first);
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions.ledger.batch(), ["s1"]);
        drop(second);
        assert_eq!((sessions.len(), sessions.ledger.batch()), (0, vec!["s2".to_owned()]));
    }

    #[test]
    fn an_undecided_question_is_owed_alone_and_a_decided_one_is_not() {
        let sessions = sessions();
        assert_eq!(sessions.ledger.take("d"), Some(false));
        drop(Asked::new(&sessions, "d".into()));
        assert_eq!(sessions.ledger.single().as_deref(), Some("d"));
        Asked::new(&sessions, "a".into()).admitted();
        assert_eq!(sessions.ledger.take("n"), Some(false));
        Asked::new(&sessions, "n".into()).not_presented();
        assert_eq!(sessions.ledger.owed(), 0);
        assert_eq!(sessions.ledger.take("n"), Some(true));
    }

    #[test]
    fn the_status_tells_people_what_they_ask_and_no_secret() {
        let sessions = sessions();
        let _held = sessions.enter(new("s1", "vm"));
        let status = sessions.status();
        assert_eq!(status[0].screen, "[2001:db8::1]:5900");
        assert_eq!(status[0].client, "127.0.0.1");
    }
}
