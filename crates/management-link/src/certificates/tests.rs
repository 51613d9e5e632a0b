//! What the two certificate commands leave on disk.

use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateSigningRequestParams, Issuer};

use super::*;
use crate::config::{LinkLimits, ManagementConfig};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, request: &str) -> String {
        let request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// Certificate and key, the key made by the authority.
    fn issue(&self, year: i32) -> (String, Secret<String>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["10.0.0.5".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), Secret::new(key.serialize_pem()))
    }
}

fn link(directory: &Path) -> LinkConfig {
    LinkConfig {
        management: ManagementConfig {
            servers: Vec::new(),
            port: 8250,
            zone: String::new(),
            pod: String::new(),
            ca_file: None,
            client_certificate: None,
            version: String::new(),
            limits: LinkLimits::default(),
        },
        guid: "g".to_owned(),
        state_directory: directory.to_owned(),
    }
}

fn none() -> Secret<String> {
    Secret::default()
}

#[test]
fn a_requested_certificate_is_installed_with_the_requested_key() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let request = make_request(directory.path(), "s-1-VM", "127.0.0.9".parse().ok()).unwrap();
    assert!(client_key(&link(directory.path())).unwrap().is_none());
    let certificate = authority.sign(&request);
    install(directory.path(), &certificate, &none(), &authority.pem).unwrap();

    let key = client_key(&link(directory.path())).unwrap().unwrap();
    let names = key_store::certificate::alternative_names(&key.certified.cert[0]);
    assert!(names.contains(&"s-1-VM".to_owned()), "{names:?}");
    assert!(names.contains(&"127.0.0.9".to_owned()), "{names:?}");
    let mode = std::fs::metadata(directory.path().join(KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!directory.path().join(REQUESTED_KEY).exists());
    let ca = std::fs::read_to_string(directory.path().join(PROVISIONED_CA)).unwrap();
    assert_eq!(ca, authority.pem);
}

#[test]
fn a_certificate_with_its_own_key_replaces_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    for year in [2020, 2021] {
        let (certificate, key) = authority.issue(year);
        install(directory.path(), &certificate, &key, &authority.pem).unwrap();
        let stored = std::fs::read_to_string(directory.path().join(KEY)).unwrap();
        assert_eq!(&stored, key.reveal());
        assert!(client_key(&link(directory.path())).unwrap().is_some());
    }
}

#[test]
fn what_does_not_fit_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.issue(2020);
    let (other_certificate, other_key) = authority.issue(2021);
    let try_install = |certificate: &str, key: &Secret<String>, ca: &str| {
        install(directory.path(), certificate, key, ca).unwrap_err().to_string()
    };
    let missing = try_install(&certificate, &none(), &authority.pem);
    assert!(missing.starts_with("there is no key for this certificate"), "{missing}");
    install(directory.path(), &certificate, &key, &authority.pem).unwrap();
    let before = snapshot(directory.path());

    try_install(&other_certificate, &key, &authority.pem);
    try_install(&certificate, &other_key, &authority.pem);
    try_install("no certificate", &key, &authority.pem);
    try_install(&certificate, &Secret::new("no key".to_owned()), &authority.pem);
    try_install(&certificate, &key, "no authority");
    let garbage = key_store::certificate::to_pem([&vec![1_u8, 2, 3].into()]);
    try_install(&garbage, &key, &authority.pem);
    assert_eq!(snapshot(directory.path()), before);
}

#[test]
fn a_crash_before_the_last_rename_still_loads_the_new_pair() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.issue(2020);
    install(directory.path(), &certificate, &key, &authority.pem).unwrap();
    let (newer, newer_key) = authority.issue(2021);
    std::fs::write(directory.path().join(CERTIFICATE), &newer).unwrap();
    std::fs::write(directory.path().join(REQUESTED_KEY), newer_key.reveal()).unwrap();
    let loaded = client_key(&link(directory.path())).unwrap().unwrap();
    assert_eq!(loaded.certified.cert, key_store::certificates(newer.as_bytes()).unwrap());
}

#[test]
fn the_certificate_issued_later_is_offered() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.issue(2020);
    install(directory.path(), &certificate, &key, &authority.pem).unwrap();
    let mut link = link(directory.path());
    for (year, configured_wins) in [(2019, false), (2021, true)] {
        let (configured, configured_key) = authority.issue(year);
        let files = [directory.path().join("c.pem"), directory.path().join("k.pem")];
        std::fs::write(&files[0], &configured).unwrap();
        std::fs::write(&files[1], configured_key.reveal()).unwrap();
        let [certificate_file, key_file] = files;
        link.management.client_certificate =
            Some(crate::ClientCertificate::Pem { certificate: certificate_file, key: key_file });
        let offered = client_key(&link).unwrap().unwrap();
        let expected = if configured_wins { &configured } else { &certificate };
        assert_eq!(
            offered.certified.cert,
            key_store::certificates(expected.as_bytes()).unwrap(),
            "{year}"
        );
    }
}

fn snapshot(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}
