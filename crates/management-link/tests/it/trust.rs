//! Who the server is, and who we are to it.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use management_link::{ClientCertificate, LinkConfig, ManagementLink};
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use serde_json::json;

use crate::bench::{Bench, GUID, config};
use crate::peer::{self, Authority};
use crate::server::Server;

#[tokio::test]
async fn the_first_server_is_remembered_and_another_one_refused() {
    let mut server = Server::start().await;
    let bench = Bench::start(&server);
    let (conversation, _) = server.register(12).await;
    bench.keeps("management-ca.pem", server.authority.pem.trim_end()).await;
    server.present(Authority::new());
    drop(conversation);
    assert!(server.try_accept().await.is_err());
    let error = bench.fails_with("presents another certificate").await;
    assert!(error.contains("management-ca.pem") && error.contains("remove that file"), "{error}");

    // Doing what the message says helps.
    std::fs::remove_file(bench.path("management-ca.pem")).unwrap();
    while server.try_accept().await.is_err() {}
    bench.stop().await;
}

#[tokio::test]
async fn a_pinned_certificate_is_accepted_and_any_other_refused() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    // A bundle: the right one is the second.
    let bundle = format!("{}{}", Authority::new().pem, server.authority.pem);
    std::fs::write(&ca_file, bundle).unwrap();
    let mut management = config(&[&server]);
    management.ca_file = Some(ca_file.clone());
    let bench = Bench::with(management.clone(), None);
    let (conversation, _) = server.register(12).await;
    bench.attached().await;
    assert!(!bench.path("management-ca.pem").exists());
    drop(conversation);
    bench.stop().await;

    std::fs::write(&ca_file, Authority::new().pem).unwrap();
    let bench = Bench::with(management, None);
    assert!(server.try_accept().await.is_err());
    let error = bench.fails_with("neither in").await;
    assert!(error.contains("ca.pem") && error.contains("listCaCertificate"), "{error}");
    bench.stop().await;
}

#[tokio::test]
async fn a_chain_to_the_pinned_certificate_is_accepted_whatever_its_name() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["somewhere.else".to_owned()]).unwrap();
    let issuer = Issuer::from_params(&authority.params, &authority.key);
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::no_client_auth();
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config_of_leaf = peer::config(vec![leaf.der().clone()], private.into(), verifier);
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, &authority.pem).unwrap();
    let server = Server::with(authority, config_of_leaf).await;
    let mut management = config(&[&server]);
    management.ca_file = Some(ca_file);
    let bench = Bench::with(management, None);
    let (conversation, _) = server.register(12).await;
    bench.attached().await;
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_server_without_the_key_of_its_certificate_is_refused() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (conversation, _) = server.register(12).await;
    bench.keeps("management-ca.pem", "CERTIFICATE").await;
    drop(conversation);
    let certificate = server.authority.certificate.clone();
    let directory = bench.stop().await;

    // The remembered certificate with somebody else's key.
    let key = KeyPair::generate().unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let signer = provider
        .key_provider
        .load_private_key(PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let stolen = rustls::sign::CertifiedKey::new(vec![certificate], signer);
    let mut thief = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
    thief.send_tls13_tickets = 0;
    let server = Server::with(Authority::new(), Arc::new(thief)).await;
    let bench = Bench::with(config(&[&server]), Some(directory));
    assert!(server.try_accept().await.is_err());
    bench.fails_with("the TLS handshake failed").await;
    bench.stop().await;
}

/// Asks for a certificate and judges it as told.
struct Judge {
    mandatory: bool,
    verdict: Option<CertificateError>,
    seen: Mutex<Vec<CertificateDer<'static>>>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

impl Judge {
    fn new(mandatory: bool, verdict: Option<CertificateError>) -> Arc<Self> {
        Arc::new(Self { mandatory, verdict, seen: Mutex::default() })
    }
}

impl ClientCertVerifier for Judge {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.seen.lock().unwrap().push(end_entity.clone().into_owned());
        match &self.verdict {
            Some(verdict) => Err(Error::InvalidCertificate(verdict.clone())),
            None => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        unreachable!("the agent offers TLS 1.2 only")
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

async fn judged_by(judge: &Arc<Judge>) -> Server {
    let authority = Authority::new();
    let config = authority.config(Arc::clone(judge) as Arc<dyn ClientCertVerifier>);
    Server::with(authority, config).await
}

fn certificate_files(directory: &Path, address: &str) -> ClientCertificate {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![address.to_owned()]).unwrap();
    let (certificate, key_file) = (directory.join("c.pem"), directory.join("k.pem"));
    std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    ClientCertificate::Pem { certificate, key: key_file }
}

#[tokio::test]
async fn a_demand_for_a_certificate_is_told_and_met() {
    let judge = Judge::new(true, None);
    let server = judged_by(&judge).await;
    let bench = Bench::start(&server);
    assert!(server.try_accept().await.is_err());
    bench.fails_with("demands a client certificate and we have none").await;
    bench.stop().await;

    let directory = tempfile::tempdir().unwrap();
    let mut management = config(&[&server]);
    management.client_certificate = Some(certificate_files(directory.path(), "127.0.0.1"));
    let bench = Bench::with(management, None);
    let (conversation, _) = server.register(12).await;
    bench.attached().await;
    assert_eq!(judge.seen.lock().unwrap().len(), 1);
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_certificate_without_our_address_is_told_with_both() {
    let judge = Judge::new(
        true,
        Some(CertificateError::Other(rustls::OtherError(Arc::new(std::io::Error::other(
            "ownership",
        ))))),
    );
    let server = judged_by(&judge).await;
    let directory = tempfile::tempdir().unwrap();
    let mut management = config(&[&server]);
    management.client_certificate = Some(certificate_files(directory.path(), "10.77.0.5"));
    let bench = Bench::with(management, None);
    assert!(server.try_accept().await.is_err());
    let error = bench.fails_with("refused our client certificate").await;
    assert!(error.contains("10.77.0.5") && error.contains("127.0.0.1"), "{error}");
    bench.stop().await;
}

#[tokio::test]
async fn a_provisioned_certificate_is_used_at_the_next_connect() {
    let judge = Judge::new(false, None);
    let server = judged_by(&judge).await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    assert!(judge.seen.lock().unwrap().is_empty());

    let setup = "org.apache.cloudstack.ca.SetupKeyStoreCommand";
    let body = json!({"validityDays": 365, "handleByAgent": true, "keystorePassword": "x"});
    let answer = conversation.ask(setup, &body).await;
    assert_eq!(answer.class(), "SetupKeystoreAnswer");
    assert_eq!(answer.body()["result"], true, "{answer:?}");
    let request = answer.body()["csr"].as_str().unwrap();
    let request = CertificateSigningRequestParams::from_pem(request).unwrap();
    let issuer = Issuer::from_params(&server.authority.params, &server.authority.key);
    let certificate = request.signed_by(&issuer).unwrap();

    let install = "org.apache.cloudstack.ca.SetupCertificateCommand";
    let body = |pem: &str| {
        json!({"certificate": pem, "privateKey": "", "handleByAgent": true,
               "caCertificates": server.authority.pem})
    };
    let refused = conversation.ask(install, &body("nonsense")).await;
    assert_eq!(
        (refused.class(), &refused.body()["result"]),
        ("SetupCertificateAnswer", &json!(false))
    );
    assert!(!bench.path("cloud.crt").exists());
    let answer = conversation.ask(install, &body(&certificate.pem())).await;
    assert_eq!(
        (answer.class(), &answer.body()["result"]),
        ("SetupCertificateAnswer", &json!(true))
    );
    // The running link goes on as it is.
    assert_eq!(conversation.ask("test.Echo", &json!({})).await.body()["result"], true);
    drop(conversation);

    let (conversation, _) = server.register(12).await;
    assert_eq!(*judge.seen.lock().unwrap(), [certificate.der().clone()]);
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_file_of_no_use_is_named_before_anything_is_connected() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let mut management = config(&[&server]);
    management.ca_file = Some(directory.path().join("missing.pem"));
    let bench = Bench::start(&server);
    let link = LinkConfig {
        management,
        guid: GUID.to_owned(),
        state_directory: directory.path().to_owned(),
    };
    let error = ManagementLink::new(link, &bench.cx).unwrap_err();
    assert!(matches!(error, role::RoleError::Misconfigured(..)));
    let text = bedrock::chain(&error);
    assert!(text.contains("missing.pem") && text.contains("check that it exists"), "{text}");
    bench.stop().await;
}
