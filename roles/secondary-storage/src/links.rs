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

use serde::{Deserialize, Serialize};

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

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Saved {
    store: String,
    path: String,
    created_ms: i64,
}

/// All links. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    metrics: Arc<Metrics>,
    /// By `directory/file`. Held while saving, so that an older copy never replaces a newer one.
    table: Mutex<BTreeMap<String, Saved>>,
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
    /// Reads `links.json` of the role's state directory. Blocks.
    pub fn load(state_directory: &Path, metrics: Arc<Metrics>) -> Result<Self, StateError> {
        let path = state_directory.join("links.json");
        let table: BTreeMap<String, Saved> = state_file::load(&path)?;
        metrics.links(table.len());
        Ok(Self { shared: Arc::new(Shared { path, metrics, table: Mutex::new(table) }) })
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Saved>> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a link, or points an existing one to `target`. Blocks.
    pub fn add(&self, name: &LinkName, target: &Target, now_ms: i64) -> Result<(), LinkError> {
        let mut table = self.table();
        if table.len() >= MAX_LINKS && !table.contains_key(&name.key()) {
            return Err(LinkError::TooMany(MAX_LINKS));
        }
        let saved = Saved {
            store: target.store.to_string(),
            path: target.path.to_string(),
            created_ms: now_ms,
        };
        let before = table.insert(name.key(), saved);
        if let Err(error) = state_file::save(&self.shared.path, &*table) {
            // A link that would be lost at the next restart is none.
            match before {
                Some(before) => table.insert(name.key(), before),
                None => table.remove(&name.key()),
            };
            return Err(error.into());
        }
        self.shared.metrics.links(table.len());
        Ok(())
    }

    /// Removes a link; gives what it led to. Blocks.
    pub fn remove(&self, name: &LinkName) -> Result<Option<Target>, LinkError> {
        let mut table = self.table();
        let Some(saved) = table.remove(&name.key()) else { return Ok(None) };
        state_file::save(&self.shared.path, &*table)?;
        self.shared.metrics.links(table.len());
        Ok(saved.target())
    }

    pub fn find(&self, name: &LinkName) -> Option<Target> {
        self.table().get(&name.key())?.target()
    }

    /// For `/status`: name, path and creation time of each link.
    pub fn status(&self) -> serde_json::Value {
        let table = self.table();
        let list = table.iter().take(100).map(|(name, saved)| {
            serde_json::json!({ "link": name, "store": saved.store, "path": saved.path, "created_ms": saved.created_ms })
        });
        serde_json::json!({ "count": table.len(), "first": list.collect::<Vec<_>>() })
    }
}

impl Saved {
    fn target(&self) -> Option<Target> {
        Some(Target { store: self.store.parse().ok()?, path: self.path.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        Target { store: "nfs://h/p".parse().unwrap(), path: path.parse().unwrap() }
    }

    #[test]
    fn links_survive_a_restart_until_removed() {
        let temp = tempfile::tempdir().unwrap();
        let links = || Links::load(temp.path(), Arc::default()).unwrap();
        let name = LinkName::new("245aa84f", "g-plain.qcow2").unwrap();
        links().add(&name, &target("template/tmpl/2/320/a.qcow2"), 1).unwrap();
        assert_eq!(links().find(&name), Some(target("template/tmpl/2/320/a.qcow2")));
        let by_url = LinkName::of_url("http://10.77.1.2/userdata/245aa84f/g-plain.qcow2").unwrap();
        assert_eq!(by_url, name);
        assert_eq!(links().remove(&name).unwrap(), Some(target("template/tmpl/2/320/a.qcow2")));
        assert_eq!(links().find(&name), None);
        assert_eq!(links().remove(&name).unwrap(), None);
    }

    #[test]
    fn names_are_single_segments() {
        assert!(LinkName::new("a/b", "c").is_err());
        assert!(LinkName::new("..", "c").is_err());
        assert!(LinkName::new("a", "c/d").is_err());
        assert!(LinkName::of_url("nothing").is_none());
    }
}
