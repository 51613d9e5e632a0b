//! Telling a store from an empty directory.
//!
//! When an NFS mount is lost, its mount point looks like an empty store, and an empty inventory
//! makes the management server forget every template. So each store carries a marker with a random
//! text, and this host remembers the marker of every store it has seen something on: a directory
//! without it is not that store.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::dir::{Dir, Modes};
use crate::state_file;

/// Name of the marker in the root of a store.
pub const MARKER_FILE: &str = ".quickcloud-store";

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
        Ok(Self { known: Mutex::new(state_file::load(&path)?), path })
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
        state_file::save(&self.path, &*known)
    }
}

/// What a look at the marker means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the store; its marker, unless the store takes no files (read-only, full).
    Same(Option<String>),
    /// The directory is not the store that was there before.
    Lost,
}

/// Compares the marker with what is known, and marks a store that has none yet. Blocks.
pub fn verify_or_mark(root: &Dir, known: Option<&Known>, modes: Modes) -> std::io::Result<Verdict> {
    let remembered = known.and_then(|known| known.marker.as_deref());
    let held = known.is_some_and(|known| known.held);
    match (read(root)?, remembered) {
        (Some(found), Some(remembered)) if found != remembered && held => Ok(Verdict::Lost),
        (Some(found), _) => Ok(Verdict::Same(Some(found))),
        (None, Some(_)) if held => Ok(Verdict::Lost),
        // It could not be marked then, and what was seen on it is gone.
        (None, None) if held && !holds_objects(root)? => Ok(Verdict::Lost),
        // Others read it; nobody but this host needs to write it.
        (None, _) => match write(root, Modes { file: 0o644, ..modes }) {
            Ok(()) => Ok(Verdict::Same(read(root)?)),
            // A store that takes nothing can still be listed, and a full one be made room on.
            Err(error) if takes_nothing(&error) => Ok(Verdict::Same(None)),
            Err(error) => Err(error),
        },
    }
}

fn takes_nothing(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

fn holds_objects(root: &Dir) -> std::io::Result<bool> {
    let entries = root.entries()?;
    Ok(entries.iter().any(|(name, _)| name == "template" || name == "volumes"))
}

/// The marker's text; `None` when there is none.
pub fn read(root: &Dir) -> std::io::Result<Option<String>> {
    let file = match root.open_file(MARKER_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(128).read_to_string(&mut text)?;
    let text = text.trim().to_owned();
    Ok((!text.is_empty()).then_some(text))
}

/// Two hosts may do this at the same time: the last rename wins and both read it back.
fn write(root: &Dir, modes: Modes) -> std::io::Result<()> {
    let marker = uuid::Uuid::new_v4().to_string();
    let aside = format!("{MARKER_FILE}.{marker}");
    let mut file = root.create_file(&aside, modes)?;
    let written = file
        .write_all(format!("{marker}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| root.rename(&aside, MARKER_FILE))
        .and_then(|()| root.sync());
    if written.is_err()
        && let Err(error) = root.remove_file(&aside)
    {
        tracing::warn!(file = aside, %error, "cannot remove an unused marker");
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: Modes = Modes { directory: 0o777, file: 0o666 };

    fn known(marker: &str, held: bool) -> Known {
        Known { directory_name: "d".to_owned(), marker: Some(marker.to_owned()), held }
    }

    #[test]
    fn an_emptied_directory_is_not_the_store_that_held_something() {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open_root(temp.path()).unwrap();
        let Verdict::Same(Some(marker)) = verify_or_mark(&root, None, MODES).unwrap() else {
            panic!("a new store is marked");
        };
        let same = Verdict::Same(Some(marker.clone()));
        assert_eq!(verify_or_mark(&root, Some(&known(&marker, true)), MODES).unwrap(), same);
        assert_eq!(verify_or_mark(&root, None, MODES).unwrap(), same, "another host marked it");
        assert_eq!(
            verify_or_mark(&root, Some(&known("other", true)), MODES).unwrap(),
            Verdict::Lost
        );
        assert_eq!(verify_or_mark(&root, Some(&known("other", false)), MODES).unwrap(), same);
        std::fs::remove_file(temp.path().join(MARKER_FILE)).unwrap();
        assert_eq!(
            verify_or_mark(&root, Some(&known(&marker, true)), MODES).unwrap(),
            Verdict::Lost
        );
        let again = verify_or_mark(&root, Some(&known(&marker, false)), MODES).unwrap();
        assert!(matches!(again, Verdict::Same(Some(_))), "nothing was lost with it");
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

    #[test]
    fn an_unmarked_store_is_known_by_what_it_holds() {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open_root(temp.path()).unwrap();
        let unmarked = Known { directory_name: "d".to_owned(), marker: None, held: true };
        assert_eq!(verify_or_mark(&root, Some(&unmarked), MODES).unwrap(), Verdict::Lost);
        std::fs::create_dir(temp.path().join("template")).unwrap();
        let verdict = verify_or_mark(&root, Some(&unmarked), MODES).unwrap();
        assert!(matches!(verdict, Verdict::Same(Some(_))), "marked as soon as that is possible");
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
}
