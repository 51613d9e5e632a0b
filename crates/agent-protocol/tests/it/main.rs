//! The protocol against recordings of a real server, against the rules, and against nonsense.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod derived;
mod failures;
mod later;
mod lenient;
mod properties;
mod recorded;
mod secrets;
mod vectors;
mod wire_decode;
