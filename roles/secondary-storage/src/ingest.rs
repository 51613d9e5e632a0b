//! From the bytes of a source to a listed object of a store.
//!
//! ```text
//! command → Downloads::start → Job (table, note on disk)
//!             └ task: source (hops, address rule, ranges) ─ pieces ─▶ writer thread ─▶ temporary
//!                                                               └──▶ digest thread
//!                     digest, sizes → publish (rename, properties file) → Done
//! ```
//!
//! What happens to the bytes is in [`intake`], which knows no download: uploads use it as well.
//!
//! The management server polls; a job is kept until it is purged, or a while after its end, also over
//! a restart of the process (see [`records`]): one that was running goes on. Nothing of a job is
//! visible in a listing before its last step, and whatever a crash leaves is named by
//! the job's note (see [`journal`]).

pub mod decompress;
pub mod describe;
pub mod digest;
pub mod downloads;
mod entry;
pub mod error;
pub mod intake;
pub mod job;
pub mod journal;
mod members;
pub mod progress;
pub mod publish;
pub mod records;
pub(crate) mod resume;
mod run;
pub mod several;
mod speed;
mod transfer;
pub mod turns;
mod unpack;
mod windows;
pub mod write;
mod zip;

use std::sync::Arc;

use role::{Host, TaskScope};

pub use downloads::Downloads;
pub use error::IngestError;
pub use job::{Job, Phase, Report, Request};

use crate::config::DownloadSettings;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::sharing::Sharing;
use crate::stores::Stores;
use journal::Journal;
use records::Records;

/// What all downloads of this host share.
#[derive(Debug, Clone)]
pub struct DownloadContext {
    pub stores: Stores,
    pub host: Host,
    pub tasks: TaskScope,
    pub journal: Journal,
    pub records: Records,
    pub metrics: Arc<Metrics>,
    pub settings: Live<DownloadSettings>,
    /// With the other hosts on the same stores.
    pub sharing: Sharing,
}
