//! The certificates of a link as an operator sees them: ours, those we trust, and how to begin anew.

use std::io;
use std::path::PathBuf;

use key_store::certificate::{alternative_names, expires_at, issued_at};
use rustls_pki_types::CertificateDer;
use tls_material::FileError;

use crate::certificates::{self, CERTIFICATE, KEY, REQUESTED_KEY};
use crate::client_certificate::ClientCertificate;
use crate::config::LinkConfig;
use crate::trust::{Anchors, PROVISIONED_CA, REMEMBERED, fingerprint};

/// A certificate, as far as people want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256, as tools print it.
    pub fingerprint: String,
    /// DNS names and addresses.
    pub names: Vec<String>,
    /// Begin of validity in seconds since 1970.
    pub issued: i64,
    /// End of validity; `None` for what cannot be read.
    pub expires: Option<i64>,
}

impl CertificateFacts {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        Self {
            fingerprint: fingerprint(certificate),
            names: alternative_names(certificate),
            issued: issued_at(certificate),
            expires: expires_at(certificate),
        }
    }
}

/// What a link presents and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkCertificates {
    /// What is presented to a server that asks; none is legal unless the server insists.
    pub own: Option<CertificateFacts>,
    /// Whom we trust; empty before the first server is met.
    pub trusted: Vec<CertificateFacts>,
}

/// The certificate that would be presented now. Reads files: blocks.
///
/// # Errors
/// When a configured file is of no use; the text names it.
pub fn own_certificate(link: &LinkConfig) -> Result<Option<CertificateFacts>, FileError> {
    let client = certificates::client_key(link)?;
    Ok(client.and_then(|key| key.certified.cert.first().map(CertificateFacts::of)))
}

/// Everything about a link's certificates. Reads files: blocks.
///
/// # Errors
/// When a file is of no use; the text names it.
pub fn certificates_of(link: &LinkConfig) -> Result<LinkCertificates, FileError> {
    let client = certificates::client_key(link)?;
    let issuers = client.as_ref().map(|key| key.issuers.as_slice()).unwrap_or_default();
    let configured = link.management.client_certificate.as_ref();
    let store = configured.and_then(ClientCertificate::store);
    let ca_file = link.management.ca_file.as_deref();
    let anchors = Anchors::load(ca_file, link.directory(), issuers, store)?;
    let own = client.as_ref().and_then(|key| key.certified.cert.first());
    Ok(LinkCertificates {
        own: own.map(CertificateFacts::of),
        trusted: anchors.into_certificates().iter().map(CertificateFacts::of).collect(),
    })
}

/// Forgets what a link learned from servers: its provisioned certificate and key, and whom it
/// trusted at first use. The files stay beside, as `NAME.old`. Holds from the next connect on.
/// Configured files are not touched. Blocks.
///
/// # Errors
/// When a file cannot be renamed; the text names it.
pub fn forget(link: &LinkConfig) -> io::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    for name in [CERTIFICATE, KEY, REQUESTED_KEY, PROVISIONED_CA, REMEMBERED] {
        let path = link.file(name);
        let mut old = path.clone().into_os_string();
        old.push(".old");
        match std::fs::rename(&path, &old) {
            Ok(()) => moved.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let text = format!("cannot rename {}: {error}", path.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
    Ok(moved)
}
