//! What TLS needs from the machine: certificates, keys and trust roots from files, and the checks
//! that the TLS library does not make by itself.
//!
//! Every error names the file, what is wrong with it and the remedy. Reading blocks: call it where
//! file work belongs.
//!
//! | module | what |
//! |---|---|
//! | [`files`] | certificates, keys and key stores from files, bounded |
//! | [`chain`] | whether a pinned certificate vouches for another one, a CA presented as itself included |
//! | [`hosts`] | the check of hypervisor hosts, by an operator's policy |
//! | [`clients`] | the check of a listener's clients |
//! | [`own`] | a certificate of our own for a listener that was given none |
//! | [`system`] | the authorities that this machine trusts |
//! | [`https`] | the check of ordinary servers: system roots, an operator's file, self-signed servers |

pub mod chain;
pub mod clients;
pub mod files;
pub mod hosts;
pub mod https;
pub mod own;
pub mod system;

pub use chain::{ChainError, Chains};
pub use clients::ClientVerifier;
pub use files::{FileError, read_certificates, read_key, read_key_store, read_optional, read_pair};
pub use hosts::{HostTrust, HostVerifier};
pub use https::HttpsVerifier;
pub use own::{OwnError, own_pair};
pub use system::add_system_roots;
