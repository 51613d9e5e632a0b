//! The certificate authorities that this machine trusts.

use std::path::Path;

use rustls::RootCertStore;
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};

/// Where distributions keep every authority in one file: Debian and its kin, Fedora and its kin,
/// SUSE, Alpine.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What OpenSSL's programs read instead.
const OVERRIDES: &[&str] = &["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Adds what the system trusts to `roots`; returns how many were added. What cannot be read or
/// used is left out, with a line in the log: the others are still good. Blocks.
///
/// One bundle is read where there is one. Its directory repeats each authority twice, as some 280
/// files: reading those too costs a start tens of milliseconds and brings nothing.
pub fn add_system_roots(roots: &mut RootCertStore) -> usize {
    let found = read(BUNDLES, OVERRIDES.iter().any(|name| std::env::var_os(name).is_some()));
    for error in &found.errors {
        tracing::debug!(%error, "cannot read some of the system's certificates");
    }
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "read the system's certificates");
    added
}

fn read(bundles: &[&str], overridden: bool) -> CertificateResult {
    let bundle = |path: &&str| {
        let found = load_certs_from_paths(Some(Path::new(path)), None);
        (!found.certs.is_empty()).then_some(found)
    };
    if overridden {
        return load_native_certs();
    }
    bundles.iter().find_map(bundle).unwrap_or_else(load_native_certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bundle_that_has_certificates_is_the_only_one_read() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
        let write = |name: &str, count: usize| {
            let certificate = || {
                let made = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
                made.cert.pem()
            };
            std::fs::write(path(name), (0..count).map(|_| certificate()).collect::<String>())
                .unwrap();
        };
        write("empty", 0);
        write("two", 2);
        write("three", 3);
        let bundles = [path("missing"), path("empty"), path("two"), path("three")];
        let bundles: Vec<&str> = bundles.iter().map(String::as_str).collect();
        assert_eq!(read(&bundles, false).certs.len(), 2);
    }

    #[test]
    fn without_a_bundle_the_platform_is_asked() {
        let asked = load_native_certs().certs.len();
        assert_eq!(read(&[], false).certs.len(), asked);
        assert_eq!(read(BUNDLES, true).certs.len(), asked);
    }
}
