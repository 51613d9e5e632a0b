//! Telling a store from an empty directory.
//!
//! When an NFS mount is lost, its mount point looks like an empty store, and an empty inventory
//! makes the management server forget every template. So each store carries a marker with a random
//! text, and this host remembers the marker of every store it has seen something on: a directory
//! without it is not that store.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::engine::{Engine, EngineError};
use super::path::{InstallPath, ObjectKind};
use super::url::StoreUrl;
use super::work::Work;
use crate::state_file;

/// Name of the marker in the root of a store.
pub const MARKER_FILE: &str = ".quickcloud-store";
const MAX_LEN: usize = 128;

/// What this host knows about a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Name of its directory below the mount root, fixed when the store was first opened: the
    /// management server keeps it in its records, so it must not follow a changed DNS answer.
    pub directory_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// A template or volume was seen or put there.
    #[serde(default)]
    pub held: bool,
}

/// The memory of all stores, by [`super::url::StoreUrl::key`].
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    known: Mutex<BTreeMap<String, Known>>,
}

impl Memory {
    /// Reads `stores.json` of the role's state directory. Blocks.
    pub fn load(state_directory: &Path) -> Result<Self, state_file::StateError> {
        let path = state_directory.join("stores.json");
        let saved: BTreeMap<String, Known> = state_file::load(&path)?;
        // Keys of an earlier form (IPv6 without brackets) are read as the store they name.
        let key = |text: String| text.parse().map_or(text, |url: StoreUrl| url.key());
        let known = saved.into_iter().map(|(text, known)| (key(text), known)).collect();
        Ok(Self { known: Mutex::new(known), path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn get(&self, key: &str) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// The URLs' keys seen so far, with the directory names.
    pub fn key_of_directory(&self, name: &str) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(_, known)| known.directory_name == name).map(|(key, _)| key.clone())
    }

    /// Changes an entry and saves when that made a difference. Blocks.
    pub fn change(
        &self,
        key: &str,
        change: impl FnOnce(&mut Known),
    ) -> Result<(), state_file::StateError> {
        // Held while writing, so that an older copy never replaces a newer one.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(key.to_owned()).or_default();
        let before = entry.clone();
        change(entry);
        if *entry == before {
            return Ok(());
        }
        let saved = state_file::save(&self.path, &*known);
        if saved.is_err() {
            // What would be forgotten at the next start is not known.
            known.insert(key.to_owned(), before);
        }
        saved
    }
}

/// What a look at the marker means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkerCheck {
    /// It is the store; its marker, unless the store takes no files (read-only, full).
    Same(Option<String>),
    /// The place is not the store that was there before.
    Lost,
}

/// Compares the marker with what is known, and marks a store that has none yet.
pub async fn verify_or_mark(
    engine: &dyn Engine,
    work: &Work,
    known: Option<&Known>,
) -> Result<MarkerCheck, EngineError> {
    let remembered = known.and_then(|known| known.marker.as_deref());
    let held = known.is_some_and(|known| known.held);
    match (read(engine, work).await?, remembered) {
        (Some(found), Some(remembered)) if found != remembered && held => Ok(MarkerCheck::Lost),
        (Some(found), _) => Ok(MarkerCheck::Same(Some(found))),
        (None, Some(_)) if held => Ok(MarkerCheck::Lost),
        // It could not be marked then, and what was seen on it is gone.
        (None, None) if held && !holds_objects(engine, work).await? => Ok(MarkerCheck::Lost),
        (None, _) => match write(engine, work).await {
            Ok(()) => Ok(MarkerCheck::Same(read(engine, work).await?)),
            // A store that takes nothing can still be listed, and a full one be made room on.
            Err(EngineError::Io(error)) if takes_nothing(&error) => Ok(MarkerCheck::Same(None)),
            Err(error) => Err(error),
        },
    }
}

/// Read-only or full.
pub(crate) fn takes_nothing(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

async fn holds_objects(engine: &dyn Engine, work: &Work) -> Result<bool, EngineError> {
    for kind in ObjectKind::ALL {
        if let Some(tree) = kind.tree().prefix(1)
            && engine.kind(work, tree).await?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The marker's text; `None` when there is none.
async fn read(engine: &dyn Engine, work: &Work) -> Result<Option<String>, EngineError> {
    let found = engine.get(work, InstallPath::of(MARKER_FILE)?).await?;
    Ok(found.as_deref().and_then(text))
}

/// The text in a marker's file.
pub fn text(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes.get(..MAX_LEN).unwrap_or(bytes)).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Two hosts may do this at the same time: the last one wins and both read it back.
async fn write(engine: &dyn Engine, work: &Work) -> Result<(), EngineError> {
    let marker = uuid::Uuid::new_v4().to_string();
    let aside = format!("{MARKER_FILE}.{marker}").parse().map_err(std::io::Error::other)?;
    let content = Bytes::from(format!("{marker}\n"));
    engine.put(work, InstallPath::of(MARKER_FILE)?, aside, content).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::stores::directory::pool::Pool;
    use crate::stores::directory::{Directory, Modes};

    fn directory(root: &Path) -> Directory {
        let modes = Modes { directory: 0o777, file: 0o666 };
        let pool = Arc::new(Pool::start().unwrap());
        Directory::new(root.to_owned(), modes, Duration::from_secs(20), pool)
    }

    fn known(marker: &str, held: bool) -> Known {
        Known { directory_name: "d".to_owned(), marker: Some(marker.to_owned()), held }
    }

    #[tokio::test]
    async fn an_emptied_directory_is_not_the_store_that_held_something() {
        let temp = tempfile::tempdir().unwrap();
        let (root, work) = (directory(temp.path()), Work::new());
        let check =
            async |known: Option<&Known>| verify_or_mark(&root, &work, known).await.unwrap();
        let MarkerCheck::Same(Some(marker)) = check(None).await else {
            panic!("a new store is marked");
        };
        let same = MarkerCheck::Same(Some(marker.clone()));
        assert_eq!(check(Some(&known(&marker, true))).await, same);
        assert_eq!(check(None).await, same, "another host marked it");
        assert_eq!(check(Some(&known("other", true))).await, MarkerCheck::Lost);
        assert_eq!(check(Some(&known("other", false))).await, same);
        std::fs::remove_file(temp.path().join(MARKER_FILE)).unwrap();
        assert_eq!(check(Some(&known(&marker, true))).await, MarkerCheck::Lost);
        let again = check(Some(&known(&marker, false))).await;
        assert!(matches!(again, MarkerCheck::Same(Some(_))), "nothing was lost with it");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "nothing but the marker");
    }

    #[test]
    fn a_store_that_takes_nothing_is_usable_and_other_faults_are_not() {
        for (errno, expected) in [
            (nix::errno::Errno::ENOSPC, true),
            (nix::errno::Errno::EDQUOT, true),
            (nix::errno::Errno::EROFS, true),
            (nix::errno::Errno::EIO, false),
            (nix::errno::Errno::EACCES, false),
        ] {
            assert_eq!(takes_nothing(&errno.into()), expected, "{errno}");
        }
    }

    #[tokio::test]
    async fn an_unmarked_store_is_known_by_what_it_holds() {
        let temp = tempfile::tempdir().unwrap();
        let (root, work) = (directory(temp.path()), Work::new());
        let unmarked = Known { directory_name: "d".to_owned(), marker: None, held: true };
        let check = async || verify_or_mark(&root, &work, Some(&unmarked)).await.unwrap();
        assert_eq!(check().await, MarkerCheck::Lost);
        std::fs::create_dir(temp.path().join("template")).unwrap();
        let found = check().await;
        assert!(matches!(found, MarkerCheck::Same(Some(_))), "marked as soon as that is possible");
    }

    #[test]
    fn the_memory_survives() {
        let temp = tempfile::tempdir().unwrap();
        let memory = Memory::load(temp.path()).unwrap();
        memory.change("nfs://a/b", |known| known.directory_name = "d".to_owned()).unwrap();
        memory.change("nfs://a/b", |known| known.held = true).unwrap();
        let memory = Memory::load(temp.path()).unwrap();
        assert_eq!(memory.key_of_directory("d").as_deref(), Some("nfs://a/b"));
        assert!(memory.get("nfs://a/b").unwrap().held);
    }

    #[test]
    fn keys_of_ipv6_hosts_without_brackets_are_still_understood() {
        let temp = tempfile::tempdir().unwrap();
        let old = r#"{"nfs://fd00::1/sec":{"directory_name":"d","held":true}}"#;
        std::fs::write(temp.path().join("stores.json"), old).unwrap();
        let memory = Memory::load(temp.path()).unwrap();
        assert_eq!(memory.key_of_directory("d").as_deref(), Some("nfs://[fd00::1]/sec"));
        let url: StoreUrl = "nfs://[fd00::1]/sec/".parse().unwrap();
        assert!(memory.get(&url.key()).unwrap().held);
    }

    #[test]
    fn what_cannot_be_saved_is_not_remembered() {
        let temp = tempfile::tempdir().unwrap();
        let memory = Memory::load(&temp.path().join("state")).unwrap();
        std::fs::write(temp.path().join("state"), "in the way").unwrap();
        assert!(memory.change("nfs://a/b", |known| known.held = true).is_err());
        assert!(!memory.get("nfs://a/b").unwrap_or_default().held);
    }
}
