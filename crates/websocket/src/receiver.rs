//! A client's frames, in pieces of any size.
//!
//! Binary messages are handed out frame by frame, since who takes them takes bytes; text messages are
//! put together, since their words are looked at. Nothing beyond the message limit is ever held.

use crate::close::CloseFrame;
use crate::header::Opcode;

/// Longest payload of a control frame.
const CONTROL_LIMIT: u64 = 125;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of a binary message, as long as the client's frame. Where only the bytes count,
    /// `last` means nothing.
    Binary {
        bytes: Vec<u8>,
        last: bool,
    },
    /// A whole text message.
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Nothing after it counts.
    Close(Option<CloseFrame>),
}

/// Why a connection has to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame has a reserved bit")]
    Reserved,
    #[error("a frame is of unknown kind {0}")]
    Opcode(u8),
    #[error("a client's frame is not masked")]
    Unmasked,
    #[error("a control frame is fragmented or too long")]
    Control,
    #[error("a frame's length is not written as it should be")]
    Length,
    #[error("a message is continued that never began, or begun before the last one ended")]
    Order,
    #[error("a close frame's body is malformed")]
    CloseBody,
    #[error("a text is not UTF-8")]
    Utf8,
    #[error("a message is longer than {0} bytes")]
    TooLong(usize),
}

impl FrameError {
    /// The code of the close frame that tells the client.
    pub const fn code(self) -> u16 {
        match self {
            Self::Utf8 => 1007,
            Self::TooLong(_) => 1009,
            _ => 1002,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Head {
    opcode: Opcode,
    last: bool,
    mask: [u8; 4],
    length: usize,
    /// Of the head itself.
    size: usize,
}

/// See the module's head.
#[derive(Debug)]
pub struct Receiver {
    buffer: Vec<u8>,
    limit: usize,
    /// The message under way: its kind, and its bytes so far.
    message: Option<(Opcode, usize)>,
    text: Vec<u8>,
    closed: bool,
}

impl Receiver {
    /// `limit` bounds a message, in bytes.
    pub const fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), limit, message: None, text: Vec::new(), closed: false }
    }

    /// Takes bytes from the client; take what [`Receiver::take`] gives before the next ones.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next thing that is whole; `Ok(None)` when more bytes are needed.
    ///
    /// # Errors
    /// When the client broke the protocol; the connection is to be closed.
    pub fn take(&mut self) -> Result<Option<Event>, FrameError> {
        loop {
            if self.closed {
                return Ok(None);
            }
            let Some(head) = self.head()? else { return Ok(None) };
            let end = head.size.saturating_add(head.length);
            let Some(payload) = self.buffer.get(head.size..end) else { return Ok(None) };
            let mut payload = payload.to_vec();
            unmask(&mut payload, head.mask);
            self.buffer.drain(..end);
            if self.buffer.is_empty() && self.buffer.capacity() > 4096 {
                // A pasted text is rare: its room is not kept.
                self.buffer = Vec::new();
            }
            if let Some(event) = self.conclude(head, payload)? {
                return Ok(Some(event));
            }
        }
    }

    fn conclude(&mut self, head: Head, payload: Vec<u8>) -> Result<Option<Event>, FrameError> {
        Ok(match head.opcode {
            Opcode::Ping => Some(Event::Ping(payload)),
            Opcode::Pong => Some(Event::Pong(payload)),
            Opcode::Close => {
                self.closed = true;
                Some(Event::Close(CloseFrame::decode(&payload)?))
            }
            Opcode::Binary | Opcode::Text | Opcode::Continuation => {
                let (kind, before) = self.message.take().unwrap_or((head.opcode, 0));
                if !head.last {
                    self.message = Some((kind, before + payload.len()));
                }
                match (kind, head.last) {
                    (Opcode::Text, last) => {
                        self.text.extend_from_slice(&payload);
                        let whole = last.then(|| std::mem::take(&mut self.text));
                        let text = whole.map(String::from_utf8).transpose();
                        text.map_err(|_odd| FrameError::Utf8)?.map(Event::Text)
                    }
                    // An empty piece is nothing to anybody, the end of a message may be.
                    (_, false) if payload.is_empty() => None,
                    (_, last) => Some(Event::Binary { bytes: payload, last }),
                }
            }
        })
    }

    /// The head at the front, judged as far as it is there.
    fn head(&self) -> Result<Option<Head>, FrameError> {
        let Some([first, second]) = self.buffer.first_chunk::<2>() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameError::Reserved);
        }
        let number = first & 0x0f;
        let opcode = Opcode::of(number).ok_or(FrameError::Opcode(number))?;
        let last = first & 0x80 != 0;
        if second & 0x80 == 0 {
            return Err(FrameError::Unmasked);
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!last || u64::from(short) > CONTROL_LIMIT) {
            return Err(FrameError::Control);
        }
        let (length, at) = match short {
            126 => match self.buffer.get(2..4).and_then(|bytes| bytes.first_chunk::<2>()) {
                Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 4),
                None => return Ok(None),
            },
            127 => match self.buffer.get(2..10).and_then(|bytes| bytes.first_chunk::<8>()) {
                Some(bytes) => (u64::from_be_bytes(*bytes), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        let shortest = match at {
            4 => length > 125,
            10 => length > u64::from(u16::MAX) && length >> 63 == 0,
            _ => true,
        };
        if !shortest {
            return Err(FrameError::Length);
        }
        match (opcode, self.message) {
            (Opcode::Continuation, None) | (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(FrameError::Order);
            }
            _ => {}
        }
        let too_long = FrameError::TooLong(self.limit);
        let length = usize::try_from(length).map_err(|_huge| too_long)?;
        let before = self.message.map_or(0, |(_, before)| before);
        if !opcode.is_control() && before.saturating_add(length) > self.limit {
            return Err(too_long);
        }
        let Some(mask) = self.buffer.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>())
        else {
            return Ok(None);
        };
        Ok(Some(Head { opcode, last, mask: *mask, length, size: at + 4 }))
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests;
