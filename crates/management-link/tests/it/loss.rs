//! Links that end, and what becomes of the work on them.

use std::time::Duration;

use agent_protocol::agent::{AgentControlCommand, PingCommand};
use management_link::LinkError;
use role::{Health, LinkState};
use serde_json::json;

use crate::bench::{Bench, config, reaches};
use crate::server::{LIMIT, Server, message};

#[tokio::test]
async fn a_lost_link_is_made_anew_and_work_goes_on_without_its_answer() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    conversation.command("test.Waits", &json!({})).await;
    reaches(&bench.agent.waiting, 1).await;
    drop(conversation);

    let (mut conversation, startup) = server.register(12).await;
    assert_eq!(startup.agent, 12);
    bench.attached().await;
    assert_eq!(bench.report().in_flight, 1);
    bench.agent.gate.add_permits(1);
    reaches(&bench.agent.finished, 1).await;
    // The next thing on the new link is the answer to its own command, not the old one's.
    let answer = conversation.ask("test.Echo", &json!({"new": 1})).await;
    assert_eq!(answer.body()["details"], "{\"new\":1}");
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_request_on_a_lost_link_fails_at_once() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let asked = bench.link.request(&AgentControlCommand::default(), LIMIT).await;
    assert!(matches!(asked, Err(LinkError::NotAttached)), "{asked:?}");

    let (mut conversation, _) = server.register(12).await;
    bench.attached().await;
    let link = bench.link.clone();
    let asked = tokio::spawn(async move {
        link.request(&AgentControlCommand::default(), Duration::from_secs(600)).await
    });
    assert_eq!(conversation.receive().await.class(), "AgentControlCommand");
    drop(conversation);
    assert!(matches!(asked.await.unwrap(), Err(LinkError::Lost)));
    bench.stop().await;
}

#[tokio::test]
async fn a_server_that_answers_no_ping_is_left() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    bench.attached().await;
    for _ping in 0..3 {
        bench.beat();
        assert_eq!(conversation.receive().await.class(), "PingStorageCommand");
    }
    bench.beat();
    assert!(conversation.try_receive().await.is_none());
    let (conversation, _) = server.register(12).await;
    bench.attached().await;
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn send_startup_makes_a_new_link() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    bench.attached().await;
    bench.beat();
    let ping = conversation.receive().await;
    conversation.answer_ping(&ping, &json!({"result": true, "sendStartup": true})).await;
    assert!(conversation.try_receive().await.is_none());
    let (conversation, _) = server.register(12).await;
    bench.attached().await;
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_guid_used_twice_is_said_plainly() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    for _takeover in 0..3 {
        let (conversation, _) = server.register(12).await;
        bench.attached().await;
        drop(conversation);
        bench.reaches(LinkState::Disconnected).await;
    }
    let error = bench.fails_with("another agent uses our guid").await;
    assert!(error.contains(crate::bench::GUID), "{error}");
    match bench.health() {
        Health::Degraded { reason } => assert!(reason.contains("another agent"), "{reason}"),
        other => panic!("{other:?}"),
    }
    bench.stop().await;
}

#[tokio::test]
async fn violations_of_the_format_end_the_link_with_their_name() {
    let server = Server::start().await;
    let mut management = config(&[&server]);
    management.limits.max_message = 100_000;
    let bench = Bench::with(management, None);

    let (mut conversation, _) = server.register(12).await;
    conversation.peer.write(&[0, 0, 0x46, 0x51]).await.unwrap();
    conversation.end().await;
    bench.fails_with("packet header announces 18001 bytes").await;

    let (mut conversation, _) = server.register(12).await;
    let records = conversation.peer.seal(b"cut off");
    conversation.peer.write_packet(true, &records[..10]).await.unwrap();
    conversation.end().await;
    bench.fails_with("does not end with a TLS record").await;

    let (mut conversation, _) = server.register(12).await;
    let long = message(0x27, 1, 12, &json!([{"test.Echo": {"x": "y".repeat(100_000)}}]));
    conversation.peer.send(&long).await.unwrap();
    conversation.end().await;
    bench.fails_with("message of more than 100000 bytes").await;

    let (mut conversation, _) = server.register(12).await;
    conversation.peer.send(b"too short for a header").await.unwrap();
    conversation.end().await;
    bench.fails_with("frame ends after 22 of 40 header bytes").await;

    let (mut conversation, _) = server.register(12).await;
    let records = conversation.peer.seal(b"cut off");
    let bytes = [&[0, 0, 0, 200], records.as_slice()].concat();
    conversation.peer.write(&bytes).await.unwrap();
    drop(conversation);
    bench.fails_with("in the middle of a packet").await;
    bench.stop().await;
}

#[tokio::test]
async fn a_request_may_time_out_and_its_late_answer_hurts_nobody() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    bench.attached().await;
    let wait = Duration::from_millis(20);
    let asked = bench.link.request(&AgentControlCommand::default(), wait).await;
    assert!(matches!(asked, Err(LinkError::Timeout(_))), "{asked:?}");
    let late = conversation.receive().await;
    let answer = json!([{"com.cloud.agent.api.AgentControlAnswer": {"result": true}}]);
    conversation.send(0x22, late.sequence, &answer).await;

    // Another class than the command's answer is told with its words.
    let link = bench.link.clone();
    let asked = tokio::spawn(async move { link.request(&PingCommand::default(), LIMIT).await });
    let request = conversation.receive().await;
    assert_eq!((request.flags, request.agent), (0x03, 12));
    let answer = json!([{"com.cloud.agent.api.Answer": {"result": false, "details": "no row"}}]);
    conversation.send(0x22, request.sequence, &answer).await;
    match asked.await.unwrap() {
        Err(LinkError::UnexpectedAnswer { class, details }) => {
            assert_eq!((class.as_str(), details.as_deref()), ("Answer", Some("no row")));
        }
        other => panic!("{other:?}"),
    }
    drop(conversation);
    bench.stop().await;
}

/// A burst of consoles asks more at once than the queue to the writer holds.
#[tokio::test]
async fn a_burst_of_requests_is_sent_in_full() {
    const COUNT: usize = 500;
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    bench.attached().await;
    let asked: Vec<_> = (0..COUNT)
        .map(|_| {
            let link = bench.link.clone();
            tokio::spawn(async move {
                link.request(&AgentControlCommand::default(), LIMIT).await.map(|_answer| ())
            })
        })
        .collect();
    let yes = json!([{"com.cloud.agent.api.AgentControlAnswer": {"result": true}}]);
    for _ in 0..COUNT {
        let request = conversation.receive().await;
        conversation.send(0x22, request.sequence, &yes).await;
    }
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    drop(conversation);
    bench.stop().await;
}
