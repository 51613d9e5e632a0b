//! Arbitrary bytes as a client's frames: no panic, never more than the limit in one message, and the
//! same however the bytes are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use websocket::{Event, FrameError, Receiver};

const LIMIT: usize = 512;

fn read(pieces: &[&[u8]]) -> (Vec<Event>, Option<FrameError>) {
    let mut receiver = Receiver::new(LIMIT);
    let mut events = Vec::new();
    for piece in pieces {
        receiver.receive(piece);
        loop {
            match receiver.take() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, cut) = input;
    let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let whole = read(&[&bytes]);
    assert_eq!(read(&[head, tail]), whole);
    for event in whole.0 {
        match event {
            Event::Binary { bytes, last } => {
                assert!((last || !bytes.is_empty()) && bytes.len() <= LIMIT);
            }
            Event::Text(text) => assert!(text.len() <= LIMIT),
            Event::Ping(bytes) | Event::Pong(bytes) => assert!(bytes.len() <= 125),
            Event::Close(_) => {}
        }
    }
});
