//! Which certificate the management server may present.
//!
//! A stock server presents its own self-signed CA certificate as the end of the chain, without a
//! name in it, which every ordinary check refuses. So a certificate is trusted when
//!
//! 1. it is byte for byte one of the pinned ones, or
//! 2. a chain leads from it to one of them (other CA plugins), whatever its name, or
//! 3. nothing is pinned yet: trust on first use. It is remembered once the server has spoken the
//!    protocol, and from then on rule 1 and 2 hold.
//!
//! In every case the handshake signature is verified: the peer owns the certificate's key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use crate::files::{self, WriteError};
use crate::key_store::{KeyFileError, read_certificates};

/// Certificates remembered at first use.
pub(crate) const REMEMBERED: &str = "management-ca.pem";
/// CA certificates the server sent with a certificate for us.
pub(crate) const PROVISIONED_CA: &str = "cloud.ca.crt";

/// The server presented a certificate that nothing pinned vouches for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrustError {
    #[error(
        "the management server presents a certificate (SHA-256 {presented}) that is neither in {} \
         nor issued by one in it; put the server's CA certificate there (API listCaCertificate)",
        file.display()
    )]
    NotInFile { file: PathBuf, presented: String },
    #[error(
        "the management server presents another certificate (SHA-256 {presented}) than the one \
         remembered in {} (SHA-256 {remembered}); if its CA was replaced on purpose remove that \
         file, else somebody is between us and the server",
        file.display()
    )]
    Changed { file: PathBuf, presented: String, remembered: String },
}

/// The pinned certificates of this moment.
#[derive(Debug, Clone)]
pub(crate) struct Anchors {
    pinned: Vec<CertificateDer<'static>>,
    /// Where an operator finds them.
    place: PathBuf,
    /// That place was written at first use, not configured.
    remembered: bool,
}

impl Anchors {
    /// Reads what is pinned now. `issuers` are the certificates that a stock agent's key store
    /// (`store`) held besides the key: that agent trusted them, so do we.
    pub(crate) fn load(
        ca_file: Option<&Path>,
        directory: &Path,
        issuers: &[CertificateDer<'static>],
        store: Option<&Path>,
    ) -> Result<Self, KeyFileError> {
        let remembered = directory.join(REMEMBERED);
        let provisioned = directory.join(PROVISIONED_CA);
        let first_use = ca_file.is_none() && remembered.exists();
        let mut pinned = issuers.to_vec();
        let mut place = store.unwrap_or(&remembered).to_owned();
        if provisioned.exists() {
            pinned.extend(read_certificates(&provisioned)?);
            place.clone_from(&provisioned);
        }
        if let Some(path) = ca_file.or(first_use.then_some(remembered.as_path())) {
            pinned.splice(0..0, read_certificates(path)?);
            path.clone_into(&mut place);
        }
        Ok(Self { pinned, place, remembered: first_use })
    }

    /// Nothing is pinned: the next server is trusted and remembered.
    pub(crate) fn is_first_use(&self) -> bool {
        self.pinned.is_empty()
    }

    fn refuse(&self, presented: &CertificateDer<'_>) -> TrustError {
        let presented = fingerprint(presented);
        let file = self.place.clone();
        if !self.remembered {
            return TrustError::NotInFile { file, presented };
        }
        let remembered = self.pinned.first().map(fingerprint).unwrap_or_default();
        TrustError::Changed { file, presented, remembered }
    }
}

/// Remembers what the server presented at first use.
pub(crate) fn remember(
    directory: &Path,
    presented: &[CertificateDer<'static>],
) -> Result<(), WriteError> {
    let path = directory.join(REMEMBERED);
    let text = files::pem("CERTIFICATE", presented.iter().map(AsRef::as_ref));
    files::replace(&path, text.as_bytes(), files::PUBLIC)
}

/// SHA-256 of a certificate as tools print it, in lower case.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate.as_ref());
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// See the module's head.
pub(crate) struct ServerVerifier {
    anchors: Anchors,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").field("pinned", &self.anchors.pinned.len()).finish()
    }
}

impl ServerVerifier {
    pub(crate) fn new(anchors: Anchors, provider: &CryptoProvider) -> Arc<Self> {
        let mut roots = RootCertStore::empty();
        // What cannot be a trust anchor can still be pinned as it is.
        let (_usable, odd) = roots.add_parsable_certificates(anchors.pinned.iter().cloned());
        if odd > 0 {
            tracing::debug!(count = odd, "pinned certificates that cannot sign others");
        }
        Arc::new(Self { anchors, roots, algorithms: provider.signature_verification_algorithms })
    }

    fn is_issued_by_a_pin(
        &self,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        let checked = ParsedCertificate::try_from(presented).and_then(|parsed| {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )
        });
        if let Err(error) = &checked {
            tracing::debug!(%error, "no chain to a pinned certificate");
        }
        checked.is_ok()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let trusted = self.anchors.is_first_use()
            || self.anchors.pinned.iter().any(|pin| pin.as_ref() == end_entity.as_ref())
            || self.is_issued_by_a_pin(end_entity, intermediates, now);
        if trusted {
            return Ok(ServerCertVerified::assertion());
        }
        let error = OtherError(Arc::new(self.anchors.refuse(end_entity)));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(error)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
