//! Scripted faults, as an agent sees them.

use std::time::Duration;

use management_server::{Action, EventKind, Gate, HostState, Malformation, Point, Rule};

use crate::agent::{Agent, End};
use crate::recorded::conversation;
use crate::{SOON, bare, start, with_rows};

const GUID: &str = "agent-h-NfsSecondaryStorageResource";

fn startup() -> String {
    conversation("link-no-pings")[0].text()
}

#[tokio::test]
async fn a_connection_is_closed_before_or_after_tls() {
    let server = start(bare()).await;
    server.script().once(Point::Accepted, Action::Close);
    let address = server.address();
    assert!(Agent::connect_as(address, &server.ca_pem(), "127.0.0.2", None).await.is_err());
    server.script().once(Point::Secured, Action::Close);
    Agent::connect(&server).await.expect_close().await;
    server.script().once(Point::Secured, Action::Reset);
    let mut agent = Agent::connect(&server).await;
    assert_eq!(agent.next().await, Err(End::Reset));
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away_until_one_ends() {
    let mut config = bare();
    config.connection_limit = 1;
    let server = start(config).await;
    let agent = Agent::connect(&server).await;
    let address = server.address();
    assert!(Agent::connect_as(address, &server.ca_pem(), "127.0.0.2", None).await.is_err());
    drop(agent);
    server
        .events()
        .find("the end", SOON, |event| matches!(event.kind, EventKind::Closed { .. }).then_some(()))
        .await
        .unwrap();
    server.wait_for("a free place", SOON, |_| Some(())).await.unwrap();
    let mut attempts = 0;
    while Agent::connect_as(address, &server.ca_pem(), "127.0.0.2", None).await.is_err() {
        attempts += 1;
        assert!(attempts < 1000, "the place is free right after the end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_scripted_refusal_has_the_recorded_form() {
    let server = start(bare()).await;
    let text = "java.lang.IllegalStateException: not today";
    server.script().once(Point::StartupAnswered, Action::Refuse(text.to_owned()));
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    let refusal = agent.receive().await;
    assert_eq!((refusal.flags, refusal.seq, refusal.agent), (0x07, -1, -1));
    assert_eq!(refusal.body()["_details"], text);
    agent.start_up(&startup()).await;
    agent.become_ready().await;
}

#[tokio::test]
async fn silence_after_the_start_up_answer_and_a_swallowed_one() {
    let server = start(bare()).await;
    server.script().once(Point::StartupAnswered, Action::Silence);
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    agent.request(0x03, "[]").await;
    let nothing = tokio::time::timeout(Duration::from_millis(100), agent.next()).await;
    assert!(nothing.is_err(), "a silent server sends nothing, not {nothing:?}");
    server.script().once(Point::Startup, Action::Swallow);
    let mut other = Agent::connect(&server).await;
    other.request(0x05, &startup()).await;
    other.start_up(&startup()).await;
}

#[tokio::test]
async fn a_gate_holds_the_connect_phase_and_a_rule_of_another_guid_does_not() {
    let server = start(with_rows()).await;
    let gate = Gate::new();
    let setup = conversation("ss-images").swap_remove(2);
    let class = setup.json[0].as_object().unwrap().keys().next().unwrap().clone();
    let rule = |guid: &str, action| Rule {
        guid: Some(guid.to_owned()),
        point: Point::Command(class.clone()),
        action,
        times: None,
    };
    let guid = "SecondaryStorage.1-NfsSecondaryStorageResource";
    server.script().add(rule("somebody else", Action::Close));
    server.script().add(rule(guid, Action::Hold(gate.clone())));
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&conversation("ss-images")[0].text()).await;
    server
        .events()
        .find("the fault", SOON, |event| {
            matches!(event.kind, EventKind::Fault { .. }).then_some(())
        })
        .await
        .unwrap();
    assert_eq!(server.host(guid).unwrap().state, HostState::Connecting);
    gate.open();
    assert_eq!(agent.become_ready().await.len(), 7);
}

#[tokio::test]
async fn pings_go_unanswered_get_a_foreign_sequence_or_ask_for_a_start_up() {
    let server = start(bare()).await;
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    agent.become_ready().await;
    server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
    server.script().once(Point::Ping, Action::Swallow);
    server.script().once(Point::Control, Action::WrongSequence);
    let ping = r#"[{"com.cloud.agent.api.PingCommand":{}}]"#;
    let unanswered = agent.request(0x03, ping).await;
    let foreign = agent.request(0x03, r#"[{"com.cloud.agent.api.NoSuchCommand":{}}]"#).await;
    let answer = agent.receive().await;
    assert_ne!(answer.seq, unanswered);
    assert_ne!(answer.seq, foreign);
    server.script().always(Point::Ping, Action::AskForStartup);
    assert_eq!(agent.ping().await.body()["sendStartup"], true);
    assert_eq!(agent.ping().await.body()["sendStartup"], true);
    server.script().clear();
    assert_eq!(agent.ping().await.body()["sendStartup"], false);
}

#[tokio::test]
async fn a_flood_arrives_whole() {
    let server = start(bare()).await;
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    agent.become_ready().await;
    server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
    let flood = Action::Flood { messages: 1000, bytes: 1000 };
    let striking = {
        let server = server.clone();
        tokio::spawn(async move { server.strike(GUID, flood).await })
    };
    for number in 0..1000 {
        let message = agent.receive().await;
        assert_eq!((message.class(), message.seq), ("NoSuchCommand", number));
    }
    striking.await.unwrap().unwrap();
    assert_eq!(agent.ping().await.class(), "PingAnswer");
}

#[tokio::test]
async fn malformed_bytes_are_what_their_names_say() {
    let server = start(bare()).await;
    for kind in Malformation::ALL {
        let mut agent = Agent::connect(&server).await;
        agent.start_up(&startup()).await;
        agent.become_ready().await;
        server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
        server.strike(GUID, Action::Malformed(kind)).await.unwrap();
        let got = agent.plaintext().await;
        match kind {
            Malformation::PacketTooLong | Malformation::PacketNegative => {
                assert!(matches!(&got, Err(End::Garbage(header)) if header.len() == 4), "{kind:?}");
            }
            Malformation::NoRecord | Malformation::CutRecord => {
                assert!(matches!(&got, Err(End::Garbage(packet)) if packet.len() > 4), "{kind:?}");
            }
            Malformation::ShortFrame => assert_eq!(got.unwrap().len(), 20),
            Malformation::UnknownVersion => assert_eq!(got.unwrap()[0], 7),
            Malformation::NotJson | Malformation::NotEnvelopes => {
                let message = got.unwrap();
                let length = u32::from_be_bytes(message[12..16].try_into().unwrap());
                assert_eq!(message.len(), 40 + length as usize);
            }
            Malformation::NotCompressed | Malformation::WrongLength | Malformation::Bomb => {
                assert_eq!(got.unwrap()[3] & 0x80, 0x80, "{kind:?}");
            }
        }
    }
}

fn unanswered(event: &management_server::Event) -> Option<Vec<String>> {
    match &event.kind {
        EventKind::Unanswered { commands } => Some(commands.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn an_end_of_the_link_tells_what_was_not_answered() {
    let server = start(bare()).await;
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    let ready = agent.receive().await;
    assert_eq!(ready.class(), "ReadyCommand");
    drop(agent);
    let commands = server.events().find("the list", SOON, unanswered).await.unwrap();
    assert_eq!(commands, ["com.cloud.agent.api.ReadyCommand"]);
    server.wait_for_host(GUID, HostState::Alert, SOON).await.unwrap();

    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    agent.become_ready().await;
    drop(agent);
    server.wait_for_host(GUID, HostState::Alert, SOON).await.unwrap();
    let ends = server.events().drain();
    assert_eq!(ends.iter().filter_map(|event| unanswered(event)).count(), 1);
}

#[tokio::test]
async fn a_host_whose_connect_phase_was_cut_is_locked_as_by_the_original() {
    let mut config = bare();
    config.lock_unanswered_hosts = true;
    let server = start(config).await;
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup()).await;
    agent.host = agent.receive().await.body()["hostId"].as_i64().unwrap();
    let host = agent.host;
    drop(agent);
    server.events().find("the list", SOON, unanswered).await.unwrap();
    // The next link gets its early answer and belongs to no host: its ping is dropped.
    let mut agent = Agent::connect(&server).await;
    agent.host = host;
    agent.start_up(&startup()).await;
    agent.send(0x03, 1, -1, host, b"[{\"com.cloud.agent.api.PingCommand\":{}}]").await;
    let dropped = |event: &management_server::Event| {
        matches!(&event.kind, EventKind::Dropped { reason } if reason.contains("before the start-up"))
            .then_some(())
    };
    server.events().find("the dropped ping", SOON, dropped).await.unwrap();
    let locked = server.host(GUID).unwrap();
    assert_eq!((locked.state, locked.attached), (HostState::Connecting, false));
    server.unlock_hosts();
    agent.become_ready().await;
    server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
}
