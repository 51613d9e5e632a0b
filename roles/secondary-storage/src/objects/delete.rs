//! Removing a template or volume from a store.

use std::io::{ErrorKind, Result};

use crate::stores::{Dir, InstallPath, ObjectKind};

/// How deep an object's directory may be nested: archives unpack into sub-directories.
const MAX_DEPTH: u8 = 8;

/// Removes the object's directory with everything in it, the properties file first, so that a
/// half-removed object is never listed. A missing one is success. Blocks.
pub fn remove_object(root: &Dir, kind: ObjectKind, directory: &InstallPath) -> Result<()> {
    let (account, name) = match root.parent_of(directory) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match account.remove_tree(name, kind.properties_file(), MAX_DEPTH) {
        Ok(()) => account.sync(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes one file, then its directory if nothing else is in it. A missing file is success.
/// Blocks.
pub fn remove_file(root: &Dir, path: &InstallPath) -> Result<()> {
    let Some((directory, name)) = path.split() else { return Ok(()) };
    let parent = match root.walk(&directory) {
        Ok(parent) => parent,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    parent.remove_file(name.as_str())?;
    let (above, name) = root.parent_of(&directory)?;
    above.remove_empty(name)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        for path in ["template/tmpl/2/204/sub", "template/tmpl/2/205", "volumes/2/45"] {
            std::fs::create_dir_all(temp.path().join(path)).unwrap();
        }
        for file in ["template.properties", "a.qcow2", "sub/b.vmdk"] {
            std::fs::write(temp.path().join("template/tmpl/2/204").join(file), "x").unwrap();
        }
        std::fs::write(temp.path().join("volumes/2/45/v.qcow2"), "x").unwrap();
        let root = Dir::open_root(temp.path()).unwrap();
        (temp, root)
    }

    #[test]
    fn an_object_goes_as_a_whole_and_its_account_stays() {
        let (temp, root) = store();
        let directory = "template/tmpl/2/204".parse().unwrap();
        remove_object(&root, ObjectKind::Template, &directory).unwrap();
        assert!(!temp.path().join("template/tmpl/2/204").exists());
        assert!(temp.path().join("template/tmpl/2/205").exists());
        remove_object(&root, ObjectKind::Template, &directory).unwrap();
        remove_object(&root, ObjectKind::Template, &"template/tmpl/7/1".parse().unwrap()).unwrap();
    }

    #[test]
    fn a_single_file_takes_its_empty_directory_along() {
        let (temp, root) = store();
        remove_file(&root, &"volumes/2/45/v.qcow2".parse().unwrap()).unwrap();
        assert!(!temp.path().join("volumes/2/45").exists());
        assert!(temp.path().join("volumes/2").exists());
        remove_file(&root, &"volumes/2/45/v.qcow2".parse().unwrap()).unwrap();
        remove_file(&root, &"template/tmpl/2/204/a.qcow2".parse().unwrap()).unwrap();
        assert!(temp.path().join("template/tmpl/2/204/sub").exists());
    }
}
