//! Recordings of what a server sent: "FBS 001.001", the format of rfbproxy that several players know.
//!
//! ```text
//! FBS 001.001\n
//! then blocks: length (u32), that many bytes, padding to four, milliseconds since the start (u32)
//! ```
//!
//! The bytes of all blocks together are a server's side of RFB 3.3 without security: version, security
//! type, ServerInit, messages. The pixel format of its ServerInit is the one that the messages are in.

use crate::init::ServerInit;
use crate::security::SecurityType;
use crate::version::Version;

/// First bytes of a recording.
pub const MAGIC: &[u8; 12] = b"FBS 001.001\n";
/// Longest block that is read.
const LIMIT: u32 = 16 << 20;
const LENGTH: usize = 4;
const TIME: usize = 4;

/// What was sent by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub bytes: Vec<u8>,
    /// Milliseconds since the start.
    pub at_ms: u32,
}

/// Why a file cannot be read as a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FbsError {
    #[error("it does not begin as a recording does")]
    Magic,
    #[error("a block has {0} bytes")]
    TooLong(u32),
}

/// Everything up to the first message.
pub fn opening(init: &ServerInit) -> Vec<u8> {
    let mut bytes = Version::V3.message().to_vec();
    bytes.extend_from_slice(&u32::from(SecurityType::NONE.0).to_be_bytes());
    bytes.extend_from_slice(&init.encode());
    let mut out = MAGIC.to_vec();
    put_block(&mut out, &bytes, 0);
    out
}

/// Appends a block.
pub fn put_block(out: &mut Vec<u8>, bytes: &[u8], at_ms: u32) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
    out.resize(out.len() + padding(bytes.len()), 0);
    out.extend_from_slice(&at_ms.to_be_bytes());
}

const fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

/// Reads a recording in pieces of any size. What is cut off at its end is not there.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// How much of it was handed out.
    at: usize,
    begun: bool,
}

impl Decoder {
    /// Takes the next bytes of the file; take all blocks before the next ones.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next block that is whole.
    ///
    /// # Errors
    /// When this is no recording.
    pub fn block(&mut self) -> Result<Option<Block>, FbsError> {
        if !self.begun {
            let seen = self.bytes.len().min(MAGIC.len());
            if self.bytes.get(..seen) != MAGIC.get(..seen) {
                return Err(FbsError::Magic);
            }
            if seen < MAGIC.len() {
                return Ok(None);
            }
            (self.begun, self.at) = (true, MAGIC.len());
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        if length > LIMIT {
            return Err(FbsError::TooLong(length));
        }
        let length = usize::try_from(length).unwrap_or_default();
        let padded = length + padding(length);
        let time = rest.get(padded..).and_then(|rest| rest.first_chunk::<TIME>());
        let (Some(bytes), Some(time)) = (rest.get(..length), time) else { return Ok(None) };
        let block = Block { bytes: bytes.to_vec(), at_ms: u32::from_be_bytes(*time) };
        self.at += LENGTH + padded + TIME;
        Ok(Some(block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientHandshake, PixelFormat};

    fn recording() -> Vec<u8> {
        let init =
            ServerInit { width: 8, height: 9, format: PixelFormat::RGB888, name: b"vm".into() };
        let mut out = opening(&init);
        put_block(&mut out, b"12345", 40);
        put_block(&mut out, b"", 50);
        put_block(&mut out, b"12345678", 70);
        out
    }

    fn read(pieces: &[&[u8]]) -> Vec<Block> {
        let (mut decoder, mut blocks) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(piece);
            while let Some(block) = decoder.block().unwrap() {
                blocks.push(block);
            }
        }
        blocks
    }

    #[test]
    fn what_was_recorded_is_read_however_it_is_cut_and_a_torn_end_is_left_out() {
        let all = recording();
        let blocks = read(&[&all]);
        assert_eq!(blocks.iter().map(|block| block.at_ms).collect::<Vec<_>>(), [0, 40, 50, 70]);
        assert_eq!(blocks[1].bytes, b"12345");
        for cut in 0..all.len() {
            assert_eq!(read(&[&all[..cut], &all[cut..]]), blocks, "{cut}");
            let torn = read(&[&all[..cut]]);
            assert_eq!(torn, blocks[..torn.len()], "{cut}");
        }
        // Its beginning is that of a server.
        let mut handshake = ClientHandshake::new("");
        handshake.receive(&blocks[0].bytes).unwrap();
        let (init, rest) = handshake.finish().unwrap();
        assert_eq!((init.width, init.height, &init.name[..], rest.len()), (8, 9, &b"vm"[..], 0));
    }

    #[test]
    fn what_is_no_recording_is_told_and_no_length_is_believed() {
        let error = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.block().unwrap_err()
        };
        assert_eq!(error(b"RFB 003.008\n"), FbsError::Magic);
        assert_eq!(
            error(&[&MAGIC[..], &u32::MAX.to_be_bytes()].concat()),
            FbsError::TooLong(u32::MAX)
        );
    }
}
