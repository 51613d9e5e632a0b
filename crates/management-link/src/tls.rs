//! The TLS side of one connection attempt: what we offer, whom we trust, and what a failed
//! handshake means in words.
//!
//! TLS 1.2 only and no resumption: with either, the server would speak last in the handshake or
//! send a ticket outside the packets, and its side of the link swallows what comes early.

use std::net::IpAddr;
use std::sync::Arc;

use key_store::certificate::alternative_names;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig};

use rustls_pki_types::CertificateDer;
use tls_material::FileError;

use crate::certificates;
use crate::client_certificate::ClientCertificate;
use crate::config::LinkConfig;
use crate::trust::{Anchors, ServerVerifier, TrustError};

/// Everything a handshake needs, read fresh from disk.
#[derive(Debug, Clone)]
pub(crate) struct Material {
    pub(crate) config: Arc<ClientConfig>,
    /// The same check as the handshake makes.
    pub(crate) verifier: Arc<ServerVerifier>,
    /// The server's certificate is to be remembered.
    pub(crate) first_use: bool,
    /// Names and addresses of the certificate we offer; `None` without one.
    pub(crate) offered: Option<Vec<String>>,
}

/// Why no handshake can even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterialError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

impl Material {
    /// Reads certificates and keys from disk; takes milliseconds, blocks. `unwritten` is pinned
    /// when no file pins anything, see [`Anchors::or_else`].
    pub(crate) fn load(
        link: &LinkConfig,
        unwritten: &[CertificateDer<'static>],
    ) -> Result<Self, MaterialError> {
        let client = certificates::client_key(link)?;
        let issuers = client.as_ref().map(|key| key.issuers.as_slice()).unwrap_or_default();
        let ca_file = link.management.ca_file.as_deref();
        let configured = link.management.client_certificate.as_ref();
        let store = configured.and_then(ClientCertificate::store);
        let anchors = Anchors::load(ca_file, link.directory(), issuers, store)?.or_else(unwritten);
        Self::new(anchors, client.map(|key| key.certified)).map_err(MaterialError::Setup)
    }

    pub(crate) fn new(
        anchors: Anchors,
        client: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let first_use = anchors.is_first_use();
        let verifier = ServerVerifier::new(anchors, &provider);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _);
        let offered =
            client.as_ref().and_then(|key| key.cert.first()).map(|own| alternative_names(own));
        let mut config = match client {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), verifier, first_use, offered })
    }
}

/// Why a handshake failed, in words an operator can act on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(
        "the management server demands a client certificate and we have none; set \
         management.client_cert_file and client_key_file (API issueCertificate), or turn \
         ca.plugin.root.auth.strictness off on the server"
    )]
    CertificateDemanded,
    #[error(
        "the management server refused our client certificate for {}: it must hold the address \
         the server sees us at, {source_address} unless that is translated on the way; issue one \
         with it (API issueCertificate, parameter ipaddress)",
        names.join(", ")
    )]
    AddressNotCertified { source_address: IpAddr, names: Vec<String> },
    #[error("the management server refused our client certificate for {}: {alert}", names.join(", "))]
    CertificateRefused { alert: String, names: Vec<String> },
    #[error("the management server ended the TLS handshake: {0}")]
    Refused(String),
    #[error(
        "the management server closed the connection during the TLS handshake: it prepares for \
         maintenance, limits new connections, or demands another client certificate"
    )]
    Closed,
    #[error(transparent)]
    Untrusted(TrustError),
    #[error("the TLS handshake did not end within {0:?}")]
    Timeout(std::time::Duration),
    #[error("cannot exchange the TLS handshake")]
    Io(#[source] std::io::Error),
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
}

impl HandshakeError {
    /// One side does not accept the other's certificate.
    pub(crate) fn is_about_trust(&self) -> bool {
        matches!(
            self,
            Self::Untrusted(_)
                | Self::CertificateDemanded
                | Self::AddressNotCertified { .. }
                | Self::CertificateRefused { .. }
        )
    }

    /// Puts the engine's error in words. `source_address` is our end of the connection.
    pub(crate) fn of(
        error: rustls::Error,
        source_address: Option<IpAddr>,
        offered: Option<&[String]>,
    ) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::of_alert(alert, source_address, offered),
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
                match other.0.downcast_ref::<TrustError>() {
                    Some(refused) => Self::Untrusted(refused.clone()),
                    None => {
                        Self::Tls(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                    }
                }
            }
            error => Self::Tls(error),
        }
    }

    fn of_alert(
        alert: AlertDescription,
        source_address: Option<IpAddr>,
        offered: Option<&[String]>,
    ) -> Self {
        let about_certificates = matches!(
            alert,
            AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateRequired
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::UnknownCA
        );
        match (offered, source_address) {
            (None, _) if about_certificates => Self::CertificateDemanded,
            (Some(names), Some(source_address))
                if alert == AlertDescription::CertificateUnknown =>
            {
                Self::AddressNotCertified { source_address, names: names.to_vec() }
            }
            (Some(names), _) if about_certificates => {
                Self::CertificateRefused { alert: format!("{alert:?}"), names: names.to_vec() }
            }
            // Servers other than Java's say no more than this without a certificate.
            (None, _) if alert == AlertDescription::HandshakeFailure => Self::Refused(
                "HandshakeFailure; it may demand a client certificate, and we have none".to_owned(),
            ),
            _ => Self::Refused(format!("{alert:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)));

    fn words(alert: AlertDescription, offered: Option<&[String]>) -> String {
        HandshakeError::of(rustls::Error::AlertReceived(alert), HERE, offered).to_string()
    }

    #[test]
    fn alerts_are_told_by_what_the_server_wants() {
        let names = ["10.0.0.5".to_owned()];
        let demanded = words(AlertDescription::BadCertificate, None);
        assert!(demanded.contains("demands a client certificate"), "{demanded}");
        let address = words(AlertDescription::CertificateUnknown, Some(&names));
        assert!(address.contains("10.0.0.9") && address.contains("10.0.0.5"), "{address}");
        let expired = words(AlertDescription::CertificateExpired, Some(&names));
        assert!(expired.contains("CertificateExpired"), "{expired}");
        let bare = words(AlertDescription::HandshakeFailure, None);
        assert!(bare.contains("may demand a client certificate"), "{bare}");
        let other = words(AlertDescription::HandshakeFailure, Some(&names));
        assert_eq!(other, "the management server ended the TLS handshake: HandshakeFailure");
    }
}
