//! The sessions that the server has to hear the end of, on disk: after a `kill -9` the next run
//! reports what the last one could not.
//!
//! One line per session; the file is replaced whole at every change. It is small: a session is there
//! from its admission until the server has heard of its end.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use role::TaskScope;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const FILE: &str = "open-sessions";
/// Lines that are read at most; the server has forgotten longer lists.
const LINES: usize = 16 * 1024;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    open: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server holds it open from now on.
    pub(crate) fn open(&self, session: &str) {
        if self.lock().insert(session.to_owned()) {
            self.changed.notify_one();
        }
    }

    /// The server has heard of its end.
    pub(crate) fn settled(&self, session: &str) {
        if self.lock().remove(session) {
            self.changed.notify_one();
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
            let text: String = self.lock().iter().map(|session| format!("{session}\n")).collect();
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
        let limit = std::time::Duration::from_secs(10);
        testkit::eventually("both are written", limit, || {
            (Journal::left(directory.path()) == ["s-1", "s-2"]).then_some(())
        })
        .await;
        journal.settled("s-1");
        stop.cancel();
        keeping.await.unwrap();
        assert_eq!(Journal::left(directory.path()), ["s-2"]);
        std::fs::write(directory.path().join(FILE), "s-3\n\nx".repeat(40)).unwrap();
        assert!(Journal::left(directory.path()).len() <= 81);
    }
}
