//! The role stops, at any moment and in any manner: nothing that the server asked stays open.

use std::time::Duration;

use role::LinkState;
use serde_json::json;

use crate::bench::{Bench, config, reaches};
use crate::server::{Conversation, Server, ready};

const READY: &str = "com.cloud.agent.api.ReadyCommand";
const DOWNLOAD: &str = "org.apache.cloudstack.storage.command.DownloadCommand";

/// The steps of a server that connects us.
const STEPS: usize = 4;

async fn step(conversation: &mut Conversation, number: usize) {
    match number {
        0 | 1 => {
            let answer = conversation.ask("test.Echo", &json!({"step": number})).await;
            assert_eq!(answer.class(), "Answer");
        }
        _ => {
            let answer = conversation.ask(READY, &ready(12)).await;
            assert_eq!(answer.class(), "ReadyAnswer");
        }
    }
}

#[tokio::test]
async fn a_stop_at_any_step_of_a_connect_leaves_nothing_open_and_ends_with_the_goodbye() {
    for stop_before in 0..=STEPS {
        let server = Server::start().await;
        let bench = Bench::start(&server);
        let mut conversation = server.accept().await;
        conversation.startup().await;
        conversation.host = 12;
        for number in 0..STEPS {
            if number == stop_before {
                bench.cx.shutdown.cancel();
                bench.reaches(LinkState::Draining).await;
            }
            step(&mut conversation, number).await;
        }
        bench.cx.shutdown.cancel();
        assert_eq!(conversation.receive().await.class(), "ShutdownCommand", "{stop_before}");
        drop(conversation);
        bench.stop().await;
    }
}

/// What a panic of the role's main task or its abort does to the future of `serve`.
#[tokio::test]
async fn the_link_outlives_the_role_that_served_it_until_all_is_answered() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let mut conversation = server.accept().await;
    conversation.startup().await;
    conversation.host = 12;
    conversation.command("test.Waits", &json!({})).await;
    reaches(&bench.agent.waiting, 1).await;
    bench.serving.abort();
    // As the supervisor does whatever way a run ended.
    bench.cx.shutdown.cancel();
    bench.reaches(LinkState::Draining).await;
    bench.agent.gate.add_permits(1);
    assert_eq!(conversation.receive().await.class(), "Answer");
    for number in 1..STEPS {
        step(&mut conversation, number).await;
    }
    assert_eq!(conversation.receive().await.class(), "ShutdownCommand");
    drop(conversation);
    bench.cx.tasks.close();
    bench.cx.tasks.wait().await;
}

#[tokio::test]
async fn at_the_bound_what_is_owed_fails_by_its_class_and_is_written_before_the_end() {
    let server = Server::start().await;
    let mut management = config(&[&server]);
    management.limits.drain_timeout = Duration::from_millis(100);
    management.limits.goodbye_timeout = Duration::from_secs(1);
    let bench = Bench::with(management, None);
    let mut conversation = server.accept().await;
    conversation.startup().await;
    conversation.host = 12;
    let mut owed = vec![conversation.command("test.Waits", &json!({})).await];
    for _download in 0..100 {
        owed.push(conversation.command(DOWNLOAD, &json!({"wait": 1})).await);
    }
    reaches(&bench.agent.waiting, 1).await;
    let stopping = tokio::spawn(bench.stop());
    let mut answered = Vec::new();
    while let Some(answer) = conversation.try_receive().await {
        let download = answer.sequence != owed[0];
        assert_eq!(answer.class(), if download { "DownloadAnswer" } else { "UnsupportedAnswer" });
        assert_eq!(answer.body()["result"], false);
        answered.push(answer.sequence);
        if answered.len() == 101 {
            // One more in the last second.
            owed.push(conversation.command(DOWNLOAD, &json!({})).await);
        }
    }
    answered.sort_unstable();
    assert!(answered == owed, "{} of {}", answered.len(), owed.len());
    drop(conversation);
    stopping.await.unwrap();
}

#[tokio::test]
async fn answers_that_a_slow_server_has_not_read_yet_are_not_lost_at_the_end() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    // More than the buffers of a connection hold.
    let text = "x".repeat(1 << 20);
    for _command in 0..12 {
        conversation.command("test.Big", &json!({"size": text.len()})).await;
    }
    reaches(&bench.agent.finished, 12).await;
    let stopping = tokio::spawn(bench.stop());
    for _command in 0..12 {
        let answer = conversation.receive().await;
        assert_eq!(answer.body()["details"].as_str().map(str::len), Some(text.len()));
    }
    assert_eq!(conversation.receive().await.class(), "ShutdownCommand");
    drop(conversation);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_downloads_that_can_answer_at_once() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    conversation.command("test.Download", &json!({})).await;
    reaches(&bench.agent.waiting, 1).await;
    let stopping = tokio::spawn(bench.stop());
    assert_eq!(conversation.receive().await.body()["details"], "in progress");
    assert_eq!(conversation.receive().await.class(), "ShutdownCommand");
    drop(conversation);
    stopping.await.unwrap();
}

#[tokio::test]
async fn waiting_downloads_delay_neither_lists_nor_deletes_nor_pings() {
    let server = Server::start().await;
    let mut management = config(&[&server]);
    management.limits.max_commands = 8;
    let bench = Bench::with(management, None);
    let (mut conversation, _) = server.register(12).await;
    for _download in 0..30 {
        conversation.command("test.Download", &json!({})).await;
    }
    let (mut early, mut lists) = (0, 0);
    let list = conversation.command("test.Echo", &json!({})).await;
    bench.beat();
    let mut pinged = false;
    // All but the four that may wait answer now; a list in between is not held up.
    while early < 26 || lists == 0 || !pinged {
        let message = conversation.receive().await;
        match message.class() {
            "PingStorageCommand" => pinged = true,
            _ if message.sequence == list => lists += 1,
            _ => early += 1,
        }
    }
    assert!(bench.report().in_flight <= 4);
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_server_that_reads_no_answers_loses_the_link_instead_of_one_of_them() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    for _command in 0..12 {
        conversation.command("test.Big", &json!({"size": 1 << 20})).await;
    }
    reaches(&bench.agent.finished, 12).await;
    let health = "com.cloud.agent.api.CheckHealthCommand";
    for _command in 0..100 {
        // The link may end before all are written.
        conversation.sequence += 1;
        let bytes = crate::server::message(0x23, conversation.sequence, 12, &json!([{health: {}}]));
        if conversation.peer.send(&bytes).await.is_err() {
            break;
        }
    }
    bench.fails_with("there is no room for an answer").await;
    let (conversation, _) = server.register(12).await;
    drop(conversation);
    bench.stop().await;
}
