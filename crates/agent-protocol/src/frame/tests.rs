//! Frames that a peer should not send, and bounds.

use super::*;

fn header(flags: Flags, length: u32) -> FrameHeader {
    FrameHeader { flags, sequence: Sequence(7), length, management_id: 1, agent_id: 2, via: 3 }
}

fn wire(flags: Flags, length: u32, body: &[u8]) -> Vec<u8> {
    [header(flags, length).encode().as_slice(), body].concat()
}

#[test]
fn header_fields_are_where_the_peer_reads_them() {
    let bytes = FrameHeader {
        flags: Flags::from_bits(0x0102),
        sequence: Sequence(0x0304_0506_0708_090a),
        length: 0x0b0c_0d0e,
        management_id: 0x0f10_1112_1314_1516,
        agent_id: 0x1718_191a_1b1c_1d1e,
        via: 0x1f20_2122_2324_2526,
    }
    .encode();
    let expected: Vec<u8> = [0, 0].into_iter().chain(1..=0x26).collect();
    assert_eq!(bytes.as_slice(), expected);
    assert_eq!(FrameHeader::decode(&bytes).unwrap().encode(), bytes);
}

#[test]
fn other_header_versions_are_refused() {
    for version in 1..=255 {
        let mut bytes = wire(Flags::REQUEST, 0, b"");
        bytes[0] = version;
        let error = Frame::decode(&bytes, 10).unwrap_err();
        assert!(matches!(error, FrameError::Version { version: v } if v == version));
        assert!(!error.is_incomplete());
    }
}

#[test]
fn a_body_longer_than_declared_is_refused_and_a_shorter_one_incomplete() {
    let error = Frame::decode(&wire(Flags::NONE, 3, b"abcd"), 10).unwrap_err();
    assert!(matches!(error, FrameError::Length { declared: 3, found: 4 }));
    assert!(!error.is_incomplete());
    let error = Frame::decode(&wire(Flags::NONE, 3, b"ab"), 10).unwrap_err();
    assert!(error.is_incomplete());
}

#[test]
fn lengths_above_the_bound_are_refused_before_the_body_is_there() {
    let error = Frame::decode(&wire(Flags::NONE, 11, b""), 10).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { declared: 11, limit: 10 }));
    // Negative for the peer, whatever the bound.
    let error = Frame::decode(&wire(Flags::NONE, u32::MAX, b""), usize::MAX).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { .. }));
}

#[test]
fn a_compressed_body_must_inflate_to_the_declared_length() {
    let body = vec![b'x'; 1000];
    let gzip = deflate(&body).unwrap();
    let decode = |length| Frame::decode(&wire(Flags::COMPRESSED, length, &gzip), 10_000);
    assert_eq!(decode(1000).unwrap().body, body);
    assert!(matches!(decode(999), Err(FrameError::Length { declared: 999, found: 1000 })));
    assert!(matches!(decode(1001), Err(FrameError::Length { declared: 1001, found: 1000 })));
    assert!(matches!(decode(0), Err(FrameError::Length { declared: 0, found: 1 })));
}

#[test]
fn a_gzip_bomb_is_stopped_at_the_declared_length() {
    let bomb = deflate(&vec![0; 4 * 1024 * 1024]).unwrap();
    let error = Frame::decode(&wire(Flags::COMPRESSED, 100, &bomb), 1000).unwrap_err();
    assert!(matches!(error, FrameError::Length { declared: 100, found: 101 }));
}

#[test]
fn a_damaged_gzip_member_is_refused() {
    let body = vec![b'x'; 1000];
    let mut gzip = deflate(&body).unwrap();
    let last = gzip.len() - 1;
    gzip[last - 6] ^= 1;
    let error = Frame::decode(&wire(Flags::COMPRESSED, 1000, &gzip), 1000).unwrap_err();
    assert!(matches!(error, FrameError::Gzip(_)), "{error:?}");
    assert!(!error.is_incomplete());
    let error = Frame::decode(&wire(Flags::COMPRESSED, 4, b"text"), 1000).unwrap_err();
    assert!(matches!(error, FrameError::Gzip(_)), "{error:?}");
}

#[test]
fn bytes_behind_a_compressed_body_are_refused_in_a_message_but_not_in_a_stream() {
    let gzip = deflate(b"[]").unwrap();
    let bytes = wire(Flags::COMPRESSED, 2, &[&gzip[..], b"next"].concat());
    assert!(matches!(Frame::decode(&bytes, 10), Err(FrameError::Trailing { extra: 4 })));
    let (frame, taken) = Frame::decode_prefix(&bytes, 10).unwrap();
    assert_eq!((frame.body.as_slice(), taken), (b"[]".as_slice(), bytes.len() - 4));
}

#[test]
fn bodies_are_compressed_from_the_threshold_on() {
    for (size, compressed) in [(COMPRESS_FROM - 1, false), (COMPRESS_FROM, true)] {
        for flags in [Flags::REQUEST, Flags::REQUEST | Flags::COMPRESSED] {
            let frame = Frame { header: header(flags, 0), body: vec![b' '; size] };
            let wire = frame.encode();
            let header = FrameHeader::decode(&wire).unwrap();
            assert_eq!(header.flags.contains(Flags::COMPRESSED), compressed);
            assert_eq!(header.length as usize, size);
            assert_eq!(Frame::decode(&wire, size).unwrap().body, frame.body);
        }
    }
}

#[test]
fn a_servers_answer_has_the_server_bit_and_ids_of_its_own() {
    let ping = Frame::request(Flags::AGENT_REQUEST, 9, 5, &[]).header;
    let answer = ping.server_response(42, 5);
    assert_eq!(answer.flags.bits(), 0x22);
    let start = Frame::request(Flags::STARTUP, 0, NO_ID, &[]).header;
    let early = start.server_response(42, NO_ID);
    assert_eq!((early.flags.bits(), early.management_id, early.via), (0x24, 42, -1));
}

#[test]
fn flags_are_named() {
    let names: Vec<_> = Flags::from_bits(0xff).names().collect();
    let expected =
        ["request", "stop_on_error", "in_sequence", "from_server", "control", "compressed"];
    assert_eq!(names, expected);
}
