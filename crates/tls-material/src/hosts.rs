//! Whom connections to hypervisor hosts trust: the CA that issued the agent's own certificate, as an
//! operator's policy has it.
//!
//! Hosts keep an expired certificate until somebody restarts their VMs, and their certificates name
//! addresses that may have changed since. So expiry can be forgiven and is told, and a name is
//! compared only with names of its kind: an address with addresses, a host name with host names. The
//! signature of the handshake is verified in every case: the peer owns the key it shows.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use key_store::certificate::{alternative_names, expires_at};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Moments at which an expired chain is looked at again, at most.
const MOMENTS: usize = 16;

/// What is asked of a host's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostTrust {
    /// Chain, dates, name.
    Verify,
    /// Chain and name; [`HostVerifier::expired`] tells of dates.
    IgnoreExpiry,
    /// Nothing but the key.
    Any,
}

/// See the module's head. One value serves one connection.
pub struct HostVerifier {
    trust: HostTrust,
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    expired: Mutex<Option<i64>>,
}

impl fmt::Debug for HostVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostVerifier").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl HostVerifier {
    /// Trusts what `authorities` have issued.
    pub fn new(trust: HostTrust, authorities: &[CertificateDer<'static>]) -> Arc<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        Arc::new(Self {
            trust,
            roots,
            algorithms: aws_lc_rs::default_provider().signature_verification_algorithms,
            expired: Mutex::default(),
        })
    }

    /// When a certificate ended that was accepted nevertheless, in seconds since 1970.
    pub fn expired(&self) -> Option<i64> {
        *self.expired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(own)?;
        let at = |moment| {
            let all = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, others, moment, all)
        };
        let Err(error) = at(now) else { return Ok(()) };
        let is_expired = matches!(
            error,
            rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            )
        );
        if !is_expired || self.trust != HostTrust::IgnoreExpiry {
            return Err(error);
        }
        // It was good while all of the chain was: just before one of its ends.
        let ends = std::iter::once(own).chain(others).filter_map(|it| expires_at(it));
        let mut ends: Vec<i64> = ends.take(MOMENTS).collect();
        ends.sort_unstable();
        for end in ends {
            let Ok(seconds) = u64::try_from(end) else { continue };
            let moment = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
            if at(moment).is_ok() {
                *self.expired.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
                return Ok(());
            }
        }
        Err(error)
    }

    /// A certificate without a name of this kind says nothing about it.
    fn name(own: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
        let is_address = matches!(name, ServerName::IpAddress(_));
        let kind = |text: &String| text.parse::<std::net::IpAddr>().is_ok() == is_address;
        // What stands for "none" has blanks.
        let named = alternative_names(own).iter().any(|text| !text.contains(' ') && kind(text));
        if named { verify_server_name(&ParsedCertificate::try_from(own)?, name) } else { Ok(()) }
    }
}

impl ServerCertVerifier for HostVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.trust != HostTrust::Any {
            self.chain(end_entity, intermediates, now)?;
            Self::name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
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

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new(until: i32) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().unwrap();
            Self(CertifiedIssuer::self_signed(params, key).unwrap())
        }

        fn issue(&self, names: &[&str], until: i32) -> CertificateDer<'static> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().unwrap();
            params.signed_by(&key, &self.0).unwrap().der().clone()
        }
    }

    fn check(
        trust: HostTrust,
        authority: &Authority,
        certificate: &CertificateDer<'static>,
        host: &str,
    ) -> Result<Option<i64>, String> {
        let verifier = HostVerifier::new(trust, &[authority.0.der().clone()]);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_790_000_000));
        verifier
            .verify_server_cert(certificate, &[], &name, &[], now)
            .map(|_| verifier.expired())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_host_is_believed_for_its_issuer_its_dates_and_its_name() {
        let (ours, other) = (Authority::new(2090), Authority::new(2090));
        let good = ours.issue(&["10.0.0.5", "kvm1"], 2080);
        let verify = |certificate: &CertificateDer<'static>, host: &str| {
            check(HostTrust::Verify, &ours, certificate, host)
        };
        assert_eq!(verify(&good, "10.0.0.5"), Ok(None));
        assert_eq!(verify(&good, "kvm1"), Ok(None));
        assert!(verify(&good, "10.0.0.6").is_err());
        assert!(verify(&other.issue(&["10.0.0.5"], 2080), "10.0.0.5").is_err());
        let expired = ours.issue(&["10.0.0.5"], 2021);
        assert!(verify(&expired, "10.0.0.5").unwrap_err().contains("xpired"));
        // No address in it: only a name can be compared.
        assert_eq!(verify(&ours.issue(&["kvm1"], 2080), "10.0.0.5"), Ok(None));
    }

    #[test]
    fn expiry_is_forgiven_and_told_and_nothing_else_is() {
        let (ours, other) = (Authority::new(2090), Authority::new(2090));
        let ignore = |authority: &Authority, certificate: &CertificateDer<'static>, host: &str| {
            check(HostTrust::IgnoreExpiry, authority, certificate, host)
        };
        let expired = ours.issue(&["10.0.0.5"], 2021);
        assert_eq!(ignore(&ours, &expired, "10.0.0.5"), Ok(Some(1_609_459_200)));
        assert!(ignore(&ours, &expired, "10.0.0.6").is_err());
        assert!(ignore(&other, &expired, "10.0.0.5").is_err());
        // An authority of ours is ours as long as we keep it.
        let old = Authority::new(2022);
        assert_eq!(ignore(&old, &old.issue(&["a"], 2080), "a"), Ok(None));
    }

    #[test]
    fn any_certificate_is_any_certificate() {
        let (ours, other) = (Authority::new(2090), Authority::new(2090));
        let foreign = other.issue(&["x"], 2021);
        assert_eq!(check(HostTrust::Any, &ours, &foreign, "10.0.0.5"), Ok(None));
    }
}
