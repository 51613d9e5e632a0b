//! What roles publish about themselves, below a role's `details` in `/status`.
//!
//! A role publishes a type that is [`Published`], so that writer and reader cannot disagree about
//! its name and fields. Nothing here may hold a secret: URLs come without user, password and query.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A type with a place of its own below `details`.
pub trait Published: Serialize {
    /// The key below `details`.
    const NAME: &'static str;
}

impl Published for Vec<StoreStatus> {
    const NAME: &'static str = "stores";
}

impl Published for Vec<DownloadStatus> {
    const NAME: &'static str = "downloads";
}

impl Published for Vec<CopyStatus> {
    const NAME: &'static str = "copies";
}

impl Published for Vec<UploadStatus> {
    const NAME: &'static str = "uploads";
}

impl Published for DownloadLinksStatus {
    const NAME: &'static str = "download_links";
}

impl Published for Vec<ConsoleStatus> {
    const NAME: &'static str = "consoles";
}

impl Published for Option<CertificateStatus> {
    const NAME: &'static str = "certificate";
}

impl Published for Vec<CertificateStatus> {
    const NAME: &'static str = "certificates";
}

impl Published for Notes {
    const NAME: &'static str = "notes";
}

impl Published for Listeners {
    const NAME: &'static str = "listeners";
}

impl Published for DhcpStatus {
    const NAME: &'static str = "dhcp";
}

/// Everything a role publishes. What a role does not have is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stores: Option<Vec<StoreStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloads: Option<Vec<DownloadStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<Vec<CopyStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploads: Option<Vec<UploadStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_links: Option<DownloadLinksStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consoles: Option<Vec<ConsoleStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listeners: Option<Listeners>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<Notes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Vec<CertificateStatus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<DhcpStatus>,
    /// What has no type here: of a newer process, or of a role that is not ours.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// By way of one map: a derived reader that flattens is made anew for every kind of text, at 80 KB each.
impl<'de> Deserialize<'de> for Details {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_map(Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Details {
    fn from_map(mut map: Map<String, Value>) -> Result<Self, serde_json::Error> {
        fn take<T: DeserializeOwned>(
            map: &mut Map<String, Value>,
            name: &str,
        ) -> Result<Option<T>, serde_json::Error> {
            map.shift_remove(name).map_or(Ok(None), serde_json::from_value)
        }
        Ok(Self {
            stores: take(&mut map, "stores")?,
            downloads: take(&mut map, "downloads")?,
            copies: take(&mut map, "copies")?,
            uploads: take(&mut map, "uploads")?,
            download_links: take(&mut map, "download_links")?,
            consoles: take(&mut map, "consoles")?,
            listeners: take(&mut map, "listeners")?,
            notes: take(&mut map, "notes")?,
            certificate: take(&mut map, "certificate")?,
            certificates: take(&mut map, "certificates")?,
            dhcp: take(&mut map, "dhcp")?,
            other: map.into_iter().collect(),
        })
    }
}

/// One store of secondary storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Without user, password and query.
    pub url: String,
    pub state: StoreState,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What an operator should know about how it is mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Where its files are, for stores that have a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// What the last look at everything found: images that are missing, cut or not listed, and what
    /// was left behind. Absent before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans: Option<u64>,
}

/// How a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreState {
    Opening,
    Ready,
    /// Could not be opened.
    Failed,
    /// Was open, and is another one or gone now.
    Lost,
    /// A word of a newer process.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for StoreState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening => "opening",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        })
    }
}

/// Something being copied or made on a store: a migration, a template of a snapshot, a config drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// By which it is cancelled.
    pub job: String,
    /// The store it goes to, without user, password and query.
    pub store: String,
    /// Below the store.
    pub path: String,
    /// Holes included.
    pub done_bytes: u64,
    /// As far as is known by now.
    pub total_bytes: u64,
    pub started_ago_ms: u64,
}

/// One download by URL, running or ended lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadStatus {
    /// Id of the job, as the server asks for it.
    pub job: String,
    pub state: DownloadState,
    pub percent: u8,
    pub received_bytes: u64,
    /// What is expected in all, when the source says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Over the last seconds, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// What it becomes: "template 204".
    #[serde(default)]
    pub object: String,
    /// Source, without user, password and query.
    pub url: String,
    /// The store it goes to, without user, password and query.
    pub store: String,
    /// Path below the store once it is known.
    #[serde(default)]
    pub path: String,
    /// What the server is told.
    #[serde(default)]
    pub text: String,
    /// What an operator may want to know of an image that is usable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    pub started_ago_ms: u64,
}

/// Stages of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownloadState {
    /// Waits for a place.
    Queued,
    Downloading,
    /// Between stores, or made of what lies on one.
    Copying,
    /// The bytes are here and are verified and published.
    Installing,
    Done,
    Failed,
    Cancelled,
    /// A word of a newer process.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for DownloadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Downloading => "downloading",
            Self::Copying => "copying",
            Self::Installing => "installing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        })
    }
}

/// One upload, under way or ended lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadStatus {
    /// UUID of the object, as in the URL.
    pub upload: String,
    pub state: UploadState,
    pub percent: u8,
    pub received_bytes: u64,
    /// What the client announced, a form around the file included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// The server's name of the object.
    #[serde(default)]
    pub object: String,
    /// Name of the file on the client's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// It may pause and go on.
    #[serde(default)]
    pub resumable: bool,
    /// The store it goes to, without user, password and query.
    #[serde(default)]
    pub store: String,
    /// Path below the store.
    #[serde(default)]
    pub path: String,
    /// Why it failed.
    #[serde(default)]
    pub text: String,
    /// Since it began, or ended.
    pub since_ago_ms: u64,
}

/// Stages of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    Receiving,
    /// The bytes are here and are verified and published.
    Installing,
    Done,
    Failed,
    /// A word of a newer process.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for UploadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Receiving => "receiving",
            Self::Installing => "installing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        })
    }
}

/// Links by which users fetch objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadLinksStatus {
    /// All there are.
    pub count: usize,
    /// Some of them, at most a hundred, the newest first.
    #[serde(default)]
    pub links: Vec<DownloadLink>,
}

/// One link of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadLink {
    /// Directory and file name, as they stand in the link's URL.
    pub link: String,
    /// Without user, password and query.
    pub store: String,
    /// What it leads to, below the store.
    pub path: String,
    pub created_ago_ms: u64,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

/// One open console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleStatus {
    /// Id that the server knows, as in its load report.
    pub id: u32,
    /// Session of the server's table.
    pub session: String,
    /// The VM's id for the server.
    pub vm: String,
    /// The VM's name for people.
    pub name: String,
    /// Address of the browser.
    pub client: String,
    /// Where the picture comes from.
    pub screen: String,
    pub opened_ago_ms: u64,
    pub last_used_ago_ms: u64,
    pub bytes_to_viewer: u64,
    pub bytes_to_vm: u64,
    /// Keys and pointer events that the viewer sent.
    pub inputs: u64,
    /// Messages of picture that the viewer got.
    #[serde(default)]
    pub messages: u64,
    /// The connection to the screen is.
    #[serde(default)]
    pub encrypted: bool,
    #[serde(default)]
    pub view_only: bool,
    /// Its page hears messages: it is there, and not a viewer that only knows pictures.
    #[serde(default)]
    pub connected: bool,
}

/// A recording of a console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingStatus {
    /// Name of its file.
    pub name: String,
    pub bytes: u64,
    /// When it was last written, RFC 3339.
    pub changed: String,
    /// It is being written.
    #[serde(default)]
    pub recording: bool,
}

/// Where a recording can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayLink {
    /// Path and query below any address where consoles are served. It opens once.
    pub path: String,
}

/// The certificate that a role's listeners show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Where it comes from: "files", "management server", "self-signed".
    pub source: String,
    /// Names and addresses that it is for.
    pub names: Vec<String>,
    /// End of its validity, RFC 3339.
    pub expires: String,
    /// SHA-256, as tools print it.
    pub fingerprint: String,
    /// Why browsers will not accept it, as far as the process can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What an operator should know although the role works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Notes(pub Vec<String>);

/// Addresses that a role's own listeners have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Listeners(pub Vec<String>);

/// DHCP and DNS in short; the role's own API says more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpStatus {
    /// "starting", "ready", "degraded", "stopped".
    pub state: String,
    /// Generation of the desired state, and the one dnsmasq serves.
    pub generation: u64,
    pub applied_generation: u64,
    #[serde(default)]
    pub reservations: u64,
    #[serde(default)]
    pub leases: u64,
    /// Process id of dnsmasq while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(default)]
    pub restarts: u32,
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// What the role says beyond this.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Something an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Stable word: "instance-down".
    pub alarm: String,
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every published type lands in the field of its name, not among the unknown ones.
    fn check<T: Published>(value: &T) {
        let document = json!({ T::NAME: serde_json::to_value(value).unwrap() });
        let details: Details = serde_json::from_value(document.clone()).unwrap();
        assert!(details.other.is_empty(), "{} is not a field", T::NAME);
        assert_eq!(serde_json::to_value(&details).unwrap(), document);
    }

    #[test]
    fn published_types_have_a_field_each() {
        check(&vec![StoreStatus {
            url: "nfs://h/p".into(),
            state: StoreState::Lost,
            reason: Some("gone".into()),
            notes: Vec::new(),
            directory: None,
            capacity_bytes: Some(1),
            used_bytes: None,
            orphans: Some(3),
        }]);
        check(&vec![DownloadStatus {
            job: "j".into(),
            state: DownloadState::Installing,
            percent: 100,
            received_bytes: 7,
            total_bytes: None,
            bytes_per_second: Some(5),
            object: "template 204".into(),
            url: "http://h/p".into(),
            store: "nfs://h/p".into(),
            path: "template/1".into(),
            text: String::new(),
            warnings: vec!["7 bytes were ignored".into()],
            started_ago_ms: 3,
        }]);
        check(&vec![UploadStatus {
            upload: "5b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33".into(),
            state: UploadState::Receiving,
            percent: 40,
            received_bytes: 4,
            total_bytes: Some(10),
            object: "204-2-x".into(),
            file: Some("a.iso".into()),
            client: None,
            resumable: true,
            store: "nfs://h/p".into(),
            path: "template/tmpl/2/204".into(),
            text: String::new(),
            since_ago_ms: 5,
        }]);
        let link = DownloadLink {
            link: "a/b".into(),
            store: "nfs://h/p".into(),
            path: "c".into(),
            created_ago_ms: 0,
            expires_in_ms: Some(5),
        };
        check(&DownloadLinksStatus { count: 1, links: vec![link] });
        check(&Vec::<ConsoleStatus>::new());
        check(&Listeners(vec!["127.0.0.1:80".into()]));
        check(&Notes(vec!["a proxy is not configured".into()]));
        check(&Some(CertificateStatus {
            source: "files".into(),
            names: vec!["a".into()],
            expires: "2027-01-01T00:00:00Z".into(),
            fingerprint: "00".into(),
            problem: Some("it is for b".into()),
        }));
        check(&Vec::<CertificateStatus>::new());
        check(&DhcpStatus { state: "ready".into(), ..DhcpStatus::default() });
    }

    #[test]
    fn what_has_no_type_is_kept() {
        let document = json!({"dhcp": {"state": "ready", "generation": 1, "applied_generation": 1,
            "reservations": 0, "leases": 0, "restarts": 0, "alarms": [], "sync": {"enabled": false}},
            "moods": 3});
        let details: Details = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(serde_json::to_value(&details).unwrap(), document);
    }
}
