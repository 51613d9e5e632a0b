//! Small files: replaced whole or not at all; and secrets, each in a file of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::Secret;

/// Writes beside the file and renames, durably: a crash leaves the old content or the new one.
/// `mode` holds from the first byte on, whatever an earlier file had. Blocks.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    // What a crashed run left may have another mode: start anew.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _gone => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    rename(&beside, path)
}

/// Renames within a directory, durably. Blocks.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// What changes when a file is written, replaced or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(Option<(u64, i64, i64, u64)>);

/// How the file is now. Blocks.
pub fn mark(path: &Path) -> Mark {
    let metadata = std::fs::metadata(path).ok();
    Mark(metadata.map(|it| (it.ino(), it.mtime(), it.mtime_nsec(), it.size())))
}

/// A key or a password has a few dozen characters.
const LONGEST_SECRET: u64 = 4096;

/// A secret that is the whole file, but for the end of its line. The file must be closed to
/// others. Blocks.
///
/// # Errors
/// A sentence with the file and the remedy.
pub fn read_secret(path: &Path) -> Result<Secret<String>, String> {
    let shown = path.display();
    let failed = |error: io::Error| format!("cannot read the secret {shown}: {error}");
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(format!("the secret {shown} is open to everybody: chmod 600 it"));
    }
    if metadata.len() > LONGEST_SECRET {
        return Err(format!("{shown} is too long for a secret"));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.trim().is_empty() || text.contains('\n') {
        return Err(format!("{shown} is not one line with a secret"));
    }
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_and_leftovers_do_not_matter() {
        let directory = std::env::temp_dir().join(format!("role-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("a.json");
        std::fs::write(directory.join("a.json.tmp"), "left by a crash").unwrap();
        replace(&path, b"one", 0o644).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
