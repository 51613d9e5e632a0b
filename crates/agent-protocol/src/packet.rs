//! Packets: what is on the socket after the TLS handshake.
//!
//! Every write of a peer is a clear 4-byte header followed by whole TLS records. Bits 0-15 count
//! the bytes that follow, bit 16 says that the message goes on in the next packet. The TLS engine
//! sits between [`PacketReader`] (ciphertext) and [`Joiner`] (plaintext).

/// Bytes of a packet header.
pub const HEADER_LEN: usize = 4;
/// Most bytes that may follow one header; a peer closes the connection above it.
pub const MAX_PACKET: usize = 18_000;
/// Plaintext bytes of one full TLS record, hence of one packet.
pub const RECORD_PLAINTEXT: usize = 16_384;

const MORE: u32 = 0x0001_0000;

/// Why bytes are not a packet, or packets not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The byte count is negative for the peer or above [`MAX_PACKET`].
    #[error("packet header announces {len} bytes, at most {MAX_PACKET} are allowed")]
    TooLong {
        /// The announced byte count.
        len: u16,
    },
    /// A message ended without a single plaintext byte.
    #[error("message without any byte")]
    EmptyMessage,
    /// The packets of one message exceed the bound of the receiver.
    #[error("message of more than {limit} bytes")]
    MessageTooLong {
        /// The receiver's bound in bytes.
        limit: usize,
    },
}

/// The clear header of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketHeader {
    /// Bytes of TLS records that follow.
    pub len: u16,
    /// The message goes on in the next packet.
    pub more: bool,
}

impl PacketHeader {
    /// Header for `len` bytes of TLS records.
    ///
    /// # Errors
    /// [`PacketError::TooLong`] above [`MAX_PACKET`].
    pub fn new(len: usize, more: bool) -> Result<PacketHeader, PacketError> {
        match u16::try_from(len) {
            Ok(len) if usize::from(len) <= MAX_PACKET => Ok(PacketHeader { len, more }),
            other => Err(PacketError::TooLong { len: other.unwrap_or(u16::MAX) }),
        }
    }

    /// The four bytes on the wire.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let more = if self.more { MORE } else { 0 };
        (more | u32::from(self.len)).to_be_bytes()
    }

    /// Reads the four bytes; bits 17-31 are ignored, as the peer ignores them.
    ///
    /// # Errors
    /// [`PacketError::TooLong`] above [`MAX_PACKET`].
    pub fn decode(bytes: [u8; HEADER_LEN]) -> Result<PacketHeader, PacketError> {
        let word = u32::from_be_bytes(bytes);
        let [_, _, high, low] = bytes;
        let len = u16::from_be_bytes([high, low]);
        if usize::from(len) > MAX_PACKET {
            return Err(PacketError::TooLong { len });
        }
        Ok(PacketHeader { len, more: word & MORE != 0 })
    }
}

/// The plaintext pieces of a message, one per packet, each with its `more` bit.
pub fn split(message: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let mut left = message.len().div_ceil(RECORD_PLAINTEXT);
    message.chunks(RECORD_PLAINTEXT).map(move |piece| {
        left = left.saturating_sub(1);
        (piece, left > 0)
    })
}

/// One packet as read from the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The message goes on in the next packet.
    pub more: bool,
    /// TLS records, still encrypted.
    pub records: Vec<u8>,
}

/// Cuts a byte stream into packets; holds at most one incomplete packet.
#[derive(Debug, Default)]
pub struct PacketReader {
    head: Vec<u8>,
    open: Option<(PacketHeader, Vec<u8>)>,
}

impl PacketReader {
    /// A reader at a packet boundary.
    pub fn new() -> PacketReader {
        PacketReader::default()
    }

    /// True when the stream may end here without cutting a packet.
    pub fn is_at_boundary(&self) -> bool {
        self.head.is_empty() && self.open.is_none()
    }

    /// Takes bytes off the front of `input` until a packet is whole or `input` is used up.
    ///
    /// # Errors
    /// [`PacketError::TooLong`]; the connection is then beyond repair.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Packet>, PacketError> {
        if self.open.is_none() {
            take(&mut self.head, HEADER_LEN, input);
            let Ok(bytes) = <[u8; HEADER_LEN]>::try_from(self.head.as_slice()) else {
                return Ok(None);
            };
            let header = PacketHeader::decode(bytes)?;
            self.head.clear();
            self.open = Some((header, Vec::with_capacity(usize::from(header.len))));
        }
        let Some((header, mut records)) = self.open.take() else { return Ok(None) };
        take(&mut records, usize::from(header.len), input);
        if records.len() < usize::from(header.len) {
            self.open = Some((header, records));
            return Ok(None);
        }
        Ok(Some(Packet { more: header.more, records }))
    }
}

fn take(into: &mut Vec<u8>, wanted: usize, input: &mut &[u8]) {
    let missing = wanted.saturating_sub(into.len()).min(input.len());
    let (now, rest) = input.split_at(missing);
    into.extend_from_slice(now);
    *input = rest;
}

/// Joins the plaintext of packets to whole messages, within a bound.
#[derive(Debug)]
pub struct Joiner {
    limit: usize,
    message: Vec<u8>,
}

impl Joiner {
    /// A joiner for messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Joiner {
        Joiner { limit, message: Vec::new() }
    }

    /// Bytes of the unfinished message.
    pub fn pending(&self) -> usize {
        self.message.len()
    }

    /// Adds the plaintext of one packet; returns the message when the packet ended it.
    ///
    /// # Errors
    /// [`PacketError::MessageTooLong`] or [`PacketError::EmptyMessage`]; the unfinished message
    /// is dropped.
    pub fn push(&mut self, plaintext: &[u8], more: bool) -> Result<Option<Vec<u8>>, PacketError> {
        if plaintext.len() > self.limit.saturating_sub(self.message.len()) {
            self.message = Vec::new();
            return Err(PacketError::MessageTooLong { limit: self.limit });
        }
        self.message.extend_from_slice(plaintext);
        if more {
            return Ok(None);
        }
        if self.message.is_empty() {
            return Err(PacketError::EmptyMessage);
        }
        Ok(Some(std::mem::take(&mut self.message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_as_recorded() {
        assert_eq!(PacketHeader::new(177, false).unwrap().encode(), [0, 0, 0, 0xb1]);
        assert_eq!(PacketHeader::new(16_413, true).unwrap().encode(), [0, 1, 0x40, 0x1d]);
        assert_eq!(
            PacketHeader::decode([0, 1, 0x40, 0x1d]),
            Ok(PacketHeader { len: 16_413, more: true })
        );
    }

    #[test]
    fn bits_above_sixteen_are_ignored() {
        let header = PacketHeader::decode([0xff, 0xfe, 0, 7]).unwrap();
        assert_eq!(header, PacketHeader { len: 7, more: false });
    }

    #[test]
    fn lengths_the_peer_refuses_are_refused() {
        for bytes in [[0, 0, 0x46, 0x51], [0, 0, 0x80, 0], [0, 1, 0xff, 0xff]] {
            assert!(matches!(PacketHeader::decode(bytes), Err(PacketError::TooLong { .. })));
        }
        assert!(PacketHeader::decode([0, 0, 0x46, 0x50]).is_ok());
        assert!(PacketHeader::new(18_001, false).is_err());
        assert!(PacketHeader::new(100_000, false).is_err());
    }

    #[test]
    fn a_long_message_is_split_at_record_size_and_joined_again() {
        let message: Vec<u8> = (0..40_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let sizes: Vec<_> = split(&message).map(|(piece, more)| (piece.len(), more)).collect();
        assert_eq!(sizes, [(16_384, true), (16_384, true), (7_232, false)]);
        let mut joiner = Joiner::new(40_000);
        let whole = split(&message).filter_map(|(p, more)| joiner.push(p, more).unwrap()).next();
        assert_eq!(whole, Some(message));
        assert_eq!(joiner.pending(), 0);
    }

    #[test]
    fn a_message_of_exactly_one_record_is_one_packet() {
        let message = vec![1; RECORD_PLAINTEXT];
        let sizes: Vec<_> = split(&message).map(|(piece, more)| (piece.len(), more)).collect();
        assert_eq!(sizes, [(RECORD_PLAINTEXT, false)]);
    }

    #[test]
    fn joiner_keeps_its_bound_and_refuses_empty_messages() {
        let mut joiner = Joiner::new(10);
        assert_eq!(joiner.push(b"12345678", true), Ok(None));
        assert_eq!(joiner.push(b"123", true), Err(PacketError::MessageTooLong { limit: 10 }));
        assert_eq!(joiner.pending(), 0);
        assert_eq!(joiner.push(b"", false), Err(PacketError::EmptyMessage));
    }

    #[test]
    fn reader_takes_any_fragmentation() {
        let mut wire = PacketHeader::new(3, true).unwrap().encode().to_vec();
        wire.extend_from_slice(b"abc");
        wire.extend_from_slice(&PacketHeader::new(2, false).unwrap().encode());
        wire.extend_from_slice(b"de");
        for step in 1..=wire.len() {
            let mut reader = PacketReader::new();
            let mut packets = Vec::new();
            for mut piece in wire.chunks(step) {
                while !piece.is_empty() {
                    packets.extend(reader.next(&mut piece).unwrap());
                }
            }
            assert!(reader.is_at_boundary());
            assert_eq!(
                packets,
                [
                    Packet { more: true, records: b"abc".to_vec() },
                    Packet { more: false, records: b"de".to_vec() }
                ]
            );
        }
    }
}
