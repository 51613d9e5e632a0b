//! Whether a certificate leads to one of the pinned ones.
//!
//! The TLS library refuses a CA certificate that a server presents as its own. Servers do that: a
//! management server presents its signing CA, which since 4.23 may be an intermediate one whose root
//! is pinned. So the chain is walked here: names, dates, the right to issue, signatures.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates between the presented one and a pin, at most.
const MAX_DEPTH: usize = 8;
/// Certificates of a handshake that are looked at, at most.
const MAX_PRESENTED: usize = 32;

/// Why no pinned certificate vouches for the presented one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate of {0} is not valid at this time")]
    Dates(String),
    #[error("the certificate of {0} may not issue certificates")]
    NotAnIssuer(String),
    #[error("nothing pinned has issued the certificate of {0}")]
    NoIssuer(String),
    #[error("the chain is longer than {MAX_DEPTH} certificates")]
    TooLong,
}

/// Walks chains to `pins` with these signature algorithms.
#[derive(Debug, Clone, Copy)]
pub struct Chains<'a> {
    pub pins: &'a [CertificateDer<'static>],
    pub algorithms: WebPkiSupportedAlgorithms,
}

impl Chains<'_> {
    /// Whether `presented`, a CA or not, was issued by a pin, directly or through `others` that the
    /// server sent with it. Names of servers are not looked at.
    ///
    /// # Errors
    /// See [`ChainError`].
    pub fn check(
        &self,
        presented: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), ChainError> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let pins: Vec<_> = self.pins.iter().filter_map(|pin| parse(pin)).collect();
        let others: Vec<_> = others.iter().take(MAX_PRESENTED).filter_map(|c| parse(c)).collect();
        let first = parse(presented).ok_or(ChainError::Unreadable)?;
        let mut current = &first;
        for below in 0..MAX_DEPTH {
            check_dates(current, now)?;
            if let Some(pin) = pins.iter().find(|pin| self.has_issued(pin, current)) {
                check_dates(pin, now)?;
                return check_right(pin, below);
            }
            // A root is its own issuer: the walk ends there.
            let issuer = others.iter().find(|other| {
                other.as_raw() != current.as_raw() && self.has_issued(other, current)
            });
            current = issuer.ok_or_else(|| ChainError::NoIssuer(subject(current)))?;
            check_right(current, below)?;
        }
        Err(ChainError::TooLong)
    }

    /// Name and signature.
    fn has_issued(&self, issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
        issuer.subject().as_raw() == certificate.issuer().as_raw()
            && self.has_signed(issuer, certificate).is_some_and(|signed| signed)
    }

    fn has_signed(
        &self,
        issuer: &X509Certificate<'_>,
        certificate: &X509Certificate<'_>,
    ) -> Option<bool> {
        let key = issuer.public_key();
        let (_rest, info) = Any::from_der(key.raw).ok()?;
        let (_rest, key_algorithm) = Any::from_der(info.data).ok()?;
        let (_rest, whole) = Any::from_der(certificate.as_raw()).ok()?;
        let (rest, _content) = Any::from_der(whole.data).ok()?;
        let (_rest, signature_algorithm) = Any::from_der(rest).ok()?;
        let content: &[u8] = certificate.tbs_certificate.as_ref();
        let signature: &[u8] = certificate.signature_value.as_ref();
        let fits = |algorithm: &&&dyn rustls_pki_types::SignatureVerificationAlgorithm| {
            algorithm.signature_alg_id().as_ref() == signature_algorithm.data
                && algorithm.public_key_alg_id().as_ref() == key_algorithm.data
        };
        let public: &[u8] = key.subject_public_key.as_ref();
        Some(
            self.algorithms
                .all
                .iter()
                .filter(fits)
                .any(|algorithm| algorithm.verify_signature(public, content, signature).is_ok()),
        )
    }
}

/// Whether it says of itself that it is a CA.
pub fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    let constraints = |parsed: X509Certificate<'_>| match parsed.basic_constraints() {
        Ok(Some(found)) => found.value.ca,
        Ok(None) | Err(_) => false,
    };
    parse(certificate).is_some_and(constraints)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, parsed) = X509Certificate::from_der(certificate.as_ref()).ok()?;
    rest.is_empty().then_some(parsed)
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    certificate.subject().to_string()
}

fn check_dates(certificate: &X509Certificate<'_>, now: i64) -> Result<(), ChainError> {
    let validity = certificate.validity();
    if validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp() {
        return Ok(());
    }
    Err(ChainError::Dates(subject(certificate)))
}

/// Whether it may issue with `below` CA certificates between it and the presented one.
fn check_right(issuer: &X509Certificate<'_>, below: usize) -> Result<(), ChainError> {
    let refused = || ChainError::NotAnIssuer(subject(issuer));
    let constraints = issuer.basic_constraints().map_err(|_odd| refused())?;
    let usage = issuer.key_usage().map_err(|_odd| refused())?;
    let may_sign = usage.is_none_or(|usage| usage.value.key_cert_sign());
    let is_ca = constraints.is_some_and(|found| {
        let room = found.value.path_len_constraint.map_or(usize::MAX, |room| room as usize);
        found.value.ca && below <= room
    });
    if is_ca && may_sign { Ok(()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
        KeyUsagePurpose,
    };
    use rustls::crypto::aws_lc_rs;

    use super::*;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn params(name: &str, ca: bool) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        }
        params
    }

    fn root(name: &str) -> Issuer {
        CertifiedIssuer::self_signed(params(name, true), KeyPair::generate().unwrap()).unwrap()
    }

    fn below(issuer: &Issuer, params: CertificateParams) -> Issuer {
        CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
    }

    fn check(pin: &Issuer, presented: &Issuer, others: &[&Issuer]) -> Result<(), ChainError> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        let others: Vec<_> = others.iter().map(|other| other.der().clone()).collect();
        let pins = [pin.der().clone()];
        Chains { pins: &pins, algorithms }.check(presented.der(), &others, UnixTime::now())
    }

    #[test]
    fn a_chain_of_any_length_leads_to_any_of_its_authorities() {
        let root = root("root");
        let middle = below(&root, params("middle", true));
        let leaf = below(&middle, params("leaf", false));
        // A CA presented as itself, below its root; a leaf below each of them.
        check(&root, &middle, &[]).unwrap();
        check(&root, &middle, &[&root]).unwrap();
        check(&middle, &leaf, &[&middle, &root]).unwrap();
        check(&root, &leaf, &[&middle, &root]).unwrap();
        assert_eq!(check(&root, &leaf, &[]), Err(ChainError::NoIssuer("CN=leaf".to_owned())));
        assert!(matches!(check(&leaf, &middle, &[&root]), Err(ChainError::NoIssuer(_))));
    }

    #[test]
    fn a_name_without_the_signature_leads_nowhere() {
        let (real, forged) = (root("root"), root("root"));
        let middle = below(&forged, params("middle", true));
        assert!(matches!(check(&real, &middle, &[&forged]), Err(ChainError::NoIssuer(_))));
    }

    #[test]
    fn only_an_authority_issues() {
        let root = root("root");
        let leaf = below(&root, params("leaf", false));
        let below_leaf = below(&leaf, params("fake", false));
        let refused = Err(ChainError::NotAnIssuer("CN=leaf".to_owned()));
        assert_eq!(check(&root, &below_leaf, &[&leaf]), refused);
        assert_eq!(check(&leaf, &below_leaf, &[]), refused);
        let mut narrow = params("narrow", true);
        narrow.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let narrow = below(&root, narrow);
        let middle = below(&narrow, params("middle", true));
        check(&narrow, &middle, &[]).unwrap();
        let leaf = below(&middle, params("leaf", false));
        let refused = Err(ChainError::NotAnIssuer("CN=narrow".to_owned()));
        assert_eq!(check(&root, &leaf, &[&middle, &narrow]), refused);
    }

    #[test]
    fn dates_count_for_the_certificate_its_issuers_and_the_pin() {
        let root = root("root");
        let mut expired = params("old", true);
        expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
        expired.not_before = rcgen::date_time_ymd(2019, 1, 1);
        let old = below(&root, expired);
        let leaf = below(&old, params("leaf", false));
        let refused = Err(ChainError::Dates("CN=old".to_owned()));
        assert_eq!(check(&root, &old, &[]), refused);
        assert_eq!(check(&root, &leaf, &[&old]), refused);
        assert_eq!(check(&old, &leaf, &[]), refused);
    }
}
