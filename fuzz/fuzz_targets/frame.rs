//! Arbitrary bytes as a frame and as a recording: no panic, bounded inflating, and a frame that was
//! read is written and read again the same.

#![no_main]

use agent_protocol::decode::{Layout, frames};
use agent_protocol::{Flags, Frame};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = Frame::decode(bytes, LIMIT) {
        assert!(frame.body.len() <= LIMIT);
        let wire = frame.encode();
        let again = Frame::decode(&wire, LIMIT).unwrap();
        assert_eq!(again.body, frame.body);
        assert_eq!(again.header.response(), frame.header.response());
        let flags = |frame: &Frame| frame.header.flags.without(Flags::COMPRESSED);
        assert_eq!(flags(&again), flags(&frame));
        let (prefix, taken) = Frame::decode_prefix(&wire, LIMIT).unwrap();
        assert_eq!((prefix, taken), (again, wire.len()));
    }
    for item in frames(bytes, LIMIT) {
        match item {
            Ok(frame) => {
                assert!(frame.to_text(Layout::Pretty).ends_with('\n'));
                assert!(!frame.to_json().unwrap().contains('\n'));
            }
            Err(error) => assert!(error.to_string().starts_with("frame ")),
        }
    }
});
