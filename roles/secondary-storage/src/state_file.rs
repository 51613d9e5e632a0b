//! Small facts that survive a restart: one JSON file each, replaced as a whole.

use std::io::Read;
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
