//! The sessions that the server has to hear the end of, on disk: after a `kill -9` the next run
//! reports what the last one could not.
//!
//! One line per session; the file is replaced whole at every change. It is small: a session is there
//! from before the server is asked about it, which is when the server begins to hold it open, until
//! the server has heard of its end.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use role::TaskScope;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const FILE: &str = "open-sessions";
/// Lines that are read at most; the server has forgotten longer lists.
const LINES: usize = 16 * 1024;
/// A console does not wait longer for a disk.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct State {
    sessions: BTreeSet<String>,
    /// Counts changes.
    version: u64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    open: Mutex<State>,
    changed: Notify,
    /// The version that was written last, or could not be.
    written: watch::Sender<u64>,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<String>) -> bool) {
        let mut state = self.lock();
        if change(&mut state.sessions) {
            state.version += 1;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The server holds it open, or will from its answer on.
    pub(crate) fn open(&self, session: &str) {
        self.change(|sessions| sessions.insert(session.to_owned()));
    }

    /// The server has heard of its end, or never heard of it.
    pub(crate) fn settled(&self, session: &str) {
        self.change(|sessions| sessions.remove(session));
    }

    /// Waits until what was entered is on disk, as far as the disk takes it: a session that the
    /// server holds open must not depend on this process living a moment longer.
    pub(crate) async fn written(&self) {
        let wanted = self.lock().version;
        let mut written = self.written.subscribe();
        let waiting = written.wait_for(|version| *version >= wanted);
        if timeout(WRITE_TIMEOUT, waiting).await.is_err() {
            tracing::warn!("it takes long to write down which sessions are open");
        }
    }

    /// What an earlier run left; a file that cannot be read is told and forgotten. Blocks.
    pub(crate) fn left(directory: &Path) -> Vec<String> {
        let path = directory.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let lines = text.lines().filter(|line| !line.is_empty() && line.len() <= 64);
                lines.take(LINES).map(str::to_owned).collect()
            }
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read the open sessions");
                }
                Vec::new()
            }
        }
    }

    /// Writes every change, until `stop` and once more after it.
    pub(crate) async fn keep(
        self: Arc<Self>,
        directory: PathBuf,
        tasks: TaskScope,
        stop: CancellationToken,
    ) {
        let path = directory.join(FILE);
        loop {
            let stopping = tokio::select! {
                () = self.changed.notified() => false,
                () = stop.cancelled() => true,
            };
            let (text, version): (String, u64) = {
                let state = self.lock();
                let lines = state.sessions.iter().map(|session| format!("{session}\n"));
                (lines.collect(), state.version)
            };
            let file = path.clone();
            let write = move || bedrock::files::replace(&file, text.as_bytes(), 0o600);
            match tasks.blocking("open sessions", write).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let path = path.display();
                    tracing::warn!(%path, %error, "cannot write down which sessions are open");
                }
                Err(error) => tracing::debug!(%error, "open sessions are not written"),
            }
            self.written.send_replace(version);
            if stopping {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_open_when_a_run_is_killed_is_left_for_the_next() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Journal::left(directory.path()), Vec::<String>::new());
        let (journal, stop) = (Arc::new(Journal::default()), CancellationToken::new());
        let tasks = TaskScope::new();
        let keeping = journal.clone().keep(directory.path().into(), tasks.clone(), stop.clone());
        let keeping = tasks.spawn("keep", keeping);
        journal.open("s-2");
        journal.open("s-1");
        journal.written().await;
        assert_eq!(Journal::left(directory.path()), ["s-1", "s-2"]);
        journal.settled("s-1");
        stop.cancel();
        keeping.await.unwrap();
        assert_eq!(Journal::left(directory.path()), ["s-2"]);
        std::fs::write(directory.path().join(FILE), "s-3\n\nx".repeat(40)).unwrap();
        assert!(Journal::left(directory.path()).len() <= 81);
    }
}
