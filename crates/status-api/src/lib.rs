//! The bodies of the admin API as types: written by the process, read by the command line, the
//! pages and the tests.
//!
//! Every fact has one name and one unit: times that lie back are `…_ago_ms`, times to come
//! `…_in_ms`, moments are RFC 3339 texts, sizes are bytes. One link appears once, in
//! [`ProcessStatus::links`]. A reader tolerates fields and words it does not know, so that an older
//! command line can ask a newer process.
//!
//! | module | what |
//! |---|---|
//! | [`process`] | `/status`, `/readyz`: the process, its roles, its links |
//! | [`details`] | what roles publish about themselves, below [`RoleStatus::details`] |
//! | [`reload`] | `POST /reload` |
//! | [`verify`] | `POST /roles/ss/verify` |

pub mod details;
pub mod process;
pub mod reload;
pub mod verify;

pub use details::{
    Alarm, CertificateStatus, ConsoleStatus, CopyStatus, Details, DhcpStatus, DownloadLink,
    DownloadLinksStatus, DownloadState, DownloadStatus, Listeners, Notes, Published,
    RecordingStatus, ReplayLink, StoreState, StoreStatus, UploadState, UploadStatus,
};
pub use process::{
    HealthWord, LastError, LinkState, LinkStatus, NotReady, ProcessState, ProcessStatus, Readiness,
    RoleStatus,
};
pub use reload::{ReloadAnswer, ReloadFault, ReloadReport, RoleReload, Violation};
pub use verify::{Finding, FindingKind, VerifyReport};
