//! Small files of the state directory, replaced whole or not at all.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Readable by everyone: certificates.
pub(crate) const PUBLIC: u32 = 0o644;
/// Readable by us: keys, identity.
pub(crate) const PRIVATE: u32 = 0o600;

/// Why a file of the state directory could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub(crate) struct WriteError {
    path: PathBuf,
    source: std::io::Error,
}

/// Creates the state directory, closed to others, unless it is there.
pub(crate) fn create_directory(path: &Path) -> Result<(), WriteError> {
    let builder = || {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o750);
        builder
    };
    builder().create(path).map_err(|source| WriteError { path: path.to_owned(), source })
}

/// Replaces the file, see [`bedrock::files::replace`].
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), WriteError> {
    bedrock::files::replace(path, content, mode)
        .map_err(|source| WriteError { path: path.to_owned(), source })
}

/// Renames within a directory, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), WriteError> {
    bedrock::files::rename(from, to).map_err(|source| WriteError { path: to.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_even_when_a_crash_left_a_temporary_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cloud.key");
        std::fs::write(directory.path().join("cloud.key.tmp"), "torn").unwrap();
        std::fs::write(&path, "old").unwrap();
        replace(&path, b"new", PRIVATE).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_names_the_file() {
        let error = replace(Path::new("/proc/none/x"), b"", PUBLIC).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /proc/none/x");
    }
}
