//! Whom downloads over https trust: the system's certificates, Mozilla's, the operator's file, and
//! the root that the management server delivers with its own certificates.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::RootCertStore;
use rustls::client::VerifierBuilderError;
use rustls::pki_types::CertificateDer;
use tls_material::{FileError, HttpsVerifier, add_system_roots, read_certificates};

/// What an operator does about a server whose certificate nobody trusted has signed.
const REMEDY: &str = "name its CA certificate, or the certificate itself when it is self-signed, in \
                      ca_file of the storage host";

/// Certificates of the management server's that are kept; it has one at a time.
const MAX_DELIVERED: usize = 16;

/// Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Trust {
    trusted: Arc<Mutex<Trusted>>,
}

#[derive(Debug)]
struct Trusted {
    /// The system's, Mozilla's and the operator's.
    roots: RootCertStore,
    /// Of the operator's file. Trusted as a server's own, too: most self-signed ones are a CA and a
    /// server's at once.
    given: Vec<CertificateDer<'static>>,
    /// By the management server, oldest first.
    delivered: Vec<CertificateDer<'static>>,
    verifier: Arc<HttpsVerifier>,
}

/// The operator's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot make a verifier of the trusted certificates")]
    Verifier(#[from] VerifierBuilderError),
}

impl Trusted {
    fn new(
        roots: RootCertStore,
        given: Vec<CertificateDer<'static>>,
        delivered: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TrustError> {
        let mut all = roots.clone();
        all.add_parsable_certificates(delivered.iter().cloned());
        let own = given.iter().chain(&delivered).cloned().collect();
        let verifier = HttpsVerifier::new(Arc::new(all), own, REMEDY)?;
        Ok(Self { roots, given, delivered, verifier })
    }

    /// Reads everything there is. Blocks.
    fn read(
        ca_file: Option<&Path>,
        delivered: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TrustError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        add_system_roots(&mut roots);
        let mut given = Vec::new();
        if let Some(path) = ca_file {
            given = read_certificates(path)?;
            let (added, ignored) = roots.add_parsable_certificates(given.iter().cloned());
            tracing::info!(path = %path.display(), added, ignored, "trusting certificates from a file");
        }
        Self::new(roots, given, delivered)
    }
}

impl Trust {
    /// Reads everything there is. Blocks.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, TrustError> {
        Ok(Self { trusted: Arc::new(Mutex::new(Trusted::read(ca_file, Vec::new())?)) })
    }

    /// Reads everything anew; what the management server delivered stays. A file that cannot be
    /// read changes nothing. Blocks.
    pub fn reload(&self, ca_file: Option<&Path>) -> Result<(), TrustError> {
        let fresh = Trusted::read(ca_file, Vec::new())?;
        let mut trusted = self.trusted();
        *trusted = Trusted::new(fresh.roots, fresh.given, trusted.delivered.clone())?;
        Ok(())
    }

    fn trusted(&self) -> MutexGuard<'_, Trusted> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For connections that begin now.
    pub fn verifier(&self) -> Arc<HttpsVerifier> {
        Arc::clone(&self.trusted().verifier)
    }

    /// Adds certificates that the management server delivered, in PEM form. Returns how many were
    /// new; when one cannot be used, none is taken.
    pub fn add_pem(&self, pem: &str) -> usize {
        match self.add(pem) {
            Ok(added) => added,
            Err(error) => {
                let error = bedrock::chain(&*error);
                tracing::warn!(error, "cannot trust the root certificate of the management server");
                0
            }
        }
    }

    fn add(&self, pem: &str) -> Result<usize, Box<dyn std::error::Error>> {
        let found = key_store::certificates(pem.as_bytes())?;
        let mut trusted = self.trusted();
        let mut delivered = trusted.delivered.clone();
        let is_known = |certificate: &CertificateDer<'_>| {
            trusted.given.contains(certificate) || trusted.delivered.contains(certificate)
        };
        delivered.extend(found.into_iter().filter(|certificate| !is_known(certificate)));
        let added = delivered.len() - trusted.delivered.len();
        if added > 0 {
            let surplus = delivered.len().saturating_sub(MAX_DELIVERED);
            delivered.drain(..surplus);
            *trusted = Trusted::new(trusted.roots.clone(), trusted.given.clone(), delivered)?;
        }
        Ok(added)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivered_root_is_added_once() {
        let key = rcgen::generate_simple_self_signed(["images.example".to_owned()]).unwrap();
        let trust = Trust::load(None).unwrap();
        assert!(trust.trusted().roots.len() > 50, "Mozilla's roots are built in");
        assert_eq!(trust.add_pem(&key.cert.pem()), 1);
        assert_eq!(trust.add_pem(&key.cert.pem()), 0);
        assert_eq!(trust.add_pem("nonsense"), 0);
        assert!(trust.reload(Some(Path::new("/nowhere.pem"))).is_err());
        trust.reload(None).unwrap();
        assert_eq!(trust.add_pem(&key.cert.pem()), 0, "what was delivered stays");
    }

    #[test]
    fn a_file_is_pem_or_der_and_has_a_certificate() {
        let made = rcgen::generate_simple_self_signed(["images.example".to_owned()]).unwrap();
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("ca");
        for bytes in [made.cert.pem().into_bytes(), made.cert.der().to_vec()] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Trust::load(Some(&path)).unwrap().trusted().given.len(), 1);
        }
        for bytes in [&b""[..], b"# none yet\n", b"\x30\x82nonsense"] {
            std::fs::write(&path, bytes).unwrap();
            let error = Trust::load(Some(&path)).unwrap_err().to_string();
            assert!(error.contains("cannot take certificates from"), "{error}");
        }
        let missing = Trust::load(Some(Path::new("/nowhere.pem"))).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read /nowhere.pem"), "{missing}");
    }
}
