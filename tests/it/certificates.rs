//! `quickcloud cert renew` from end to end: the API is asked, the server sends its two commands over
//! the link, the process presents what it got at its next connect, and `cert show` tells it.

use std::process::{Command, Output, Stdio};

use agent_protocol::agent::{SetupCertificateCommand, SetupKeyStoreCommand};
use demo_api::{DemoApi, Keys, World};
use management_server::{HostState, ManagementServer, ServerConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::doctor::sound;
use crate::running::LIMIT;

const GUID: &str = "Proxy.901-ConsoleProxyResource";

/// The binary with keys for the API in its environment.
fn quickcloud(words: &[&str], sets: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickcloud"));
    command.args(words).env("CLOUDSTACK_KEY", "key").env("CLOUDSTACK_SECRET", "secret");
    command.args(sets.iter().flat_map(|set| ["--set", set]));
    command.output().unwrap()
}

/// What the process presents, by its fingerprint.
fn presented(sets: &[String]) -> Option<String> {
    let output = quickcloud(&["cert", "show", "--json", "--roles", "cp"], sets);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    shown[0]["own"]["fingerprint"].as_str().map(str::to_owned)
}

/// As the real server does it: the request, its signature, the certificate, another connect.
async fn provision(server: &ManagementServer) {
    let request = SetupKeyStoreCommand {
        validity_days: 365,
        handle_by_agent: true,
        keystore_password: Some("x".into()),
        ..SetupKeyStoreCommand::default()
    };
    let answer = server.request(GUID, &request, LIMIT).await.unwrap();
    let authority = server.authority();
    let issued = authority.sign(&answer.csr.unwrap(), &["127.0.0.1".parse().unwrap()]).unwrap();
    let install = SetupCertificateCommand {
        certificate: Some(issued.certificate_pem),
        ca_certificates: Some(server.ca_pem()),
        handle_by_agent: true,
        ..SetupCertificateCommand::default()
    };
    assert!(server.succeeds(GUID, &install, LIMIT).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_reaches_the_process_and_is_shown() {
    let address = "127.0.0.1:0".parse().unwrap();
    let server = ManagementServer::start(ServerConfig::new(address)).await.unwrap();
    let mut world = World::basic("z1");
    let id = uuid::Uuid::new_v4().to_string();
    let zone = world.zone_id().to_owned();
    world.hosts.push(json!({"id": id, "name": "v-901-VM", "type": "ConsoleProxy", "state": "Up",
        "zoneid": zone}));
    let keys = Keys { api: "key".to_owned(), secret: "secret".to_owned() };
    let stop = CancellationToken::new();
    let (api, serving) = DemoApi::start(address, world, keys, stop.clone()).await.unwrap();
    let _stop = stop.drop_guard();
    drop(tokio::spawn(serving));
    let state = tempfile::tempdir().unwrap();
    let sets = sound(state.path(), &server.address().to_string());
    let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_quickcloud"));
    process.args(["run", "--roles", "cp", "--log", "warn"]).stdin(Stdio::null());
    process.args(sets.iter().flat_map(|set| ["--set", set]));
    process.args(["--set", "supervisor.admin_address=127.0.0.1:0"]);
    let _process = process.kill_on_drop(true).spawn().unwrap();
    server.wait_for_host(GUID, HostState::Up, LIMIT).await.unwrap();
    assert_eq!(presented(&sets), None);

    let url = api.url();
    let renew = async |host: &'static str| {
        let url = url.clone();
        let words = move || quickcloud(&["cert", "renew", host, "--url", &url], &[]);
        tokio::task::spawn_blocking(words).await.unwrap()
    };
    let output = renew("v-9-VM").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        (output.status.code(), said.contains("no host \"v-9-VM\"")),
        (Some(1), true),
        "{said}"
    );
    let mut seen = Vec::new();
    for _ in 0..2 {
        let output = renew("v-901-VM").await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((output.status.code(), &*said), (Some(0), "v-901-VM has a new certificate\n"));
        let asked = api.calls().into_iter().rfind(|call| call["command"] == "provisionCertificate");
        let asked = asked.unwrap();
        assert_eq!((&asked["hostid"], &*asked["reconnect"]), (&id, "true"));
        provision(&server).await;
        seen.push(presented(&sets));
    }
    assert!(seen[0].is_some() && seen[0] != seen[1], "{seen:?}");
    let output = quickcloud(&["doctor", "--json", "--offline", "--roles", "cp"], &sets);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("our certificate for"), "{text}");
}
