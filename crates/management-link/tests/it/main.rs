//! The link against a server of the test's own, over real TLS on loopback.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, starts tasks and programs of its own, and says what it skips"
)]

mod bench;
mod commands;
mod java;
mod loss;
mod peer;
mod pins;
mod recorded;
mod register;
mod server;
mod several;
mod stop;
mod trust;
