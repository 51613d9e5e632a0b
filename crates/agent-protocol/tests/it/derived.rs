//! The messages that the protocol's rules say an agent and a server exchange.

use agent_protocol::agent::*;
use agent_protocol::console::*;
use agent_protocol::frame::DEFAULT_MAX_INFLATED;
use agent_protocol::packet::PacketHeader;
use agent_protocol::{
    AgentRequest, Envelope, Flags, Frame, catalogue, encode_envelopes, unsupported,
};

use crate::vectors::{Derived, derived, hex};

fn frame(id: &str) -> Frame {
    let vectors = derived();
    let vector = vectors.iter().find(|vector| vector.id == id).unwrap();
    Frame::decode(&vector.message(), DEFAULT_MAX_INFLATED).unwrap()
}

fn json(id: &str) -> String {
    derived().into_iter().find(|vector| vector.id == id).unwrap().json
}

#[test]
fn every_vector_survives_typing_byte_for_byte() {
    for Derived { id, .. } in derived() {
        let frame = frame(&id);
        let typed: Vec<_> = frame
            .envelopes()
            .unwrap()
            .iter()
            .map(|envelope| match catalogue::rewrite(envelope) {
                Some(typed) => typed.unwrap(),
                None => panic!("{id}: {} has no typed body", envelope.class),
            })
            .collect();
        assert_eq!(String::from_utf8(encode_envelopes(&typed)).unwrap(), json(&id), "{id}");
        assert_eq!(Frame::new(frame.header, &typed), frame, "{id}");
    }
}

#[test]
fn packets_of_the_vectors_have_the_documented_header() {
    let overhead = 5 + 8 + 16;
    for vector in derived() {
        if let Some(packet) = &vector.packet {
            let size = vector.message().len() + overhead;
            assert_eq!(hex(&PacketHeader::new(size, false).unwrap().encode()), *packet);
        }
    }
}

#[test]
fn answers_have_the_header_of_the_vectors() {
    for (request, response) in [
        ("V03", "V04"),
        ("V05", "V06"),
        ("V17", "V18"),
        ("V19", "V20"),
        ("V21", "V22"),
        ("V27", "V28"),
    ] {
        let answers = frame(response).envelopes().unwrap();
        let ours = Frame::response(&frame(request).header, &answers);
        assert_eq!(ours.encode(), frame(response).encode(), "{request} -> {response}");
    }
}

#[test]
fn a_server_answers_with_the_header_of_the_vectors() {
    for (request, response) in [("V01", "V02"), ("V08", "V09"), ("V12", "V13"), ("V14", "V15")] {
        let expected = frame(response);
        let header = frame(request)
            .header
            .server_response(expected.header.management_id, expected.header.via);
        let answers = expected.envelopes().unwrap();
        assert_eq!(Frame::new(header, &answers), expected, "{request} -> {response}");
    }
}

#[test]
fn an_agents_own_messages_are_the_vectors() {
    let start = frame("V01").envelopes().unwrap();
    assert_eq!(Frame::request(Flags::STARTUP, 0, -1, &start), frame("V01"));

    let ping = Envelope::of(&PingStorageCommand::new(5));
    let expected = frame("V08");
    let ours = Frame::request(Flags::AGENT_REQUEST, expected.header.sequence, 5, &[ping]);
    assert_eq!(ours, expected);

    let ping = Envelope::of(&PingCommand::new(HostType::ConsoleProxy, 7));
    let expected = frame("V11");
    let ours = Frame::request(Flags::AGENT_REQUEST, expected.header.sequence, 7, &[ping]);
    assert_eq!(ours, expected);

    let farewell = Envelope::of(&ShutdownCommand::stopped());
    let expected = frame("V16");
    let ours = Frame::request(Flags::SHUTDOWN, -1, expected.header.agent_id, &[farewell]);
    assert_eq!(ours, expected);

    let alive = Envelope::of(&CheckHealthAnswer::alive(true));
    let maintain = Envelope::of(&MaintainAnswer { will_migrate: true, ..Default::default() });
    assert_eq!(frame("V28").envelopes().unwrap(), [alive, maintain]);
}

#[test]
fn a_command_of_an_unknown_class_gets_the_documented_answer() {
    let class = "com.cloud.agent.api.SomeNewCommand".to_owned();
    let body = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
    let answer = unsupported(&Envelope { class, body });
    assert_eq!(String::from_utf8(encode_envelopes(&[answer])).unwrap(), json("V26"));
}

#[test]
fn a_compressed_vector_of_another_writer_reads() {
    let frame = frame("V29");
    assert!(frame.header.flags.contains(Flags::COMPRESSED));
    let [answer] = &frame.envelopes().unwrap()[..] else { panic!("one answer") };
    let answer: PlainAnswer = answer.open().unwrap();
    assert_eq!(answer.base.details.unwrap(), "x".repeat(9000));
    let again = Frame::decode(&frame.encode(), DEFAULT_MAX_INFLATED).unwrap();
    assert_eq!(again, frame);
}

#[test]
fn command_sets_open_what_belongs_to_them_and_keep_the_rest() {
    let ready = frame("V05").envelopes().unwrap().remove(0);
    match AgentCommand::decode(ready.clone()).unwrap() {
        AgentCommand::Ready(ready) => assert_eq!(ready.host_id, Some(5)),
        other => panic!("{other:?}"),
    }
    match ConsoleCommand::decode(ready.clone()).unwrap() {
        ConsoleCommand::Unknown(envelope) => assert_eq!(envelope, ready),
        other => panic!("{other:?}"),
    }
    let start = frame("V10").envelopes().unwrap().remove(0);
    match AgentRequest::decode(start).unwrap() {
        AgentRequest::StartupProxy(start) => assert_eq!(start.proxy_vm_id, 2),
        other => panic!("{other:?}"),
    }
}
