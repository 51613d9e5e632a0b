//! Links of stores that take no files, in this host's own state directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Kept, LinkName};
use crate::state_file::{self, StateError};
use crate::stores::StoreUrl;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Saved {
    store: StoreUrl,
    #[serde(flatten)]
    kept: Kept,
}

type Table = BTreeMap<String, Saved>;

/// The table. Everything but reading blocks.
#[derive(Debug)]
pub struct LocalTable {
    path: PathBuf,
    /// By `directory/file`. Held while saving, so that an older copy never replaces a newer one.
    table: Mutex<Table>,
}

impl LocalTable {
    /// Reads `links.json` of the role's state directory; an entry that leads nowhere is left out.
    pub fn load(state_directory: &Path) -> Result<Self, StateError> {
        let path = state_directory.join("links.json");
        let saved: BTreeMap<String, serde_json::Value> = state_file::load(&path)?;
        let mut table = Table::new();
        for (name, value) in saved {
            match serde_json::from_value(value) {
                Ok(saved) => drop(table.insert(name, saved)),
                Err(error) => tracing::warn!(name, %error, "a saved link leads nowhere"),
            }
        }
        Ok(Self { path, table: Mutex::new(table) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table and saves it; what cannot be saved is not changed, because it would come
    /// back, or be lost, at the next start.
    fn change(&self, change: impl FnOnce(&mut Table)) -> Result<(), StateError> {
        let mut table = self.table();
        let mut changed = table.clone();
        change(&mut changed);
        if changed != *table {
            state_file::save(&self.path, &changed)?;
            *table = changed;
        }
        Ok(())
    }

    pub(super) fn put(
        &self,
        name: &LinkName,
        store: &StoreUrl,
        kept: &Kept,
    ) -> Result<(), StateError> {
        let saved = Saved { store: store.clone(), kept: kept.clone() };
        self.change(|table| drop(table.insert(name.to_string(), saved)))
    }

    pub(super) fn remove(&self, name: &LinkName) -> Result<(), StateError> {
        self.change(|table| drop(table.remove(&name.to_string())))
    }

    pub(super) fn retain(&self, keep: impl Fn(&Kept) -> bool) -> Result<(), StateError> {
        self.change(|table| table.retain(|_, saved| keep(&saved.kept)))
    }

    pub(super) fn get(&self, name: &LinkName) -> Option<(StoreUrl, Kept)> {
        let table = self.table();
        let saved = table.get(&name.to_string())?;
        Some((saved.store.clone(), saved.kept.clone()))
    }

    pub(super) fn all(&self) -> BTreeMap<LinkName, (StoreUrl, Kept)> {
        let table = self.table();
        let named = table.iter().filter_map(|(text, saved)| {
            let (directory, file) = text.split_once('/')?;
            let name = LinkName::new(directory, file).ok()?;
            Some((name, (saved.store.clone(), saved.kept.clone())))
        });
        named.collect()
    }
}
