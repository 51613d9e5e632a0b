//! The sync: what an unmodified management server knows of a zone becomes what is served.
//!
//! ```text
//!  timers, webhook, POST /v1/sync ──► machine ──► one call at a time ──► server
//!                                       ▲  │
//!                                       │  └──► one transaction per diff ──► store ──► reconciler
//!                                       └────── answers
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`config`] | `[roles.dhcp.sync]` |
//! | `book` | *pure*: what the server said, checked: networks, subnets, NICs |
//! | `names`, `wanted` | *pure*: what the book asks for, names made fit for DNS |
//! | `machine`, `full`, `deletion` | *pure*: when to ask for what, and what to conclude |
//! | `runner` | makes the calls and the transactions |
//! | `webhook` | wakes the sync; carries nothing that is trusted |
//!
//! Rules that are never broken: what is served does not depend on the server being there; nothing
//! is removed on account of an answer that is not complete, or that lacks too much; a listing that
//! cannot be read is not an empty one; nobody else's resource is touched.

pub(crate) mod book;
pub mod config;
mod deletion;
mod full;
pub(crate) mod machine;
mod names;
pub(crate) mod runner;
#[cfg(test)]
mod tests;
mod wanted;
pub(crate) mod webhook;

use std::time::Instant;

use dhcp_api::answer::AlarmKind;
use dhcp_api::words::Stamp;

pub use machine::Wake;
pub(crate) use names::with_address;
pub use webhook::wake_of;

/// Remarks of one kind that are kept.
const MOST_NOTES: usize = 32;

/// Something about the server's book that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) kind: AlarmKind,
    pub(crate) text: String,
}

/// Notes, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notes(pub(crate) Vec<Note>);

impl Notes {
    pub(crate) fn add(&mut self, kind: AlarmKind, text: impl Into<String>) {
        if self.0.iter().filter(|note| note.kind == kind).count() < MOST_NOTES {
            self.0.push(Note { kind, text: text.into() });
        }
    }
}

/// How the sync is, for everybody who watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncState {
    pub(crate) started: Instant,
    /// The last complete listing that was taken over.
    pub(crate) last_success: Option<(Stamp, Instant)>,
    pub(crate) last_error: Option<String>,
    /// Deletions that wait for `POST /v1/sync?force=true`.
    pub(crate) held: usize,
    pub(crate) notes: Vec<Note>,
    pub(crate) reservations: usize,
    /// Milliseconds that the last full listing took of the server's time.
    pub(crate) full_ms: Option<u64>,
    pub(crate) calls: u64,
    /// Zone of the store.
    pub(crate) zone: Option<String>,
}
