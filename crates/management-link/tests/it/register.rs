//! From connect to goodbye.

use role::{Health, LinkState};
use serde_json::json;

use crate::bench::{Bench, GUID, config};
use crate::server::{Server, ready};

#[tokio::test]
async fn an_agent_registers_pings_and_says_goodbye() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    assert!(matches!(bench.health(), Health::Starting | Health::Ready | Health::Degraded { .. }));

    let mut conversation = server.accept().await;
    let startup = conversation.startup().await;
    assert_eq!((startup.sequence, startup.management), (0, -1));
    assert_eq!((startup.agent, startup.via), (-1, -1));
    assert_eq!(startup.class(), "StartupSecondaryStorageCommand");
    assert_eq!(startup.body()["guid"], GUID);
    assert_eq!(startup.body()["msHostList"], "127.0.0.1");
    assert_eq!(startup.body()["dataCenter"], "z1");
    bench.reaches(LinkState::Registering).await;
    assert!(matches!(bench.health(), Health::Degraded { .. }));

    conversation.host = 12;
    let answer = conversation.ask("com.cloud.agent.api.ReadyCommand", &ready(12)).await;
    assert_eq!(answer.class(), "ReadyAnswer");
    let mut second = ready(12);
    second["msHostList"] = json!(["127.0.0.1", "10.9.9.9"]);
    second["lbAlgorithm"] = json!("static");
    conversation.ask("com.cloud.agent.api.ReadyCommand", &second).await;
    bench.attached().await;
    assert_eq!(bench.health(), Health::Ready);
    assert_eq!(bench.link.host_id(), Some(12));

    bench.beat();
    let ping = conversation.receive().await;
    assert_eq!((ping.flags, ping.sequence, ping.agent), (0x03, 1, 12));
    assert_eq!(ping.class(), "PingStorageCommand");
    assert_eq!(ping.body()["hostId"], 12);
    conversation.answer_ping(&ping, &json!({"result": true})).await;
    // The answer to this command comes after the ping answer was read.
    conversation.ask("com.cloud.agent.api.CheckHealthCommand", &json!({})).await;
    let report = bench.report();
    assert!(report.round_trip.is_some() && report.last_answer >= report.last_ping);
    assert_eq!(report.ping_interval.map(|interval| interval.as_secs()), Some(60));
    assert_eq!(report.peer, Some(server.address));

    let agent = bench.agent.clone();
    let stopping = tokio::spawn(bench.stop());
    let goodbye = conversation.receive().await;
    assert_eq!((goodbye.flags, goodbye.sequence, goodbye.agent), (0x07, -1, 12));
    assert_eq!(goodbye.class(), "ShutdownCommand");
    assert_eq!(goodbye.body()["reason"], "sig.kill");
    drop(conversation);
    stopping.await.unwrap();
    assert_eq!(*agent.seen.lock().unwrap(), ["attached 12", "detached"]);
}

#[tokio::test]
async fn a_stop_without_ready_closes_at_its_bound_without_a_goodbye() {
    let server = Server::start().await;
    let mut management = config(&[&server]);
    management.limits.drain_timeout = std::time::Duration::from_millis(50);
    management.limits.goodbye_timeout = std::time::Duration::from_millis(50);
    let bench = Bench::with(management, None);
    let mut conversation = server.accept().await;
    conversation.startup().await;
    bench.reaches(LinkState::Registering).await;
    let stopping = tokio::spawn(bench.stop());
    assert!(conversation.try_receive().await.is_none());
    stopping.await.unwrap();
}

#[tokio::test]
async fn the_identity_survives_a_restart() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    let body = json!({"msList": ["127.0.0.1"], "lbAlgorithm": "roundrobin"});
    let set = "org.apache.cloudstack.agent.lb.SetupMSListCommand";
    assert_eq!(conversation.ask(set, &body).await.class(), "SetupMSListAnswer");
    let stopping = tokio::spawn(bench.stop());
    assert_eq!(conversation.receive().await.class(), "ShutdownCommand");
    drop(conversation);
    let directory = stopping.await.unwrap();

    let bench = Bench::with(config(&[&server]), Some(directory));
    let (conversation, startup) = server.register(12).await;
    assert_eq!((startup.sequence, startup.agent, startup.via), (0, 12, 12));
    assert_eq!(startup.body()["id"], 12);
    assert_eq!(startup.body()["msHostList"], "127.0.0.1@roundrobin");
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_refusal_is_shown_in_the_servers_words_and_retried() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let words = "java.lang.IllegalArgumentException: Host 10.1.1.21 sent incorrect data center: z1";
    let mut conversation = server.accept().await;
    conversation.startup().await;
    let refusal = json!([{"com.cloud.agent.api.ReadyCommand": {"_details": words}}]);
    conversation.send(0x07, -1, &refusal).await;
    // Not answered; the agent closes.
    assert!(conversation.try_receive().await.is_none());
    bench.fails_with(words).await;
    match bench.health() {
        Health::Degraded { reason } => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    }
    let (conversation, _) = server.register(12).await;
    bench.attached().await;
    assert_eq!(bench.health(), Health::Ready);
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn commands_before_ready_are_answered() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let mut conversation = server.accept().await;
    conversation.startup().await;
    conversation.host = 12;
    let answer = conversation.ask("test.Echo", &json!({"early": true})).await;
    assert_eq!(answer.body()["details"], "{\"early\":true}");
    let answer = conversation.ask("com.example.Unknown", &json!({})).await;
    assert_eq!(answer.class(), "UnsupportedAnswer");
    bench.reaches(LinkState::Registering).await;
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn silence_before_ready_ends_after_the_ready_timeout() {
    let server = Server::start().await;
    let mut management = config(&[&server]);
    management.limits.ready_timeout = std::time::Duration::from_millis(50);
    let bench = Bench::with(management, None);
    let mut conversation = server.accept().await;
    conversation.startup().await;
    assert!(conversation.try_receive().await.is_none());
    bench.fails_with("did not make us ready in time").await;
    // And the next attempt comes.
    assert_eq!(server.accept().await.receive().await.flags, 0x05);
    bench.stop().await;
}

#[tokio::test]
async fn an_unanswered_startup_ends_after_its_timeout() {
    let server = Server::start().await;
    let mut management = config(&[&server]);
    management.limits.startup_timeout = std::time::Duration::from_millis(50);
    let bench = Bench::with(management, None);
    let mut conversation = server.accept().await;
    assert_eq!(conversation.receive().await.flags, 0x05);
    assert!(conversation.try_receive().await.is_none());
    bench.fails_with("did not answer the startup command").await;
    bench.stop().await;
}
