//! Arbitrary bytes as a message body: no panic, envelopes survive writing, what a typed body accepts
//! it writes in one stable form, and whatever a command holds, it can be answered with a no.

#![no_main]

use agent_protocol::{catalogue, encode_envelopes, failed_answer, parse_envelopes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let envelopes = match parse_envelopes(bytes) {
        Ok(envelopes) => envelopes,
        Err(error) => {
            assert!(error.offset(bytes) <= bytes.len());
            return;
        }
    };
    let wire = encode_envelopes(&envelopes);
    assert!(wire.is_ascii());
    let again = parse_envelopes(&wire).unwrap();
    assert_eq!(again.len(), envelopes.len());
    for envelope in envelopes.iter().chain(&again) {
        let answer = failed_answer(envelope, "no");
        assert!(!answer.answer_base().unwrap().result);
        if let Some(Ok(once)) = catalogue::rewrite(envelope) {
            let twice = catalogue::rewrite(&once).unwrap().unwrap();
            assert_eq!(twice, once);
            assert!(catalogue::describe(&once).unwrap().is_ok());
        }
    }
});
