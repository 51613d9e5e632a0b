//! The table of jobs on disk: what was asked, how far it is, how it ended.
//!
//! A job outlives the process: the server goes on asking for it under its id, and a download that
//! was running goes on where it was. What lies on a store because of a job is noted elsewhere (see
//! [`super::journal`]), because that is cleaned up even when the job itself is forgotten.

use std::path::Path;
use std::sync::Arc;

use agent_protocol::storage::OVFInformationTO;
use bedrock::Secret;
use serde::{Deserialize, Serialize};

use super::job::{Phase, Report};
use super::progress::Mark;
use crate::sources::{Announced, Continuation, Hash, Version};
use crate::state_file::Folder;
use disk_image::Sizes;

/// Records by the id of the job.
pub type Records = Folder<Record>;

/// The records of this host.
pub fn open(state_directory: &Path) -> Records {
    Folder::new(state_directory.join("jobs"))
}

/// One job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The body of the command. It holds what its URL and its credentials hold, so the file is for
    /// this process only.
    #[serde(with = "revealed")]
    pub command: Secret<String>,
    pub accepted_unix_ms: i64,
    /// Private networks that the server allowed to be reached when it sent the command. It sends
    /// them again only after it is connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub internal_sites: Vec<String>,
    /// The digest of what is being installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// Where a download may go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Bytes that are on the store, as they came.
    pub received: u64,
    /// Their digest, with the name of the algorithm.
    pub digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    pub version: Version,
    /// Digests that the source names, with the names of their algorithms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<String>,
}

impl Checkpoint {
    pub fn new(mark: &Mark, announced: &Announced) -> Self {
        Self {
            received: mark.length,
            digest: mark.digest.to_string(),
            length: announced.length,
            version: announced.version.clone(),
            hashes: announced.hashes.iter().map(ToString::to_string).collect(),
        }
    }

    /// Everything is there: nothing has to be asked of the source. What it said of its content.
    pub fn complete(&self) -> Option<Announced> {
        (self.length == Some(self.received)).then(|| Announced {
            length: self.length,
            version: self.version.clone(),
            hashes: self.hashes.iter().filter_map(|text| Hash::parse(text)).collect(),
            ..Announced::default()
        })
    }

    pub fn continuation(&self) -> Continuation {
        Continuation { received: self.received, length: self.length, version: self.version.clone() }
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub ended: Ended,
    pub ended_unix_ms: i64,
    pub percent: u8,
    pub text: String,
    pub install_path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporary: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The machine that an OVA describes: the server asks for it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ovf: Option<OVFInformationTO>,
}

/// The ends of a job that outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Done,
    Failed,
    Aborted,
}

impl Outcome {
    /// `None` while the job is not over.
    pub fn of(report: &Report, now_unix_ms: i64) -> Option<Self> {
        let ended = match report.phase {
            Phase::Done => Ended::Done,
            Phase::Failed => Ended::Failed,
            Phase::Aborted => Ended::Aborted,
            Phase::Waiting | Phase::Downloading | Phase::Installing | Phase::Suspended => {
                return None;
            }
        };
        let report = report.clone();
        Some(Self {
            ended,
            ended_unix_ms: now_unix_ms,
            percent: report.percent,
            text: report.text,
            install_path: report.install_path,
            temporary: report.temporary,
            virtual_size: report.sizes.map(|sizes| sizes.virtual_size),
            physical_size: report.sizes.map(|sizes| sizes.physical_size),
            checksum: report.checksum,
            warnings: report.warnings,
            ovf: report.ovf.as_deref().cloned(),
        })
    }

    pub fn report(self) -> Report {
        let sizes = self.virtual_size.zip(self.physical_size);
        Report {
            phase: match self.ended {
                Ended::Done => Phase::Done,
                Ended::Failed => Phase::Failed,
                Ended::Aborted => Phase::Aborted,
            },
            percent: self.percent,
            text: self.text,
            install_path: self.install_path,
            temporary: self.temporary,
            sizes: sizes.map(|(virtual_size, physical_size)| Sizes { virtual_size, physical_size }),
            checksum: self.checksum,
            warnings: self.warnings,
            ovf: self.ovf.map(Arc::new),
        }
    }
}

/// A secret in a file that nobody else may read.
mod revealed {
    use bedrock::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &Secret<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.reveal())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Secret<String>, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_and_nobody_else_reads_its_secrets() {
        let temp = tempfile::tempdir().unwrap();
        let records = open(temp.path());
        let report = Report {
            phase: Phase::Failed,
            percent: 7,
            text: "404".to_owned(),
            install_path: "template/tmpl/2/204".to_owned(),
            temporary: Some("/x".to_owned()),
            sizes: Some(Sizes { virtual_size: 2, physical_size: 1 }),
            checksum: Some("{MD5}00".to_owned()),
            warnings: vec!["odd".to_owned()],
            ovf: None,
        };
        let record = Record {
            command: Secret::new("{\"url\":\"http://u:geheim@h/\"}".to_owned()),
            accepted_unix_ms: 5,
            internal_sites: vec!["10.0.0.0/8".to_owned()],
            checksum: None,
            checkpoint: Some(Checkpoint {
                received: 9,
                digest: "{SHA-1}00".to_owned(),
                length: None,
                version: Version { tag: Some("\"v\"".to_owned()), ..Version::default() },
                hashes: vec!["{MD5}900150983cd24fb0d6963f7d28e17f72".to_owned()],
            }),
            outcome: Outcome::of(&report, 77),
        };
        records.write_soon("j", &record).unwrap();
        let read = records.read("j").unwrap().unwrap();
        assert_eq!(read, record);
        let checkpoint = read.checkpoint.clone().unwrap();
        assert_eq!(checkpoint.complete(), None);
        let complete = Checkpoint { length: Some(9), ..checkpoint }.complete().unwrap();
        assert_eq!(complete.hashes[0].to_string(), "{MD5}900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(read.outcome.unwrap().report(), report);
        assert!(!format!("{record:?}").contains("geheim"));
        let mode = std::fs::metadata(temp.path().join("jobs/j.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let running = Report { phase: Phase::Downloading, ..report };
        assert_eq!(Outcome::of(&running, 0), None);
    }
}
