//! Console links and the decisions on them, in row mode and in static mode.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use management_server::{ConsoleError, ConsoleLink, ManagementServer, Vm, WallClock};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::agent::{Agent, BASE};
use crate::recorded::{assert_like, conversation};
use crate::registration::register_like;
use crate::{start, with_rows, with_static_console};

const VM: &str = "8a112b6e-0e48-419d-af9b-31a68db815c0";
const BROWSER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 2, 1));

fn vm() -> Vm {
    Vm {
        id: 28,
        uuid: VM.to_owned(),
        name: "vm1".to_owned(),
        host_address: "10.77.2.1".to_owned(),
        port: 5901,
        vnc_password: "T1hIusDpJXNui9Gcxxr0dA".into(),
        keyboard: None,
        windows: false,
        running: true,
    }
}

/// A proxy with its key, on a server with one VM.
struct Proxy {
    server: ManagementServer,
    agent: Agent,
    encryptor: String,
}

impl Proxy {
    async fn start(config: management_server::ServerConfig, recording: &str) -> Self {
        let server = start(config).await;
        server.put_vm(vm());
        let mut agent = Agent::connect(&server).await;
        let lines = conversation(recording);
        let mut events = server.events();
        register_like(&mut agent, &lines).await;
        let encryptor = events
            .find("the key", crate::SOON, |event| match &event.kind {
                management_server::EventKind::Sent(message) => message
                    .envelopes
                    .iter()
                    .find(|envelope| envelope.simple_name().starts_with("StartConsoleProxy"))
                    .map(|envelope| envelope.body.get().to_owned()),
                _ => None,
            })
            .await
            .unwrap();
        let body: Value = serde_json::from_str(&encryptor).unwrap();
        let encryptor = body["encryptorPassword"].as_str().unwrap().to_owned();
        Self { server, agent, encryptor }
    }

    /// A link in row mode; the announcement is answered.
    async fn announced_link(&mut self) -> ConsoleLink {
        let link = {
            let server = self.server.clone();
            tokio::spawn(async move { server.console_link(VM, BROWSER, None).await })
        };
        let allow = self.agent.receive().await;
        let lines = conversation("cp-consoles");
        let recorded = lines.iter().find(|line| line.class() == "AllowConsoleAccessCommand");
        assert_like(&allow, recorded.unwrap());
        assert!(!link.is_finished(), "the link waits for the announcement");
        self.agent.answer_well(&allow).await;
        let link = link.await.unwrap().unwrap();
        assert_eq!(allow.body()["sessionUuid"], link.session);
        link
    }

    /// Decrypts a token with the key that the server sent.
    fn open(&self, token: &str) -> Value {
        let pair: Value = serde_json::from_str(&self.encryptor).unwrap();
        let part = |name: &str| URL_SAFE_NO_PAD.decode(pair[name].as_str().unwrap()).unwrap();
        let key: [u8; 32] = Sha256::digest(part("base64EncodedKeyBytes")).into();
        let sealed = STANDARD.decode(token).unwrap();
        let nonce: [u8; 12] = sealed[..12].try_into().unwrap();
        let payload = Payload { msg: &sealed[12..], aad: &part("base64EncodedIvBytes") };
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
        let plaintext = cipher.decrypt(&Nonce::from(nonce), payload).unwrap();
        serde_json::from_slice(&plaintext).unwrap()
    }

    /// Asks for admission with the fields of a token, some of them changed.
    async fn ask(&mut self, token: &Value, changes: &[(&str, Value)]) -> Value {
        let mut body = serde_json::json!({
            "_host": token["clientHostAddress"],
            "_port": token["clientHostPort"].to_string(),
            "_vmId": token["clientTag"],
            "_sid": token["clientHostPassword"],
            "_ticket": token["ticket"],
            "sessionUuid": token["sessionUuid"],
            "clientAddress": "10.77.2.1",
            "_isReauthenticating": false,
            "contextMap": {},
            "wait": 0,
            "bypassHostMaintenance": false,
        });
        for (key, value) in changes {
            body[key] = value.clone();
        }
        let class = "com.cloud.agent.api.ConsoleAccessAuthenticationCommand";
        self.agent.request(0x03, &format!(r#"[{{"{class}":{body}}}]"#)).await;
        self.agent.receive().await.json[0].clone()
    }

    async fn admitted(&mut self, token: &Value, changes: &[(&str, Value)]) -> bool {
        let answer = self.ask(token, changes).await;
        let body = &answer["com.cloud.agent.api.ConsoleAccessAuthenticationAnswer"];
        assert_eq!(body["result"], true);
        body["_success"].as_bool().unwrap()
    }

    async fn report(&mut self, text: &str) -> Value {
        let info = serde_json::to_string(text).unwrap();
        let class = "com.cloud.agent.api.ConsoleProxyLoadReportCommand";
        let json = format!(r#"[{{"{class}":{{"_proxyVmId":901,"_loadInfo":{info},{BASE}}}}}]"#);
        self.agent.request(0x03, &json).await;
        self.agent.receive().await.json[0].clone()
    }
}

#[tokio::test]
async fn a_link_has_the_form_of_the_original_and_its_token_says_where_the_screen_is() {
    let mut proxy = Proxy::start(with_rows(), "cp-consoles").await;
    let link = proxy.announced_link().await;
    let expected = format!(
        "http://10.77.2.2/resource/noVNC/vnc.html?autoconnect=true&show_dot=true&port=8080&token={}",
        link.token
    );
    assert_eq!(link.url, expected);
    assert_eq!((link.host.as_str(), link.port), ("10.77.2.2", 8080));
    let token = proxy.open(&link.token);
    let keys: Vec<&str> = token.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "clientHostAddress",
            "clientHostPort",
            "clientHostPassword",
            "clientTag",
            "clientDisplayName",
            "ticket",
            "sessionRequiresNewViewer",
            "sourceIP",
            "sessionUuid"
        ]
    );
    assert_eq!(token["clientHostPort"], 5901);
    assert_eq!(token["sourceIP"], "10.77.2.1");
    assert_eq!(token["sessionUuid"], link.session);
}

#[tokio::test]
async fn a_console_is_admitted_once() {
    let mut proxy = Proxy::start(with_rows(), "cp-consoles").await;
    let link = proxy.announced_link().await;
    let token = proxy.open(&link.token);
    let granted = proxy.ask(&token, &[]).await;
    let lines = conversation("cp-consoles");
    let recorded = lines.iter().find(|line| line.class() == "ConsoleAccessAuthenticationAnswer");
    assert_eq!(granted, recorded.unwrap().json[0]);
    let denied = proxy.ask(&token, &[]).await;
    let lines = conversation("cp-static");
    let recorded = lines.iter().rfind(|line| line.class() == "ConsoleAccessAuthenticationAnswer");
    assert_eq!(denied, recorded.unwrap().json[0]);
    let session = &proxy.server.console_sessions()[0];
    assert!(session.acquired && !session.removed);
    assert_eq!(session.client_address.as_deref(), Some("10.77.2.1"));
}

#[tokio::test]
async fn a_foreign_ticket_is_denied_and_uses_the_session_up() {
    let mut proxy = Proxy::start(with_rows(), "cp-consoles").await;
    let link = proxy.announced_link().await;
    let token = proxy.open(&link.token);
    assert!(!proxy.admitted(&token, &[("_ticket", "foreign".into())]).await);
    assert!(!proxy.admitted(&token, &[]).await);
    // Without any ticket the session is not even looked at.
    let link = proxy.announced_link().await;
    let token = proxy.open(&link.token);
    assert!(!proxy.admitted(&token, &[("_ticket", Value::Null)]).await);
    assert!(proxy.admitted(&token, &[]).await);
}

#[tokio::test]
async fn what_the_ticket_hashes_and_the_password_must_fit() {
    let mut proxy = Proxy::start(with_rows(), "cp-consoles").await;
    for (key, value) in [
        ("_host", Value::from("10.77.2.9")),
        ("_port", Value::from("5902")),
        ("_sid", Value::from("other")),
        ("_vmId", Value::from("")),
        ("sessionUuid", Value::from("b93a2386-9d71-41f8-9264-250746dd8b1f")),
    ] {
        let link = proxy.announced_link().await;
        let token = proxy.open(&link.token);
        assert!(!proxy.admitted(&token, &[(key, value)]).await, "{key}");
    }
}

#[tokio::test]
async fn a_ticket_is_good_for_its_minute_and_the_next() {
    let minute = Arc::new(AtomicI64::new(29_000_000));
    let mut config = with_rows();
    let now = Arc::clone(&minute);
    config.clock = WallClock::of(move || {
        jiff::Timestamp::from_second(now.load(Ordering::Relaxed) * 60 + 59).unwrap()
    });
    let mut proxy = Proxy::start(config, "cp-consoles").await;
    for (later, admitted) in [(0, true), (1, true), (2, false)] {
        let link = proxy.announced_link().await;
        let token = proxy.open(&link.token);
        minute.fetch_add(later, Ordering::Relaxed);
        assert_eq!(proxy.admitted(&token, &[]).await, admitted, "{later} minutes later");
    }
}

#[tokio::test]
async fn asking_again_gives_the_current_address_without_a_session() {
    let mut proxy = Proxy::start(with_rows(), "cp-consoles").await;
    let link = proxy.announced_link().await;
    let token = proxy.open(&link.token);
    let mut moved = vm();
    moved.port = 5903;
    proxy.server.put_vm(moved);
    let again = ("_isReauthenticating", Value::from(true));
    let answer = proxy.ask(&token, &[again.clone(), ("_ticket", "foreign".into())]).await;
    let body = &answer["com.cloud.agent.api.ConsoleAccessAuthenticationAnswer"];
    assert_eq!(body["_success"], true);
    assert_eq!((&body["_host"], &body["_port"]), (&"10.77.2.1".into(), &5903.into()));
    let answer = proxy.ask(&token, &[again, ("_vmId", "no-such".into())]).await;
    let body = &answer["com.cloud.agent.api.Answer"];
    assert_eq!(body["result"], false);
    assert_eq!(body["details"], r#"For input string: "no-such""#);
}

#[tokio::test]
async fn a_stopped_vm_gets_no_link_and_an_old_link_is_denied() {
    let mut proxy = Proxy::start(with_rows(), "cp-consoles").await;
    let link = proxy.announced_link().await;
    let token = proxy.open(&link.token);
    let mut stopped = vm();
    stopped.running = false;
    proxy.server.put_vm(stopped);
    assert!(!proxy.admitted(&token, &[]).await);
    let refused = proxy.server.console_link(VM, BROWSER, None).await;
    assert!(matches!(refused, Err(ConsoleError::NotRunning(_))));
    assert!(proxy.server.remove_vm(VM));
    let refused = proxy.server.console_link(VM, BROWSER, None).await;
    assert!(matches!(refused, Err(ConsoleError::UnknownVm(_))));
}

#[tokio::test]
async fn reports_close_sessions_once_and_count_connections() {
    let mut proxy = Proxy::start(with_rows(), "cp-consoles").await;
    let session = proxy.announced_link().await.session;
    let ok = "com.cloud.agent.api.AgentControlAnswer";
    let closing = format!(r#"{{"connections":[{{"id":1}}],"removedSessions":["{session}"]}}"#);
    assert_eq!(proxy.report(&closing).await[ok]["result"], true);
    assert!(proxy.server.console_sessions()[0].removed);
    assert_eq!(proxy.server.proxy_loads()[&901].connections, 1);
    // The same session again makes the original throw: the whole report is lost.
    let again = format!(r#"{{"connections":[],"removedSessions":["{session}"]}}"#);
    assert_eq!(proxy.report(&again).await["com.cloud.agent.api.Answer"]["result"], false);
    assert_eq!(proxy.server.proxy_loads()[&901].connections, 1);
    let long = format!(r#"{{"connections":[],"x":"{}"}}"#, "y".repeat(65_600));
    let answer = proxy.report(&long).await["com.cloud.agent.api.Answer"].clone();
    assert!(answer["details"].as_str().unwrap().contains("Data too long"));
    assert_eq!(proxy.report("no json").await[ok]["result"], true);
}

#[tokio::test]
async fn a_full_proxy_gets_no_more_links() {
    let mut config = with_rows();
    config.console.session_limit = 2;
    let mut proxy = Proxy::start(config, "cp-consoles").await;
    proxy.report(r#"{"connections":[{"id":1},{"id":2}],"removedSessions":[]}"#).await;
    let refused = proxy.server.console_link(VM, BROWSER, None).await;
    assert!(matches!(refused, Err(ConsoleError::Busy)));
}

#[tokio::test]
async fn the_static_manager_announces_nothing_and_ignores_reports() {
    let mut proxy = Proxy::start(with_static_console(), "cp-static").await;
    let link = proxy.server.console_link(VM, BROWSER, Some("s3cret")).await.unwrap();
    assert!(link.url.starts_with("http://127.0.0.3:8088/resource/noVNC/vnc.html?"));
    assert!(link.url.contains("&port=0&") && link.url.ends_with("&extra=s3cret"));
    let token = proxy.open(&link.token);
    assert_eq!(token["extraSecurityToken"], "s3cret");
    assert!(proxy.admitted(&token, &[]).await);
    assert!(!proxy.admitted(&token, &[]).await);
    let closing = format!(r#"{{"connections":[],"removedSessions":["{}"]}}"#, link.session);
    let answer = proxy.report(&closing).await;
    assert_eq!(answer["com.cloud.agent.api.AgentControlAnswer"]["result"], true);
    assert!(!proxy.server.console_sessions()[0].removed);
}

#[tokio::test]
async fn a_link_is_given_out_although_the_proxy_is_gone() {
    let proxy = Proxy::start(with_rows(), "cp-consoles").await;
    let Proxy { server, agent, .. } = proxy;
    drop(agent);
    let guid = "Proxy.901-ConsoleProxyResource";
    server.wait_for_host(guid, management_server::HostState::Alert, crate::SOON).await.unwrap();
    server.console_link(VM, BROWSER, None).await.unwrap();
}
