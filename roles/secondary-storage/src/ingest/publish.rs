//! From a complete temporary file to a listed object.

use std::time::SystemTime;

use super::intake::Content;
use crate::objects::inventory::{self, Description};
use crate::stores::path::PathError;
use crate::stores::url::name_uuid;
use crate::stores::{FileName, InstallPath, ObjectKind, Store, StoreError, Work};
use disk_image::{Format, Sizes};

/// Everything needed to publish one image.
#[derive(Debug, Clone)]
pub struct Publication {
    pub kind: ObjectKind,
    pub directory: InstallPath,
    /// Files and the names that they get.
    pub renames: Vec<(FileName, FileName)>,
    pub image: FileName,
    /// Name of the properties file until it is complete.
    pub aside: FileName,
    pub about: Description,
    pub content: Content,
    pub sizes: Sizes,
    pub now: SystemTime,
}

/// The name of the installed file: for an ISO the unique name itself, else a UUID made of the
/// unique name and the time, as the original makes it.
pub fn image_name(name: &str, format: Format, unix_ms: i64) -> Result<FileName, PathError> {
    let extension = format.extension();
    match format {
        Format::Iso => format!("{}.{extension}", name.trim().replace(' ', "_")).parse(),
        _ => {
            let uuid = name_uuid(format!("{name}{unix_ms}").as_bytes());
            format!("{uuid}.{extension}").parse()
        }
    }
}

/// Renames the temporary to its final name, then makes it an object by writing the properties
/// file. Before that last step a crash leaves an unlisted file, which the job's note names. An
/// image that was there before goes last.
pub async fn publish(
    store: &Store,
    work: &Work,
    publication: Publication,
) -> Result<(), StoreError> {
    const NAME: &str = "install";
    let Publication { kind, directory, aside, renames, image, about, content, sizes, now } =
        publication;
    let engine = store.engine();
    if engine.is_flat() {
        // It is an object since it was whole.
        return Ok(());
    }
    let before = inventory::listed_image(store, work, kind, &directory).await?;
    for (from, to) in renames {
        store.run(NAME, engine.rename(work, directory.clone(), from, to)).await?;
    }
    // A snapshot has no properties file: its files are all there is.
    let Content::Image(format) = content else { return Ok(()) };
    let properties = inventory::properties(kind, &about, format, &image, sizes).to_bytes(now);
    let path = directory.join(kind.properties_file());
    store.run(NAME, engine.put(work, path, aside, properties.into())).await?;
    let replaced = before.and_then(|name| name.parse().ok()).filter(|old| *old != image);
    if let Some(old) = replaced {
        let removal = engine.remove_file(work, directory.join(old));
        if let Err(error) = store.run(NAME, removal).await {
            let error = bedrock::chain(&error);
            tracing::warn!(error, "cannot remove the image that was replaced");
        }
    }
    Ok(())
}

/// What a publication that failed late was to be.
#[derive(Debug, Clone)]
pub struct Publishing {
    pub unique_name: String,
    pub install_path: InstallPath,
    pub temporary: InstallPath,
    pub sizes: Sizes,
}

/// Whether the publication took effect after all: the object is listed and the temporary is gone.
pub async fn is_published(
    store: &Store,
    kind: ObjectKind,
    directory: &InstallPath,
    publishing: &Publishing,
) -> Result<bool, StoreError> {
    let work = Work::new();
    let looking = store.engine().kind(&work, publishing.temporary.clone());
    if store.run("look for a file", looking).await?.is_some() {
        return Ok(false);
    }
    if kind == ObjectKind::Snapshot {
        let looking = store.engine().kind(&work, publishing.install_path.clone());
        return Ok(store.run("look for a file", looking).await?.is_some());
    }
    let Some(item) = inventory::find(store, kind, directory).await? else { return Ok(false) };
    Ok(item.unique_name == publishing.unique_name
        && item.install_path == publishing.install_path.to_string()
        && u64::try_from(item.physical_size) == Ok(publishing.sizes.physical_size))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::stores::registry::tests::{URL, setup};

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn publication(image: &str) -> Publication {
        Publication {
            aside: ".properties.j".parse().unwrap(),
            kind: ObjectKind::Template,
            directory: "template/tmpl/2/204".parse().unwrap(),
            renames: vec![("dnld1tmp_".parse().unwrap(), image.parse().unwrap())],
            image: image.parse().unwrap(),
            about: Description {
                id: 204,
                unique_name: "204-2-x".to_owned(),
                description: None,
                hvm: true,
            },
            content: Content::Image(Format::Raw),
            sizes: Sizes { virtual_size: 1, physical_size: 1 },
            now: UNIX_EPOCH,
        }
    }

    #[test]
    fn names_are_those_of_the_original() {
        let name =
            |name, format| image_name(name, format, 1_761_825_909_123).map(|n| n.to_string());
        assert_eq!(name(" my iso ", Format::Iso).unwrap(), "my_iso.iso");
        let uuid = name("204-2-x", Format::Qcow2).unwrap();
        assert!(uuid.ends_with(".qcow2") && uuid.as_bytes()[14] == b'3', "{uuid}");
        assert!(name("../x", Format::Iso).is_err());
    }

    #[tokio::test]
    async fn a_new_image_replaces_the_old_one_and_one_given_up_is_not_listed() {
        let made = setup(&[URL]);
        let directory = made.temp.path().join("sec/template/tmpl/2/204");
        std::fs::create_dir_all(&directory).unwrap();
        let store = made.stores.open(&URL.parse().unwrap(), None).await.unwrap();
        for image in ["a.raw", "b.raw"] {
            std::fs::write(directory.join("dnld1tmp_"), "x").unwrap();
            publish(&store, &Work::new(), publication(image)).await.unwrap();
            assert_eq!(names(&directory), [image, "template.properties"]);
        }
        std::fs::write(directory.join("dnld1tmp_"), "x").unwrap();
        let given_up = Work::new();
        given_up.give_up();
        assert!(publish(&store, &given_up, publication("c.raw")).await.is_err());
        assert_eq!(names(&directory), ["b.raw", "dnld1tmp_", "template.properties"]);
        let item = inventory::list(&store, ObjectKind::Template).await.unwrap().remove(0);
        assert_eq!(item.install_path, "template/tmpl/2/204/b.raw");
    }
}
