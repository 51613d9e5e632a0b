//! Broken bytes for tests of agents: what a confused or hostile server could send.

use std::io::Write as _;

use agent_protocol::{Envelope, Flags, FrameHeader, Sequence};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use serde_json::value::RawValue;

use crate::script::Malformation;
use crate::wire::Outgoing;

/// The bomb announces one mebibyte and inflates to 256.
const BOMB_BLOCK: usize = 1024 * 1024;
const BOMB_BLOCKS: usize = 256;
/// A class that no agent knows.
const UNKNOWN_CLASS: &str = "com.example.quickcloud.NoSuchCommand";

/// What to put on the wire for one kind of malformation.
pub(crate) fn bytes(kind: Malformation, management_id: i64) -> Vec<Outgoing> {
    let good = || message(management_id, Flags::NONE, 2, b"[]");
    match kind {
        Malformation::PacketTooLong => vec![Outgoing::Raw(vec![0, 0, 0x46, 0x51])],
        Malformation::PacketNegative => vec![Outgoing::Raw(vec![0, 0, 0x80, 0x00])],
        Malformation::NoRecord => vec![Outgoing::Raw(vec![0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8])],
        Malformation::CutRecord => vec![Outgoing::CutRecord(good())],
        Malformation::ShortFrame => {
            let mut short = good();
            short.truncate(20);
            vec![Outgoing::Message(short)]
        }
        Malformation::UnknownVersion => {
            let mut unknown = good();
            if let Some(version) = unknown.first_mut() {
                *version = 7;
            }
            vec![Outgoing::Message(unknown)]
        }
        Malformation::NotJson => {
            vec![Outgoing::Message(message(management_id, Flags::NONE, 9, b"[{\"a\":{ }"))]
        }
        Malformation::NotEnvelopes => {
            vec![Outgoing::Message(message(management_id, Flags::NONE, 7, b"[1,[2]]"))]
        }
        Malformation::NotCompressed => {
            vec![Outgoing::Message(message(management_id, Flags::COMPRESSED, 2, b"[]"))]
        }
        Malformation::WrongLength => {
            let body = gzip(b"[]");
            vec![Outgoing::Message(message(management_id, Flags::COMPRESSED, 1, &body))]
        }
        Malformation::Bomb => {
            let body = bomb();
            vec![Outgoing::Message(message(management_id, Flags::COMPRESSED, BOMB_BLOCK, &body))]
        }
    }
}

/// A command of an unknown class that carries so many bytes.
pub(crate) fn ballast(bytes: usize) -> Envelope {
    let body = format!(r#"{{"ballast":"{}","contextMap":{{}},"wait":0}}"#, "x".repeat(bytes));
    let body = RawValue::from_string(body).unwrap_or_else(|_| RawValue::NULL.to_owned());
    Envelope { class: UNKNOWN_CLASS.to_owned(), body }
}

fn message(management_id: i64, extra: Flags, length: usize, body: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        flags: Flags::REQUEST | Flags::STOP_ON_ERROR | Flags::FROM_SERVER | extra,
        sequence: Sequence(1),
        length: u32::try_from(length).unwrap_or(u32::MAX),
        management_id,
        agent_id: 1,
        via: 1,
    };
    [header.encode().as_slice(), body].concat()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory cannot fail.
    let written = encoder.write_all(body);
    debug_assert!(written.is_ok());
    encoder.finish().unwrap_or_default()
}

/// A gzip member that inflates to far more than it announces. One deflated block is repeated, for
/// each refers only to blanks before it; the checksum is never reached.
fn bomb() -> Vec<u8> {
    const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(&vec![b' '; BOMB_BLOCK]).and_then(|()| encoder.flush());
    debug_assert!(written.is_ok());
    let block = encoder.get_ref().repeat(BOMB_BLOCKS);
    [GZIP_HEADER.as_slice(), &block].concat()
}
