//! The role in process, from the outside: REST over its real Unix socket, and a real dnsmasq with
//! real clients in network namespaces made by the test itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test may fail loudly, start programs and read its environment"
)]

mod client;
mod cloud;
mod document;
mod doors;
mod exact;
mod failures;
mod hardship;
mod harness;
mod lives;
mod namespace;
mod rest;
mod serving;
mod sync;
mod whole;
