//! Which certificate the management server may present.
//!
//! A stock server presents its own self-signed CA certificate as the end of the chain, without a
//! name in it, which every ordinary check refuses. So a certificate is trusted when
//!
//! 1. it is byte for byte one of the pinned ones, or
//! 2. a chain leads from it to one of them, whatever its name: a certificate that an authority
//!    issued (other CA plugins), or an authority below the pinned one (4.23), or
//! 3. nothing is pinned yet: trust on first use. It is remembered once the server has spoken the
//!    protocol, and from then on rule 1 and 2 hold.
//!
//! In every case the handshake signature is verified: the peer owns the certificate's key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use key_store::certificate::to_pem;
pub(crate) use key_store::fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tls_material::chain::is_authority;
use tls_material::{Chains, FileError, read_certificates, read_optional};

use crate::files::{self, WriteError};

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
    ///
    /// A file that exists and cannot be read is an error, not an absent pin: nobody is trusted
    /// then.
    pub(crate) fn load(
        ca_file: Option<&Path>,
        directory: &Path,
        issuers: &[CertificateDer<'static>],
        store: Option<&Path>,
    ) -> Result<Self, FileError> {
        let remembered = directory.join(REMEMBERED);
        let provisioned = directory.join(PROVISIONED_CA);
        let mut anchors = Self {
            pinned: issuers.to_vec(),
            place: store.unwrap_or(&remembered).to_owned(),
            remembered: false,
        };
        if let Some(found) = read_optional(&provisioned)? {
            anchors.pinned.extend(found);
            anchors.place = provisioned;
        }
        if let Some(path) = ca_file {
            anchors.put_first(read_certificates(path)?, path);
        } else if let Some(found) = read_optional(&remembered)? {
            anchors.put_first(found, &remembered);
            anchors.remembered = true;
        }
        Ok(anchors)
    }

    fn put_first(&mut self, certificates: Vec<CertificateDer<'static>>, place: &Path) {
        self.pinned.splice(0..0, certificates);
        place.clone_into(&mut self.place);
    }

    /// What was presented at first use and could not be written down, so that it holds at least
    /// until the process ends. Anything pinned in a file counts instead.
    pub(crate) fn or_else(mut self, unwritten: &[CertificateDer<'static>]) -> Self {
        if self.is_first_use() && !unwritten.is_empty() {
            self.pinned = unwritten.to_vec();
            self.remembered = true;
        }
        self
    }

    /// Nothing is pinned: the next server is trusted and remembered.
    pub(crate) fn is_first_use(&self) -> bool {
        self.pinned.is_empty()
    }

    /// The pinned certificates.
    pub(crate) fn into_certificates(self) -> Vec<CertificateDer<'static>> {
        self.pinned
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

/// Why the server's certificate could not be remembered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RememberError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("cannot see whether a server is remembered already")]
    Read(#[from] FileError),
}

/// Remembers what the server presented at first use; never replaces what is remembered.
pub(crate) fn remember(
    directory: &Path,
    presented: &[CertificateDer<'static>],
) -> Result<(), RememberError> {
    let path = directory.join(REMEMBERED);
    if read_optional(&path)?.is_none() {
        files::replace(&path, to_pem(presented).as_bytes(), files::PUBLIC)?;
    }
    Ok(())
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

    /// Whether what a server presented, its own certificate first, is trusted.
    pub(crate) fn trusts(&self, presented: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Some((own, others)) = presented.split_first() else { return false };
        self.anchors.is_first_use()
            || self.anchors.pinned.iter().any(|pin| pin.as_ref() == own.as_ref())
            || self.is_issued_by_a_pin(own, others, now)
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
        let Err(error) = checked else { return true };
        tracing::debug!(%error, "no chain to a pinned certificate");
        // The TLS library takes no CA for a server's own certificate.
        let chains = Chains { pins: &self.anchors.pinned, algorithms: self.algorithms };
        let checked = match is_authority(presented) {
            true => chains.check(presented, intermediates, now),
            false => return false,
        };
        if let Err(error) = &checked {
            tracing::debug!(%error, "no chain from the presented CA to a pinned certificate");
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
        let presented: Vec<_> =
            std::iter::once(end_entity).chain(intermediates).map(|der| (**der).into()).collect();
        if self.trusts(&presented, now) {
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
