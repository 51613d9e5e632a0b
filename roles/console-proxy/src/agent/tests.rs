//! The agent against recorded conversations: what the server asked is answered byte for byte as
//! the original answered, what we ask has the original's form.
//!
//! Deliberate differences, each asserted below: our load report is compact and always names the
//! removed sessions (the original leaves them out of the report on a new viewer).

use std::collections::BTreeSet;
use std::net::IpAddr;

use agent_protocol::{Body, encode_envelopes, parse_envelopes};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bedrock::Secret;
use config_reader::Violations;
use role::{ConfigInput, TaskScope};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::ConsoleProxyConfig;

const CONSOLES: &str = include_str!("../../../../tests/vectors/conversations/cp-consoles.jsonl");
const STATIC: &str = include_str!("../../../../tests/vectors/conversations/cp-static.jsonl");

/// Never asked in these tests.
struct NoAuthority;

impl AccessAuthority for NoAuthority {
    fn may_open(&self, _: AccessQuestion, _: Duration) -> BoxFuture<'_, AccessDecision> {
        Box::pin(async { AccessDecision::NotAsked })
    }
}

impl Credentials for NoAuthority {
    fn credentials(&self) -> BoxFuture<'_, Result<HostCredentials, String>> {
        Box::pin(async { Ok(HostCredentials::default()) })
    }
}

fn agent() -> Arc<ConsoleAgent> {
    let management = "servers = [\"127.0.0.1\"]".parse().unwrap();
    let section =
        "name = \"v-901-VM\"\nproxy_vm = 901\nprivate_address = \"127.0.0.1\"".parse().unwrap();
    let mut violations = Violations::new();
    let input = ConfigInput {
        section: &section,
        management: &management,
        state_directory: std::path::Path::new("/nowhere"),
    };
    let config = ConsoleProxyConfig::read(input, &mut violations).unwrap();
    assert_eq!(violations.list(), []);
    let context = Arc::new(ConsoleContext::new(
        config,
        (Arc::new(NoAuthority), Arc::new(NoAuthority)),
        role::Host::system().clock,
        TaskScope::new(),
        CancellationToken::new(),
    ));
    Arc::new(ConsoleAgent { context, health: HealthReporter::new() })
}

struct Recorded {
    to_agent: bool,
    request: bool,
    pair: Option<usize>,
    body: Vec<u8>,
    value: Value,
}

fn messages(text: &str) -> Vec<Option<Recorded>> {
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let raw = STANDARD.decode(line.get("raw")?.as_str()?).unwrap();
            let flags = line["hdr"]["flags"].as_u64().unwrap();
            // A compressed body is taken from the parsed JSON instead.
            let body = if line["gz"] == true {
                serde_json::to_vec(&line["json"]).unwrap()
            } else {
                raw[40..].to_vec()
            };
            Some(Recorded {
                to_agent: line["dir"] == "m2a",
                request: flags & 1 != 0,
                pair: line["pair"].as_u64().map(|n| usize::try_from(n).unwrap()),
                body,
                value: line["json"][0].clone(),
            })
        })
        .collect()
}

fn context() -> CommandContext {
    CommandContext {
        log_id: None,
        host_id: Some(7),
        in_sequence: false,
        sequence: 1,
        management_id: 1,
        wait: None,
        answer_now: management_link::AnswerNow::default(),
    }
}

#[tokio::test]
async fn every_recorded_command_is_answered_byte_for_byte() {
    let mut classes = BTreeSet::new();
    for text in [CONSOLES, STATIC] {
        let agent = agent();
        let messages = messages(text);
        for (index, request) in messages.iter().enumerate() {
            let Some(request) = request.as_ref().filter(|m| m.to_agent && m.request) else {
                continue;
            };
            let envelope = parse_envelopes(&request.body).unwrap().remove(0);
            // The session's own commands never reach a role.
            if envelope.simple_name() == "ReadyCommand" {
                continue;
            }
            classes.insert(envelope.simple_name().to_owned());
            let answered = agent.clone().handle(envelope, context()).await;
            let recorded = messages.iter().flatten().find(|m| m.pair == Some(index + 1)).unwrap();
            assert_eq!(
                String::from_utf8(encode_envelopes(&[answered])).unwrap(),
                String::from_utf8(recorded.body.clone()).unwrap(),
            );
        }
        assert!(agent.context.key().is_some());
    }
    let expected = ["AllowConsoleAccessCommand", "StartConsoleProxyAgentHttpHandlerCommand"];
    assert_eq!(classes.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn the_startup_command_has_the_recorded_members_in_the_recorded_order() {
    let recorded =
        messages(CONSOLES).into_iter().flatten().find(|m| !m.to_agent && m.request).unwrap();
    let facts = StartupFacts {
        guid: "Proxy.901-ConsoleProxyResource".into(),
        zone: "1".into(),
        pod: "1".into(),
        version: "4.22.0.0-SNAPSHOT".into(),
        host_id: Some(7),
        ms_host_list: "127.0.0.1".into(),
        connection_transferred: false,
        arch: "x86_64",
    };
    let ours = encode_envelopes(&[agent().startup(&facts)]);
    let ours: Value = serde_json::from_slice(&ours).unwrap();
    let (class, recorded) = recorded.value.as_object().unwrap().iter().next().unwrap();
    let ours = ours[0][class].as_object().unwrap();
    let recorded = recorded.as_object().unwrap();
    assert_eq!(ours.keys().collect::<Vec<_>>(), recorded.keys().collect::<Vec<_>>());
    for (key, value) in recorded {
        // Addresses are those of the machine.
        if ["Address", "Netmask"].iter().any(|part| key.ends_with(part)) {
            continue;
        }
        assert_eq!(ours[key], *value, "{key}");
    }
}

fn of_class<'m>(messages: &'m [Option<Recorded>], class: &str) -> Vec<&'m Recorded> {
    messages.iter().flatten().filter(|m| m.value.get(class).is_some()).collect()
}

#[test]
fn pings_and_questions_are_written_as_recorded() {
    let messages = messages(CONSOLES);
    let ping = of_class(&messages, PingCommand::CLASS)[0];
    assert_eq!(encode_envelopes(&[agent().ping(7)]), ping.body);
    let questions = of_class(&messages, ConsoleAccessAuthenticationCommand::CLASS);
    assert!(questions.len() > 3);
    for recorded in questions {
        let members = &recorded.value[ConsoleAccessAuthenticationCommand::CLASS];
        let text = |key: &str| members[key].as_str().unwrap().to_owned();
        let question = AccessQuestion {
            host: text("_host"),
            port: text("_port").parse().unwrap(),
            vm: text("_vmId"),
            sid: Secret::new(text("_sid")),
            ticket: Secret::new(text("_ticket")),
            session: text("sessionUuid"),
            client: text("clientAddress").parse::<IpAddr>().unwrap(),
            again: false,
        };
        assert_eq!(encode_envelopes(&[Envelope::of(&question.command())]), recorded.body);
    }
}

#[test]
fn recorded_load_reports_and_ours_have_the_same_members() {
    let messages = messages(CONSOLES);
    let reports = of_class(&messages, ConsoleProxyLoadReportCommand::CLASS);
    let text = |m: &Recorded| {
        m.value[ConsoleProxyLoadReportCommand::CLASS]["_loadInfo"].as_str().unwrap().to_owned()
    };
    assert!(reports.len() > 10);
    let mut without_removed = 0;
    for report in reports {
        let info: Value = serde_json::from_str(&text(report)).unwrap();
        without_removed += usize::from(info.get("removedSessions").is_none());
        for connection in info["connections"].as_array().unwrap() {
            let keys: Vec<&String> = connection.as_object().unwrap().keys().collect();
            let ours = [
                "id",
                "clientInfo",
                "host",
                "port",
                "tag",
                "createTime",
                "lastUsedTime",
                "sessionUuid",
            ];
            assert_eq!(keys, ours);
        }
    }
    assert!(without_removed > 0, "the original omits them on a new viewer; we never do");
    let compact: Value = serde_json::from_str(&load_info(&[], &[])).unwrap();
    assert_eq!(compact, serde_json::json!({"connections": [], "removedSessions": []}));
}

#[tokio::test]
async fn commands_nobody_sends_are_answered_all_the_same() {
    let agent = agent();
    let check = CheckConsoleProxyLoadCommand { proxy_vm_id: 901, ..Default::default() };
    let answer = agent.clone().handle(Envelope::of(&check), context()).await;
    let answer: ConsoleProxyLoadAnswer = answer.open().unwrap();
    assert_eq!(
        answer.base.details.as_deref(),
        Some("{\"connections\":[],\"removedSessions\":[]}\n")
    );
    let unknown = parse_envelopes(br#"[{"x.y.OddCommand":{}}]"#).unwrap().remove(0);
    let answer = agent.clone().handle(unknown, context()).await;
    assert_eq!(answer.simple_name(), "UnsupportedAnswer");
    let empty = AllowConsoleAccessCommand::default();
    let answer = agent.handle(Envelope::of(&empty), context()).await;
    assert!(!answer.answer_base().unwrap().result);
}

#[test]
fn a_key_that_cannot_be_read_is_a_condition_and_a_good_one_clears_it() {
    let agent = agent();
    let start = |password: &str| StartConsoleProxyAgentHttpHandlerCommand {
        encryptor_password: Some(password.into()),
        ..Default::default()
    };
    agent.health.started();
    assert!(!agent.start(&start("nonsense")).base.result);
    let role::Health::Degraded { reason } = agent.health.health() else { panic!("not degraded") };
    assert_eq!(reason, "the console key from the management server is not JSON with two keys");
    let good = r#"{"base64EncodedKeyBytes":"AAECAwQFBgcICQoLDA0ODw","base64EncodedIvBytes":"EBESExQVFhcYGRobHB0eHw"}"#;
    assert!(agent.start(&start(good)).base.result);
    assert_eq!(agent.health.health(), role::Health::Ready);
    let tls = StartConsoleProxyAgentHttpHandlerCommand {
        keystore_bits: Some(bedrock::Secret::new(vec![0xfe, 0xed])),
        ..start(good)
    };
    assert!(agent.start(&tls).base.result);
    assert!(matches!(agent.health.health(), role::Health::Degraded { .. }));
}

#[test]
fn a_host_without_key_says_what_the_server_wants() {
    let agent = agent();
    agent.attached(7);
    let role::Health::Degraded { reason } = agent.health.health() else { panic!("not degraded") };
    assert!(reason.contains("id 901 and name v-901-VM"), "{reason}");
}

#[test]
fn only_a_question_asked_again_is_answered_with_a_place() {
    let answer = ConsoleAccessAuthenticationAnswer {
        success: true,
        host: Some("10.77.2.1".into()),
        port: 5903,
        ..ConsoleAccessAuthenticationAnswer::default()
    };
    let admitted = |location| AccessDecision::Admitted(Admission { location });
    assert_eq!(decision(&answer), admitted(None));
    // As recorded of a 4.22 server whose VM had moved.
    let again = ConsoleAccessAuthenticationAnswer { is_reauthenticating: true, ..answer };
    assert_eq!(decision(&again), admitted(Upstream::tcp("10.77.2.1", 5903)));
    let tunnel = ConsoleAccessAuthenticationAnswer {
        host: None,
        port: 0,
        tunnel_url: Some("https://10.0.0.6/console?uuid=x".into()),
        tunnel_session: Some("OpaqueRef:2".into()),
        ..again.clone()
    };
    let expected = Upstream::tunnel("https://10.0.0.6/console?uuid=x", "OpaqueRef:2");
    assert!(expected.is_some());
    assert_eq!(decision(&tunnel), admitted(expected));
    // A Hyper-V host answers with an instance and no port.
    let nowhere =
        ConsoleAccessAuthenticationAnswer { host: Some("0f1e".into()), port: -9, ..again.clone() };
    assert_eq!(decision(&nowhere), admitted(None));
    let denied = ConsoleAccessAuthenticationAnswer { success: false, ..again };
    assert_eq!(decision(&denied), AccessDecision::Denied);
    let question = AccessQuestion {
        host: "h".into(),
        port: 5900,
        vm: "vm".into(),
        sid: Secret::new("p".into()),
        ticket: Secret::new("t".into()),
        session: "s".into(),
        client: [192, 0, 2, 1].into(),
        again: true,
    };
    assert!(question.command().is_reauthenticating);
}
