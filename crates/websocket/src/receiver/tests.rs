//! Every rule of RFC 6455, sections 5 and 7, that a server can meet; and the same messages as another
//! implementation writes and reads them.

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::*;
use crate::Header;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame: first byte as given, masked, shortest length.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(Opcode::Binary, payload.len());
    let mut bytes = header.as_bytes().to_vec();
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn all(frames: &[Vec<u8>]) -> (Vec<Event>, Option<FrameError>) {
    let mut receiver = Receiver::new(1000);
    receiver.receive(&frames.concat());
    let mut events = Vec::new();
    loop {
        match receiver.take() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
    }
}

#[test]
fn the_frames_of_the_rfc_are_read() {
    // Section 5.7: a masked text, a masked ping and its payload.
    let hello = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(all(&[hello]), (vec![Event::Text("Hello".into())], None));
    let pieces = [frame(0x01, b"Hel"), frame(0x89, b"ping"), frame(0x80, b"lo")];
    let expected = vec![Event::Ping(b"ping".to_vec()), Event::Text("Hello".into())];
    assert_eq!(all(&pieces), (expected, None));
    let pieces = [frame(0x02, b"a"), frame(0x00, b""), frame(0x00, b"b"), frame(0x80, b"c")];
    let piece = |bytes: &[u8], last| Event::Binary { bytes: bytes.to_vec(), last };
    let expected = vec![piece(b"a", false), piece(b"b", false), piece(b"c", true)];
    assert_eq!(all(&pieces), (expected, None));
    assert_eq!(all(&[frame(0x82, b"")]), (vec![piece(b"", true)], None));
    let close = CloseFrame { code: 1001, reason: "away".into() };
    let expected = vec![Event::Close(Some(close))];
    assert_eq!(all(&[frame(0x88, b"\x03\xe9away"), frame(0x82, b"x")]), (expected, None));
    assert_eq!(all(&[frame(0x88, b"")]), (vec![Event::Close(None)], None));
    assert_eq!(all(&[frame(0x8a, b"")]), (vec![Event::Pong(Vec::new())], None));
}

#[test]
fn what_breaks_the_protocol_is_told_with_the_right_code() {
    let check = |frames: &[Vec<u8>], expected: FrameError, code: u16| {
        assert_eq!(all(frames).1, Some(expected), "{frames:?}");
        assert_eq!(expected.code(), code);
    };
    for bit in [0x40, 0x20, 0x10] {
        check(&[frame(0x82 | bit, b"x")], FrameError::Reserved, 1002);
    }
    for number in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&[frame(0x80 | number, b"")], FrameError::Opcode(number), 1002);
    }
    check(&[vec![0x82, 0x01, b'x']], FrameError::Unmasked, 1002);
    check(&[frame(0x09, b"")], FrameError::Control, 1002);
    check(&[frame(0x89, &[0; 126])], FrameError::Control, 1002);
    check(&[frame(0x80, b"x")], FrameError::Order, 1002);
    check(&[frame(0x02, b"x"), frame(0x82, b"y")], FrameError::Order, 1002);
    check(&[frame(0x01, b"x"), frame(0x81, b"y")], FrameError::Order, 1002);
    check(&[frame(0x02, b"x"), frame(0x80, b"y"), frame(0x80, b"z")], FrameError::Order, 1002);
    check(&[frame(0x88, b"x")], FrameError::CloseBody, 1002);
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535] {
        check(&[frame(0x88, &code.to_be_bytes())], FrameError::CloseBody, 1002);
    }
    for code in [1000_u16, 1003, 1007, 1011, 1014, 3000, 4999] {
        assert_eq!(all(&[frame(0x88, &code.to_be_bytes())]).1, None, "{code}");
    }
    check(&[frame(0x88, b"\x03\xe8\xff")], FrameError::Utf8, 1007);
    check(&[frame(0x81, b"\xed\xa0\x80")], FrameError::Utf8, 1007);
    check(&[frame(0x01, b"\xce"), frame(0x80, b"\xff")], FrameError::Utf8, 1007);
    assert_eq!(all(&[frame(0x01, b"\xce"), frame(0x80, b"\xba")]).1, None);
    // Lengths in more bytes than they need.
    check(&[vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0]], FrameError::Length, 1002);
    check(&[[&[0x82, 0xff][..], &65535_u64.to_be_bytes()].concat()], FrameError::Length, 1002);
    check(&[[&[0x82, 0xff][..], &u64::MAX.to_be_bytes()].concat()], FrameError::Length, 1002);
    // Too long, told by the head and over all pieces.
    check(&[frame(0x82, &[0; 1001])], FrameError::TooLong(1000), 1009);
    check(
        &[[&[0x82, 0xff][..], &(1_u64 << 40).to_be_bytes()].concat()],
        FrameError::TooLong(1000),
        1009,
    );
    check(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 401])], FrameError::TooLong(1000), 1009);
    assert_eq!(all(&[frame(0x82, &[0; 1000])]).1, None);
}

#[test]
fn a_reason_is_cut_between_letters() {
    let body = CloseFrame::encode(1008, &"é".repeat(100));
    assert_eq!(body.len(), 2 + 122);
    assert_eq!(CloseFrame::decode(&body).unwrap().unwrap().reason, "é".repeat(61));
}

#[test]
fn heads_are_as_short_as_they_can_be() {
    let check = |payload: usize, expected: &[u8]| {
        assert_eq!(Header::new(Opcode::Binary, payload).as_bytes(), expected, "{payload}");
    };
    check(0, &[0x82, 0]);
    check(125, &[0x82, 125]);
    check(126, &[0x82, 126, 0, 126]);
    check(65535, &[0x82, 126, 0xff, 0xff]);
    check(65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
}

fn client(input: Vec<u8>) -> WebSocket<std::io::Cursor<Vec<u8>>> {
    WebSocket::from_raw_socket(std::io::Cursor::new(input), Role::Client, None)
}

proptest! {
    #[test]
    fn bytes_mean_the_same_however_they_are_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..200,
    ) {
        let read = |pieces: &[&[u8]]| {
            let mut receiver = Receiver::new(64);
            let mut events = Vec::new();
            for piece in pieces {
                receiver.receive(piece);
                loop {
                    match receiver.take() {
                        Ok(Some(event)) => events.push(Ok(event)),
                        Ok(None) => break,
                        Err(error) => {
                            events.push(Err(error));
                            return events;
                        }
                    }
                }
            }
            events
        };
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        prop_assert_eq!(read(&[head, tail]), read(&[&bytes]));
    }

    #[test]
    fn another_implementation_reads_what_is_written(length in 0_usize..70_000) {
        let payload = vec![7; length];
        let bytes = Header::frame(Opcode::Binary, &payload);
        prop_assert_eq!(client(bytes).read().unwrap(), Message::binary(payload));
    }

    #[test]
    fn what_another_implementation_writes_is_read(payload in proptest::collection::vec(any::<u8>(), 1..2000)) {
        let mut writer = client(Vec::new());
        writer.send(Message::binary(payload.clone())).unwrap();
        let mut receiver = Receiver::new(1 << 20);
        receiver.receive(writer.get_ref().get_ref());
        prop_assert_eq!(receiver.take(), Ok(Some(Event::Binary { bytes: payload, last: true })));
        prop_assert_eq!(receiver.take(), Ok(None));
    }
}
