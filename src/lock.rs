//! A directory that belongs to one process at a time.
//!
//! Two processes on one state directory register with the same identities and throw each other off
//! the management server. The kernel's lock ends with its holder, however that ends; the file says
//! who the holder is.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The most of a lock file that is read.
const NOTE_LIMIT: u64 = 256;

/// Held while it lives.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

/// Why a directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is in use by another process ({holder})", directory.display())]
    InUse { directory: PathBuf, holder: String },
    #[error("cannot lock {}", path.display())]
    System { path: PathBuf, source: std::io::Error },
}

impl DirectoryLock {
    /// Takes the lock `name` in `directory`. The file stays when the holder ends: removing it would
    /// let two others hold two files of the same name.
    pub(crate) fn take(directory: &Path, name: &str) -> Result<Self, LockError> {
        let path = directory.join(name);
        let failed = |source| LockError::System { path: path.clone(), source };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let directory = directory.to_owned();
                return Err(LockError::InUse { directory, holder: holder(file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let since = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let note = format!("pid {} since {since}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// What the holder wrote about itself.
fn holder(file: File) -> String {
    let mut note = Vec::new();
    let read = file.take(NOTE_LIMIT).read_to_end(&mut note);
    let text = String::from_utf8_lossy(&note);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    match (read, text.is_empty()) {
        (Ok(_), false) => text,
        // It holds the lock and has not written yet.
        (Ok(_), true) | (Err(_), _) => "it started just now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_who_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(path.join("x.lock"), "pid 1 since a very long time ago, left by a crash")
            .unwrap();
        let held = DirectoryLock::take(path, "x.lock").unwrap();
        let error = DirectoryLock::take(path, "x.lock").unwrap_err().to_string();
        let expected = format!("in use by another process (pid {} since 2", std::process::id());
        assert!(error.contains(&expected), "{error}");
        assert!(!error.contains("crash"), "{error}");
        drop(held);
        DirectoryLock::take(path, "x.lock").unwrap();
    }
}
