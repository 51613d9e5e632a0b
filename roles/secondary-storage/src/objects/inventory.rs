//! What a store holds: one properties file per template or volume, written and read.
//!
//! An object exists for the management server exactly when its properties file is complete. So
//! that file is written last, and a listing is all or nothing: a directory that cannot be read
//! makes the whole listing fail, because a short list makes the server forget what is missing.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result};

use crate::objects::properties::{self, Properties};
use crate::stores::dir::EntryKind;
use crate::stores::{Dir, FileName, InstallPath, ObjectKind};
use disk_image::{Format, Sizes};

/// Facts of an object that come from the management server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Database id of the template or volume.
    pub id: i64,
    /// Key of the template synchronisation; must come back exactly.
    pub unique_name: String,
    pub description: Option<String>,
    pub hvm: bool,
}

/// One object of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub id: i64,
    pub unique_name: String,
    /// Below the root, with the file's name.
    pub install_path: String,
    pub virtual_size: i64,
    pub physical_size: i64,
    pub is_public: bool,
    pub is_corrupted: bool,
}

/// Extensions of every image format of CloudStack; the keys of a properties file.
const EXTENSIONS: [&str; 12] =
    ["qcow2", "raw", "vhd", "iso", "ova", "vhdx", "vmdk", "vdi", "tar", "zip", "dir", "BAREMETAL"];

/// The tree, then account, then object; other parties nest no deeper.
const MAX_DEPTH: u8 = 5;
/// A bound on the answer; far more than a zone has.
const MAX_ITEMS: usize = 200_000;

/// The properties of a finished object, in the order of a recorded file.
pub fn properties(
    kind: ObjectKind,
    about: &Description,
    format: Format,
    file: &FileName,
    sizes: Sizes,
) -> Properties {
    let extension = format.extension();
    let keyed = |suffix: &str| format!("{extension}.{suffix}");
    let description = about.description.as_deref().filter(|text| text.chars().count() > 1);
    let mut properties = Properties::new();
    properties.set("uniquename", &about.unique_name);
    properties.set(keyed("filename"), file.as_str());
    properties.set(keyed("virtualsize"), sizes.virtual_size.to_string());
    properties.set("description", description.unwrap_or_default());
    properties.set(keyed("size"), sizes.physical_size.to_string());
    properties.set("filename", file.as_str());
    properties.set("size", sizes.physical_size.to_string());
    properties.set("public", "true");
    if kind == ObjectKind::Volume {
        properties.set("checksum", "");
    }
    properties.set("id", about.id.to_string());
    properties.set("hvm", about.hvm.to_string());
    properties.set("virtualsize", sizes.virtual_size.to_string());
    properties.set(extension, "true");
    properties
}

/// Everything of one kind below the root. Blocks.
pub fn list(root: &Dir, kind: ObjectKind) -> Result<Vec<Item>> {
    let tree = kind.tree();
    let start = match root.walk(&tree) {
        Ok(start) => start,
        // The tree is made when a store is opened; a store that cannot be written may lack it.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut items = Vec::new();
    descend(&start, kind, &tree, MAX_DEPTH, &mut items)?;
    Ok(items)
}

fn descend(
    dir: &Dir,
    kind: ObjectKind,
    path: &InstallPath,
    depth: u8,
    items: &mut Vec<Item>,
) -> Result<()> {
    let Some(deeper) = depth.checked_sub(1) else { return Ok(()) };
    for (name, entry) in dir.entries()? {
        if entry == EntryKind::File && name == kind.properties_file() {
            items.extend(vanished(read(dir, kind, path))?.flatten());
            if items.len() > MAX_ITEMS {
                return Err(Error::other("the store holds too many objects"));
            }
        } else if entry == EntryKind::Directory {
            // A name that cannot come from the management server cannot be listed to it either.
            let Ok(part) = name.parse::<FileName>() else { continue };
            if let Some(inner) = vanished(dir.open_dir(&name))? {
                let inside = descend(&inner, kind, &path.join(part), deeper, items);
                vanished(inside)?;
            }
        }
    }
    Ok(())
}

/// What another party deleted between two steps is not there; any other failure is one.
fn vanished<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The object in a directory; `None` when its properties are not complete. Blocks.
pub fn read(dir: &Dir, kind: ObjectKind, path: &InstallPath) -> Result<Option<Item>> {
    let Some(properties) = vanished(load(dir, kind))? else { return Ok(None) };
    let Some(mut item) = interpret(&properties, path) else { return Ok(None) };
    let file = properties.get("filename").or_else(|| first_file(&properties)).unwrap_or_default();
    if file.parse::<FileName>().is_ok()
        && vanished(dir.stat(file))?.is_none()
        && !is_packed_later(dir, file)?
    {
        tracing::warn!(path = item.install_path, "the file of a listed object is missing");
        item.is_corrupted = true;
    }
    Ok(Some(item))
}

/// VMware's templates are packed into their OVA when somebody needs it; until then a description of
/// the members lies beside them.
fn is_packed_later(dir: &Dir, file: &str) -> Result<bool> {
    Ok(file.ends_with(".ova") && vanished(dir.stat(&format!("{file}.meta")))?.is_some())
}

/// The properties file of a directory, as it is. Blocks.
pub fn load(dir: &Dir, kind: ObjectKind) -> Result<Properties> {
    let file = dir.open_file(kind.properties_file())?;
    let mut bytes = Vec::new();
    file.take(properties::MAX_LEN).read_to_end(&mut bytes)?;
    Ok(Properties::parse(&bytes))
}

fn first_file(properties: &Properties) -> Option<&str> {
    EXTENSIONS
        .into_iter()
        .filter(|extension| properties.get(extension).is_some())
        .find_map(|extension| properties.get(&format!("{extension}.filename")))
}

fn interpret(properties: &Properties, path: &InstallPath) -> Option<Item> {
    let number = |key: &str| properties.get(key).and_then(|text| text.trim().parse::<i64>().ok());
    let unique_name = properties.get("uniquename")?.to_owned();
    let virtual_size = number("virtualsize")?;
    let file = properties.get("filename").or_else(|| first_file(properties))?;
    let mut formats = 0;
    let mut is_corrupted = false;
    let mut physical_size = None;
    for extension in EXTENSIONS {
        if properties.get(extension).is_none()
            || properties.get(&format!("{extension}.filename")).is_none()
        {
            continue;
        }
        formats += 1;
        let size = number(&format!("{extension}.size")).unwrap_or(-1);
        let virtual_size = number(&format!("{extension}.virtualsize")).unwrap_or(-1);
        is_corrupted |= size <= 0 || virtual_size <= 0;
        physical_size.get_or_insert(size);
    }
    (formats > 0).then(|| Item {
        id: number("id").unwrap_or(0),
        unique_name,
        install_path: format!("{path}/{file}"),
        virtual_size,
        physical_size: number("size").or(physical_size).unwrap_or(0),
        is_public: properties.get("public").is_some_and(|text| text.eq_ignore_ascii_case("true")),
        is_corrupted,
    })
}

/// Templates by unique name; of two with the same name the later one in path order counts.
pub fn by_name(items: Vec<Item>) -> BTreeMap<String, Item> {
    items.into_iter().map(|item| (item.unique_name.clone(), item)).collect()
}

/// Volumes by id.
pub fn by_id(items: Vec<Item>) -> BTreeMap<i64, Item> {
    items.into_iter().map(|item| (item.id, item)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn put(root: &Path, directory: &str, file: &str, text: &str) {
        let directory = root.join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(file), text).unwrap();
    }

    fn items(root: &Path, kind: ObjectKind) -> Result<Vec<Item>> {
        let mut items = list(&Dir::open_root(root).unwrap(), kind)?;
        items.sort_by_key(|item| item.id);
        Ok(items)
    }

    const SEEDED: &str = "filename=a.qcow2\ndescription=SystemVM Template ( kvm )\nhvm=false\nsize=5\n\
        qcow2=true\nid=3\npublic=true\nqcow2.filename=a.qcow2\nuniquename=routing-3\n\
        qcow2.virtualsize=5242880000\nvirtualsize=5242880000\nqcow2.size=5\n";

    #[test]
    fn what_other_parties_wrote_is_listed() {
        let temp = tempfile::tempdir().unwrap();
        put(temp.path(), "template/tmpl/1/3", "template.properties", SEEDED);
        put(temp.path(), "template/tmpl/1/3", "a.qcow2", "image");
        put(temp.path(), "template/tmpl/2/9", "template.properties", "");
        put(temp.path(), "volumes/2/45", "template.properties", SEEDED);
        let expected = Item {
            id: 3,
            unique_name: "routing-3".to_owned(),
            install_path: "template/tmpl/1/3/a.qcow2".to_owned(),
            virtual_size: 5_242_880_000,
            physical_size: 5,
            is_public: true,
            is_corrupted: false,
        };
        assert_eq!(items(temp.path(), ObjectKind::Template).unwrap(), [expected]);
        assert_eq!(items(temp.path(), ObjectKind::Volume).unwrap(), []);
    }

    #[test]
    fn a_missing_file_or_a_zero_size_is_corrupted_not_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        put(temp.path(), "template/tmpl/1/3", "template.properties", SEEDED);
        let zero = SEEDED
            .replace("id=3", "id=4")
            .replace("qcow2.virtualsize=5242880000", "qcow2.virtualsize=0");
        put(temp.path(), "template/tmpl/1/4", "template.properties", &zero);
        put(temp.path(), "template/tmpl/1/4", "a.qcow2", "image");
        let found = items(temp.path(), ObjectKind::Template).unwrap();
        assert_eq!(found.iter().map(|item| item.is_corrupted).collect::<Vec<_>>(), [true, true]);
    }

    #[test]
    fn an_ova_that_is_packed_on_demand_is_sound() {
        let temp = tempfile::tempdir().unwrap();
        let ova = SEEDED.replace("qcow2", "ova");
        put(temp.path(), "template/tmpl/2/3", "template.properties", &ova);
        assert!(items(temp.path(), ObjectKind::Template).unwrap()[0].is_corrupted);
        put(temp.path(), "template/tmpl/2/3", "a.ova.meta", "ova.filename=a.ova");
        assert!(!items(temp.path(), ObjectKind::Template).unwrap()[0].is_corrupted);
    }

    #[test]
    fn an_unreadable_directory_fails_the_whole_listing() {
        let temp = tempfile::tempdir().unwrap();
        put(temp.path(), "template/tmpl/1/3", "template.properties", SEEDED);
        // Root may read everything, so the fault is one that even root meets: a file of that name
        // that cannot be opened as a regular file.
        std::fs::create_dir_all(temp.path().join("template/tmpl/2/5")).unwrap();
        let odd = temp.path().join("template/tmpl/2/5/template.properties");
        std::fs::write(&odd, [0xFF; 10]).unwrap();
        assert_eq!(
            items(temp.path(), ObjectKind::Template).unwrap().len(),
            1,
            "odd bytes are no fault"
        );
        if !nix::unistd::geteuid().is_root() {
            std::fs::set_permissions(&odd, std::fs::Permissions::from_mode(0o000)).unwrap();
            assert!(items(temp.path(), ObjectKind::Template).is_err());
        }
        std::fs::remove_dir_all(temp.path().join("template")).unwrap();
        std::fs::write(temp.path().join("template"), "a file").unwrap();
        assert!(items(temp.path(), ObjectKind::Template).is_err());
    }

    #[test]
    fn written_properties_are_read_back() {
        let about = Description {
            id: 204,
            unique_name: "204-2-3f0c".to_owned(),
            description: Some("Debian 12: a=b".to_owned()),
            hvm: true,
        };
        let sizes = Sizes { virtual_size: 1 << 31, physical_size: 412_942_336 };
        let file: FileName = "8d0c.qcow2".parse().unwrap();
        let written = properties(ObjectKind::Volume, &about, Format::Qcow2, &file, sizes);
        let path = "volumes/2/204".parse().unwrap();
        let item =
            interpret(&Properties::parse(&written.to_bytes(std::time::UNIX_EPOCH)), &path).unwrap();
        assert_eq!((item.id, item.virtual_size, item.physical_size), (204, 1 << 31, 412_942_336));
        assert_eq!(item.install_path, "volumes/2/204/8d0c.qcow2");
        assert!(item.is_public && !item.is_corrupted);
        assert_eq!(written.get("checksum"), Some(""));
    }
}
