//! External data representation: big-endian numbers, byte strings filled up to four bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the message ends too early")]
    Short,
    #[error("{what} of {length} bytes, at most {limit} are possible")]
    TooLong { what: &'static str, length: u32, limit: u32 },
    #[error("{value} is no {what}")]
    Unknown { what: &'static str, value: u32 },
    #[error("{0}")]
    Contradiction(&'static str),
}

/// Writes values.
#[derive(Debug, Default)]
pub struct Encoder(BytesMut);

/// Bytes that fill `length` up to a multiple of four.
pub const fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

impl Encoder {
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.put_u32(value);
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.put_u64(value);
        self
    }

    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u32(u32::from(value))
    }

    /// Bytes whose number both sides know.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.put_slice(bytes);
        self.0.put_bytes(0, padding(bytes.len()));
        self
    }

    /// Bytes with their number before them.
    pub fn opaque(&mut self, bytes: &[u8]) -> &mut Self {
        self.length(bytes.len()).fixed(bytes)
    }

    /// The number of something that follows. Nothing that is sent comes near the type's limit.
    pub fn length(&mut self, length: usize) -> &mut Self {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// Reads values; byte strings are parts of the message, not copies.
#[derive(Debug, Clone)]
pub struct Decoder(Bytes);

impl Decoder {
    pub const fn new(message: Bytes) -> Self {
        Self(message)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_short| Malformed::Short)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64().map_err(|_short| Malformed::Short)
    }

    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(Malformed::Unknown { what: "truth value", value }),
        }
    }

    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut bytes = [0; N];
        self.0.try_copy_to_slice(&mut bytes).map_err(|_short| Malformed::Short)?;
        self.skip(padding(N))?;
        Ok(bytes)
    }

    /// Bytes with their number before them, at most `limit`.
    pub fn opaque(&mut self, what: &'static str, limit: u32) -> Result<Bytes, Malformed> {
        let length = self.u32()?;
        if length > limit {
            return Err(Malformed::TooLong { what, length, limit });
        }
        let length = usize::try_from(length).map_err(|_wide| Malformed::Short)?;
        if length > self.0.len() {
            return Err(Malformed::Short);
        }
        let bytes = self.0.split_to(length);
        self.skip(padding(length))?;
        Ok(bytes)
    }

    /// A value that may be missing.
    pub fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &Bytes {
        &self.0
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        if count > self.0.len() {
            return Err(Malformed::Short);
        }
        self.0.advance(count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_strings_are_filled_up_and_bounded() {
        let mut out = Encoder::default();
        out.u32(7).opaque(b"abcde").u64(1 << 40).bool(true).fixed(b"xyz");
        let bytes = out.finish();
        assert_eq!(bytes.len(), 4 + 4 + 8 + 8 + 4 + 4);
        let mut input = Decoder::new(bytes.clone());
        assert_eq!(input.u32().unwrap(), 7);
        assert_eq!(input.clone().opaque("name", 5).unwrap(), "abcde");
        let refused = input.clone().opaque("name", 4).unwrap_err();
        assert_eq!(refused.to_string(), "name of 5 bytes, at most 4 are possible");
        input.opaque("name", 5).unwrap();
        assert_eq!((input.u64().unwrap(), input.bool().unwrap()), (1 << 40, true));
        assert_eq!(&input.fixed::<3>().unwrap(), b"xyz");
        assert_eq!(input.u32(), Err(Malformed::Short));
        // A length that the message does not have reserves nothing.
        let lie = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 1, 2]);
        assert_eq!(Decoder::new(lie).opaque("data", u32::MAX), Err(Malformed::Short));
        let cut = Bytes::from_static(&[0, 0, 0, 1, 9]);
        assert_eq!(Decoder::new(cut).opaque("data", 9), Err(Malformed::Short), "no filling");
    }
}
