//! Certificates and private keys out of the forms in which operators keep them: PEM, DER, and the
//! key stores of Java, JKS and PKCS#12.
//!
//! Bytes in, values for the TLS library out: no file, no clock, no task. What is read is bounded by
//! what the caller hands over; [`MAX_BYTES`] is what a caller should allow. Every error says what
//! is wrong with the content and ends with the remedy; the file's name is the caller's to add.
//!
//! | module | what |
//! |---|---|
//! | [`certificate`] | certificates from PEM or DER, and what stands in one |
//! | [`key`] | private keys, and the pair of a key and its chain |
//! | [`store`] | a JKS or PKCS#12 store, told apart by its first bytes |
//! | [`sealed`] | texts that a management server sealed with a password |
//! | [`jks`] | the older format of Java's key stores |

pub mod certificate;
pub mod jks;
pub mod key;
pub mod sealed;
pub mod store;

pub use certificate::{CertificatesError, certificates, fingerprint};
pub use key::{KeyError, PairError, pair, private_key};
pub use store::{KeyStore, KeyStoreError};

/// No certificate bundle, no key and no key store of a service comes near it.
pub const MAX_BYTES: u64 = 1024 * 1024;
