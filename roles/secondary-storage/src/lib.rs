//! The secondary storage role: what CloudStack's secondary storage VM does, inside this process.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod address;
pub mod checksum;
pub mod delete;
pub mod download;
pub mod format;
pub mod inventory;
pub mod metrics;
pub mod properties;
pub mod state_file;
pub mod store;
