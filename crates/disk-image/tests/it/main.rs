//! Images that are sound, damaged, cut, or something else; judged here and by QEMU.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    unreachable_pub,
    reason = "test code"
)]

mod archives;
mod build;
mod chains;
mod differential;
mod hostile;
mod kinds;
mod ova;
mod properties;
mod qcow2;
mod vhd;
mod vhdx;
mod vmdk;
