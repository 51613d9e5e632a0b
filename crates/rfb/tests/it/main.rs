//! The handshakes and messages from outside.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod golden;
mod vencrypt;
