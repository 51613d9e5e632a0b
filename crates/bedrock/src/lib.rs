//! What every crate stands on and none of them may know more of: secrets that cannot be printed,
//! the chain of an error's causes, small files replaced durably, hosts and networks as text.
//!
//! A leaf: it depends on no other crate of ours, on no runtime and on no clock.

mod error;
pub mod files;
pub mod net;
mod secret;

pub use error::chain;
pub use secret::Secret;
