//! What is pinned: an authority in the middle of a chain, and a file that cannot be read.

use std::path::Path;
use std::sync::Arc;

use management_link::ManagementConfig;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::bench::{Bench, config};
use crate::peer::{self, Authority};
use crate::server::Server;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// An authority, one below it, and a server's certificate below that.
struct Chain {
    root: Issuer,
    middle: Issuer,
    leaf: Issuer,
}

impl Chain {
    fn new() -> Self {
        let params = |name: &str, is_ca| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = is_ca;
            if matches!(params.is_ca, IsCa::Ca(_)) {
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            }
            params
        };
        let authority = || IsCa::Ca(BasicConstraints::Unconstrained);
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(params("root", authority()), key()).unwrap();
        let middle = CertifiedIssuer::signed_by(params("middle", authority()), key(), &root);
        let middle = middle.unwrap();
        let leaf = CertifiedIssuer::signed_by(params("leaf", IsCa::NoCa), key(), &middle).unwrap();
        Self { root, middle, leaf }
    }
}

/// A server that presents `chain` and has the key of its first certificate.
async fn presenting(chain: &[&Issuer]) -> Server {
    let key = PrivatePkcs8KeyDer::from(chain[0].key().serialize_der());
    let chain = chain.iter().map(|issuer| issuer.der().clone()).collect();
    let verifier = rustls::server::WebPkiClientVerifier::no_client_auth();
    let config: Arc<ServerConfig> = peer::config(chain, key.into(), verifier);
    Server::with(Authority::new(), config).await
}

fn pinning(server: &Server, directory: &Path, pins: &[&Issuer]) -> ManagementConfig {
    let ca_file = directory.join("ca.pem");
    let text: String = pins.iter().map(|pin| pin.pem()).collect();
    std::fs::write(&ca_file, text).unwrap();
    let mut management = config(&[server]);
    management.ca_file = Some(ca_file);
    management
}

#[tokio::test]
async fn a_server_below_any_pinned_authority_is_accepted_also_when_it_presents_an_authority() {
    let Chain { root, middle, leaf } = &Chain::new();
    // What the server presents; what is pinned.
    let accepted: [(&[&Issuer], &[&Issuer]); 6] = [
        (&[middle], &[middle]),
        (&[middle, root], &[root]),
        (&[middle], &[root]),
        (&[middle, root], &[middle, root]),
        (&[leaf, middle], &[root]),
        (&[leaf, middle, root], &[middle]),
    ];
    for (presented, pins) in accepted {
        let server = presenting(presented).await;
        let directory = tempfile::tempdir().unwrap();
        let bench = Bench::with(pinning(&server, directory.path(), pins), None);
        let (conversation, _) = server.register(12).await;
        bench.attached().await;
        drop(conversation);
        bench.stop().await;
    }
}

#[tokio::test]
async fn an_authority_of_another_root_is_refused_whatever_it_sends_along() {
    let (ours, theirs) = (Chain::new(), Chain::new());
    let presented = [&theirs.middle, &theirs.root, &ours.root];
    for presented in [&presented[..], &[&theirs.root, &ours.root]] {
        let server = presenting(presented).await;
        let directory = tempfile::tempdir().unwrap();
        let pins = [&ours.middle, &ours.root];
        let bench = Bench::with(pinning(&server, directory.path(), &pins), None);
        assert!(server.try_accept().await.is_err());
        bench.fails_with("neither in").await;
        bench.stop().await;
    }
}

/// As a directory without search permission or a bad disk, but also for root.
#[tokio::test]
async fn a_pin_that_cannot_be_read_stops_the_link_and_is_not_replaced() {
    let server = Server::start().await;
    for name in ["management-ca.pem", "cloud.ca.crt"] {
        let bench = Bench::start(&server);
        let (conversation, _) = server.register(12).await;
        bench.keeps("management-ca.pem", "CERTIFICATE").await;
        let pin = bench.path(name);
        std::fs::remove_file(&pin).ok();
        std::fs::create_dir(&pin).unwrap();
        drop(conversation);
        let error = bench.fails_with("cannot read").await;
        assert!(error.contains(name), "{error}");
        assert!(pin.is_dir(), "{name} was replaced");
        // Readable again: the pin holds, and the link comes back by itself.
        std::fs::remove_dir(&pin).unwrap();
        let (conversation, _) = server.register(12).await;
        bench.attached().await;
        drop(conversation);
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_remembered_is_held_to_its_certificate_all_the_same() {
    let mut server = Server::start().await;
    let bench = Bench::start(&server);
    let pin = bench.path("management-ca.pem");
    // Nothing can be written at the name of the temporary file.
    std::fs::create_dir(bench.path("management-ca.pem.tmp")).unwrap();
    let (conversation, _) = server.register(12).await;
    bench.attached().await;
    server.present(Authority::new());
    drop(conversation);
    assert!(server.try_accept().await.is_err());
    bench.fails_with("presents another certificate").await;
    assert!(!pin.exists());
    bench.stop().await;
}

#[tokio::test]
async fn a_reload_of_trust_roots_leaves_a_server_that_they_do_not_vouch_for() {
    let (ours, theirs) = (Chain::new(), Chain::new());
    let server = presenting(&[&ours.middle]).await;
    let directory = tempfile::tempdir().unwrap();
    let management = pinning(&server, directory.path(), &[&ours.root]);
    let bench = Bench::with(management.clone(), None);
    let (mut conversation, _) = server.register(12).await;
    bench.attached().await;

    // A file of no use changes nothing.
    let mut faulty = management.clone();
    faulty.ca_file = Some(directory.path().join("none.pem"));
    let report = bench.link.reload(faulty).await;
    assert!(report.failed[0].problem.contains("none.pem"), "{report:?}");
    assert!(report.applied.is_empty());
    let mut moved = management.clone();
    moved.zone = "other".to_owned();
    let report = bench.link.reload(moved).await;
    assert_eq!(report.needs_restart, ["management.zone"]);
    // The same again is nothing to the running link.
    assert!(bench.link.reload(management.clone()).await.failed.is_empty());
    assert_eq!(conversation.ask("test.Echo", &serde_json::json!({})).await.class(), "Answer");

    // Another authority in the same file.
    std::fs::write(directory.path().join("ca.pem"), theirs.root.pem()).unwrap();
    assert!(bench.link.reload(management.clone()).await.failed.is_empty());
    assert!(conversation.try_receive().await.is_none());
    assert!(server.try_accept().await.is_err());
    bench.fails_with("neither in").await;
    // And back.
    std::fs::write(directory.path().join("ca.pem"), ours.root.pem()).unwrap();
    while server.try_accept().await.is_err() {}
    bench.stop().await;
}
