//! Pings, goodbyes, odd messages and the order of commands.

use std::time::Duration;

use agent_protocol::Envelope;
use agent_protocol::agent::{CheckHealthCommand, MaintainCommand};
use management_server::{EventKind, HostState, ManagementServer, SendError};

use crate::agent::{Agent, BASE, frame};
use crate::recorded::{assert_like, conversation, line};
use crate::{SOON, bare, start};

const GUID: &str = "agent-h-NfsSecondaryStorageResource";

async fn registered(server: &ManagementServer) -> Agent {
    let mut agent = Agent::connect(server).await;
    agent.start_up(&conversation("link-no-pings")[0].text()).await;
    agent.become_ready().await;
    server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
    agent
}

#[tokio::test]
async fn pings_are_answered_as_recorded() {
    let server = start(bare()).await;
    let mut agent = registered(&server).await;
    let answer = agent.ping().await;
    let lines = conversation("link-odd-requests");
    let recorded = lines.iter().find(|line| line.class() == "PingAnswer").unwrap();
    assert_like(&answer, recorded);
    assert_eq!(answer.body()["_command"]["hostId"], agent.host);
    assert_eq!((answer.agent, answer.via), (agent.host, agent.host));
}

#[tokio::test]
async fn a_ping_before_the_host_is_bound_gets_no_answer() {
    let server = start(bare()).await;
    let mut agent = Agent::connect(&server).await;
    agent.request(0x03, &format!(r#"[{{"com.cloud.agent.api.PingCommand":{{{BASE}}}}}]"#)).await;
    agent.start_up(&conversation("link-no-pings")[0].text()).await;
    assert_eq!(agent.receive().await.class(), "ReadyCommand");
    let mut events = server.events();
    let reason = events.find("the drop", SOON, |event| match &event.kind {
        EventKind::Dropped { reason } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.await.unwrap(), "request before the start-up command");
}

#[tokio::test]
async fn while_connecting_every_ping_asks_for_a_new_start_up() {
    let server = start(bare()).await;
    let lines = conversation("link-ready-unanswered");
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&lines[0].text()).await;
    let ready = agent.receive().await;
    assert_like(&ready, &lines[2]);
    agent.host = ready.body()["hostId"].as_i64().unwrap();
    for _ in 0..2 {
        assert_like(&agent.ping().await, &lines[4]);
    }
    assert_eq!(server.hosts()[0].state, HostState::Connecting);
    agent.answer_well(&ready).await;
    assert_eq!(agent.receive().await.class(), "ReadyCommand");
    assert_eq!(agent.ping().await.body()["sendStartup"], false);
}

#[tokio::test]
async fn an_agent_that_does_not_ping_is_closed_and_disconnected() {
    let mut config = bare();
    config.ping_timeout = Duration::from_millis(300);
    let server = start(config).await;
    let mut agent = registered(&server).await;
    agent.expect_close().await;
    server.wait_for_host(GUID, HostState::Disconnected, SOON).await.unwrap();
}

#[tokio::test]
async fn a_goodbye_disconnects_and_a_lost_link_alerts() {
    let server = start(bare()).await;
    let mut agent = registered(&server).await;
    let lines = conversation("link-odd-requests");
    let goodbye = lines.last().unwrap();
    assert_eq!(goodbye.class(), "ShutdownCommand");
    agent.send(goodbye.flags, -1, -1, agent.host, goodbye.text().as_bytes()).await;
    agent.expect_close().await;
    server.wait_for_host(GUID, HostState::Disconnected, SOON).await.unwrap();

    let agent = registered(&server).await;
    drop(agent);
    let host = server.wait_for_host(GUID, HostState::Alert, SOON).await.unwrap();
    assert_eq!((host.attached, host.connects), (false, 2));
}

#[tokio::test]
async fn a_goodbye_while_connecting_leaves_a_row_that_is_up_without_an_agent() {
    let server = start(bare()).await;
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&conversation("link-no-pings")[0].text()).await;
    let ready = agent.receive().await;
    let text = conversation("link-odd-requests").last().unwrap().text();
    agent.send(0x07, -1, -1, ready.agent, text.as_bytes()).await;
    let host = server.wait_for_host(GUID, HostState::Up, SOON).await.unwrap();
    assert!(!host.attached);
}

#[tokio::test]
async fn a_refused_first_ready_command_ends_the_link() {
    let server = start(bare()).await;
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&conversation("link-no-pings")[0].text()).await;
    let ready = agent.receive().await;
    let no = format!(r#"[{{"com.cloud.agent.api.ReadyAnswer":{{"result":false,{BASE}}}}}]"#);
    agent.answer_raw(&ready, &no).await;
    agent.expect_close().await;
    server.wait_for_host(GUID, HostState::Alert, SOON).await.unwrap();
}

#[tokio::test]
async fn odd_requests_are_answered_or_dropped_as_recorded() {
    let server = start(bare()).await;
    let mut agent = registered(&server).await;
    let lines = conversation("link-odd-requests");
    for recorded in lines.iter().filter(|line| line.pair.is_some() && line.from_server) {
        let request = line(&lines, recorded.pair.unwrap());
        if request.class().starts_with("Startup") || request.class().starts_with("Ping") {
            continue;
        }
        agent.request(request.flags, &request.text()).await;
        assert_like(&agent.receive().await, recorded);
    }
    // Not a word about these: a body that is not JSON, a length that does not fit, too short.
    agent.message(&frame(0x07, 9, 255, 255, 255, 4, b"what")).await;
    agent.message(&frame(0x03, 9, -1, agent.host, agent.host, 99, b"[]")).await;
    agent.message(&[0; 20]).await;
    assert_eq!(agent.ping().await.class(), "PingAnswer");
    let dropped = server.events().drain().into_iter();
    let dropped = dropped.filter(|event| matches!(event.kind, EventKind::Dropped { .. })).count();
    assert_eq!(dropped, 3);
}

#[tokio::test]
async fn in_sequence_commands_wait_for_each_other_and_others_do_not() {
    let server = start(bare()).await;
    let mut agent = registered(&server).await;
    let send = |command: Envelope, in_sequence: bool| {
        let server = server.clone();
        tokio::spawn(async move { server.send(GUID, command, in_sequence, SOON).await })
    };
    let maintain = || Envelope::of(&MaintainCommand::default());
    let first = send(maintain(), true);
    let one = agent.receive().await;
    let second = send(maintain(), true);
    let third = send(Envelope::of(&CheckHealthCommand::default()), false);
    let health = agent.receive().await;
    assert_eq!((one.flags, health.flags), (0x27, 0x23));
    assert_eq!(health.class(), "CheckHealthCommand");
    agent.answer(&health, "com.cloud.agent.api.CheckHealthAnswer", "").await;
    third.await.unwrap().unwrap();
    agent.answer(&one, "com.cloud.agent.api.MaintainAnswer", r#""willMigrate":true"#).await;
    let two = agent.receive().await;
    assert_eq!((two.class(), two.seq > one.seq), ("MaintainCommand", true));
    assert!(first.await.unwrap().unwrap().body.get().contains("willMigrate"));
    agent.answer(&two, "com.cloud.agent.api.MaintainAnswer", "").await;
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_breaks_a_header_rule_is_dropped_and_the_caller_times_out() {
    let server = start(bare()).await;
    let mut agent = registered(&server).await;
    let sent = {
        let server = server.clone();
        let command = Envelope::of(&CheckHealthCommand::default());
        tokio::spawn(
            async move { server.send(GUID, command, false, Duration::from_millis(300)).await },
        )
    };
    let command = agent.receive().await;
    let body = format!(r#"[{{"com.cloud.agent.api.CheckHealthAnswer":{{"result":true,{BASE}}}}}]"#);
    let (seq, mgmt, host) = (command.seq, command.mgmt, command.agent);
    for (flags, seq, mgmt, host) in [
        (0x22, seq, mgmt, host),
        (0x02, seq + 1, mgmt, host),
        (0x02, seq, -1, host),
        (0x02, seq, mgmt, host + 1),
    ] {
        agent.send(flags, seq, mgmt, host, body.as_bytes()).await;
    }
    assert!(matches!(sent.await.unwrap(), Err(SendError::Timeout { .. })));
    agent.ping().await;
    let dropped = server.events().drain().into_iter();
    let dropped = dropped.filter(|event| matches!(event.kind, EventKind::Dropped { .. })).count();
    assert_eq!(dropped, 4);
}

#[tokio::test]
async fn callers_are_woken_when_the_link_is_lost() {
    let server = start(bare()).await;
    let mut agent = registered(&server).await;
    let sent = {
        let server = server.clone();
        let command = Envelope::of(&CheckHealthCommand::default());
        tokio::spawn(async move { server.send(GUID, command, false, SOON).await })
    };
    agent.receive().await;
    drop(agent);
    assert!(matches!(sent.await.unwrap(), Err(SendError::Lost { .. })));
    let command = Envelope::of(&CheckHealthCommand::default());
    let gone = server.send(GUID, command, false, SOON).await;
    assert_eq!(gone.unwrap_err(), SendError::Detached(GUID.to_owned()));
}

#[tokio::test]
async fn large_and_compressed_messages_pass_both_ways() {
    let server = start(bare()).await;
    let mut agent = registered(&server).await;
    // 40 KiB of plaintext: three packets.
    let ballast = "x".repeat(40_000);
    let large = format!(r#"[{{"com.cloud.agent.api.NoSuchCommand":{{"a":"{ballast}",{BASE}}}}}]"#);
    agent.request(0x03, &large).await;
    assert_eq!(agent.receive().await.class(), "Answer");
    let names = (0..3000).map(|number| format!("k{number}")).collect::<Vec<_>>().join(",");
    let text = format!(r#"{{"params":{{"names":"{names}"}},{BASE}}}"#);
    let command = Envelope {
        class: "com.cloud.agent.api.SetHostParamsCommand".to_owned(),
        body: serde_json::value::RawValue::from_string(text).unwrap(),
    };
    let sent = {
        let server = server.clone();
        tokio::spawn(async move { server.send(GUID, command, true, SOON).await })
    };
    let received = agent.receive().await;
    assert_eq!(received.flags, 0xa7);
    assert_eq!(received.body()["params"]["names"], names);
    agent.answer_well(&received).await;
    sent.await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_closes_links_and_the_listener() {
    let server = start(bare()).await;
    let mut agent = registered(&server).await;
    assert!(server.shutdown().await);
    agent.expect_close().await;
    assert!(tokio::net::TcpStream::connect(server.address()).await.is_err());
}
