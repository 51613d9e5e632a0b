//! Certificates of agents, on a server that demands them and on one that does not.

use management_server::{ClientCertificates, EventKind, ManagementServer};

use crate::agent::Agent;
use crate::{SOON, authority, bare, start};

async fn strict() -> ManagementServer {
    let mut config = bare();
    config.client_certificates = ClientCertificates::Needed;
    start(config).await
}

async fn connect(
    server: &ManagementServer,
    identity: Option<(&str, &str)>,
) -> Result<Agent, String> {
    Agent::connect_as(server.address(), &server.ca_pem(), "127.0.0.5", identity).await
}

#[tokio::test]
async fn a_strict_server_tells_by_the_alert_what_is_wrong() {
    let server = strict().await;
    let missing = connect(&server, None).await.err().unwrap();
    assert!(missing.contains("BadCertificate"), "{missing}");
    let foreign = authority().issue("agent", &["127.0.0.6".parse().unwrap()]).unwrap();
    let identity = Some((foreign.certificate_pem.as_str(), foreign.key_pem.as_str()));
    let wrong = connect(&server, identity).await.err().unwrap();
    assert!(wrong.contains("CertificateUnknown"), "{wrong}");
}

#[tokio::test]
async fn a_certificate_of_the_source_address_is_taken() {
    let server = strict().await;
    let issued = authority().issue("s-900-VM", &["127.0.0.5".parse().unwrap()]).unwrap();
    let identity = Some((issued.certificate_pem.as_str(), issued.key_pem.as_str()));
    let _agent = connect(&server, identity).await.unwrap();
    let mut events = server.events();
    let seen = events.find("the certificate", SOON, |event| match &event.kind {
        EventKind::Secured { certificate } => Some(certificate.clone()),
        _ => None,
    });
    assert_eq!(seen.await.unwrap().as_deref(), Some("CN=s-900-VM"));
}

#[tokio::test]
async fn a_stock_server_takes_any_certificate_and_none() {
    let server = start(bare()).await;
    let foreign = authority().issue("agent", &["127.0.0.6".parse().unwrap()]).unwrap();
    let identity = Some((foreign.certificate_pem.as_str(), foreign.key_pem.as_str()));
    connect(&server, identity).await.unwrap();
    connect(&server, None).await.unwrap();
}
