//! A byte queue from which parsers take whole items or nothing, so that a message cut at any byte
//! is simply "not yet".

use zeroize::Zeroize;

/// Bytes received and not yet understood.
#[derive(Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
}

impl Drop for Input {
    fn drop(&mut self) {
        // A handshake carries challenge and response.
        self.bytes.zeroize();
    }
}

impl Input {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Everything that is left.
    pub(crate) fn into_rest(mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The first `N` bytes, left in place.
    pub(crate) fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        self.bytes.first_chunk::<N>().copied()
    }

    /// The first `len` bytes, left in place.
    pub(crate) fn peek_slice(&self, len: usize) -> Option<&[u8]> {
        self.bytes.get(..len)
    }

    /// Takes the first `N` bytes, or nothing.
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let item = self.peek::<N>()?;
        self.skip(N);
        Some(item)
    }

    /// Takes a big-endian 32-bit number.
    pub(crate) fn take_u32(&mut self) -> Option<u32> {
        self.take::<4>().map(u32::from_be_bytes)
    }

    pub(crate) fn skip(&mut self, len: usize) {
        self.bytes.drain(..len.min(self.bytes.len()));
    }

    /// A text of `declared` bytes of which at most `limit` are waited for. The bytes stay.
    pub(crate) fn peek_text(&self, skip: usize, declared: u32, limit: usize) -> Option<String> {
        let wanted = usize::try_from(declared).unwrap_or(usize::MAX).min(limit);
        let bytes = self.bytes.get(skip..skip.checked_add(wanted)?)?;
        Some(clean(bytes))
    }
}

/// A text from a peer, fit for a log line or a page: control characters become spaces.
pub(crate) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}
