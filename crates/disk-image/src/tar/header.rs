//! One header of 512 bytes, and the records that change the next one.

use super::{MemberKind, TarError};

pub(super) const BLOCK: u64 = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
/// In an old GNU header: whether the map of a sparse member goes on in further blocks.
const EXTENDED: usize = 482;

/// What is used of a header with a right checksum.
#[derive(Debug)]
pub(super) struct Header {
    name: Vec<u8>,
    pub(super) kind: u8,
    /// `None` when it is no number.
    pub(super) size: Option<u64>,
}

/// Whether the bytes begin with a header: the checksum tells, also for archives without a magic.
pub fn is_header(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first != 0) && Header::parse(bytes).is_some()
}

impl Header {
    pub(super) fn parse(block: &[u8]) -> Option<Self> {
        let block = block.get(..512)?;
        let told = number(block.get(CHECKSUM)?)?;
        let counted = block.iter().enumerate().map(|(at, byte)| match CHECKSUM.contains(&at) {
            true => b' ',
            false => *byte,
        });
        let unsigned: u64 = counted.clone().map(u64::from).sum();
        // Some old writers added the bytes up with their signs.
        let signed: i64 = counted.map(|byte| i64::from(byte.cast_signed())).sum();
        if told != unsigned && i64::try_from(told) != Ok(signed) {
            return None;
        }
        let text = |range: std::ops::Range<usize>| {
            let field = block.get(range).unwrap_or_default();
            field.split(|byte| *byte == 0).next().unwrap_or_default()
        };
        let name = text(0..100);
        // GNU's headers have other fields where POSIX has a prefix.
        let is_posix = block.get(257..263) == Some(b"ustar\0");
        let prefix = if is_posix { text(345..500) } else { b"" };
        let name = if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') };
        let kind = *block.get(KIND)?;
        Some(Self { name, kind, size: block.get(124..136).and_then(number) })
    }

    /// A record for the next member, or for all of them.
    pub(super) const fn is_record(&self) -> bool {
        matches!(self.kind, b'x' | b'X' | b'g' | b'L' | b'K')
    }

    /// Links, devices and directories have none, whatever their size field says.
    pub(super) const fn has_content(&self) -> bool {
        !matches!(self.kind, b'1'..=b'6')
    }

    pub(super) fn member_kind(&self, is_sparse: bool) -> MemberKind {
        match self.kind {
            b'S' => MemberKind::Sparse,
            0 | b'0' | b'7' if is_sparse => MemberKind::Sparse,
            0 | b'0' if self.name.ends_with(b"/") => MemberKind::Directory,
            0 | b'0' | b'7' => MemberKind::File,
            b'1' | b'2' => MemberKind::Link,
            b'3' | b'4' | b'6' => MemberKind::Special,
            b'5' => MemberKind::Directory,
            other => MemberKind::Other(other),
        }
    }

    pub(super) fn is_extended_sparse(&self, block: &[u8]) -> bool {
        self.kind == b'S' && block.get(EXTENDED).is_some_and(|more| *more != 0)
    }
}

/// Octal digits between blanks, or GNU's binary form with the highest bit set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if *first == 0x80 {
        return rest.iter().try_fold(0_u64, |value, byte| {
            value.checked_mul(256).map(|value| value | u64::from(*byte))
        });
    }
    let digits = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(digits).ok()?;
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// What records said about the next member.
#[derive(Debug, Default)]
pub(super) struct Records {
    long_name: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) is_sparse: bool,
}

impl Records {
    /// A pax record wins over GNU's long name, and that over the header.
    pub(super) fn name_or(&self, header: &Header) -> Vec<u8> {
        self.path.clone().or_else(|| self.long_name.clone()).unwrap_or_else(|| header.name.clone())
    }

    pub(super) fn take(&mut self, kind: u8, bytes: &[u8], at: u64) -> Result<(), TarError> {
        match kind {
            b'L' => {
                let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                self.long_name = Some(name.to_vec());
            }
            b'K' => {}
            b'g' => {
                let mut global = Self::default();
                global.pax(bytes).ok_or(TarError::Record(at))?;
                if global.path.is_some() || global.size.is_some() || global.is_sparse {
                    return Err(TarError::Global(at));
                }
            }
            _ => self.pax(bytes).ok_or(TarError::Record(at))?,
        }
        Ok(())
    }

    /// Lines of `length key=value`, the length counting all of the line.
    fn pax(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let blank = bytes.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(bytes.get(..blank)?).ok()?.parse().ok()?;
            let line = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
            let equals = line.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (line.get(..equals)?, line.get(equals + 1..)?);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                key => self.is_sparse |= key.starts_with(b"GNU.sparse."),
            }
            bytes = bytes.get(length..)?;
        }
        Some(())
    }
}
