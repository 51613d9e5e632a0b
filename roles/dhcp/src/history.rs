//! Who changed what: the last changes of the desired state, kept over restarts, told as they come.
//!
//! The file is a help for people, not the state: it is appended without a sync, and what cannot be
//! read or written of it is left out.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dhcp_api::answer::ChangeEntry;
use tokio::sync::broadcast;

/// Changes that are remembered.
pub(crate) const MOST: usize = 1000;
/// Changes that a slow listener may be behind.
const BEHIND: usize = 256;
/// The file is written anew when it is read longer than this.
const LONGEST_FILE: u64 = 4 << 20;

/// The last changes. Cloneable; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct History {
    path: PathBuf,
    last: Arc<Mutex<VecDeque<ChangeEntry>>>,
    news: broadcast::Sender<ChangeEntry>,
}

impl History {
    /// With what an earlier run left at `path`. Blocks.
    pub(crate) fn load(path: PathBuf) -> Self {
        let is_small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= LONGEST_FILE);
        let text = if is_small { std::fs::read_to_string(&path) } else { Ok(String::new()) };
        let text = text.unwrap_or_default();
        let all: Vec<ChangeEntry> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let last: VecDeque<_> = all.iter().skip(all.len().saturating_sub(MOST)).cloned().collect();
        if all.len() > 2 * MOST || !is_small {
            let short: String = last.iter().map(line).collect();
            if let Err(error) = bedrock::files::replace(&path, short.as_bytes(), 0o600) {
                tracing::debug!(%error, "the history is not shortened");
            }
        }
        let (news, _) = broadcast::channel(BEHIND);
        Self { path, last: Arc::new(Mutex::new(last)), news }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The newest first.
    pub(crate) fn newest(&self, limit: usize) -> Vec<ChangeEntry> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().rev().take(limit).cloned().collect()
    }

    /// Those after `id`, the oldest first, and then whatever comes.
    pub(crate) fn since(
        &self,
        id: Option<u64>,
    ) -> (Vec<ChangeEntry>, broadcast::Receiver<ChangeEntry>) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = last.iter().filter(|entry| id.is_some_and(|id| entry.id > id));
        (missed.cloned().collect(), self.news.subscribe())
    }

    /// Remembers changes that are stored.
    pub(crate) fn add(&self, entries: Vec<ChangeEntry>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            if last.len() >= MOST {
                last.pop_front();
            }
            last.push_back(entry.clone());
            // Without a listener there is nobody to tell.
            drop(self.news.send(entry));
        }
    }
}

fn line(entry: &ChangeEntry) -> String {
    serde_json::to_string(entry).unwrap_or_default() + "\n"
}

/// Appends to the file. Blocks.
pub(crate) fn append(path: &Path, entries: &[ChangeEntry]) {
    use std::os::unix::fs::OpenOptionsExt;
    let text: String = entries.iter().map(line).collect();
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
        tracing::debug!(%error, path = %path.display(), "the history is not kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcp_api::resource::Source;
    use dhcp_api::words::Stamp;

    fn entry(id: u64) -> ChangeEntry {
        let what = format!("change {id}");
        ChangeEntry { id, at: Stamp::from_unix_ms(0), by: Source::Api, what }
    }

    #[test]
    fn the_last_thousand_survive_a_restart_and_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("changes.jsonl");
        let entries: Vec<_> = (0..2500).map(entry).collect();
        append(&path, &entries);
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"id\":25")
            .unwrap();
        for _ in 0..2 {
            let history = History::load(path.clone());
            assert_eq!(history.newest(2), [entry(2499), entry(2498)]);
            assert_eq!(history.newest(5000).len(), MOST);
            assert_eq!(history.since(Some(2497)).0, [entry(2498), entry(2499)]);
            assert_eq!(history.since(None).0, []);
        }
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() <= MOST);
    }
}
