//! Whom downloads over https trust: the system's certificates, Mozilla's, the operator's file, and
//! the root that the management server delivers with its own certificates.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Certificates of the server's that a reload keeps; it has one at a time.
const MAX_DELIVERED: usize = 16;

/// Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: Arc<Mutex<Arc<RootCertStore>>>,
    /// What the management server delivered, in PEM form.
    delivered: Arc<Mutex<BTreeSet<String>>>,
}

/// The operator's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read certificates from {path}")]
pub struct CaFileError {
    path: String,
    #[source]
    source: rustls::pki_types::pem::Error,
}

impl Trust {
    /// Reads everything there is. Blocks.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, CaFileError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::debug!(%error, "cannot read some of the system's certificates");
        }
        let (added, ignored) = roots.add_parsable_certificates(native.certs);
        tracing::debug!(added, ignored, "read the system's certificates");
        if let Some(path) = ca_file {
            let error = |source| CaFileError { path: path.display().to_string(), source };
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(error)?
                .collect::<Result<Vec<_>, _>>()
                .map_err(error)?;
            let (added, ignored) = roots.add_parsable_certificates(certificates);
            tracing::info!(path = %path.display(), added, ignored, "trusting certificates from a file");
        }
        let delivered = Arc::default();
        Ok(Self { roots: Arc::new(Mutex::new(Arc::new(roots))), delivered })
    }

    /// Reads everything anew; what the management server delivered stays. A file that cannot be
    /// read changes nothing. Blocks.
    pub fn reload(&self, ca_file: Option<&Path>) -> Result<(), CaFileError> {
        let fresh = Self::load(ca_file)?;
        let delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for pem in &delivered {
            fresh.add_pem(pem);
        }
        *self.roots.lock().unwrap_or_else(PoisonError::into_inner) = fresh.roots();
        Ok(())
    }

    pub fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds certificates in PEM form; what cannot be parsed is left out. Returns how many were
    /// new.
    pub fn add_pem(&self, pem: &str) -> usize {
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect();
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = RootCertStore::clone(&roots);
        let before = changed.len();
        for anchor in certificates.iter().filter_map(anchor) {
            if !changed.roots.contains(&anchor) {
                changed.roots.push(anchor);
            }
        }
        let added = changed.len() - before;
        *roots = Arc::new(changed);
        let mut delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner);
        if added > 0 && delivered.len() < MAX_DELIVERED {
            delivered.insert(pem.to_owned());
        }
        added
    }
}

fn anchor(certificate: &CertificateDer<'_>) -> Option<rustls::pki_types::TrustAnchor<'static>> {
    let mut one = RootCertStore::empty();
    one.add(certificate.clone().into_owned()).ok()?;
    one.roots.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivered_root_is_added_once() {
        let key = rcgen::generate_simple_self_signed(["images.example".to_owned()]).unwrap();
        let trust = Trust::load(None).unwrap();
        assert!(trust.roots().len() > 50, "Mozilla's roots are built in");
        assert_eq!(trust.add_pem(&key.cert.pem()), 1);
        assert_eq!(trust.add_pem(&key.cert.pem()), 0);
        assert_eq!(trust.add_pem("nonsense"), 0);
        let before = trust.roots().len();
        assert!(trust.reload(Some(Path::new("/nowhere.pem"))).is_err());
        trust.reload(None).unwrap();
        assert_eq!(trust.roots().len(), before, "what was delivered stays");
        let missing = Trust::load(Some(Path::new("/nowhere.pem"))).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read certificates from /nowhere.pem");
    }
}
