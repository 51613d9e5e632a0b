//! Small facts that survive a restart: one JSON file each, replaced as a whole.

use std::io::{Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

const MAX_LEN: u64 = 16 * 1024 * 1024;

/// What went wrong with a file of the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} is not what this program wrote", path.display())]
    Content { path: PathBuf, source: serde_json::Error },
}

/// Reads the file; the default value when there is none. Blocks.
pub fn load<T: DeserializeOwned + Default>(path: &Path) -> Result<T, StateError> {
    Ok(read(path)?.unwrap_or_default())
}

/// Reads the file; `None` when there is none. Blocks.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let read = |source| StateError::Read { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut bytes).map_err(read)?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StateError::Content { path: path.to_owned(), source })
}

/// Replaces the file; after a crash it holds the old or the new value. Blocks.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| StateError::Content { path: path.to_owned(), source })?;
    replace(path, &bytes).map_err(|source| StateError::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    bedrock::files::replace(path, bytes, 0o600)
}

/// Removes the file; none is fine. Blocks.
pub fn remove(path: &Path) -> Result<(), StateError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StateError::Write { path: path.to_owned(), source }),
    }
}

/// A directory of values, one file each; the file's name is the value's key.
#[derive(Debug)]
pub struct Folder<T> {
    directory: PathBuf,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Folder<T> {
    fn clone(&self) -> Self {
        Self { directory: self.directory.clone(), value: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> Folder<T> {
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory, value: PhantomData }
    }

    /// Keys are made here: UUIDs.
    fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }

    /// Blocks.
    pub fn write(&self, key: &str, value: &T) -> Result<(), StateError> {
        save(&self.path(key), value)
    }

    /// As [`Folder::write`], but the value survives only the process for sure, not the machine: for
    /// values that change all the time. Blocks.
    pub fn write_soon(&self, key: &str, value: &T) -> Result<(), StateError> {
        let path = self.path(key);
        let bytes = serde_json::to_vec(value)
            .map_err(|source| StateError::Content { path: path.clone(), source })?;
        let failed = |source| StateError::Write { path: path.clone(), source };
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        let aside = self.directory.join(format!("{key}.new"));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| std::fs::rename(&aside, &path));
        written.map_err(failed)
    }

    /// Blocks.
    pub fn read(&self, key: &str) -> Result<Option<T>, StateError> {
        read(&self.path(key))
    }

    /// None is fine. Blocks.
    pub fn erase(&self, key: &str) -> Result<(), StateError> {
        remove(&self.path(key))
    }

    /// Every value with its key; a damaged one is reported and left out. Blocks.
    pub fn all(&self) -> Result<Vec<(String, T)>, StateError> {
        let failed = |source| StateError::Read { path: self.directory.clone(), source };
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut values = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let Some(key) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read::<T>(&path) {
                Ok(Some(value)) => values.push((key.to_owned(), value)),
                // Erased since the directory was read.
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        error = bedrock::chain(&error),
                        "a file of the state is left out"
                    );
                }
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced_and_a_missing_file_is_the_default() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("deep/links.json");
        assert_eq!(load::<Vec<u8>>(&path).unwrap(), Vec::<u8>::new());
        save(&path, &vec![1_u8]).unwrap();
        save(&path, &vec![2_u8]).unwrap();
        assert_eq!(load::<Vec<u8>>(&path).unwrap(), [2]);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(load::<Vec<u8>>(&path), Err(StateError::Content { .. })));
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
