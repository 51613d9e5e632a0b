//! Odd input: what the peer's JSON library accepts is accepted, what it refuses is refused.

use agent_protocol::agent::{CommandBase, PingCommand, PlainAnswer, ReadyCommand, StartupAnswer};
use agent_protocol::storage::{
    DataStoreTO, DeleteCommand, ListTemplateAnswer, SecStorageSetupCommand,
};
use agent_protocol::{Body, BodyError, Envelope, catalogue, encode_envelopes, parse_envelopes};

fn open<B: Body>(json: &str) -> Result<B, BodyError> {
    let body = serde_json::value::RawValue::from_string(json.to_owned()).unwrap();
    Envelope { class: B::CLASS.to_owned(), body }.open()
}

fn base(json: &str) -> Result<CommandBase, BodyError> {
    open::<PlainAnswer>(json).map(|answer| answer.base.command)
}

#[track_caller]
fn refused<B: Body>(json: &str) -> (String, String) {
    match open::<B>(json) {
        Err(BodyError::Field { path, reason, .. }) => (path, reason),
        other => panic!("{json}: {other:?}"),
    }
}

#[test]
fn unknown_fields_are_skipped_whatever_they_hold() {
    let ready: ReadyCommand =
        open(r#"{"new":{"a":[1,{"b":null}]},"hostId":3,"newer":"x","wait":60}"#).unwrap();
    assert_eq!((ready.host_id, ready.base.wait), (Some(3), 60));
}

#[test]
fn missing_fields_have_the_peers_defaults() {
    let answer: PlainAnswer = open("{}").unwrap();
    assert!(answer.base.result);
    assert_eq!(answer.base.details, None);
    assert_eq!(answer.base.command, CommandBase::default());
}

#[test]
fn numbers_are_read_from_texts_and_whole_floats() {
    for (json, wait) in [
        (r#"{"wait":"3"}"#, 3),
        (r#"{"wait":1.0}"#, 1),
        (r#"{"wait":"2.0"}"#, 2),
        (r#"{"wait":-7}"#, -7),
        (r#"{"wait":1e2}"#, 100),
    ] {
        assert_eq!(base(json).unwrap().wait, wait, "{json}");
    }
    for json in [
        r#"{"wait":1.5}"#,
        r#"{"wait":2147483648}"#,
        r#"{"wait":"x"}"#,
        r#"{"wait":""}"#,
        r#"{"wait":true}"#,
        r#"{"wait":{}}"#,
        r#"{"wait":[3]}"#,
    ] {
        assert_eq!(refused::<PlainAnswer>(json).0, "wait", "{json}");
    }
}

#[test]
fn long_numbers_keep_every_digit() {
    let text = r#"{"hostId":9007199254740993}"#;
    assert_eq!(open::<StartupAnswer>(text).unwrap().host_id, 9_007_199_254_740_993);
    let text = r#"{"hostId":"-9223372036854775808"}"#;
    assert_eq!(open::<StartupAnswer>(text).unwrap().host_id, i64::MIN);
    for json in [r#"{"hostId":9223372036854775808}"#, r#"{"hostId":1e300}"#, r#"{"hostId":"1e17"}"#]
    {
        assert_eq!(refused::<StartupAnswer>(json).0, "hostId", "{json}");
    }
}

#[test]
fn flags_are_read_from_texts_but_not_from_numbers() {
    let flag = |json| base(json).map(|base| base.bypass_host_maintenance);
    assert!(flag(r#"{"bypassHostMaintenance":"true"}"#).unwrap());
    assert!(flag(r#"{"bypassHostMaintenance":"TRUE"}"#).unwrap());
    assert!(!flag(r#"{"bypassHostMaintenance":"yes"}"#).unwrap());
    assert!(flag(r#"{"bypassHostMaintenance":1}"#).is_err());
}

#[test]
fn texts_are_read_from_scalars_but_not_from_objects() {
    for (json, details) in [
        (r#"{"details":5}"#, "5"),
        (r#"{"details":-5}"#, "-5"),
        (r#"{"details":1.5}"#, "1.5"),
        (r#"{"details":1.0}"#, "1.0"),
        (r#"{"details":true}"#, "true"),
        (r#"{"details":18446744073709551615}"#, "18446744073709551615"),
    ] {
        assert_eq!(open::<PlainAnswer>(json).unwrap().base.details.unwrap(), details);
    }
    assert_eq!(refused::<PlainAnswer>(r#"{"details":{"a":1}}"#).0, "details");
    assert_eq!(refused::<PlainAnswer>(r#"{"details":[]}"#).0, "details");
}

#[test]
fn null_leaves_primitives_alone_and_empties_the_rest() {
    let answer: PlainAnswer =
        open(r#"{"result":null,"details":null,"wait":null,"contextMap":null}"#).unwrap();
    assert!(answer.base.result);
    assert_eq!(answer.base.details, None);
    // A null would be a fault for whoever reads our answer: the map is written all the same.
    let json = encode_envelopes(&[Envelope::of(&answer)]);
    assert!(String::from_utf8(json).unwrap().contains(r#""contextMap":{}"#));

    let ready: ReadyCommand = open(r#"{"hostId":7,"hostId":null}"#).unwrap();
    assert_eq!(ready.host_id, None);
}

#[test]
fn the_last_of_equal_keys_wins() {
    let answer: PlainAnswer = open(r#"{"wait":1,"wait":2,"details":"a","details":"b"}"#).unwrap();
    assert_eq!(answer.base.command.wait, 2);
    assert_eq!(answer.base.details.as_deref(), Some("b"));
}

#[test]
fn nulls_in_lists_and_maps_are_dropped() {
    let ready: ReadyCommand = open(r#"{"msHostList":["a",null,"b"]}"#).unwrap();
    assert_eq!(ready.ms_host_list.unwrap(), ["a", "b"]);
    let list: ListTemplateAnswer = open(r#"{"templateInfos":{"a":null,"b":{"id":"4"}}}"#).unwrap();
    let infos = list.template_infos.unwrap();
    assert_eq!((infos.len(), infos["b"].id), (1, 4));
}

#[test]
fn an_unknown_constant_is_kept() {
    let ping: PingCommand = open(r#"{"hostType":"Fridge"}"#).unwrap();
    assert_eq!(ping.host_type.unwrap().as_str(), "Fridge");
}

#[test]
fn bytes_are_signed_on_the_wire_and_read_either_way() {
    use agent_protocol::console::StartConsoleProxyAgentHttpHandlerCommand as Start;
    let start: Start = open(r#"{"keystoreBits":[-2,-19,254,0,127,-128,"7"]}"#).unwrap();
    let bits = start.keystore_bits.as_ref().unwrap();
    assert_eq!(bits.reveal().as_slice(), [0xfe, 0xed, 0xfe, 0, 0x7f, 0x80, 7]);
    let json = String::from_utf8(encode_envelopes(&[Envelope::of(&start)])).unwrap();
    assert!(json.contains(r#""keystoreBits":[-2,-19,-2,0,127,-128,7]"#), "{json}");
    assert_eq!(refused::<Start>(r#"{"keystoreBits":[1,256]}"#).0, "keystoreBits.1");
    assert!(open::<Start>(r#"{"keystoreBits":"/u0="}"#).is_err());
}

#[test]
fn an_interface_field_of_an_unknown_class_is_kept_as_it_came() {
    let json = r#"{"store":{"org.example.TapeTO":{"reel":12345678901234567890123,"ä":"="}}}"#;
    let setup: SecStorageSetupCommand = open(json).unwrap();
    match setup.store.as_ref().unwrap() {
        DataStoreTO::Unknown { class, body } => {
            assert_eq!(class, "org.example.TapeTO");
            assert_eq!(body.json(), r#"{"reel":12345678901234567890123,"ä":"="}"#);
        }
        other => panic!("{other:?}"),
    }
    let again = String::from_utf8(encode_envelopes(&[Envelope::of(&setup)])).unwrap();
    assert!(again.contains(r#"{"reel":12345678901234567890123,"\u00e4":"="}"#), "{again}");
}

#[test]
fn only_the_first_key_of_a_wrapper_counts() {
    let json = r#"{"store":{"com.cloud.agent.api.to.NfsTO":{"_url":"nfs://h/p"},"x":{"y":1}}}"#;
    let setup: SecStorageSetupCommand = open(json).unwrap();
    assert_eq!(setup.store.unwrap().as_nfs().unwrap().url.as_deref(), Some("nfs://h/p"));
    let envelopes = parse_envelopes(br#"[{"a.B":{"x":1},"c.D":{}}]"#).unwrap();
    assert_eq!(envelopes[0].class, "a.B");
    assert!(open::<SecStorageSetupCommand>(r#"{"store":{}}"#).is_err());
}

#[test]
fn a_fault_deep_inside_is_named_by_its_path() {
    let json = concat!(
        r#"{"data":{"org.apache.cloudstack.storage.to.TemplateObjectTO":{"imageDataStore":"#,
        r#"{"com.cloud.agent.api.to.NfsTO":{"_url":["hunter2"]}}}}}"#
    );
    let (path, reason) = refused::<DeleteCommand>(json);
    assert_eq!(
        path,
        "data.org.apache.cloudstack.storage.to.TemplateObjectTO.imageDataStore.\
         com.cloud.agent.api.to.NfsTO._url"
    );
    assert!(reason.starts_with("a list where a text is expected"), "{reason}");
    let error = open::<DeleteCommand>(json).unwrap_err().to_string();
    assert!(error.contains(DeleteCommand::CLASS) && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_wrong_class_is_an_error_and_not_a_default() {
    let body = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
    let envelope = Envelope { class: "com.cloud.agent.api.Answer".to_owned(), body };
    assert!(matches!(envelope.open::<StartupAnswer>(), Err(BodyError::Class { .. })));
}

#[test]
fn bodies_that_are_not_envelopes_are_refused() {
    for body in [
        "",
        " ",
        "[",
        "{}",
        "null",
        "1",
        "[1]",
        "[null]",
        "[{}]",
        "[[]]",
        r#"["a"]"#,
        r#"[{"a"}]"#,
        r#"[{"a":{}}"#,
        r#"[{"a":{}}] x"#,
        r#"[{"a":}]"#,
        r#"[{'a':{}}]"#,
    ] {
        assert!(parse_envelopes(body.as_bytes()).is_err(), "{body}");
    }
    assert!(parse_envelopes(b"[]").unwrap().is_empty());
    let body = r#"[{"a":[]},{"b":null}]"#;
    assert_eq!(parse_envelopes(body.as_bytes()).unwrap().len(), 2);
    let many = format!("[{}]", vec![r#"{"a":0}"#; 1025].join(","));
    assert!(parse_envelopes(many.as_bytes()).is_err());
}

#[test]
fn a_body_that_is_no_object_is_refused_for_every_class() {
    for class in catalogue::CLASSES {
        for json in ["null", "[]", "1", "\"x\"", "true"] {
            let body = serde_json::value::RawValue::from_string(json.to_owned()).unwrap();
            let envelope = Envelope { class: (*class).to_owned(), body };
            let error = catalogue::rewrite(&envelope).unwrap().unwrap_err();
            assert!(
                matches!(error, BodyError::Field { path, .. } if path == "."),
                "{class} {json}"
            );
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_become_replacement_characters() {
    let body = b"[{\"com.cloud.agent.api.Answer\":{\"details\":\"caf\xe9\"}}]";
    let answer: PlainAnswer = parse_envelopes(body).unwrap()[0].open().unwrap();
    assert_eq!(answer.base.details.unwrap(), "caf\u{fffd}");
}

#[test]
fn deep_nesting_neither_overflows_nor_passes_as_a_known_field() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(r#"[{{"com.cloud.agent.api.Answer":{{"new":{deep},"wait":4}}}}]"#);
    let envelopes = parse_envelopes(body.as_bytes()).unwrap();
    let answer: PlainAnswer = envelopes[0].open().unwrap();
    assert_eq!(answer.base.command.wait, 4);
    let body = format!(r#"[{{"com.cloud.agent.api.Answer":{{"details":{deep}}}}}]"#);
    assert!(parse_envelopes(body.as_bytes()).unwrap()[0].open::<PlainAnswer>().is_err());
}
