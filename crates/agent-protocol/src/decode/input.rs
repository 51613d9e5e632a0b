//! Which form a recording has, and the frame bytes in it.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::{Fault, Place};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The form of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Frames back to back.
    Raw,
    /// Pairs of hex digits, blanks anywhere between digits.
    Hex,
    /// Base64 of either alphabet, blanks anywhere; several padded texts may follow each other.
    Base64,
    /// One JSON object a line, with a frame in base64 under `raw`; lines without one are skipped.
    JsonLines,
    /// Text of no known form.
    Unknown,
}

impl Form {
    /// Looks at the whole input. A frame begins with a zero byte, which no text holds.
    pub fn of(input: &[u8]) -> Form {
        let mut text = input.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
        match text.clone().next() {
            None | Some(0) => Form::Raw,
            Some(b'{') => Form::JsonLines,
            _ if text.clone().all(|byte| byte.is_ascii_hexdigit()) => Form::Hex,
            _ if text.all(is_base64) => Form::Base64,
            _ if input.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
                Form::Unknown
            }
            _ => Form::Raw,
        }
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// Frame bytes and where they came from.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    pub(super) place: Place,
    /// What is wrong behind the last byte.
    pub(super) tail: Option<Fault>,
}

impl Default for Chunk<'_> {
    fn default() -> Self {
        Chunk { bytes: Cow::Borrowed(&[]), place: Place { offset: 0, line: None }, tail: None }
    }
}

/// The pieces of a recording: one, or one per line.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    form: Form,
    rest: &'a [u8],
    offset: usize,
    line: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    raw: Option<Cow<'a, str>>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(input: &'a [u8]) -> Chunks<'a> {
        let input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
        Chunks { form: Form::of(input), rest: input, offset: 0, line: 0 }
    }

    pub(super) fn next(&mut self) -> Option<Result<Chunk<'a>, (Place, Fault)>> {
        if self.form == Form::JsonLines {
            return self.next_line();
        }
        let input = std::mem::take(&mut self.rest);
        if input.trim_ascii().is_empty() {
            return None;
        }
        let chunk = match self.form {
            Form::Hex => Ok(hex(input)),
            Form::Base64 => base64(input)
                .map(|bytes| Chunk { bytes: Cow::Owned(bytes), ..Chunk::default() })
                .map_err(Fault::Base64),
            Form::Unknown => Err(Fault::Form),
            Form::Raw | Form::JsonLines => {
                Ok(Chunk { bytes: Cow::Borrowed(input), ..Chunk::default() })
            }
        };
        Some(chunk.map_err(|fault| (Chunk::default().place, fault)))
    }

    fn next_line(&mut self) -> Option<Result<Chunk<'a>, (Place, Fault)>> {
        while !self.rest.is_empty() {
            let end = self.rest.iter().position(|byte| *byte == b'\n');
            let (line, rest) = match end {
                Some(end) => self.rest.split_at(end.saturating_add(1)),
                None => (self.rest, <&[u8]>::default()),
            };
            let offset = self.offset;
            self.rest = rest;
            self.offset = self.offset.saturating_add(line.len());
            self.line = self.line.saturating_add(1);
            if line.trim_ascii().is_empty() {
                continue;
            }
            let place = Place { offset, line: Some(self.line) };
            match parse_line(line) {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    return Some(Ok(Chunk { bytes: Cow::Owned(bytes), place, tail: None }));
                }
                Err(fault) => return Some(Err((place, fault))),
            }
        }
        None
    }
}

fn parse_line(line: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let Line { raw } = serde_json::from_slice(line).map_err(Fault::Line)?;
    match raw {
        // An empty text is a cut recording, not an event.
        Some(text) if text.trim().is_empty() => Err(Fault::Empty),
        Some(text) => base64(text.as_bytes()).map(Some).map_err(Fault::Base64),
        None => Ok(None),
    }
}

fn hex(text: &[u8]) -> Chunk<'static> {
    let digits: Vec<u8> = text
        .iter()
        .filter_map(|byte| char::from(*byte).to_digit(16))
        .filter_map(|digit| u8::try_from(digit).ok())
        .collect();
    let (pairs, half) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    let tail = (!half.is_empty()).then_some(Fault::HalfByte);
    Chunk { bytes: Cow::Owned(bytes), tail, ..Chunk::default() }
}

fn base64(text: &[u8]) -> Result<Vec<u8>, base64::DecodeError> {
    let clean: Vec<u8> = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    let mut bytes = Vec::with_capacity(clean.len() / 4 * 3);
    // Padding ends one text; another may follow it.
    let ends_text = |a: &u8, b: &u8| !(*a == b'=' && *b != b'=');
    for part in clean.chunk_by(ends_text) {
        BASE64.decode_vec(part, &mut bytes)?;
    }
    Ok(bytes)
}
