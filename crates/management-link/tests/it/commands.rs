//! Requests of the server on a link that stands.

use serde_json::{Value, json};

use crate::bench::{Bench, config, reaches};
use crate::server::{Server, message};

#[tokio::test]
async fn a_mebibyte_passes_both_ways_and_many_at_a_time_stay_apart() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    // Random letters: gzip must not make it small.
    let mut state = 1_u32;
    let text: String = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + u8::try_from(state >> 28).unwrap())
        })
        .collect();
    let answer = conversation.ask("test.Echo", &json!({"x": text})).await;
    assert_eq!(answer.body()["details"], json!({"x": text}).to_string());

    let mut expected = std::collections::HashMap::new();
    for number in 0..20 {
        let body = json!({"n": number, "x": text.get(..100_000)});
        expected.insert(conversation.command("test.Echo", &body).await, body.to_string());
    }
    for _answer in 0..20 {
        let answer = conversation.receive().await;
        let wanted = expected.remove(&answer.sequence).expect("each answer once");
        assert_eq!(answer.body()["details"], Value::String(wanted));
    }
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_peer_that_writes_a_byte_at_a_time_is_understood() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let mut conversation = server.accept().await;
    conversation.peer.step = 1;
    conversation.startup().await;
    conversation.host = 12;
    for _ready in 0..2 {
        let body = crate::server::ready(12);
        conversation.ask("com.cloud.agent.api.ReadyCommand", &body).await;
    }
    let answer = conversation.ask("test.Echo", &json!({"x": "y".repeat(3000)})).await;
    assert_eq!(answer.class(), "Answer");
    bench.attached().await;
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn several_commands_have_as_many_answers_in_order() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    let request = json!([
        {"test.Echo": {"n": 1}},
        {"com.cloud.agent.api.CheckHealthCommand": {}},
        {"test.Panics": {}},
        {"test.Echo": {"n": 2}},
    ]);
    for (flags, last) in [(0x23, "Stopped by previous failure"), (0x21, "{\"n\":2}")] {
        conversation.send(flags, 5, &request).await;
        let answer = conversation.receive().await;
        assert_eq!(answer.flags, flags & 0x06);
        let classes: Vec<&str> = (0..4).map(|index| answer.element(index).0).collect();
        assert_eq!(classes, ["Answer", "CheckHealthAnswer", "Answer", "Answer"]);
        let details = answer.element(2).1["details"].as_str().unwrap();
        assert!(details.starts_with("internal error, see log "), "{details}");
        assert_eq!(answer.element(3).1["details"], last);
    }
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_as_long_as_its_header_can() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    let mut bytes = message(0x27, 9, 12, &json!([{"test.Echo": {}}]));
    let end = bytes.len() - 1;
    bytes[end] = b'x';
    conversation.peer.send(&bytes).await.unwrap();
    let answer = conversation.receive().await;
    assert_eq!((answer.flags, answer.sequence, answer.class()), (0x06, 9, "Answer"));
    assert_eq!(answer.body()["result"], false);
    // A compressed body that is not gzip.
    bytes[3] |= 0x80;
    conversation.peer.send(&bytes).await.unwrap();
    assert_eq!(conversation.receive().await.body()["result"], false);
    // The link goes on.
    assert_eq!(conversation.ask("test.Echo", &json!({})).await.body()["result"], true);
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn long_handlers_hold_up_neither_each_other_nor_the_session() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    for _command in 0..200 {
        conversation.command("test.Waits", &json!({})).await;
    }
    reaches(&bench.agent.waiting, 200).await;
    assert_eq!(conversation.ask("test.Echo", &json!({})).await.class(), "Answer");
    let ready = crate::server::ready(12);
    let answer = conversation.ask("com.cloud.agent.api.ReadyCommand", &ready).await;
    assert_eq!(answer.class(), "ReadyAnswer");
    assert_eq!(bench.report().in_flight, 200);
    bench.agent.gate.add_permits(200);
    for _answer in 0..200 {
        assert_eq!(conversation.receive().await.body()["details"], "Some(12)");
    }
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_full_set_pauses_reading_and_loses_nothing() {
    let server = Server::start().await;
    let mut management = config(&[&server]);
    management.limits.max_commands = 2;
    let bench = Bench::with(management, None);
    let (mut conversation, _) = server.register(12).await;
    for _command in 0..10 {
        conversation.command("test.Waits", &json!({})).await;
    }
    reaches(&bench.agent.waiting, 2).await;
    // Nothing is read, so missing answers prove nothing.
    for _ping in 0..5 {
        bench.beat();
        assert_eq!(conversation.receive().await.class(), "PingStorageCommand");
    }
    assert_eq!(*bench.agent.waiting.borrow(), 2);
    bench.agent.gate.add_permits(10);
    for _answer in 0..10 {
        assert_eq!(conversation.receive().await.class(), "Answer");
    }
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_stop_lets_running_commands_finish_before_the_goodbye() {
    let server = Server::start().await;
    let bench = Bench::start(&server);
    let (mut conversation, _) = server.register(12).await;
    conversation.command("test.Waits", &json!({})).await;
    reaches(&bench.agent.waiting, 1).await;
    let agent = bench.agent.clone();
    bench.cx.shutdown.cancel();
    bench.reaches(role::LinkState::Draining).await;
    agent.gate.add_permits(1);
    assert_eq!(conversation.receive().await.class(), "Answer");
    assert_eq!(conversation.receive().await.class(), "ShutdownCommand");
    drop(conversation);
    bench.stop().await;
}
