//! The engine of `quickcloud wire decode`: recorded bytes in, one readable frame after the other.
//!
//! A recording comes as frames back to back, as hex, as base64, or as JSON lines with the frame in
//! base64 under `raw`; [`Form::of`] tells them apart. Nothing is hidden here: whoever decodes a
//! recording wants to see it, passwords included.

mod input;
mod render;

use std::borrow::Cow;

pub use input::Form;
pub use render::Layout;

use crate::envelope::{Envelope, EnvelopeError};
use crate::frame::{Frame, FrameError, FrameHeader};
use input::{Chunk, Chunks};

/// One frame of a recording.
#[derive(Debug, Clone)]
pub struct DecodedFrame {
    /// Number in the recording, from 1.
    pub number: u64,
    /// Where it begins, see [`Place`].
    pub place: Place,
    /// Bytes on the wire, header included, before inflating.
    pub wire_bytes: usize,
    /// The header as sent.
    pub header: FrameHeader,
    /// The body, inflated; an array of envelopes.
    pub body: String,
    /// The commands or answers of the body.
    pub envelopes: Vec<Envelope>,
}

/// Where a frame begins in a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Byte offset: in the input for raw bytes, in the bytes that hex or base64 stand for, and of
    /// the line in the input for JSON lines.
    pub offset: usize,
    /// Number of the line, from 1, for JSON lines.
    pub line: Option<u64>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "byte {} (line {line})", self.offset),
            None => write!(f, "byte {}", self.offset),
        }
    }
}

/// Where and why a recording is malformed.
#[derive(Debug, thiserror::Error)]
#[error("frame {number} at {place} is malformed")]
pub struct DecodeError {
    /// Number of the frame, from 1.
    pub number: u64,
    /// Where the frame begins.
    pub place: Place,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Header or size.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The body.
    #[error("body fault at byte {at} of the inflated body")]
    Body {
        /// Offset inside the inflated body.
        at: usize,
        /// The fault itself.
        #[source]
        source: EnvelopeError,
    },
    /// A line of JSON lines.
    #[error("line is not a JSON object with a text under \"raw\"")]
    Line(#[source] serde_json::Error),
    /// Base64 text.
    #[error("text is not base64")]
    Base64(#[source] base64::DecodeError),
    /// Hex text.
    #[error("hex text ends in the middle of a byte")]
    HalfByte,
    /// Text of no known form.
    #[error("text is neither hex nor base64 nor JSON lines")]
    Form,
    /// Nothing to decode.
    #[error("input holds no frame")]
    Empty,
}

/// Decodes a recording, frame by frame; inflates at most `max_inflated` bytes of each. Ends after
/// the first error.
pub fn frames(input: &[u8], max_inflated: usize) -> Frames<'_> {
    Frames {
        chunks: Chunks::new(input),
        chunk: Chunk::default(),
        taken: 0,
        number: 0,
        max_inflated,
        ended: false,
    }
}

/// Iterator over the frames of a recording.
#[derive(Debug)]
pub struct Frames<'a> {
    chunks: Chunks<'a>,
    chunk: Chunk<'a>,
    taken: usize,
    number: u64,
    max_inflated: usize,
    ended: bool,
}

impl Iterator for Frames<'_> {
    type Item = Result<DecodedFrame, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.step();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

impl Frames<'_> {
    fn step(&mut self) -> Option<Result<DecodedFrame, DecodeError>> {
        while self.taken >= self.chunk.bytes.len() {
            if let Some(fault) = self.chunk.tail.take() {
                return Some(Err(self.error(fault)));
            }
            match self.chunks.next() {
                Some(Ok(chunk)) => {
                    self.chunk = chunk;
                    self.taken = 0;
                }
                Some(Err((place, fault))) => {
                    let number = self.number.saturating_add(1);
                    return Some(Err(DecodeError { number, place, fault }));
                }
                None if self.number == 0 => return Some(Err(self.error(Fault::Empty))),
                None => return None,
            }
        }
        Some(self.frame())
    }

    fn frame(&mut self) -> Result<DecodedFrame, DecodeError> {
        let rest = self.chunk.bytes.get(self.taken..).unwrap_or_default();
        let (frame, wire_bytes) = match Frame::decode_prefix(rest, self.max_inflated) {
            Ok(decoded) => decoded,
            // A text that breaks off explains a frame that breaks off.
            Err(error) if error.is_incomplete() => {
                let fault = self.chunk.tail.take().unwrap_or(Fault::Frame(error));
                return Err(self.error(fault));
            }
            Err(error) => return Err(self.error(error.into())),
        };
        let envelopes = match frame.envelopes() {
            Ok(envelopes) => envelopes,
            Err(source) => {
                let at = source.offset(&frame.body);
                return Err(self.error(Fault::Body { at, source }));
            }
        };
        let place = self.place();
        self.number = self.number.saturating_add(1);
        self.taken = self.taken.saturating_add(wire_bytes);
        let body = match String::from_utf8_lossy(&frame.body) {
            Cow::Borrowed(text) => text.to_owned(),
            Cow::Owned(text) => text,
        };
        let Frame { header, .. } = frame;
        Ok(DecodedFrame { number: self.number, place, wire_bytes, header, body, envelopes })
    }

    fn place(&self) -> Place {
        // The bytes of a JSON line have no offset of their own in the input.
        match self.chunk.place.line {
            Some(_) => self.chunk.place,
            None => {
                Place { offset: self.chunk.place.offset.saturating_add(self.taken), line: None }
            }
        }
    }

    fn error(&self, fault: Fault) -> DecodeError {
        DecodeError { number: self.number.saturating_add(1), place: self.place(), fault }
    }
}
