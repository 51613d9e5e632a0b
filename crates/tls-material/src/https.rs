//! Whom ordinary connections over TLS trust: authorities, and servers whose own certificate the
//! operator gave.
//!
//! `openssl req -x509` makes a certificate that is a CA and a server's at once. As a trust root the
//! TLS library takes it, as a server's it refuses it. Given by the operator it is trusted as itself;
//! its name and its dates are still checked, and nothing is loosened for certificates that come
//! from elsewhere. An unknown issuer is told with its name and the remedy: see [`unknown_issuer`].

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use key_store::fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::aws_lc_rs;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// No authority that is trusted has issued the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server's certificate (SHA-256 {fingerprint}) was issued by {issuer}, which is not \
     trusted; {remedy}"
)]
pub struct UnknownIssuer {
    /// Its distinguished name.
    pub issuer: String,
    pub fingerprint: String,
    pub remedy: String,
}

/// The refusal somewhere in the causes of a client's error; the TLS library itself shows such a
/// cause only for debugging.
pub fn unknown_issuer<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a UnknownIssuer> {
    let mut current = Some(error);
    while let Some(error) = current {
        let tls = error.downcast_ref::<rustls::Error>();
        if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) = tls {
            return other.0.downcast_ref();
        }
        // An I/O error is not the cause of itself, but holds it.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        current = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

/// See the module's head.
pub struct HttpsVerifier {
    authorities: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
    remedy: String,
}

impl fmt::Debug for HttpsVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsVerifier").field("own", &self.own.len()).finish_non_exhaustive()
    }
}

impl HttpsVerifier {
    /// Trusts what `roots` have issued and the certificates `own` as themselves. `remedy` is what
    /// an operator does about an unknown issuer: "give its CA certificate as …".
    ///
    /// # Errors
    /// When there is no root at all.
    pub fn new(
        roots: Arc<RootCertStore>,
        own: Vec<CertificateDer<'static>>,
        remedy: impl Into<String>,
    ) -> Result<Arc<Self>, VerifierBuilderError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let authorities = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
        Ok(Arc::new(Self { authorities, own, remedy: remedy.into() }))
    }

    fn check_itself(
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        check_dates(certificate, now)?;
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn in_words(&self, error: rustls::Error, certificate: &CertificateDer<'_>) -> rustls::Error {
        let unknown = match &error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
            // The TLS library's word for a CA certificate presented as a server's.
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                other.0.to_string().contains("CaUsedAsEndEntity")
            }
            _ => false,
        };
        if !unknown {
            return error;
        }
        let issuer = X509Certificate::from_der(certificate.as_ref())
            .map_or_else(|_odd| "an unreadable name".to_owned(), |(_, c)| c.issuer().to_string());
        let (fingerprint, remedy) = (fingerprint(certificate), self.remedy.clone());
        let words = UnknownIssuer { issuer, fingerprint, remedy };
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(words))))
    }
}

/// Whether a certificate that is trusted as itself is valid at this moment.
pub(crate) fn check_dates(
    certificate: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let (_rest, parsed) = X509Certificate::from_der(certificate.as_ref())
        .map_err(|_odd| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

impl ServerCertVerifier for HttpsVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.own.iter().any(|own| own.as_ref() == end_entity.as_ref()) {
            return Self::check_itself(end_entity, server_name, now);
        }
        self.authorities
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| self.in_words(error, end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    #[error("the TLS library refuses its own defaults")]
    Tls(#[from] rustls::Error),
    #[error("the trusted certificates cannot be used")]
    Trust(#[from] VerifierBuilderError),
}

/// A client of ordinary servers: trusts the system's authorities and `own`, as [`HttpsVerifier`]
/// does. Reads the system's certificates: blocks.
///
/// # Errors
/// When the TLS library refuses what it was given.
pub fn client_config(
    own: Vec<CertificateDer<'static>>,
    remedy: impl Into<String>,
) -> Result<Arc<rustls::ClientConfig>, ClientConfigError> {
    let mut roots = RootCertStore::empty();
    crate::add_system_roots(&mut roots);
    roots.add_parsable_certificates(own.iter().cloned());
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?;
    if roots.is_empty() {
        // No authority at all: plain HTTP still works.
        return Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()));
    }
    let verifier = HttpsVerifier::new(Arc::new(roots), own, remedy)?;
    let tls = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(Arc::new(tls))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: u64 = 86_400;

    /// As `openssl req -x509` makes it: CA and server at once.
    fn self_signed() -> CertificateDer<'static> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verify(
        own: &[CertificateDer<'static>],
        presented: &CertificateDer<'static>,
        name: &str,
        year: u64,
    ) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(self_signed()).unwrap();
        roots.add_parsable_certificates(own.iter().cloned());
        let verifier =
            HttpsVerifier::new(Arc::new(roots), own.to_vec(), "give its CA certificate as ca_file")
                .unwrap();
        let days = (year - 1970) * 36_525 / 100 + 40;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(days * DAY));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let checked = verifier.verify_server_cert(presented, &[], &name, &[], now);
        checked.map(|_verified| ()).map_err(|error| {
            // As a client's error carries it.
            let error = std::io::Error::other(error);
            unknown_issuer(&error).map_or_else(|| error.to_string(), ToString::to_string)
        })
    }

    #[test]
    fn a_self_signed_certificate_given_by_the_operator_is_trusted_as_itself() {
        let own = self_signed();
        let given = std::slice::from_ref(&own);
        verify(given, &own, "localhost", 2026).unwrap();
        verify(given, &own, "127.0.0.1", 2026).unwrap();
        let error = verify(given, &own, "elsewhere", 2026).unwrap_err();
        assert!(error.contains("elsewhere"), "{error}");
        let error = verify(given, &own, "localhost", 2030).unwrap_err();
        assert!(error.contains("Expired"), "{error}");
        let error = verify(given, &own, "localhost", 2020).unwrap_err();
        assert!(error.contains("NotValidYet"), "{error}");
    }

    #[test]
    fn an_unknown_issuer_is_told_with_its_name_and_the_remedy() {
        let leaf = {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, "images");
            params.self_signed(&key).unwrap().der().clone()
        };
        for presented in [leaf, self_signed()] {
            let error = verify(&[], &presented, "localhost", 2026).unwrap_err();
            assert!(error.starts_with("the server's certificate (SHA-256 "), "{error}");
            assert!(error.contains("was issued by CN="), "{error}");
            assert!(error.ends_with("give its CA certificate as ca_file"), "{error}");
        }
    }
}
