//! What a store holds: one properties file per template or volume, written and read.
//!
//! An object exists for the management server exactly when its properties file is complete. So
//! that file is written last, and a listing is all or nothing: a directory that cannot be read
//! makes the whole listing fail, because a short list makes the server forget what is missing.

use std::collections::BTreeMap;

use crate::stores::{FileName, InstallPath, Listed, ObjectKind, Store, StoreError, Work};
use disk_image::{Format, Sizes};
use java_properties::Properties;

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

/// Everything of one kind on the store. All or nothing.
pub async fn list(store: &Store, kind: ObjectKind) -> Result<Vec<Item>, StoreError> {
    let work = Work::new();
    let listed = store.engine().list(&work, kind.tree(), kind.properties_file());
    let listed = store.run("list", listed).await?;
    Ok(listed.iter().filter_map(item).collect())
}

/// The object in a directory; `None` when there is none or its properties are not complete.
pub async fn find(
    store: &Store,
    kind: ObjectKind,
    directory: &InstallPath,
) -> Result<Option<Item>, StoreError> {
    let work = Work::new();
    let listed = store.engine().list(&work, directory.clone(), kind.properties_file());
    let listed = store.run("look for an object", listed).await?;
    Ok(listed.iter().find(|listed| listed.directory == *directory).and_then(item))
}

/// Name of the image that the properties in a directory name; `None` when nothing is listed there.
pub async fn listed_image(
    store: &Store,
    work: &Work,
    kind: ObjectKind,
    directory: &InstallPath,
) -> Result<Option<String>, StoreError> {
    let path = directory.join(kind.properties_file());
    let found = store.run("read properties", store.engine().get(work, path)).await?;
    Ok(found.and_then(|bytes| Properties::parse(&bytes).get("filename").map(str::to_owned)))
}

/// What the properties of an object say of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub file: String,
    pub physical_size: u64,
}

/// Of an object that is listed; `None` when its properties are not complete.
pub fn expected(index: &[u8], directory: &InstallPath) -> Option<Expected> {
    let item = interpret(&Properties::parse(index), directory)?;
    let file = item.install_path.rsplit('/').next().unwrap_or_default().to_owned();
    Some(Expected { file, physical_size: u64::try_from(item.physical_size).unwrap_or(0) })
}

fn item(listed: &Listed) -> Option<Item> {
    let properties = Properties::parse(&listed.index);
    let mut item = interpret(&properties, &listed.directory)?;
    let file = properties.get("filename").or_else(|| first_file(&properties)).unwrap_or_default();
    let is_there = |name: &str| listed.names.iter().any(|other| other == name);
    // VMware's templates are packed into their OVA when somebody needs it; until then a
    // description of the members lies beside them.
    let is_packed_later = file.ends_with(".ova") && is_there(&format!("{file}.meta"));
    if file.parse::<FileName>().is_ok() && !is_there(file) && !is_packed_later {
        tracing::warn!(path = item.install_path, "the file of a listed object is missing");
        item.is_corrupted = true;
    }
    Some(item)
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
    use super::*;
    use crate::stores::registry::tests::{URL, setup};

    fn listed(directory: &str, text: &str, names: &[&str]) -> Listed {
        Listed {
            directory: directory.parse().unwrap(),
            index: bytes::Bytes::copy_from_slice(text.as_bytes()),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    const SEEDED: &str = "filename=a.qcow2\ndescription=SystemVM Template ( kvm )\nhvm=false\nsize=5\n\
        qcow2=true\nid=3\npublic=true\nqcow2.filename=a.qcow2\nuniquename=routing-3\n\
        qcow2.virtualsize=5242880000\nvirtualsize=5242880000\nqcow2.size=5\n";

    #[test]
    fn what_other_parties_wrote_is_listed() {
        let expected = Item {
            id: 3,
            unique_name: "routing-3".to_owned(),
            install_path: "template/tmpl/1/3/a.qcow2".to_owned(),
            virtual_size: 5_242_880_000,
            physical_size: 5,
            is_public: true,
            is_corrupted: false,
        };
        let found = item(&listed("template/tmpl/1/3", SEEDED, &["a.qcow2", "template.properties"]));
        assert_eq!(found, Some(expected));
        for odd in ["", "\u{ff}\u{ff}\u{ff}", "uniquename=x", "uniquename=x\nvirtualsize=1"] {
            assert_eq!(
                item(&listed("template/tmpl/2/9", odd, &[])),
                None,
                "{odd:?} is not a fault"
            );
        }
    }

    #[test]
    fn a_missing_file_or_a_zero_size_is_corrupted_not_forgotten() {
        let is_corrupted = |text: &str, names: &[&str]| {
            item(&listed("template/tmpl/1/3", text, names)).unwrap().is_corrupted
        };
        assert!(is_corrupted(SEEDED, &[]));
        let zero = SEEDED.replace("qcow2.virtualsize=5242880000", "qcow2.virtualsize=0");
        assert!(is_corrupted(&zero, &["a.qcow2"]));
        let ova = SEEDED.replace("qcow2", "ova");
        assert!(is_corrupted(&ova, &[]));
        assert!(!is_corrupted(&ova, &["a.ova.meta"]), "packed on demand");
    }

    #[tokio::test]
    async fn what_cannot_be_read_fails_the_whole_listing() {
        let made = setup(&[URL]);
        let store = made.stores.open(&URL.parse().unwrap(), None).await.unwrap();
        let tree = made.temp.path().join("sec/template/tmpl");
        std::fs::create_dir_all(tree.join("1/3")).unwrap();
        std::fs::write(tree.join("1/3/template.properties"), SEEDED).unwrap();
        assert_eq!(list(&store, ObjectKind::Template).await.unwrap().len(), 1);
        // A fault that even root meets: the tree is not a directory.
        std::fs::rename(&tree, made.temp.path().join("aside")).unwrap();
        std::fs::write(&tree, "a file").unwrap();
        let error = list(&store, ObjectKind::Template).await.unwrap_err();
        assert!(bedrock::chain(&error).starts_with("cannot list in store"), "{error}");
        assert!(list(&store, ObjectKind::Volume).await.unwrap().is_empty(), "the others' are");
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
