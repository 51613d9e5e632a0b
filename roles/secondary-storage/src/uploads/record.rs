//! What is known of an upload after a restart, and for as long as the management server may ask.
//!
//! The server asks once a minute and believes the first answer that says it is over. Until it has
//! that answer nothing is forgotten: neither an answer that got lost nor a restart costs an upload.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_protocol::storage::{OVFInformationTO, PostUploadOrder};
use serde::{Deserialize, Serialize};

use crate::state_file::{self, Folder, StateError};
use crate::stores::{InstallPath, ObjectKind, StoreUrl};
use disk_image::Sizes;

/// How an upload is, as it is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Under way; after a restart: was. `attempt` names its note in the ingest's journal.
    Receiving {
        attempt: String,
        /// Of a resumable one: with it the next run goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<Box<Resume>>,
    },
    Completed(Completed),
    Failed {
        text: String,
        /// The server has it: the object is lost to it.
        told: bool,
    },
}

/// What a resumable upload goes on with after a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// The secret of its URL, so the file is for this process only.
    pub token: String,
    pub order: PostUploadOrder,
    /// Bytes of the file.
    pub total: u64,
    /// What its client said of the file, as it came: the same file is told by it.
    pub about: String,
    pub client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

/// What is on the store for sure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub received: u64,
    /// With the name of the algorithm.
    pub digest: String,
}

/// What an upload became.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completed {
    /// Below the store's root.
    pub install_path: InstallPath,
    pub virtual_size: u64,
    pub physical_size: u64,
    /// The machine that an OVA describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ovf: Option<Box<OVFInformationTO>>,
}

impl Completed {
    pub(super) fn new(
        install_path: InstallPath,
        sizes: Sizes,
        ovf: Option<Arc<OVFInformationTO>>,
    ) -> Self {
        let Sizes { virtual_size, physical_size } = sizes;
        let ovf = ovf.map(|ovf| Box::new(Arc::unwrap_or_clone(ovf)));
        Self { install_path, virtual_size, physical_size, ovf }
    }
}

/// One upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub store: Option<StoreUrl>,
    pub directory: Option<InstallPath>,
    pub kind: Option<ObjectKind>,
    /// Of the object, for people.
    pub name: String,
    /// Name of the file on the client's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Whose request it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// When the state began.
    pub at_ms: i64,
    #[serde(flatten)]
    pub state: State,
}

impl Record {
    /// What other hosts may know: whoever can read a store must not go on with an upload.
    pub(super) fn for_others(&self) -> Self {
        let mut record = self.clone();
        if let State::Receiving { resume, .. } = &mut record.state {
            *resume = None;
        }
        record
    }
}

/// The directory of records.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    pub fn new(state: &Path) -> Self {
        Self { directory: state.join("uploads") }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// Blocks.
    pub fn save(&self, id: &str, record: &Record) -> Result<(), StateError> {
        state_file::save(&self.path(id), record)
    }

    /// As [`Records::save`], but for values that change all the time: the value survives only the
    /// process for sure. Blocks.
    pub fn save_soon(&self, id: &str, record: &Record) -> Result<(), StateError> {
        Folder::new(self.directory.clone()).write_soon(id, record)
    }

    /// Blocks.
    pub fn remove(&self, id: &str) -> Result<(), StateError> {
        state_file::remove(&self.path(id))
    }

    /// Every record with its id; a damaged one is told and left out. Blocks.
    pub fn all(&self) -> Result<Vec<(String, Record)>, StateError> {
        let read = |source| StateError::Read { path: self.directory.clone(), source };
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read(error)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(read)?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str());
            let id = id.filter(|id| uuid::Uuid::try_parse(id).is_ok());
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            let Some(id) = id.filter(|_id| is_json) else { continue };
            match state_file::read::<Record>(&path) {
                Ok(Some(record)) => records.push((id.to_owned(), record)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        error = bedrock::chain(&error),
                        "cannot read an upload's record"
                    );
                }
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_damaged_ones_do_not_matter() {
        let temp = tempfile::tempdir().unwrap();
        let records = Records::new(temp.path());
        assert_eq!(records.all().unwrap(), []);
        let record = Record {
            store: Some("nfs://h/p".parse().unwrap()),
            directory: Some("template/tmpl/2/204".parse().unwrap()),
            kind: Some(ObjectKind::Template),
            name: "204-2-x".to_owned(),
            file: Some("a.iso".to_owned()),
            client: None,
            at_ms: 7,
            state: State::Completed(Completed {
                install_path: "template/tmpl/2/204/a.iso".parse().unwrap(),
                virtual_size: 2,
                physical_size: 1,
                ovf: None,
            }),
        };
        let id = "5b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
        records.save(id, &record).unwrap();
        let other = temp.path().join("uploads/6b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33.json");
        std::fs::write(other, "{").unwrap();
        std::fs::write(temp.path().join("uploads/x.json"), "{}").unwrap();
        assert_eq!(records.all().unwrap(), [(id.to_owned(), record)]);
        records.remove(id).unwrap();
        records.remove(id).unwrap();
        assert_eq!(records.all().unwrap(), []);
    }
}
