//! The supervisor as a whole: in this process with roles that misbehave on purpose, and a few
//! scenarios through the real binary.

#![allow(clippy::disallowed_methods, reason = "tests spawn tasks and the real binary")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod admin;
mod binary;
mod certificates;
mod child;
mod cloud;
mod conflicts;
mod consoles;
mod conversations;
mod dashboard;
mod doctor;
mod documents;
mod downloads;
mod drain;
mod isolation;
mod lockout;
mod real_roles;
mod reloading;
mod restarts;
mod roles;
mod running;
mod shared_port;
mod unit_file;
mod zone;
