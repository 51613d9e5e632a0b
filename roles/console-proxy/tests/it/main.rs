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
mod control;
mod endings;
mod haproxy;
mod kvm;
mod load;
mod logs;
mod nginx;
mod pages;
mod recording;
mod relay;
mod reload;
mod screens;
mod tls;
mod upstreams;
mod viewer;
mod vnc_servers;
mod world;
