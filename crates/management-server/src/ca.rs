//! The certificate authority of the embedded server: a self-signed RSA certificate of the profile
//! that the original makes, which it then presents itself as its TLS certificate.
//!
//! The profile matters because ordinary verifiers refuse it (a CA certificate as end entity, no
//! subject alternative name): agents have to pin it, and their tests need the real thing.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SanType,
    SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::random::{self, RandomError};

/// Common name of the original's authority.
const COMMON_NAME: &str = "ca.cloudstack.apache.org";
const CA_YEARS: i16 = 30;
const LEAF_YEARS: i16 = 1;

/// Why a certificate or key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Key generation or signing failed, or a certificate request was unusable.
    #[error("make a certificate for {subject}")]
    Certificate {
        /// Common name of the certificate.
        subject: String,
        /// What the certificate library says.
        #[source]
        source: rcgen::Error,
    },
    /// No random serial number.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A certificate authority with its key; cloning shares it.
#[derive(Clone)]
pub struct CertificateAuthority {
    inner: Arc<Inner>,
}

struct Inner {
    certificate: rcgen::Certificate,
    key_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate issued by the authority, with the private key it was made for.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PEM PKCS#8; empty when only a request was signed.
    pub key_pem: String,
}

impl CertificateAuthority {
    /// Makes a new authority with a 2048-bit RSA key.
    ///
    /// The original uses 4096 bits; a shorter key keeps start-up quick and changes nothing else.
    ///
    /// # Errors
    /// [`CaError`] when the key or the certificate cannot be made.
    pub fn generate() -> Result<Self, CaError> {
        let key = rsa_key(COMMON_NAME)?;
        let mut params = params(COMMON_NAME, CA_YEARS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed(COMMON_NAME))?;
        let key_der = key.serialize_der();
        let issuer = Issuer::new(params, key);
        Ok(Self { inner: Arc::new(Inner { certificate, key_der, issuer }) })
    }

    /// The authority's certificate, PEM: what an operator puts into `ca_file`.
    pub fn pem(&self) -> String {
        self.inner.certificate.pem()
    }

    /// The authority's certificate, DER.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.inner.certificate.der().clone()
    }

    /// The authority's private key for the TLS listener.
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.inner.key_der.clone()))
    }

    /// Issues a certificate with a new key for an agent, its subject alternative names in the
    /// order of the original: the addresses, then the name.
    ///
    /// # Errors
    /// [`CaError`] when the name is not ASCII or the certificate cannot be made.
    pub fn issue(&self, name: &str, addresses: &[IpAddr]) -> Result<IssuedCertificate, CaError> {
        let key = rsa_key(name)?;
        let mut params = params(name, LEAF_YEARS)?;
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        params
            .subject_alt_names
            .push(SanType::DnsName(name.to_owned().try_into().map_err(failed(name))?));
        let certificate = params.signed_by(&key, &self.inner.issuer).map_err(failed(name))?;
        Ok(IssuedCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Issues a certificate that ended years ago, with its key: what hosts go on with until their
    /// machines are restarted. Both PEM.
    ///
    /// # Errors
    /// As [`CertificateAuthority::issue`].
    pub fn issue_expired(
        &self,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<(String, String), CaError> {
        let key = rsa_key(name)?;
        let mut params = params(name, LEAF_YEARS)?;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        let certificate = params.signed_by(&key, &self.inner.issuer).map_err(failed(name))?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Signs an agent's certificate request and adds the addresses that the server knows of it.
    ///
    /// # Errors
    /// [`CaError`] when the request is not PKCS#10 PEM or cannot be signed.
    pub fn sign(&self, csr_pem: &str, addresses: &[IpAddr]) -> Result<IssuedCertificate, CaError> {
        const SUBJECT: &str = "a certificate request";
        // keytool writes NEW CERTIFICATE REQUEST, others CERTIFICATE REQUEST.
        let text = csr_pem.replace("NEW CERTIFICATE REQUEST", "CERTIFICATE REQUEST");
        let mut request =
            CertificateSigningRequestParams::from_pem(&text).map_err(failed(SUBJECT))?;
        for address in addresses {
            let name = SanType::IpAddress(*address);
            if !request.params.subject_alt_names.contains(&name) {
                request.params.subject_alt_names.push(name);
            }
        }
        let certificate = request.signed_by(&self.inner.issuer).map_err(failed(SUBJECT))?;
        Ok(IssuedCertificate { certificate_pem: certificate.pem(), key_pem: String::new() })
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CertificateAuthority").finish_non_exhaustive()
    }
}

impl fmt::Debug for IssuedCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IssuedCertificate").finish_non_exhaustive()
    }
}

fn rsa_key(subject: &str) -> Result<KeyPair, CaError> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(failed(subject))
}

fn params(name: &str, years: i16) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial()?));
    // Whole days are enough; a day of slack covers clocks that are behind.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let begin = today.yesterday().unwrap_or(today);
    // 28 exists in every month: a certificate made on the 29th of February ends on the 28th.
    let (month, day) = (begin.month().unsigned_abs(), begin.day().unsigned_abs().min(28));
    params.not_before = date_time_ymd(i32::from(begin.year()), month, day);
    params.not_after = date_time_ymd(i32::from(begin.year().saturating_add(years)), month, day);
    Ok(params)
}

/// 64 random bits, positive so that the encoding needs no extra byte.
fn serial() -> Result<Vec<u8>, RandomError> {
    let mut bytes = random::bytes::<8>()?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x01;
    }
    Ok(bytes.to_vec())
}

fn failed(subject: &str) -> impl FnOnce(rcgen::Error) -> CaError + use<> {
    let subject = subject.to_owned();
    move |source| CaError::Certificate { subject, source }
}

#[cfg(test)]
mod tests {
    use x509_parser::extensions::ParsedExtension;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[test]
    fn the_certificate_has_the_profile_of_the_original() {
        let ca = CertificateAuthority::generate().unwrap();
        let der = ca.certificate();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=ca.cloudstack.apache.org");
        assert_eq!(certificate.subject(), certificate.issuer());
        assert!(certificate.is_ca());
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());
        assert!(certificate.subject_alternative_name().unwrap().is_none());
        let has_key_id = certificate.extensions().iter().any(|extension| {
            matches!(extension.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_))
        });
        assert!(has_key_id);
        assert!(ca.pem().starts_with("-----BEGIN CERTIFICATE-----"));
    }

    #[test]
    fn issued_certificates_carry_addresses_then_the_name() {
        let ca = CertificateAuthority::generate().unwrap();
        let issued = ca.issue("s-1-VM", &["127.0.0.9".parse().unwrap()]).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate_pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=s-1-VM");
        assert_eq!(certificate.issuer().to_string(), "CN=ca.cloudstack.apache.org");
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names.len(), 2);
        assert_eq!(names[0], x509_parser::extensions::GeneralName::IPAddress(&[127, 0, 0, 9]));
        assert!(issued.key_pem.contains("PRIVATE KEY"));
    }

    #[test]
    fn a_certificate_request_is_signed_with_added_addresses() {
        let ca = CertificateAuthority::generate().unwrap();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::new(vec!["agent".to_owned()])
            .unwrap()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap();
        let java = request.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
        let signed = ca.sign(&java, &["10.0.0.7".parse().unwrap()]).unwrap();
        assert!(signed.key_pem.is_empty());
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.certificate_pem.as_bytes()).unwrap();
        let names = pem.parse_x509().unwrap();
        let names = names.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 2);
        assert!(ca.sign("no request", &[]).is_err());
    }
}
