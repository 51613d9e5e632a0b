//! Heads of frames.

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub(crate) const fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn number(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    pub(crate) const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The head of a frame that is a message of its own, as a server sends it: final and not masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; 10],
    length: usize,
}

impl Header {
    /// The head of a payload of that length.
    pub fn new(opcode: Opcode, payload: usize) -> Self {
        let first = 0x80 | opcode.number();
        let mut bytes = [first, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let [_, second, rest @ ..] = &mut bytes;
        let length = match (u8::try_from(payload), u16::try_from(payload)) {
            (Ok(small @ 0..=125), _) => {
                *second = small;
                2
            }
            (_, Ok(middle)) => {
                *second = 126;
                for (cell, byte) in rest.iter_mut().zip(middle.to_be_bytes()) {
                    *cell = byte;
                }
                4
            }
            _ => {
                *second = 127;
                *rest = u64::try_from(payload).unwrap_or(u64::MAX).to_be_bytes();
                10
            }
        };
        Self { bytes, length }
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// A whole frame, for payloads that are small.
    pub fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        [Self::new(opcode, payload.len()).as_bytes(), payload].concat()
    }
}
