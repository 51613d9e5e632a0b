//! Frames: one message as a 40-byte header and a JSON body, gzip-compressed from 8 KiB on.
//!
//! The header routes; the body means. A response must copy sequence, ids and two flags of its
//! request exactly, or the server blocks its in-sequence queue or sends the bytes to another
//! server. [`FrameHeader::response`] is therefore the only way to make one.

use std::fmt;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::envelope::{Envelope, EnvelopeError, encode_envelopes, parse_envelopes};

/// Bytes of a frame header.
pub const HEADER_LEN: usize = 40;
/// Bodies of this many bytes or more are sent compressed.
pub const COMPRESS_FROM: usize = 8192;
/// Suggested bound for the inflated body of a received frame, in bytes. The largest message of a
/// server is a config drive: an image of at most 64 MiB, in base64.
pub const DEFAULT_MAX_INFLATED: usize = 96 * 1024 * 1024;
/// The id that stands for "none" in every id field.
pub const NO_ID: i64 = -1;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header has.
    #[error("frame ends after {have} of 40 header bytes")]
    ShortHeader {
        /// Bytes present.
        have: usize,
    },
    /// A header version other than the one in use.
    #[error("frame header has version byte {version}, only 0 is spoken")]
    Version {
        /// The version byte.
        version: u8,
    },
    /// The declared length is negative or above the receiver's bound.
    #[error("frame body of {declared} bytes, at most {limit} are accepted")]
    TooLong {
        /// Length field of the header.
        declared: u32,
        /// The receiver's bound in bytes.
        limit: usize,
    },
    /// Body and length field disagree.
    #[error("frame header declares {declared} body bytes, found {found}")]
    Length {
        /// Length field of the header.
        declared: u32,
        /// Bytes found; for a compressed body counted up to one more than declared.
        found: usize,
    },
    /// The compressed body cannot be inflated.
    #[error("frame body is not a whole gzip member")]
    Gzip(#[source] std::io::Error),
    /// Bytes follow the compressed body.
    #[error("{extra} bytes follow the compressed frame body")]
    Trailing {
        /// Bytes after the gzip member.
        extra: usize,
    },
}

impl FrameError {
    /// True when more bytes could make the frame whole.
    pub fn is_incomplete(&self) -> bool {
        match self {
            FrameError::ShortHeader { .. } => true,
            FrameError::Length { declared, found } => {
                usize::try_from(*declared).is_ok_and(|declared| *found < declared)
            }
            FrameError::Gzip(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
            _ => false,
        }
    }
}

/// The flag bits of a frame header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u16);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// A request; clear means a response.
    pub const REQUEST: Flags = Flags(0x01);
    /// The commands after a failed one are not run.
    pub const STOP_ON_ERROR: Flags = Flags(0x02);
    /// Runs one after the other with everything else that has this flag.
    pub const IN_SEQUENCE: Flags = Flags(0x04);
    /// Built by a management server. An agent never sets it.
    pub const FROM_SERVER: Flags = Flags(0x20);
    /// Between management servers only.
    pub const CONTROL: Flags = Flags(0x40);
    /// The body is one gzip member.
    pub const COMPRESSED: Flags = Flags(0x80);

    /// Start-up request of an agent: request, in sequence.
    pub const STARTUP: Flags = Flags(0x05);
    /// Ping or control request of an agent: request, stop on error.
    pub const AGENT_REQUEST: Flags = Flags(0x03);
    /// Shutdown notice of an agent.
    pub const SHUTDOWN: Flags = Flags(0x07);

    const NAMES: [(Flags, &'static str); 6] = [
        (Flags::REQUEST, "request"),
        (Flags::STOP_ON_ERROR, "stop_on_error"),
        (Flags::IN_SEQUENCE, "in_sequence"),
        (Flags::FROM_SERVER, "from_server"),
        (Flags::CONTROL, "control"),
        (Flags::COMPRESSED, "compressed"),
    ];

    /// Flags from the 16-bit header field; unknown bits are kept.
    pub const fn from_bits(bits: u16) -> Flags {
        Flags(bits)
    }

    /// The 16-bit header field.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// True when every bit of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and those of `other`.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These flags without those of `other`.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// Names of the set flags, lowest bit first; unknown bits have none.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flags::NAMES.into_iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| name)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        self.with(other)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#04x})", self.0)
    }
}

/// Number by which a response finds its request; unique per sender, not per connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub i64);

impl From<i64> for Sequence {
    fn from(number: i64) -> Sequence {
        Sequence(number)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The 40 bytes in front of every body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What kind of message this is.
    pub flags: Flags,
    /// Copied from request to response.
    pub sequence: Sequence,
    /// Bytes of the JSON before compression.
    pub length: u32,
    /// Node id of the management server that owns the conversation; −1 from agents.
    pub management_id: i64,
    /// Host id of the agent; −1 while unknown.
    pub agent_id: i64,
    /// Host id of the agent that routes; the same as `agent_id` in practice.
    pub via: i64,
}

impl FrameHeader {
    /// The header of the answer an agent owes to this request; `length` is set with the body.
    #[must_use]
    pub fn response(&self) -> FrameHeader {
        let kept = self.flags.bits() & (Flags::STOP_ON_ERROR | Flags::IN_SEQUENCE).bits();
        FrameHeader { flags: Flags(kept), length: 0, ..*self }
    }

    /// The header of a management server's answer to this request of an agent.
    ///
    /// `node_id` is the server's own id, `via` the host id or −1 before the host is known.
    #[must_use]
    pub fn server_response(&self, node_id: i64, via: i64) -> FrameHeader {
        let response = self.response();
        let flags = response.flags | Flags::FROM_SERVER;
        FrameHeader { flags, management_id: node_id, via, ..response }
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = bytes.as_mut_slice();
        // The slice holds exactly the fields written here: writing cannot run out of room.
        let written = rest
            .write_all(&[0, 0])
            .and_then(|()| rest.write_all(&self.flags.0.to_be_bytes()))
            .and_then(|()| rest.write_all(&self.sequence.0.to_be_bytes()))
            .and_then(|()| rest.write_all(&self.length.to_be_bytes()))
            .and_then(|()| rest.write_all(&self.management_id.to_be_bytes()))
            .and_then(|()| rest.write_all(&self.agent_id.to_be_bytes()))
            .and_then(|()| rest.write_all(&self.via.to_be_bytes()));
        debug_assert!(written.is_ok());
        bytes
    }

    /// Reads the header off the front of `bytes`.
    ///
    /// # Errors
    /// [`FrameError::ShortHeader`] and [`FrameError::Version`].
    pub fn decode(bytes: &[u8]) -> Result<FrameHeader, FrameError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::ShortHeader { have: bytes.len() });
        };
        let [version, ..] = *head;
        if version != 0 {
            return Err(FrameError::Version { version });
        }
        let number = |at: usize| i64::from_be_bytes(field(head, at));
        Ok(FrameHeader {
            flags: Flags(u16::from_be_bytes(field(head, 2))),
            sequence: Sequence(number(4)),
            length: u32::from_be_bytes(field(head, 12)),
            management_id: number(16),
            agent_id: number(24),
            via: number(32),
        })
    }
}

/// `N` bytes of the header at offset `at`; zeros outside of it.
fn field<const N: usize>(head: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    head.get(at..).and_then(|tail| tail.first_chunk::<N>()).copied().unwrap_or([0; N])
}

/// One message.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Routing; `length` is kept equal to the size of `body` by the constructors.
    pub header: FrameHeader,
    /// The JSON text, inflated.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame with this header around these envelopes; sets `length`.
    pub fn new(header: FrameHeader, envelopes: &[Envelope]) -> Frame {
        let body = encode_envelopes(envelopes);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        Frame { header: FrameHeader { length, ..header }, body }
    }

    /// A request of an agent: management id −1, via the same as the agent id.
    pub fn request(
        flags: Flags,
        sequence: impl Into<Sequence>,
        agent_id: i64,
        envelopes: &[Envelope],
    ) -> Frame {
        let header = FrameHeader {
            flags,
            sequence: sequence.into(),
            length: 0,
            management_id: NO_ID,
            agent_id,
            via: agent_id,
        };
        Frame::new(header, envelopes)
    }

    /// The answer an agent owes to the request with header `request`.
    pub fn response(request: &FrameHeader, envelopes: &[Envelope]) -> Frame {
        Frame::new(request.response(), envelopes)
    }

    /// The commands or answers in the body.
    ///
    /// # Errors
    /// [`EnvelopeError`] when the body is not an array of one-key objects.
    pub fn envelopes(&self) -> Result<Vec<Envelope>, EnvelopeError> {
        parse_envelopes(&self.body)
    }

    /// Reads one whole message, no more and no less; inflates at most `max_inflated` bytes.
    ///
    /// # Errors
    /// Every [`FrameError`]; [`FrameError::is_incomplete`] tells a cut message from a wrong one.
    pub fn decode(bytes: &[u8], max_inflated: usize) -> Result<Frame, FrameError> {
        let header = FrameHeader::decode(bytes)?;
        let wire = bytes.get(HEADER_LEN..).unwrap_or_default();
        let declared = bounded(&header, max_inflated)?;
        if !header.flags.contains(Flags::COMPRESSED) {
            if wire.len() != declared {
                return Err(FrameError::Length { declared: header.length, found: wire.len() });
            }
            return Ok(Frame { header, body: wire.to_vec() });
        }
        let (body, rest) = inflate(wire, &header, declared)?;
        if !rest.is_empty() {
            return Err(FrameError::Trailing { extra: rest.len() });
        }
        Ok(Frame { header, body })
    }

    /// Reads one message off the front of `bytes`, where further ones may follow; returns it with
    /// the number of bytes it took.
    ///
    /// # Errors
    /// As [`Frame::decode`].
    pub fn decode_prefix(bytes: &[u8], max_inflated: usize) -> Result<(Frame, usize), FrameError> {
        let header = FrameHeader::decode(bytes)?;
        let wire = bytes.get(HEADER_LEN..).unwrap_or_default();
        let declared = bounded(&header, max_inflated)?;
        let (body, rest) = if header.flags.contains(Flags::COMPRESSED) {
            inflate(wire, &header, declared)?
        } else {
            match wire.split_at_checked(declared) {
                Some((body, rest)) => (body.to_vec(), rest),
                None => {
                    let found = wire.len();
                    return Err(FrameError::Length { declared: header.length, found });
                }
            }
        };
        Ok((Frame { header, body }, bytes.len().saturating_sub(rest.len())))
    }

    /// The bytes on the wire; compressed from [`COMPRESS_FROM`] bytes on, whatever the flag says.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        let plain = FrameHeader {
            flags: self.header.flags.without(Flags::COMPRESSED),
            length,
            ..self.header
        };
        if self.body.len() >= COMPRESS_FROM
            && let Ok(gzip) = deflate(&self.body)
        {
            let header = FrameHeader { flags: plain.flags | Flags::COMPRESSED, ..plain };
            return [header.encode().as_slice(), &gzip].concat();
        }
        [plain.encode().as_slice(), &self.body].concat()
    }
}

/// Prints the header and the size of the body: bodies carry passwords and keys.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

fn bounded(header: &FrameHeader, limit: usize) -> Result<usize, FrameError> {
    let declared = header.length;
    // The field is a signed number for the peer.
    if i32::try_from(declared).is_err() {
        return Err(FrameError::TooLong { declared, limit });
    }
    match usize::try_from(declared) {
        Ok(length) if length <= limit => Ok(length),
        _ => Err(FrameError::TooLong { declared, limit }),
    }
}

/// Inflates the gzip member at the front of `wire`; returns it and what follows it.
fn inflate<'a>(
    wire: &'a [u8],
    header: &FrameHeader,
    declared: usize,
) -> Result<(Vec<u8>, &'a [u8]), FrameError> {
    // A first guess only: the declared size is not trusted before the bytes are there.
    let mut body = Vec::with_capacity(declared.min(wire.len().saturating_mul(16)));
    let limit = u64::from(header.length).saturating_add(1);
    let mut member = GzDecoder::new(wire).take(limit);
    member.read_to_end(&mut body).map_err(FrameError::Gzip)?;
    if body.len() != declared {
        return Err(FrameError::Length { declared: header.length, found: body.len() });
    }
    Ok((body, member.into_inner().into_inner()))
}

fn deflate(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests;
