//! What a real server sent, played to the link: see the README beside the recordings.

use base64::Engine;
use role::LinkState;
use serde_json::Value;

use crate::bench::{Bench, GUID};
use crate::server::{Conversation, Message, Server};

/// The recordings are data of the whole workspace.
const CONVERSATIONS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/conversations");

/// One line of a recording.
struct Line(Value);

impl Line {
    fn raw(&self) -> Vec<u8> {
        let text = self.0["raw"].as_str().unwrap();
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    }

    fn is_of_server(&self) -> bool {
        self.0["dir"] == "m2a"
    }

    fn is_request(&self) -> bool {
        self.0["hdr"]["flags"].as_u64().unwrap() & 1 == 1
    }

    fn class(&self) -> &str {
        self.0["classes"][0].as_str().unwrap_or_default().rsplit('.').next().unwrap()
    }

    fn refuses(&self) -> bool {
        self.0["json"][0]["com.cloud.agent.api.ReadyCommand"]["_details"].is_string()
    }
}

fn recording(name: &str) -> Vec<Line> {
    let path = format!("{CONVERSATIONS}/link-{name}.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| Line(serde_json::from_str(line).unwrap())).collect()
}

/// Plays the server's half; returns how often it was asked for what, and keeps the link open.
async fn play(name: &str, bench: &Bench, server: &Server) -> (Conversation, Vec<String>) {
    let lines = recording(name);
    let mut conversation = server.accept().await;
    let mut answers = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.is_of_server()) {
        let mut raw = line.raw();
        match line.class() {
            "StartupAnswer" => {
                let startup = conversation.receive().await;
                assert_eq!((startup.flags, startup.body()["guid"].as_str()), (0x05, Some(GUID)));
                raw[4..12].copy_from_slice(&startup.sequence.to_be_bytes());
            }
            "PingAnswer" => {
                bench.beat();
                let ping = conversation.receive().await;
                assert_eq!(ping.class(), "PingStorageCommand", "{name}");
                raw[4..12].copy_from_slice(&ping.sequence.to_be_bytes());
            }
            // Answers to what only the recorded agent asked: the link must not mind them.
            _ => {}
        }
        conversation.peer.send(&raw).await.unwrap();
        if line.is_request() && !line.refuses() {
            let answer = conversation.receive().await;
            check(name, &answer, &lines, at);
            answers.push(answer.class().to_owned());
        }
    }
    (conversation, answers)
}

/// The header copies the request's, and the body is what the recorded agent answered, if it did.
fn check(name: &str, answer: &Message, lines: &[Line], at: usize) {
    let header = &lines[at].0["hdr"];
    let number = |field: &Value| match field {
        Value::String(text) => text.parse::<i64>().unwrap(),
        other => other.as_i64().unwrap(),
    };
    assert_eq!(i64::from(answer.flags), number(&header["flags"]) & 0x06, "{name}");
    let found = [answer.sequence, answer.management, answer.agent, answer.via];
    let wanted = ["seq", "mgmt", "agent", "via"].map(|field| number(&header[field]));
    assert_eq!(found, wanted, "{name}");
    let recorded = lines.iter().find(|line| {
        line.0["dir"] == "a2m" && line.0["pair"].as_u64() == Some(u64::try_from(at).unwrap() + 1)
    });
    if let Some(recorded) = recorded {
        assert_eq!(answer.json, recorded.0["json"], "{name}");
    }
}

async fn start() -> (Bench, Server) {
    let server = Server::start().await;
    (Bench::start(&server), server)
}

#[tokio::test]
async fn recorded_registrations_lead_to_an_attached_link_and_its_end_to_a_new_one() {
    for (name, host) in [
        ("cp-without-row", 14),
        ("no-pings", 15),
        ("odd-requests", 18),
        ("ready-unanswered", 16),
        ("taken-over", 17),
        ("taking-over", 17),
    ] {
        let (bench, server) = start().await;
        let (conversation, answers) = play(name, &bench, &server).await;
        bench.attached().await;
        assert_eq!(bench.link.host_id(), Some(host), "{name}");
        assert!(answers.iter().all(|class| class == "ReadyAnswer") && !answers.is_empty());
        drop(conversation);
        bench.reaches(LinkState::Disconnected).await;
        let (conversation, startup) = server.register(host).await;
        assert_eq!(startup.agent, host, "{name}");
        drop(conversation);
        bench.stop().await;
    }
}

#[tokio::test]
async fn recorded_refusals_are_shown_and_not_answered() {
    for (name, words) in [
        ("refused-zone", "Host 127.0.0.2 sent incorrect data center: nozone"),
        ("refused-arch", "Unsupported arch type: sparc"),
    ] {
        let (bench, server) = start().await;
        let (mut conversation, answers) = play(name, &bench, &server).await;
        assert!(conversation.try_receive().await.is_none(), "{name}");
        assert!(answers.is_empty());
        bench.fails_with(words).await;
        bench.stop().await;
    }
}

#[tokio::test]
async fn the_recorded_silence_after_a_lost_connect_is_waited_out() {
    let (bench, server) = start().await;
    let (conversation, answers) = play("silent-reconnect", &bench, &server).await;
    assert!(answers.is_empty());
    bench.reaches(LinkState::Registering).await;
    // Pings are not answered, and that proves nothing.
    for _ping in 0..5 {
        bench.beat();
    }
    drop(conversation);
    bench.fails_with("before we were ready").await;
    bench.stop().await;
}
