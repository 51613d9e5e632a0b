//! Links under which users fetch a template, a volume or a snapshot.
//!
//! The management server hands a link out for hours and does not ask again, so the table of links
//! survives a restart. A link names a file by store and path, never by an open file or a link in
//! the file system: what is served is looked up, walked and opened for each request.

pub mod range;
pub mod serve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use status_api::{DownloadLink, DownloadLinksStatus};

use crate::live::Live;
use crate::metrics::Metrics;
use crate::state_file::{self, StateError};
use crate::stores::path::PathError;
use crate::stores::{FileName, InstallPath, StoreUrl};

/// A link's two last path segments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName {
    pub directory: FileName,
    pub file: FileName,
}

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub store: StoreUrl,
    pub path: InstallPath,
}

/// Why a link cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Name(#[from] PathError),
    #[error("{0} links are in use already")]
    TooMany(usize),
    #[error("cannot remember the links")]
    State(#[from] StateError),
}

/// A day's links of a busy zone many times over; a bound on file and memory.
const MAX_LINKS: usize = 20_000;
/// In `/status`.
const MAX_SHOWN: usize = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Saved {
    store: StoreUrl,
    path: InstallPath,
    created_ms: i64,
}

type Table = BTreeMap<String, Saved>;

/// All links. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    metrics: Arc<Metrics>,
    lifetime: Live<Duration>,
    /// By `directory/file`. Held while saving, so that an older copy never replaces a newer one.
    table: Mutex<Table>,
}

impl LinkName {
    pub fn new(directory: &str, file: &str) -> Result<Self, PathError> {
        Ok(Self { directory: directory.trim_matches('/').parse()?, file: file.parse()? })
    }

    /// From a link as the server knows it: its two last segments.
    pub fn of_url(url: &str) -> Option<Self> {
        let path = url.split(['?', '#']).next()?;
        let (rest, file) = path.rsplit_once('/')?;
        let (_, directory) = rest.rsplit_once('/')?;
        Self::new(directory, file).ok()
    }

    fn key(&self) -> String {
        format!("{}/{}", self.directory, self.file)
    }
}

impl Links {
    /// Reads `links.json` of the role's state directory; an entry that leads nowhere is left out.
    /// A link ends by itself after `lifetime`. Blocks.
    pub fn load(
        state_directory: &Path,
        metrics: Arc<Metrics>,
        lifetime: Live<Duration>,
    ) -> Result<Self, StateError> {
        let path = state_directory.join("links.json");
        let saved: BTreeMap<String, serde_json::Value> = state_file::load(&path)?;
        let mut table = Table::new();
        for (name, value) in saved {
            match serde_json::from_value(value) {
                Ok(saved) => drop(table.insert(name, saved)),
                Err(error) => tracing::warn!(name, %error, "a saved link leads nowhere"),
            }
        }
        metrics.links(table.len());
        let table = Mutex::new(table);
        Ok(Self { shared: Arc::new(Shared { path, metrics, lifetime, table }) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table and saves it; what cannot be saved is not changed, because it would come
    /// back, or be lost, at the next start. Blocks.
    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> Result<T, LinkError> {
        let mut table = self.table();
        let mut changed = table.clone();
        let outcome = change(&mut changed);
        if changed != *table {
            state_file::save(&self.shared.path, &changed)?;
            *table = changed;
            self.shared.metrics.links(table.len());
        }
        Ok(outcome)
    }

    /// Makes a link, or points an existing one to `target`. Blocks.
    pub fn add(&self, name: &LinkName, target: &Target, now_ms: i64) -> Result<(), LinkError> {
        let saved =
            Saved { store: target.store.clone(), path: target.path.clone(), created_ms: now_ms };
        let lifetime = self.shared.lifetime.get();
        self.change(|table| {
            table.retain(|_, saved| saved.left(*lifetime, now_ms).is_some());
            if table.len() >= MAX_LINKS && !table.contains_key(&name.key()) {
                return Err(LinkError::TooMany(MAX_LINKS));
            }
            table.insert(name.key(), saved);
            Ok(())
        })?
    }

    /// Removes a link; gives what it led to. Blocks.
    pub fn remove(&self, name: &LinkName) -> Result<Option<Target>, LinkError> {
        Ok(self.change(|table| table.remove(&name.key()))?.map(Saved::into_target))
    }

    /// Removes every link to something in a directory; gives their number. Blocks.
    pub fn remove_below(
        &self,
        store: &StoreUrl,
        directory: &InstallPath,
    ) -> Result<usize, LinkError> {
        let key = store.key();
        self.change(|table| {
            let before = table.len();
            table.retain(|_, saved| {
                saved.store.key() != key || !saved.path.parts().starts_with(directory.parts())
            });
            before - table.len()
        })
    }

    /// Removes the links whose time is over; gives their number. Blocks.
    pub fn remove_ended(&self, now_ms: i64) -> Result<usize, LinkError> {
        let lifetime = self.shared.lifetime.get();
        self.change(|table| {
            let before = table.len();
            table.retain(|_, saved| saved.left(*lifetime, now_ms).is_some());
            before - table.len()
        })
    }

    /// What a link leads to, unless its time is over.
    pub fn find(&self, name: &LinkName, now_ms: i64) -> Option<Target> {
        let saved = self.table().get(&name.key())?.clone();
        saved.left(*self.shared.lifetime.get(), now_ms)?;
        Some(saved.into_target())
    }

    /// For `/status`: how many, and the newest.
    pub fn status(&self, now_ms: i64) -> DownloadLinksStatus {
        let lifetime = self.shared.lifetime.get();
        let table = self.table();
        let mut newest: Vec<(&String, &Saved)> = table.iter().collect();
        newest.sort_by_key(|(_, saved)| std::cmp::Reverse(saved.created_ms));
        let links = newest.into_iter().take(MAX_SHOWN).map(|(name, saved)| DownloadLink {
            link: name.clone(),
            store: saved.store.to_string(),
            path: saved.path.to_string(),
            created_ago_ms: millis(saved.age(now_ms)),
            expires_in_ms: saved.left(*lifetime, now_ms).map(millis),
        });
        DownloadLinksStatus { count: table.len(), links: links.collect() }
    }
}

impl Saved {
    fn into_target(self) -> Target {
        Target { store: self.store, path: self.path }
    }

    fn age(&self, now_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(now_ms.saturating_sub(self.created_ms)).unwrap_or(0))
    }

    /// Time until the link ends; `None` when it has ended.
    fn left(&self, lifetime: Duration, now_ms: i64) -> Option<Duration> {
        lifetime.checked_sub(self.age(now_ms)).filter(|left| !left.is_zero())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        Target { store: "nfs://h/p".parse().unwrap(), path: path.parse().unwrap() }
    }

    fn load(directory: &Path) -> Links {
        Links::load(directory, Arc::default(), Live::new(Duration::from_millis(1_000))).unwrap()
    }

    #[test]
    fn links_survive_a_restart_until_removed() {
        let temp = tempfile::tempdir().unwrap();
        let links = || load(temp.path());
        let name = LinkName::new("245aa84f", "g-plain.qcow2").unwrap();
        links().add(&name, &target("template/tmpl/2/320/a.qcow2"), 1).unwrap();
        assert_eq!(links().find(&name, 1), Some(target("template/tmpl/2/320/a.qcow2")));
        let by_url = LinkName::of_url("http://10.77.1.2/userdata/245aa84f/g-plain.qcow2").unwrap();
        assert_eq!(by_url, name);
        assert_eq!(links().remove(&name).unwrap(), Some(target("template/tmpl/2/320/a.qcow2")));
        assert_eq!(links().find(&name, 1), None);
        assert_eq!(links().remove(&name).unwrap(), None);
    }

    #[test]
    fn links_end_by_themselves_and_with_what_they_lead_to() {
        let temp = tempfile::tempdir().unwrap();
        let links = load(temp.path());
        let name = |file: &str| LinkName::new("d", file).unwrap();
        for (file, path, at) in [
            ("old", "template/tmpl/2/320/a", 100),
            ("one", "template/tmpl/2/320/a", 500),
            ("two", "template/tmpl/2/320/b", 500),
            ("near", "template/tmpl/2/3201/a", 500),
        ] {
            links.add(&name(file), &target(path), at).unwrap();
        }
        assert!(links.find(&name("old"), 1_099).is_some());
        assert!(links.find(&name("old"), 1_100).is_none(), "its time is over");
        assert!(links.find(&name("old"), 0).is_some(), "a clock that was set back ends nothing");
        assert_eq!(links.remove_ended(1_100).unwrap(), 1);
        let other = "nfs://other/p".parse().unwrap();
        let directory = "template/tmpl/2/320".parse().unwrap();
        assert_eq!(links.remove_below(&other, &directory).unwrap(), 0);
        let same = "nfs://h/p/".parse().unwrap();
        assert_eq!(links.remove_below(&same, &directory).unwrap(), 2);
        let status = load(temp.path()).status(600);
        assert_eq!((status.count, status.links[0].link.as_str()), (1, "d/near"));
        assert_eq!(
            (status.links[0].created_ago_ms, status.links[0].expires_in_ms),
            (100, Some(900))
        );
    }

    #[test]
    fn what_cannot_be_saved_does_not_happen() {
        let temp = tempfile::tempdir().unwrap();
        let state = temp.path().join("state");
        let links = load(&state);
        let name = LinkName::new("d", "f").unwrap();
        links.add(&name, &target("a/b"), 1).unwrap();
        std::fs::rename(&state, temp.path().join("aside")).unwrap();
        std::fs::write(&state, "in the way").unwrap();
        assert!(links.remove(&name).is_err());
        assert!(links.remove_ended(10_000).is_err());
        assert_eq!(links.find(&name, 1), Some(target("a/b")), "as after a restart");
        assert!(links.add(&LinkName::new("d", "g").unwrap(), &target("a/b"), 1).is_err());
        assert_eq!(links.status(1).count, 1);
    }

    #[test]
    fn names_are_single_segments() {
        assert!(LinkName::new("a/b", "c").is_err());
        assert!(LinkName::new("..", "c").is_err());
        assert!(LinkName::new("a", "c/d").is_err());
        assert!(LinkName::of_url("nothing").is_none());
    }
}
