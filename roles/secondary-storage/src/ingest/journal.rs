//! What downloads have left on stores, written down before it is there.
//!
//! A store is shared with other agents, so after a crash nothing may be removed by its looks:
//! somebody else may be writing it. Each job notes the names it is about to create; whatever a
//! note still names at the next start is ours and unfinished.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::objects::inventory;
use crate::state_file::{self, StateError};
use crate::stores::{Dir, FileName, InstallPath, ObjectKind};

/// One job's note.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub store: String,
    /// Directory of the object below the store's root.
    pub directory: String,
    pub volume: bool,
    /// The file being downloaded.
    pub temporary: String,
    /// The file it becomes, once that name may exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl Note {
    pub const fn kind(&self) -> ObjectKind {
        if self.volume { ObjectKind::Volume } else { ObjectKind::Template }
    }
}

/// The directory of notes.
#[derive(Debug, Clone)]
pub struct Journal {
    directory: PathBuf,
}

impl Journal {
    pub fn new(state_directory: &Path) -> Self {
        Self { directory: state_directory.join("downloads") }
    }

    fn path(&self, job: &str) -> PathBuf {
        self.directory.join(format!("{job}.json"))
    }

    /// Blocks.
    pub fn write(&self, job: &str, note: &Note) -> Result<(), StateError> {
        state_file::save(&self.path(job), note)
    }

    /// Blocks.
    pub fn erase(&self, job: &str) -> Result<(), StateError> {
        state_file::remove(&self.path(job))
    }

    /// Every note with the id of its job; a damaged one is reported and left out. Blocks.
    pub fn all(&self) -> Result<Vec<(String, Note)>, StateError> {
        let read = |source| StateError::Read { path: self.directory.clone(), source };
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read(error)),
        };
        let mut notes = Vec::new();
        for entry in entries {
            let path = entry.map_err(read)?.path();
            let Some(job) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match state_file::load::<Note>(&path) {
                Ok(note) => notes.push((job.to_owned(), note)),
                Err(error) => {
                    tracing::warn!(error = bedrock::chain(&error), "cannot read a download's note");
                }
            }
        }
        Ok(notes)
    }
}

/// Name of the properties file while it is written.
pub fn properties_temporary(job: &str) -> String {
    format!(".properties.{job}")
}

/// Removes what an unfinished job left: the temporary, the image unless a properties file lists
/// it, and the directory if nothing else is in it. Blocks.
pub fn remove_leftovers(root: &Dir, job: &str, note: &Note) -> std::io::Result<()> {
    let directory: InstallPath = note
        .directory
        .parse()
        .map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))?;
    let dir = match root.walk(&directory) {
        Ok(dir) => dir,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in [note.temporary.as_str(), &properties_temporary(job)] {
        if name.parse::<FileName>().is_ok() {
            dir.remove_file(name)?;
        }
    }
    if let Some(image) = note.image.as_deref().filter(|name| name.parse::<FileName>().is_ok()) {
        let listed = match inventory::load(&dir, note.kind()) {
            Ok(properties) => properties.get("filename") == Some(image),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !listed {
            dir.remove_file(image)?;
        }
    }
    let (above, name) = root.parent_of(&directory)?;
    above.remove_empty(name)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(image: Option<&str>) -> Note {
        Note {
            store: "nfs://h/p".to_owned(),
            directory: "template/tmpl/2/204".to_owned(),
            volume: false,
            temporary: "dnld1tmp_".to_owned(),
            image: image.map(str::to_owned),
        }
    }

    fn store(files: &[&str]) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("template/tmpl/2/204");
        std::fs::create_dir_all(&directory).unwrap();
        for file in files {
            std::fs::write(directory.join(file), "filename=a.qcow2\n").unwrap();
        }
        let root = Dir::open_root(temp.path()).unwrap();
        (temp, root)
    }

    fn left(temp: &tempfile::TempDir) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(temp.path().join("template/tmpl/2/204")) else {
            return vec!["no directory".to_owned()];
        };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_the_note_names_is_removed() {
        let (temp, root) = store(&["dnld1tmp_", "dnld2tmp_", ".properties.j"]);
        remove_leftovers(&root, "j", &note(None)).unwrap();
        assert_eq!(left(&temp), ["dnld2tmp_"], "another agent's download goes on");
        let (temp, root) = store(&["a.qcow2", "dnld1tmp_"]);
        remove_leftovers(&root, "j", &note(Some("a.qcow2"))).unwrap();
        assert_eq!(left(&temp), ["no directory"]);
        remove_leftovers(&root, "j", &note(Some("a.qcow2"))).unwrap();
    }

    #[test]
    fn a_listed_image_stays() {
        let (temp, root) = store(&["a.qcow2", "template.properties"]);
        remove_leftovers(&root, "j", &note(Some("a.qcow2"))).unwrap();
        assert_eq!(left(&temp), ["a.qcow2", "template.properties"]);
    }

    #[test]
    fn notes_survive_and_are_erased() {
        let temp = tempfile::tempdir().unwrap();
        let journal = Journal::new(temp.path());
        assert_eq!(journal.all().unwrap(), []);
        journal.write("j", &note(None)).unwrap();
        std::fs::write(temp.path().join("downloads/k.json"), "{").unwrap();
        assert_eq!(journal.all().unwrap(), [("j".to_owned(), note(None))]);
        journal.erase("j").unwrap();
        journal.erase("j").unwrap();
        assert_eq!(journal.all().unwrap(), []);
    }
}
