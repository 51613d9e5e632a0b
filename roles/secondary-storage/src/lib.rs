//! The secondary storage role: what CloudStack's secondary storage VM does, inside this process.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | `[roles.secondary_storage]` |
//! | [`service`] | one run of the role, from configuration to goodbye |
//! | [`agent`] | how the host registers and pings |
//! | [`admin`] | what `quickcloud ss …` asks |
//! | [`commands`] | every command to its handler and back to its answer |
//! | [`sources`] | where bytes come from: web servers, with the rules of whom to ask and trust |
//! | [`ingest`] | from a source's bytes to a listed object, never listed before it is complete |
//! | [`moving`] | copies between stores, templates of snapshots, config drives |
//! | [`objects`] | what a store holds, in Java's properties files; removing it |
//! | [`stores`] | stores: verified roots with threads of their own |
//! | [`links`] | links for users, and the listener behind them |
//! | [`serving`] | addresses, certificates and the help page |
//! | [`uploads`] | uploads by browsers, signed by the server |
//! | [`setup`] | what the management server said at set-up |
//! | [`reload`], [`live`] | taking over another configuration; values that a reload replaces |
//! | [`doctor`] | questions about stores and files |
//! | [`sharing`] | several storage hosts on one store: who does what, and who goes on |
//! | [`redacted`] | URLs without their secrets |
//! | [`state_file`] | small facts that survive a restart |
//! | [`metrics`] | figures |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start tasks of their own"))]

pub mod admin;
pub mod agent;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod ingest;
pub mod links;
pub mod live;
pub mod metrics;
pub mod moving;
pub mod objects;
pub mod redacted;
pub mod reload;
pub mod service;
pub mod serving;
pub mod setup;
pub mod sharing;
pub mod sources;
pub mod state_file;
pub mod stores;
pub mod uploads;

pub use service::{DESCRIPTOR, SecondaryStorageSpec};
