//! A store on an NFS server that this process speaks to itself: no mount, no privilege, no kernel.
//!
//! A kernel's mount of a dead server leaves threads that nobody can wake. Here every call has an end:
//! it is answered, or fails at its deadline, and nothing hangs behind it. Version 3 over TCP.
//!
//! ```text
//! engine ─ operations ─▶ session (deadline) ─▶ client (connects again, asks for the root again)
//!   ├─ part: write-behind, COMMIT, verifier          └─▶ connection (calls side by side)
//!   └─ file: reads side by side
//! ```

mod client;
mod connection;
mod dial;
mod doctor;
mod engine;
mod error;
mod file;
mod listing;
mod open;
mod part;
mod remote;
mod root;
mod tree;

use std::time::Duration;

use role::TaskScope;

pub use client::{Client, Session};
pub use connection::Lane;
pub use doctor::check;
pub use engine::NfsStore;
pub use error::NfsError;
pub use file::{Reader, open_regular};
pub use open::{checks, with_nfs};
pub use remote::{RemotePlace, open_remote};
pub use root::export_of;

pub use super::nfs_settings::NfsSettings;

/// A server and one of its exports.
#[derive(Debug, Clone)]
pub struct Target {
    /// Name or address, without brackets.
    pub host: String,
    /// Path of the export.
    pub export: String,
    pub settings: NfsSettings,
    /// How long an operation may take.
    pub deadline: Duration,
    /// Runs connections and what is under way.
    pub tasks: TaskScope,
}
