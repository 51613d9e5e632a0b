//! Removing a template or volume from a store.

use crate::stores::{EntryKind, InstallPath, ObjectKind, Store, StoreError, Work};

/// Removes the object's directory with everything in it, the properties file first, so that a
/// half-removed object is never listed. Success means that nothing is left of it; one that was not
/// there is success.
pub async fn remove_object(
    store: &Store,
    kind: ObjectKind,
    directory: &InstallPath,
) -> Result<bool, StoreError> {
    let work = Work::new();
    let removal = store.engine().remove_tree(&work, directory.clone(), kind.properties_file());
    store.run("delete", removal).await
}

/// Removes one file, then its directory if nothing else is in it. A missing file is success.
pub async fn remove_file(store: &Store, path: &InstallPath) -> Result<(), StoreError> {
    let Some((directory, _)) = path.split() else { return Ok(()) };
    let (work, engine) = (Work::new(), store.engine());
    store.run("delete", engine.remove_file(&work, path.clone())).await?;
    store.run("delete", engine.remove_empty(&work, directory)).await
}

/// Removes what is at a path: a file, or a directory with everything in it. What is not there is
/// success.
pub async fn remove_any(store: &Store, path: &InstallPath) -> Result<(), StoreError> {
    let (work, engine) = (Work::new(), store.engine());
    match store.run("delete", engine.kind(&work, path.clone())).await? {
        None => Ok(()),
        Some(EntryKind::Directory) => {
            let first = ObjectKind::Snapshot.properties_file();
            store.run("delete", engine.remove_tree(&work, path.clone(), first)).await.map(drop)
        }
        Some(_) => store.run("delete", engine.remove_file(&work, path.clone())).await.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;
    use crate::stores::registry::tests::{URL, setup};

    async fn store() -> (tempfile::TempDir, std::sync::Arc<Store>) {
        let made = setup(&[URL]);
        let root = made.temp.path().join("sec");
        for path in ["template/tmpl/2/204/sub", "template/tmpl/2/205", "volumes/2/45"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        for file in ["template.properties", "a.qcow2", "sub/b.vmdk"] {
            std::fs::write(root.join("template/tmpl/2/204").join(file), "x").unwrap();
        }
        std::fs::write(root.join("volumes/2/45/v.qcow2"), "x").unwrap();
        let store = made.stores.open(&URL.parse().unwrap(), None).await.unwrap();
        (made.temp, store)
    }

    fn exists(temp: &tempfile::TempDir, path: impl AsRef<Path>) -> bool {
        temp.path().join("sec").join(path).try_exists().unwrap()
    }

    #[tokio::test]
    async fn an_object_goes_as_a_whole_and_its_account_stays() {
        let (temp, store) = store().await;
        let odd = OsStr::from_bytes(b"caf\xe9.raw");
        let inside = temp.path().join("sec/template/tmpl/2/204/sub");
        std::fs::write(inside.join(odd), "x").unwrap();
        let remove = async |path: &str| {
            remove_object(&store, ObjectKind::Template, &path.parse().unwrap()).await.unwrap()
        };
        assert!(remove("template/tmpl/2/204").await);
        assert!(!exists(&temp, "template/tmpl/2/204"));
        assert!(exists(&temp, "template/tmpl/2/205"));
        assert!(!remove("template/tmpl/2/204").await, "deleting twice is success");
        assert!(!remove("template/tmpl/7/1").await);
    }

    #[tokio::test]
    async fn a_single_file_takes_its_empty_directory_along() {
        let (temp, store) = store().await;
        let remove = async |path: &str| remove_file(&store, &path.parse().unwrap()).await.unwrap();
        remove("volumes/2/45/v.qcow2").await;
        assert!(!exists(&temp, "volumes/2/45"));
        assert!(exists(&temp, "volumes/2"));
        remove("volumes/2/45/v.qcow2").await;
        remove("template/tmpl/2/204/a.qcow2").await;
        assert!(exists(&temp, "template/tmpl/2/204/sub"));
    }
}
