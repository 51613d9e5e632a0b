//! The client certificate: from PEM files, or taken over from a stock agent's key store.
//!
//! Nothing here is kept: files are read again at each connect, so that a certificate replaced on
//! disk is used at the next one, as stock agents do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use tls_material::{FileError, read_key_store, read_pair};

/// Password of a stock agent's key store when nobody ever set one. Published with its source.
const STOCK_PASSWORD: &str = "vmops.com";

/// Where the client certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Certificate chain and private key, each a PEM file.
    Pem { certificate: PathBuf, key: PathBuf },
    /// A JKS or PKCS#12 file; which of the two is seen by its first bytes.
    KeyStore { file: PathBuf, password_file: Option<PathBuf> },
}

/// A private key with its chain, ready for the handshake.
#[derive(Debug, Clone)]
pub(crate) struct ClientKey {
    pub(crate) certified: Arc<CertifiedKey>,
    /// Certificates of issuers that a key store held besides.
    pub(crate) issuers: Vec<CertificateDer<'static>>,
}

impl ClientCertificate {
    /// Reads the files and checks that the key fits its certificate.
    pub(crate) fn load(&self) -> Result<ClientKey, FileError> {
        match self {
            Self::Pem { certificate, key } => {
                let certified = read_pair(certificate, key)?;
                Ok(ClientKey { certified, issuers: Vec::new() })
            }
            Self::KeyStore { file, password_file } => {
                let store = read_key_store(file, password_file.as_deref(), STOCK_PASSWORD)?;
                tracing::debug!(path = %file.display(), alias = store.alias, "read key entry");
                Ok(ClientKey { certified: store.pair, issuers: store.issuers })
            }
        }
    }

    /// The key store that may hold trusted issuers.
    pub(crate) fn store(&self) -> Option<&Path> {
        match self {
            Self::KeyStore { file, .. } => Some(file),
            Self::Pem { .. } => None,
        }
    }
}
