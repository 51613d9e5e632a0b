//! Arbitrary bytes as a message body: no panic, envelopes survive writing, and what a typed body
//! accepts it writes in one stable form.

#![no_main]

use agent_protocol::{catalogue, encode_envelopes, parse_envelopes};
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
        if let Some(Ok(once)) = catalogue::rewrite(envelope) {
            let twice = catalogue::rewrite(&once).unwrap().unwrap();
            assert_eq!(twice, once);
            assert!(catalogue::describe(&once).unwrap().is_ok());
        }
    }
});
