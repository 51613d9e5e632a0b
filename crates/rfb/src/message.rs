//! The client's messages: their lengths, and a decoder for servers.

use crate::init::{FORMAT_LENGTH, PixelFormat};
use crate::input::Input;

/// Types of the client's messages.
pub mod client_type {
    pub const SET_PIXEL_FORMAT: u8 = 0;
    pub const FIX_COLOUR_MAP_ENTRIES: u8 = 1;
    pub const SET_ENCODINGS: u8 = 2;
    pub const FRAMEBUFFER_UPDATE_REQUEST: u8 = 3;
    pub const KEY_EVENT: u8 = 4;
    pub const POINTER_EVENT: u8 = 5;
    pub const CLIENT_CUT_TEXT: u8 = 6;
    pub const ENABLE_CONTINUOUS_UPDATES: u8 = 150;
    pub const FENCE: u8 = 248;
    pub const XVP: u8 = 250;
    pub const SET_DESKTOP_SIZE: u8 = 251;
    pub const QEMU: u8 = 255;
}

/// Types of the server's messages.
pub mod server_type {
    pub const FRAMEBUFFER_UPDATE: u8 = 0;
    pub const SET_COLOUR_MAP_ENTRIES: u8 = 1;
    pub const BELL: u8 = 2;
    pub const SERVER_CUT_TEXT: u8 = 3;
}

/// Encodings and pseudo-encodings.
pub mod encoding {
    pub const RAW: i32 = 0;
    pub const COPY_RECT: i32 = 1;
    pub const DESKTOP_SIZE: i32 = -223;
    pub const EXTENDED_DESKTOP_SIZE: i32 = -308;
}

/// Longest fixed part of any client message: SetPixelFormat.
const LONGEST_FIXED: usize = 20;

/// How long the message at the front is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// That many bytes must be there to know.
    Needs(usize),
    /// The whole message.
    Whole(u64),
    /// No message we know begins so.
    Unknown,
}

/// Looks at the front of the client's bytes.
pub(crate) fn extent(bytes: &[u8]) -> Extent {
    use client_type::*;
    let u16_at = |at: usize| match bytes.get(at..at + 2) {
        Some(&[high, low]) => Some(u64::from(u16::from_be_bytes([high, low]))),
        _ => None,
    };
    let u32_at = |at: usize| match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => Some(u32::from_be_bytes([a, b, c, d])),
        _ => None,
    };
    let Some(&message) = bytes.first() else { return Extent::Needs(1) };
    let counted = |count: Option<u64>, needs: usize, fixed: u64, each: u64| match count {
        Some(count) => Extent::Whole(fixed + count * each),
        None => Extent::Needs(needs),
    };
    match message {
        SET_PIXEL_FORMAT => Extent::Whole(20),
        FIX_COLOUR_MAP_ENTRIES => counted(u16_at(4), 6, 6, 6),
        SET_ENCODINGS => counted(u16_at(2), 4, 4, 4),
        FRAMEBUFFER_UPDATE_REQUEST | ENABLE_CONTINUOUS_UPDATES => Extent::Whole(10),
        KEY_EVENT => Extent::Whole(8),
        // The highest bit announces a byte with further buttons, where the server knows them.
        POINTER_EVENT => match bytes.get(1) {
            None => Extent::Needs(2),
            Some(buttons) if buttons & 0x80 != 0 => Extent::Whole(7),
            Some(_) => Extent::Whole(6),
        },
        // The clipboard extension announces its length as a negative number.
        CLIENT_CUT_TEXT => {
            let length = u32_at(4).map(|n| u64::from(n.cast_signed().unsigned_abs()));
            counted(length, 8, 8, 1)
        }
        FENCE => counted(bytes.get(8).map(|n| u64::from(*n)), 9, 9, 1),
        XVP => Extent::Whole(4),
        SET_DESKTOP_SIZE => counted(bytes.get(6).map(|n| u64::from(*n)), 7, 8, 16),
        QEMU => match (bytes.get(1), u16_at(2)) {
            (None, _) => Extent::Needs(2),
            (Some(0), _) => Extent::Whole(12),
            (Some(1), None) => Extent::Needs(4),
            (Some(1), Some(2)) => Extent::Whole(10),
            (Some(1), Some(_)) => Extent::Whole(4),
            (Some(_), _) => Extent::Unknown,
        },
        _ => Extent::Unknown,
    }
}

/// A client's message, as far as a server cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    SetPixelFormat(PixelFormat),
    SetEncodings(Vec<i32>),
    UpdateRequest {
        incremental: bool,
        x: u16,
        y: u16,
        width: u16,
        height: u16,
    },
    Key {
        down: bool,
        keysym: u32,
    },
    Pointer {
        buttons: u8,
        x: u16,
        y: u16,
    },
    /// Anything else that is well formed, by its type.
    Other(u8),
}

/// Why the client's bytes cannot be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the client sent a message of unknown type {0}")]
    UnknownType(u8),
    #[error("the client sent a message of {0} bytes")]
    TooLong(u64),
}

/// Decodes a server's input.
#[derive(Default)]
pub struct MessageDecoder {
    input: Input,
}

impl std::fmt::Debug for MessageDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageDecoder").field("buffered", &self.input.len()).finish()
    }
}

impl MessageDecoder {
    /// Longest message accepted; only clipboard texts get near.
    pub const LIMIT: u64 = 1 << 20;

    pub fn push(&mut self, bytes: &[u8]) {
        self.input.push(bytes);
    }

    /// The next message; `Ok(None)` when more bytes are needed.
    pub fn message(&mut self) -> Result<Option<ClientMessage>, MessageError> {
        let front = self.input.len().min(LONGEST_FIXED);
        let bytes = self.input.peek_slice(front).unwrap_or_default();
        let length = match extent(bytes) {
            Extent::Needs(_) => return Ok(None),
            Extent::Unknown => {
                let first = bytes.first().copied().unwrap_or_default();
                return Err(MessageError::UnknownType(first));
            }
            Extent::Whole(length) if length > Self::LIMIT => {
                return Err(MessageError::TooLong(length));
            }
            Extent::Whole(length) => usize::try_from(length).unwrap_or(usize::MAX),
        };
        let Some(bytes) = self.input.peek_slice(length) else { return Ok(None) };
        let message = decode(bytes);
        self.input.skip(length);
        Ok(message)
    }
}

/// Decodes one whole message.
fn decode(bytes: &[u8]) -> Option<ClientMessage> {
    use client_type::*;
    let pair = |a: &u8, b: &u8| u16::from_be_bytes([*a, *b]);
    Some(match bytes {
        [SET_PIXEL_FORMAT, _, _, _, format @ ..] => {
            let format: &[u8; FORMAT_LENGTH] = format.first_chunk()?;
            ClientMessage::SetPixelFormat(PixelFormat::decode(format))
        }
        [SET_ENCODINGS, _, _, _, list @ ..] => {
            let numbers = list.chunks_exact(4).filter_map(|n| n.first_chunk::<4>());
            ClientMessage::SetEncodings(numbers.map(|n| i32::from_be_bytes(*n)).collect())
        }
        [FRAMEBUFFER_UPDATE_REQUEST, incremental, x1, x0, y1, y0, w1, w0, h1, h0] => {
            ClientMessage::UpdateRequest {
                incremental: *incremental != 0,
                x: pair(x1, x0),
                y: pair(y1, y0),
                width: pair(w1, w0),
                height: pair(h1, h0),
            }
        }
        [KEY_EVENT, down, _, _, a, b, c, d] => {
            ClientMessage::Key { down: *down != 0, keysym: u32::from_be_bytes([*a, *b, *c, *d]) }
        }
        // QEMU's extended key event carries the key symbol as well.
        [QEMU, 0, _, down, a, b, c, d, ..] => {
            ClientMessage::Key { down: *down != 0, keysym: u32::from_be_bytes([*a, *b, *c, *d]) }
        }
        [POINTER_EVENT, buttons, x1, x0, y1, y0, ..] => {
            ClientMessage::Pointer { buttons: *buttons, x: pair(x1, x0), y: pair(y1, y0) }
        }
        [other, ..] => ClientMessage::Other(*other),
        [] => return None,
    })
}
