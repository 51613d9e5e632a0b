//! The secondary storage role: what CloudStack's secondary storage VM does, inside this process.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | `[roles.secondary_storage]` |
//! | [`service`] | one run of the role, from configuration to goodbye |
//! | [`agent`] | how the host registers and pings |
//! | [`commands`] | every command to its handler and back to its answer |
//! | [`store`] | stores: verified roots with threads of their own |
//! | [`inventory`], [`properties`] | what a store holds, in Java's properties files |
//! | [`download`] | downloads by URL: never listed before they are complete |
//! | [`format`], [`checksum`] | untrusted image headers; digests |
//! | [`address`], [`trust`] | where downloads may go, whom they trust |
//! | [`links`] | links for users, and the listener behind them |
//! | [`delete`] | removing objects |
//! | [`settings`] | what the management server said at set-up |
//! | [`state_file`] | small facts that survive a restart |
//! | [`metrics`] | figures |

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests start tasks of their own"))]

pub mod address;
pub mod agent;
pub mod checksum;
pub mod commands;
pub mod config;
pub mod delete;
pub mod download;
pub mod format;
pub mod inventory;
pub mod links;
pub mod metrics;
pub mod properties;
pub mod service;
pub mod settings;
pub mod state_file;
pub mod store;
pub mod trust;

pub use service::{DESCRIPTOR, SecondaryStorageSpec};
