//! From a complete temporary file to a listed object.

use std::io::{ErrorKind, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::journal::properties_temporary;
use crate::objects::inventory::{self, Description};
use crate::stores::url::name_uuid;
use crate::stores::{Dir, FileName, InstallPath, Modes, ObjectKind};
use disk_image::{Format, Sizes};

/// Everything needed to publish one image.
#[derive(Debug, Clone)]
pub struct Publication {
    pub job: String,
    pub kind: ObjectKind,
    pub directory: InstallPath,
    pub temporary: String,
    pub image: FileName,
    pub about: Description,
    pub format: Format,
    pub sizes: Sizes,
    pub now: SystemTime,
    pub modes: Modes,
    /// Set when nobody waits for the outcome any more; then nothing is listed.
    pub abandoned: Arc<AtomicBool>,
    /// Held while the object becomes listed, and while leftovers of the same job are removed.
    pub gate: Arc<Mutex<()>>,
}

/// The name of the installed file: for an ISO the unique name itself, else a UUID made of the
/// unique name and the time, as the original makes it.
pub fn image_name(
    name: &str,
    format: Format,
    unix_ms: i64,
) -> std::result::Result<FileName, crate::stores::path::PathError> {
    let extension = format.extension();
    match format {
        Format::Iso => format!("{}.{extension}", name.trim().replace(' ', "_")).parse(),
        Format::Qcow2 | Format::Raw | Format::Vhd => {
            let uuid = name_uuid(format!("{name}{unix_ms}").as_bytes());
            format!("{uuid}.{extension}").parse()
        }
    }
}

/// Renames the temporary to its final name, then makes it an object by writing the properties
/// file. Before that last rename a crash leaves an unlisted file, which the job's note names. An
/// image that was there before goes last. Blocks.
pub fn publish(root: &Dir, publication: &Publication) -> Result<()> {
    let dir = root.walk(&publication.directory)?;
    let image = publication.image.as_str();
    let before = match inventory::load(&dir, publication.kind) {
        Ok(properties) => properties.get("filename").map(str::to_owned),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    dir.rename(&publication.temporary, image)?;
    let listed = dir.sync().and_then(|()| list(&dir, publication));
    if let Err(error) = listed {
        if let Err(also) = dir.remove_file(image) {
            tracing::warn!(path = image, error = %also, "cannot remove an image that was not listed");
        }
        return Err(error);
    }
    if let Some(old) = before.filter(|old| old != image && old.parse::<FileName>().is_ok())
        && let Err(error) = dir.remove_file(&old)
    {
        tracing::warn!(path = old, %error, "cannot remove the image that was replaced");
    }
    Ok(())
}

fn list(dir: &Dir, publication: &Publication) -> Result<()> {
    let Publication { kind, about, format, image, sizes, now, modes, .. } = publication;
    let bytes = inventory::properties(*kind, about, *format, image, *sizes).to_bytes(*now);
    let aside = properties_temporary(&publication.job);
    dir.remove_file(&aside)?;
    let mut file = dir.create_file(&aside, *modes)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    let _gate = publication.gate.lock().unwrap_or_else(PoisonError::into_inner);
    if publication.abandoned.load(Ordering::Relaxed) {
        dir.remove_file(&aside)?;
        return Err(ErrorKind::TimedOut.into());
    }
    dir.rename(&aside, kind.properties_file())?;
    dir.sync()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use super::*;

    fn publication(image: &str) -> Publication {
        Publication {
            job: "j".to_owned(),
            kind: ObjectKind::Template,
            directory: "template/tmpl/2/204".parse().unwrap(),
            temporary: "dnld1tmp_".to_owned(),
            image: image.parse().unwrap(),
            about: Description {
                id: 204,
                unique_name: "204-2-x".to_owned(),
                description: None,
                hvm: true,
            },
            format: Format::Raw,
            sizes: Sizes { virtual_size: 1, physical_size: 1 },
            now: UNIX_EPOCH,
            modes: Modes { directory: 0o777, file: 0o666 },
            abandoned: Arc::default(),
            gate: Arc::default(),
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
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

    #[test]
    fn a_new_image_replaces_the_old_one_and_an_abandoned_one_is_not_listed() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("template/tmpl/2/204");
        std::fs::create_dir_all(&directory).unwrap();
        let root = Dir::open_root(temp.path()).unwrap();
        for image in ["a.raw", "b.raw"] {
            std::fs::write(directory.join("dnld1tmp_"), "x").unwrap();
            publish(&root, &publication(image)).unwrap();
            assert_eq!(names(&directory), [image, "template.properties"]);
        }
        std::fs::write(directory.join("dnld1tmp_"), "x").unwrap();
        let late = publication("c.raw");
        late.abandoned.store(true, Ordering::Relaxed);
        assert!(publish(&root, &late).is_err());
        assert_eq!(names(&directory), ["b.raw", "template.properties"]);
        let item = inventory::list(&root, ObjectKind::Template).unwrap().remove(0);
        assert_eq!(item.install_path, "template/tmpl/2/204/b.raw");
    }
}
