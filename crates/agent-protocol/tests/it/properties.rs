//! Properties that hold for every input.

use agent_protocol::frame::HEADER_LEN;
use agent_protocol::packet::{Joiner, PacketHeader, PacketReader, split};
use agent_protocol::storage::{
    DataStoreTO, DownloadCommand, ImageFormat, ListTemplateAnswer, NfsTO, TemplateProp,
};
use agent_protocol::{
    Dictionary, Envelope, Flags, Frame, FrameHeader, Sequence, catalogue, encode_envelopes,
    failed_answer, gson, parse_envelopes,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

fn header() -> impl Strategy<Value = FrameHeader> {
    (any::<u16>(), any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>()).prop_map(
        |(flags, sequence, management_id, agent_id, via)| FrameHeader {
            flags: Flags::from_bits(flags).without(Flags::COMPRESSED),
            sequence: Sequence(sequence),
            length: 0,
            management_id,
            agent_id,
            via,
        },
    )
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-4_i64..300).prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        any::<String>().prop_map(Value::from),
        (-9_i64..9).prop_map(|number| Value::from(number.to_string())),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((field_name(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Names that some class knows, and some that none knows.
fn field_name() -> impl Strategy<Value = String> {
    let known = [
        "result",
        "details",
        "contextMap",
        "wait",
        "bypassHostMaintenance",
        "externalDetails",
        "store",
        "_store",
        "data",
        "srcTO",
        "id",
        "size",
        "url",
        "_url",
        "format",
        "certs",
        "keystoreBits",
        "_command",
        "commandInfos",
        "changes",
        "templateInfos",
        "hostType",
        "ovfInformationTO",
        "disks",
        "volume",
        "passphrase",
        "portConfigs",
        "msHostList",
        "com.cloud.agent.api.to.NfsTO",
        "org.apache.cloudstack.storage.to.TemplateObjectTO",
        "org.apache.cloudstack.storage.to.SnapshotObjectTO",
        "org.apache.cloudstack.storage.to.New",
    ];
    prop_oneof![
        4 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn body() -> impl Strategy<Value = String> {
    vec((field_name(), any_json()), 0..8).prop_map(|fields| {
        // Written by hand, so that keys may repeat.
        let fields: Vec<_> = fields
            .iter()
            .map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())))
            .collect();
        format!("{{{}}}", fields.join(","))
    })
}

fn url() -> impl Strategy<Value = Option<agent_protocol::UrlText>> {
    option::of(any::<String>().prop_map(agent_protocol::UrlText::from))
}

fn download() -> impl Strategy<Value = DownloadCommand> {
    let texts = (option::of(any::<String>()), option::of(any::<String>()), url(), url(), url());
    let numbers = (any::<i64>(), option::of(any::<i64>()), any::<bool>(), any::<bool>());
    let format = option::of(prop_oneof![
        proptest::sample::select(ImageFormat::ALL.to_vec()),
        "[A-Z]{1,8}x".prop_map(ImageFormat::Other),
    ]);
    let base = (any::<i32>(), vec((any::<String>(), any::<String>()), 0..4));
    (texts, numbers, format, base).prop_map(
        |(
            (description, name, source, sec_url, store),
            (id, limit, hvm, redirects),
            format,
            base,
        )| {
            let mut command = DownloadCommand {
                hvm,
                description,
                max_download_size_in_bytes: limit,
                id,
                store: Some(DataStoreTO::from(NfsTO { url: store, ..NfsTO::default() })),
                follow_redirects: redirects,
                url: source,
                format,
                name,
                sec_url,
                ..DownloadCommand::default()
            };
            command.base.wait = base.0;
            command.base.context_map = base.1.into_iter().collect();
            command
        },
    )
}

/// Many bytes from few choices: drawing each of them takes most of the time of a test.
fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    (length, any::<u64>()).prop_map(|(length, seed)| {
        let mut state = seed | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect()
    })
}

proptest! {
    #[test]
    fn frames_round_trip(header in header(), body in bytes(0..20_000)) {
        let length = u32::try_from(body.len()).unwrap();
        let frame = Frame { header: FrameHeader { length, ..header }, body };
        let wire = frame.encode();
        let again = Frame::decode(&wire, 20_000).unwrap();
        prop_assert_eq!(&again.body, &frame.body);
        let flags = again.header.flags.without(Flags::COMPRESSED);
        prop_assert_eq!(FrameHeader { flags, ..again.header }, frame.header);
        let (prefix, taken) = Frame::decode_prefix(&[&wire[..], b"next"].concat(), 20_000).unwrap();
        prop_assert_eq!((prefix, taken), (again, wire.len()));
    }

    #[test]
    fn a_bound_on_the_body_is_kept(body in bytes(1..10_000), limit in 0_usize..10_000) {
        let header = Frame::request(Flags::REQUEST, 0, 0, &[]).header;
        let frame = Frame { header, body };
        let decoded = Frame::decode(&frame.encode(), limit);
        prop_assert_eq!(decoded.is_ok(), frame.body.len() <= limit);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        let limit = 1 << 16;
        for bytes in [bytes.clone(), [&[0; 2][..], &bytes].concat()] {
            if let Ok(frame) = Frame::decode(&bytes, limit) {
                prop_assert!(bytes.len() >= HEADER_LEN && frame.body.len() <= limit);
                prop_assert!(frame.envelopes().is_err() || frame.body.starts_with(b"["));
            }
            if let Ok(envelopes) = parse_envelopes(&bytes) {
                prop_assert_eq!(parse_envelopes(&encode_envelopes(&envelopes)).unwrap(), envelopes);
            }
            for frame in agent_protocol::decode::frames(&bytes, limit).flatten() {
                prop_assert!(frame.to_json().is_ok());
            }
        }
    }

    #[test]
    fn responses_copy_what_the_server_needs(header in header()) {
        let response = header.response();
        prop_assert_eq!(response.flags.bits(), header.flags.bits() & 0x06);
        prop_assert_eq!(
            (response.sequence, response.management_id, response.agent_id, response.via),
            (header.sequence, header.management_id, header.agent_id, header.via)
        );
    }

    #[test]
    fn messages_survive_packets_of_any_fragmentation(
        message in bytes(1..50_000),
        step in 1_usize..20_000,
    ) {
        let mut wire = Vec::new();
        for (piece, more) in split(&message) {
            wire.extend_from_slice(&PacketHeader::new(piece.len(), more).unwrap().encode());
            wire.extend_from_slice(piece);
        }
        let mut reader = PacketReader::new();
        let mut joiner = Joiner::new(message.len());
        let mut messages = Vec::new();
        for mut piece in wire.chunks(step) {
            while !piece.is_empty() {
                if let Some(packet) = reader.next(&mut piece).unwrap() {
                    messages.extend(joiner.push(&packet.records, packet.more).unwrap());
                }
            }
        }
        prop_assert!(reader.is_at_boundary());
        prop_assert_eq!(messages, [message]);
    }

    #[test]
    fn texts_are_ascii_on_the_wire_and_come_back(text: String) {
        let json = gson::to_json(&text).unwrap();
        prop_assert!(json.is_ascii());
        prop_assert!(!json.contains(['<', '>', '&', '=', '\'']));
        prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn envelopes_round_trip(bodies in vec((any::<String>(), any_json()), 0..6)) {
        let envelopes: Vec<_> = bodies
            .iter()
            .map(|(class, body)| Envelope {
                class: class.clone(),
                body: serde_json::value::RawValue::from_string(gson::to_json(body).unwrap()).unwrap(),
            })
            .collect();
        let wire = encode_envelopes(&envelopes);
        prop_assert!(wire.is_ascii());
        prop_assert_eq!(parse_envelopes(&wire).unwrap(), envelopes);
    }

    #[test]
    fn typed_bodies_round_trip(command in download()) {
        let again: DownloadCommand = Envelope::of(&command).open().unwrap();
        prop_assert_eq!(again, command);
    }

    #[test]
    fn lists_keep_their_order(entries in vec((any::<String>(), any::<i64>()), 0..20)) {
        let template_infos: Dictionary<_> = entries
            .into_iter()
            .map(|(name, id)| (name, TemplateProp { id, ..TemplateProp::default() }))
            .collect();
        let answer = ListTemplateAnswer {
            template_infos: Some(template_infos.clone()),
            ..ListTemplateAnswer::default()
        };
        let again: ListTemplateAnswer = Envelope::of(&answer).open().unwrap();
        let names: Vec<_> = again.template_infos.unwrap().keys().cloned().collect();
        prop_assert_eq!(names, template_infos.keys().cloned().collect::<Vec<_>>());
    }

    /// Whatever a body holds: no class panics, and what it accepts it writes in one stable form.
    #[test]
    fn every_class_reads_any_body_or_refuses_it(
        class in proptest::sample::select(catalogue::CLASSES.to_vec()),
        body in body(),
    ) {
        let body = serde_json::value::RawValue::from_string(body).unwrap();
        let envelope = Envelope { class: class.to_owned(), body };
        if class.ends_with("Command") {
            let answer = failed_answer(&envelope, "no");
            prop_assert!(!answer.answer_base().unwrap().result);
            prop_assert!(catalogue::rewrite(&answer).unwrap().is_ok());
        }
        if let Ok(once) = catalogue::rewrite(&envelope).unwrap() {
            let twice = catalogue::rewrite(&once).unwrap().unwrap();
            prop_assert_eq!(twice.body.get(), once.body.get());
            prop_assert!(once.body.get().is_ascii());
        }
    }
}
