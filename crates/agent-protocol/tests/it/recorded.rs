//! Every message of a real server and its original agents.

use std::collections::BTreeSet;

use agent_protocol::frame::{COMPRESS_FROM, DEFAULT_MAX_INFLATED, HEADER_LEN};
use agent_protocol::{Envelope, Flags, Frame, catalogue, encode_envelopes};

use crate::vectors::{Recorded, recorded};

/// Classes in the recording that deliberately have no typed body, with the reason.
const UNTYPED: [(&str, &str); 1] = [(
    "com.cloud.agent.api.NoSuchCommand",
    "made up, to see how the server treats a class it lacks",
)];

/// Sent to the server by a test program, not by an original agent: fields are missing or stand in
/// another order. Typing them must keep what is there.
const HAND_MADE: &[&str] = &[
    "cp-a2m-StartupProxyCommand-3",
    "ss-a2m-ConsoleAccessAuthenticationCommand-1",
    "ss-a2m-StartupSecondaryStorageCommand-3",
];

/// Every field of `sent` is in `typed`, with the same value.
fn assert_within(sent: &serde_json::Value, typed: &serde_json::Value, id: &str) {
    use serde_json::Value;
    match (sent, typed) {
        (Value::Object(sent), Value::Object(typed)) => {
            for (key, value) in sent {
                assert_within(value, &typed[key], id);
            }
        }
        (Value::Array(sent), Value::Array(typed)) => {
            assert_eq!(sent.len(), typed.len(), "{id}");
            sent.iter().zip(typed).for_each(|(sent, typed)| assert_within(sent, typed, id));
        }
        (sent, typed) => assert_eq!(sent, typed, "{id}"),
    }
}

fn decode(message: &Recorded) -> Frame {
    Frame::decode(&message.raw, DEFAULT_MAX_INFLATED)
        .unwrap_or_else(|error| panic!("{}: {error}", message.id))
}

#[test]
fn headers_read_as_recorded() {
    for message in recorded() {
        let header = decode(&message).header;
        let recorded = &message.line["hdr"];
        let number = |key: &str| match &recorded[key] {
            serde_json::Value::String(text) => text.parse::<i64>().unwrap(),
            other => other.as_i64().unwrap(),
        };
        assert_eq!(i64::from(header.flags.bits()), number("flags"), "{}", message.id);
        assert_eq!(header.sequence.0, number("seq"), "{}", message.id);
        assert_eq!(i64::from(header.length), number("size"), "{}", message.id);
        assert_eq!(header.management_id, number("mgmt"), "{}", message.id);
        assert_eq!(header.agent_id, number("agent"), "{}", message.id);
        assert_eq!(header.via, number("via"), "{}", message.id);
        let names: Vec<_> = message.line["flag_names"].as_array().unwrap().to_vec();
        let ours: Vec<_> = header.flags.names().map(serde_json::Value::from).collect();
        assert_eq!(normalised(&ours), normalised(&names), "{}", message.id);
    }
}

fn normalised(names: &[serde_json::Value]) -> BTreeSet<String> {
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_message_survives_typing_byte_for_byte() {
    for message in recorded() {
        let frame = decode(&message);
        let envelopes = frame.envelopes().unwrap();
        let classes: Vec<_> = envelopes.iter().map(|e| e.class.as_str()).collect();
        assert_eq!(serde_json::json!(classes), message.line["classes"], "{}", message.id);
        let typed: Vec<Envelope> = envelopes
            .iter()
            .map(|envelope| match catalogue::rewrite(envelope) {
                Some(typed) => typed.unwrap_or_else(|error| panic!("{}: {error}", message.id)),
                None => envelope.clone(),
            })
            .collect();
        let body = encode_envelopes(&typed);
        if HAND_MADE.contains(&message.id.as_str()) {
            let value = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).unwrap();
            assert_within(&value(&frame.body), &value(&body), &message.id);
            continue;
        }
        assert_eq!(
            String::from_utf8_lossy(&body),
            String::from_utf8_lossy(&frame.body),
            "{}",
            message.id
        );
        let again = Frame::new(frame.header, &typed).encode();
        let compressed = frame.header.flags.contains(Flags::COMPRESSED);
        assert_eq!(compressed, frame.body.len() >= COMPRESS_FROM, "{}", message.id);
        if compressed {
            // Any gzip of the same text is as good: header and inflated text must agree.
            assert_eq!(again[..HEADER_LEN], message.raw[..HEADER_LEN], "{}", message.id);
            let inflated = Frame::decode(&again, DEFAULT_MAX_INFLATED).unwrap();
            assert_eq!(inflated, frame, "{}", message.id);
        } else {
            assert_eq!(again, message.raw, "{}", message.id);
        }
    }
}

#[test]
fn every_class_of_the_recording_is_typed() {
    let mut seen = BTreeSet::new();
    for message in recorded() {
        for envelope in decode(&message).envelopes().unwrap() {
            seen.insert(envelope.class);
        }
    }
    assert_eq!(seen.len(), 49);
    let typed: BTreeSet<_> = catalogue::CLASSES.iter().map(|class| (*class).to_owned()).collect();
    let untyped: BTreeSet<_> = UNTYPED.iter().map(|(class, _)| (*class).to_owned()).collect();
    let missing: Vec<_> = seen.difference(&typed).filter(|c| !untyped.contains(*c)).collect();
    assert_eq!(missing, Vec::<&String>::new());
}

#[test]
fn no_recorded_object_is_of_an_unmodelled_class() {
    // Interface fields keep unknown classes; none of the recorded ones may end there.
    for message in recorded() {
        for envelope in decode(&message).envelopes().unwrap() {
            if let Some(text) = catalogue::describe(&envelope) {
                assert!(!text.unwrap().contains("Unknown {"), "{}", message.id);
            }
        }
    }
}

#[test]
fn a_message_cut_anywhere_is_incomplete() {
    for message in recorded() {
        let raw = &message.raw;
        // Long ones are cut at fewer places: every cut inflates what is there.
        let step = (raw.len() / 128).max(1);
        let cuts = (0..raw.len()).filter(|cut| *cut < 64 || cut % step == 0);
        for cut in cuts.chain([raw.len() - 1]) {
            let error = Frame::decode(&raw[..cut], DEFAULT_MAX_INFLATED).unwrap_err();
            assert!(error.is_incomplete(), "{} cut at {cut}: {error}", message.id);
        }
    }
}

#[test]
fn a_body_cut_anywhere_is_an_error_at_the_cut() {
    for message in recorded() {
        let body = decode(&message).body;
        let step = (body.len() / 256).max(1);
        for cut in (0..body.len()).step_by(step) {
            let error = agent_protocol::parse_envelopes(&body[..cut]).unwrap_err();
            assert!(error.offset(&body[..cut]) <= cut, "{} cut at {cut}", message.id);
        }
    }
}

#[test]
fn answers_of_the_recorded_agents_obey_the_response_rule() {
    // Every recorded answer of an agent has a header that the rule could have made.
    for message in recorded().iter().filter(|m| m.line["dir"] == "a2m") {
        let header = decode(message).header;
        if header.flags.contains(Flags::REQUEST) {
            assert!(!header.flags.contains(Flags::FROM_SERVER), "{}", message.id);
            assert_eq!(header.management_id, -1, "{}", message.id);
            continue;
        }
        let request = agent_protocol::FrameHeader {
            flags: header.flags.without(Flags::COMPRESSED) | Flags::REQUEST | Flags::FROM_SERVER,
            ..header
        };
        let length = header.length;
        let response = agent_protocol::FrameHeader { length, ..request.response() };
        let flags = header.flags.without(Flags::COMPRESSED);
        assert_eq!(response, agent_protocol::FrameHeader { flags, ..header }, "{}", message.id);
    }
}
