//! Where a fault in a message body is.

use super::*;
use crate::agent::{PlainAnswer, ReadyAnswer};

#[test]
fn faults_are_located_by_byte() {
    for (body, at) in [
        ("", 0),
        ("x", 0),
        ("[{\"a\":{}},x]", 10),
        ("[\n {\"a\":{}},\n x]", 14),
        ("[{\"a\":{}", 8),
        ("[]x", 2),
    ] {
        let error = parse_envelopes(body.as_bytes()).unwrap_err();
        assert_eq!(error.offset(body.as_bytes()), at, "{body}");
    }
}

#[test]
fn the_base_of_an_answer_opens_without_its_class() {
    let answer = ReadyAnswer::failed("no".to_owned());
    let envelope = Envelope::of(&answer);
    let base = envelope.answer_base().unwrap();
    assert_eq!((base.result, base.details.as_deref()), (false, Some("no")));
    assert_eq!(envelope.simple_name(), "ReadyAnswer");
    assert!(envelope.is::<ReadyAnswer>() && !envelope.is::<PlainAnswer>());
}

#[test]
fn the_log_id_opens_without_the_class() {
    let body = r#"[{"x.Y":{"contextMap":{"logid":"40be0831","job":"job-1"},"wait":5,"z":[]}}]"#;
    let base = parse_envelopes(body.as_bytes()).unwrap()[0].command_base().unwrap();
    assert_eq!(base.log_id(), Some("40be0831"));
    assert_eq!(base.job(), Some("job-1"));
    assert_eq!(base.wait, 5);
}

#[test]
fn no_envelope_is_an_empty_array() {
    assert_eq!(encode_envelopes(&[]), b"[]");
}
