//! The role in process: a real link to the embedded management server, real sockets to browsers
//! and screens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod admission;
mod browser;
mod endings;
mod load;
mod pages;
mod relay;
mod screens;
mod viewer;
mod world;
