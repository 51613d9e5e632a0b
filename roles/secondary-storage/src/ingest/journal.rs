//! What downloads have left on stores, written down before it is there.
//!
//! A store is shared with other agents, so after a crash nothing may be removed by its looks:
//! somebody else may be writing it. Each job notes the names it is about to create; whatever a
//! note still names at the next start is ours and unfinished.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::objects::inventory;
use crate::state_file::Folder;
use crate::stores::path::PathError;
use crate::stores::{FileName, InstallPath, ObjectKind, Store, StoreError, StoreUrl, Work};

/// One job's note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub store: StoreUrl,
    /// Directory of the object below the store's root.
    pub directory: InstallPath,
    pub kind: ObjectKind,
    /// The file being downloaded.
    pub temporary: FileName,
    /// The file it becomes, once that name may exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<FileName>,
    /// Whatever else it creates beside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileName>,
}

impl Note {
    /// Only the files whose names nobody else makes up.
    #[must_use]
    pub fn without_final_names(mut self) -> Self {
        self.image = None;
        self.files.retain(|file| file.as_str().starts_with(self.temporary.as_str()));
        self
    }
}

/// The directory of notes, by the id of the job.
pub type Journal = Folder<Note>;

/// The notes of this host.
pub fn open(state_directory: &Path) -> Journal {
    Folder::new(state_directory.join("downloads"))
}

/// Those of uploads, which downloads do not clean up after.
pub fn of_uploads(state_directory: &Path) -> Journal {
    Folder::new(state_directory.join("uploads/notes"))
}

/// Name of the properties file while it is written.
pub fn properties_temporary(job: &str) -> Result<FileName, PathError> {
    format!(".properties.{job}").parse()
}

/// Takes a publication back that did not come to its end: the image gets its temporary name again.
/// `false` when it did come to its end and the object is listed.
pub async fn take_back(store: &Store, note: &Note) -> Result<bool, StoreError> {
    const NAME: &str = "take a publication back";
    let Some(image) = &note.image else { return Ok(true) };
    let (work, engine, directory) = (Work::new(), store.engine(), &note.directory);
    let listed = inventory::listed_image(store, &work, note.kind, directory).await?;
    if listed.as_deref() == Some(image.as_str()) {
        return Ok(false);
    }
    let temporary = directory.join(note.temporary.clone());
    let is_there = store.run(NAME, engine.kind(&work, temporary)).await?.is_some();
    let image = directory.join(image.clone());
    let is_renamed = store.run(NAME, engine.kind(&work, image.clone())).await?.is_some();
    if is_renamed && !is_there {
        let name = image.parts().last().cloned().unwrap_or_else(|| note.temporary.clone());
        let back = engine.rename(&work, directory.clone(), name, note.temporary.clone());
        store.run(NAME, back).await?;
    } else if is_renamed {
        store.run(NAME, engine.remove_file(&work, image)).await?;
    }
    Ok(true)
}

/// Removes what an unfinished job left: the temporary, the image unless a properties file lists
/// it, and the directory if nothing else is in it. The job's own work has ended.
pub async fn remove_leftovers(store: &Store, job: &str, note: &Note) -> Result<(), StoreError> {
    const NAME: &str = "remove leftovers";
    let (work, engine, directory) = (Work::new(), store.engine(), &note.directory);
    let mut names = vec![note.temporary.clone()];
    names.extend(properties_temporary(job).ok());
    if note.image.is_some() || !note.files.is_empty() {
        let listed = inventory::listed_image(store, &work, note.kind, directory).await?;
        let image = note.image.iter().filter(|image| listed.as_deref() != Some(image.as_str()));
        names.extend(image.cloned());
        // Those of a listed object may have the same names.
        names.extend(note.files.iter().filter(|_name| listed.is_none()).cloned());
    }
    for name in names {
        store.run(NAME, engine.remove_file(&work, directory.join(name))).await?;
    }
    store.run(NAME, engine.remove_empty(&work, directory.clone())).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::registry::tests::{URL, setup};

    fn note(image: Option<&str>) -> Note {
        Note {
            store: "nfs://h/p".parse().unwrap(),
            directory: "template/tmpl/2/204".parse().unwrap(),
            kind: ObjectKind::Template,
            temporary: "dnld1tmp_".parse().unwrap(),
            image: image.map(|name| name.parse().unwrap()),
            files: Vec::new(),
        }
    }

    /// Names left in the directory after its leftovers were removed, twice.
    async fn left(files: &[&str], note: &Note) -> Vec<String> {
        let made = setup(&[URL]);
        let directory = made.temp.path().join("sec/template/tmpl/2/204");
        std::fs::create_dir_all(&directory).unwrap();
        for file in files {
            std::fs::write(directory.join(file), "filename=a.qcow2\n").unwrap();
        }
        let store = made.stores.open(&URL.parse().unwrap(), None).await.unwrap();
        for _round in 0..2 {
            remove_leftovers(&store, "j", note).await.unwrap();
        }
        let Ok(entries) = std::fs::read_dir(directory) else {
            return vec!["no directory".to_owned()];
        };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn only_what_the_note_names_is_removed() {
        let files = ["dnld1tmp_", "dnld2tmp_", ".properties.j"];
        assert_eq!(left(&files, &note(None)).await, ["dnld2tmp_"], "another agent's goes on");
        let image = note(Some("a.qcow2"));
        assert_eq!(left(&["a.qcow2", "dnld1tmp_"], &image).await, ["no directory"]);
    }

    #[tokio::test]
    async fn a_listed_image_stays() {
        let files = ["a.qcow2", "template.properties"];
        assert_eq!(left(&files, &note(Some("a.qcow2"))).await, files);
    }

    #[test]
    fn notes_survive_and_are_erased() {
        let temp = tempfile::tempdir().unwrap();
        let journal = open(temp.path());
        assert_eq!(journal.all().unwrap(), []);
        journal.write("j", &note(None)).unwrap();
        std::fs::write(temp.path().join("downloads/k.json"), "{").unwrap();
        // A note that leads elsewhere is none of ours.
        let odd = serde_json::to_string(&note(None)).unwrap().replace("dnld1tmp_", "../x");
        std::fs::write(temp.path().join("downloads/l.json"), odd).unwrap();
        assert_eq!(journal.all().unwrap(), [("j".to_owned(), note(None))]);
        journal.erase("j").unwrap();
        journal.erase("j").unwrap();
        assert_eq!(journal.all().unwrap(), []);
    }
}
