//! Messages in a stream (RFC 5531 section 11): each is a record of one or more fragments.

use bytes::{Buf, Bytes, BytesMut};

/// Set in the header of a record's last fragment.
const LAST: u32 = 1 << 31;
/// A record of many tiny fragments is a trick; servers fill a buffer before they send one.
const MAX_FRAGMENTS: usize = 1024;

/// Why a stream is no stream of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a message has more than {0} bytes")]
    TooLong(usize),
    #[error("a message comes in more than {MAX_FRAGMENTS} pieces")]
    TooManyFragments,
}

/// The header before a message that is sent in one piece. Messages are far below 2 GiB.
pub fn header(length: usize) -> [u8; 4] {
    (u32::try_from(length).unwrap_or(u32::MAX) | LAST).to_be_bytes()
}

/// Takes records out of what arrives.
#[derive(Debug)]
pub struct Records {
    limit: usize,
    /// Fragments of an unfinished record.
    partial: BytesMut,
    fragments: usize,
}

impl Records {
    /// `limit` bounds a whole record.
    pub fn new(limit: usize) -> Self {
        Self { limit, partial: BytesMut::new(), fragments: 0 }
    }

    /// The next complete record at the front of `input`; `None` when more must arrive. Room for the
    /// rest of a fragment is reserved in `input` once its header is believed.
    ///
    /// # Errors
    /// [`RecordError`]; nothing that follows in the stream can be read then.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, RecordError> {
        while let Some(header) = input.first_chunk::<4>() {
            let header = u32::from_be_bytes(*header);
            let length = usize::try_from(header & !LAST).unwrap_or(usize::MAX);
            if length > self.limit.saturating_sub(self.partial.len()) {
                return Err(RecordError::TooLong(self.limit));
            }
            if self.fragments >= MAX_FRAGMENTS {
                return Err(RecordError::TooManyFragments);
            }
            let missing = (length + 4).saturating_sub(input.len());
            if missing > 0 {
                input.reserve(missing);
                return Ok(None);
            }
            input.advance(4);
            let fragment = input.split_to(length);
            let is_last = header & LAST != 0;
            if is_last && self.partial.is_empty() {
                self.fragments = 0;
                return Ok(Some(fragment.freeze()));
            }
            self.partial.extend_from_slice(&fragment);
            self.fragments += 1;
            if is_last {
                self.fragments = 0;
                return Ok(Some(self.partial.split().freeze()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(content: &[u8], last: bool) -> Vec<u8> {
        let mut all = header(content.len()).to_vec();
        if !last {
            all[0] &= 0x7f;
        }
        all.extend_from_slice(content);
        all
    }

    #[test]
    fn records_are_put_together_however_they_arrive() {
        let stream = [
            fragment(b"one", true),
            fragment(b"tw", false),
            fragment(b"", false),
            fragment(b"o", true),
            fragment(b"", true),
        ]
        .concat();
        for step in 1..stream.len() {
            let (mut records, mut input) = (Records::new(3), BytesMut::new());
            let mut found = Vec::new();
            for piece in stream.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(record) = records.next(&mut input).unwrap() {
                    found.push(record);
                }
            }
            assert_eq!(found, ["one", "two", ""]);
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_arrives() {
        let next = |bytes: &[u8]| Records::new(8).next(&mut BytesMut::from(bytes));
        assert_eq!(next(&[0x80, 0, 0, 9]), Err(RecordError::TooLong(8)));
        assert_eq!(next(&[0x7f, 0xff, 0xff, 0xff]), Err(RecordError::TooLong(8)));
        let two = [fragment(b"12345", false), fragment(b"6789", true)].concat();
        assert_eq!(next(&two), Err(RecordError::TooLong(8)), "the whole counts");
        let endless = fragment(b"", false).repeat(MAX_FRAGMENTS + 1);
        assert_eq!(next(&endless), Err(RecordError::TooManyFragments));
    }
}
