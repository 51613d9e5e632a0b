//! Arbitrary bytes at the packet reader: no panic, and the same packets however the bytes are cut.

#![no_main]

use agent_protocol::packet::{Joiner, MAX_PACKET, Packet, PacketError, PacketReader, split};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 16;

fn read(pieces: &[&[u8]]) -> (Vec<Packet>, Result<bool, PacketError>) {
    let mut reader = PacketReader::new();
    let mut packets = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match reader.next(&mut rest) {
                Ok(packet) => packets.extend(packet),
                Err(error) => return (packets, Err(error)),
            }
        }
    }
    (packets, Ok(reader.is_at_boundary()))
}

fuzz_target!(|input: (Vec<u8>, u16)| {
    let (bytes, cut) = input;
    let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let (packets, end) = read(&[&bytes]);
    assert_eq!(read(&[head, tail]), (packets.clone(), end));

    let mut joiner = Joiner::new(LIMIT);
    for packet in packets {
        assert!(packet.records.len() <= MAX_PACKET);
        if let Ok(Some(message)) = joiner.push(&packet.records, packet.more) {
            assert!(!message.is_empty() && message.len() <= LIMIT);
            let mut again = Joiner::new(message.len());
            let whole = split(&message).filter_map(|(p, more)| again.push(p, more).unwrap()).last();
            assert_eq!(whole, Some(message));
        }
    }
});
