//! One entry of a ZIP: its header, its content by the method it was packed with, and what follows.

use std::io::{BufRead, Error, ErrorKind, Read, Take};

use bzip2::bufread::BzDecoder;
use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use liblzma::bufread::XzDecoder;

use super::super::decompress::failed;
use super::super::error::IngestError;
use super::super::members::{Peeked, xz, zstd_frame};
use super::super::windows::Window;
use super::{WHAT, shown, wrong};

const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const SIZES_FOLLOW: u16 = 1 << 3;
const ZIP64: u16 = 1;
const ALL_ONES: u32 = u32::MAX;
const MAX_NAME: u16 = 4_096;
const DESCRIPTOR: &[u8] = b"PK\x07\x08";

/// A reader that counts what is taken from it.
pub(super) struct Counted<R> {
    inner: R,
    taken: u64,
}

impl<R> Counted<R> {
    pub(super) const fn new(inner: R) -> Self {
        Self { inner, taken: 0 }
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount as u64;
        self.inner.consume(amount);
    }
}

/// Exactly so many bytes.
pub(super) fn bytes<const N: usize>(from: &mut impl Read) -> Result<[u8; N], IngestError> {
    let mut bytes = [0; N];
    match from.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(wrong("it is cut short")),
        Err(error) => Err(failed(&error, WHAT)),
    }
}

pub(super) fn skip(from: &mut impl Read, length: u64) -> Result<(), IngestError> {
    let skipped = std::io::copy(&mut from.by_ref().take(length), &mut std::io::sink());
    match skipped.map_err(|error| failed(&error, WHAT))? {
        skipped if skipped < length => Err(wrong("it is cut short")),
        _ => Ok(()),
    }
}

fn text(from: &mut impl Read, length: u16) -> Result<Vec<u8>, IngestError> {
    let mut text = Vec::new();
    let read = from.by_ref().take(u64::from(length)).read_to_end(&mut text);
    match read.map_err(|error| failed(&error, WHAT))? {
        read if read < usize::from(length) => Err(wrong("it is cut short")),
        _ => Ok(text),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// The name in an entry of the directory, of which the rest is passed over.
pub(super) fn central(from: &mut impl Read) -> Result<Vec<u8>, IngestError> {
    let fixed: [u8; 42] = bytes(from)?;
    let name = text(from, u16_at(&fixed, 24))?;
    skip(from, u64::from(u16_at(&fixed, 26)) + u64::from(u16_at(&fixed, 28)))?;
    Ok(name)
}

/// The header in front of an entry.
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
}

impl Entry {
    /// Reads what follows the signature.
    pub(super) fn read(from: &mut impl Read) -> Result<Self, IngestError> {
        let fixed: [u8; 26] = bytes(from)?;
        let name_length = u16_at(&fixed, 22);
        if name_length > MAX_NAME {
            return Err(wrong("a name in it is too long"));
        }
        let name = text(from, name_length)?;
        let extra = text(from, u16_at(&fixed, 24))?;
        let (mut packed, mut size) = (u32_at(&fixed, 14).into(), u32_at(&fixed, 18).into());
        if let Some((full_packed, full_size)) = zip64(&extra) {
            size = if size == u64::from(ALL_ONES) { full_size } else { size };
            packed = if packed == u64::from(ALL_ONES) { full_packed } else { packed };
        }
        let (flags, method) = (u16_at(&fixed, 2), u16_at(&fixed, 4));
        Ok(Self { name, flags, method, crc: u32_at(&fixed, 10), packed, size })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.name.ends_with(b"/")
    }

    /// What file managers put beside the files.
    pub(super) fn is_litter(&self) -> bool {
        let last = self.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        self.name.starts_with(b"__MACOSX/")
            || last.starts_with(b"._")
            || matches!(last, b".DS_Store" | b"Thumbs.db" | b"desktop.ini")
    }

    const fn sizes_follow(&self) -> bool {
        self.flags & SIZES_FOLLOW != 0
    }
}

/// Both sizes when 32 bits are too few: the one before, the other after compression.
fn zip64(mut extra: &[u8]) -> Option<(u64, u64)> {
    loop {
        let (id, length) = (u16_at(extra.get(..4)?, 0), usize::from(u16_at(extra, 2)));
        let field = extra.get(4..4 + length)?;
        if id == ZIP64 {
            let size = u64_at(field, 0)?;
            return Some((u64_at(field, 8).unwrap_or(0), size));
        }
        extra = extra.get(4 + length..)?;
    }
}

enum Method<R: BufRead> {
    Stored(Take<R>),
    Deflate(DeflateDecoder<R>),
    Bzip2(BzDecoder<R>),
    Xz(Box<XzDecoder<R>>),
    Zstd(zstd::Decoder<'static, R>),
}

/// The content of an entry, counted and summed.
pub(super) struct Content<R: BufRead> {
    method: Method<Counted<Peeked<R>>>,
    _window: Window,
    /// Taken from the archive before the content.
    before: u64,
    size: u64,
    crc: Crc,
}

impl<R: BufRead> Content<R> {
    pub(super) fn begin(
        entry: &Entry,
        from: Counted<Peeked<R>>,
        name: &str,
    ) -> Result<Self, IngestError> {
        if entry.flags & ENCRYPTED != 0 || entry.method == 99 {
            return Err(wrong(format!("{name} is encrypted: pack it without a password")));
        }
        let before = from.taken;
        // Those that have a window do not tell it here.
        let window = Window::wait_for((!matches!(entry.method, 93 | 95)).then_some(0));
        let broken = |error: Error| failed(&error, WHAT);
        let method = match entry.method {
            0 if entry.sizes_follow() && !entry.is_directory() => {
                return Err(wrong(format!("{name} is stored without its length: compress it")));
            }
            0 => Method::Stored(from.take(entry.packed)),
            8 => Method::Deflate(DeflateDecoder::new(from)),
            12 => Method::Bzip2(BzDecoder::new(from)),
            93 => Method::Zstd(zstd_frame(from).map_err(broken)?),
            95 => Method::Xz(Box::new(xz(from).map_err(broken)?)),
            other => {
                return Err(wrong(format!(
                    "{name} is compressed by method {other}, which is not supported: use deflate"
                )));
            }
        };
        Ok(Self { method, _window: window, before, size: 0, crc: Crc::new() })
    }

    /// Compares what was read with what the entry says; gives back the archive.
    pub(super) fn end(self, entry: &Entry, name: &str) -> Result<Counted<Peeked<R>>, IngestError> {
        let mut from = match self.method {
            Method::Stored(from) => from.into_inner(),
            Method::Deflate(decoder) => decoder.into_inner(),
            Method::Bzip2(decoder) => decoder.into_inner(),
            Method::Xz(decoder) => decoder.into_inner(),
            Method::Zstd(decoder) => decoder.finish(),
        };
        let (packed, size, crc) = (from.taken - self.before, self.size, self.crc.sum());
        let damaged = || wrong(format!("{name} is damaged"));
        if !entry.sizes_follow() || entry.is_directory() && entry.method == 0 {
            if (packed, size, crc) != (entry.packed, entry.size, entry.crc) {
                return Err(if packed < entry.packed {
                    wrong("it is cut short")
                } else {
                    damaged()
                });
            }
            if !entry.sizes_follow() {
                return Ok(from);
            }
        }
        from.inner = from.inner.again(24).map_err(|error| failed(&error, WHAT))?;
        let front = from.inner.front();
        let (signature, fields) = match front.strip_prefix(DESCRIPTOR) {
            Some(fields) => (DESCRIPTOR.len(), fields),
            None => (0, front),
        };
        if fields.len() < 12 || u32_at(fields, 0) != crc {
            return Err(damaged());
        }
        let low = |number: u64| u32::try_from(number & u64::from(ALL_ONES)).unwrap_or(ALL_ONES);
        let is_long = u64_at(fields, 4) == Some(packed) && u64_at(fields, 12) == Some(size);
        let is_short = u32_at(fields, 4) == low(packed) && u32_at(fields, 8) == low(size);
        // Both can be only when the sizes are zeros; a header follows then.
        let length = match (is_short, is_long) {
            (true, true) if fields.get(12..14) != Some(b"PK") => 20,
            (true, _) => 12,
            (false, true) => 20,
            (false, false) => return Err(damaged()),
        };
        from.consume(signature + length);
        Ok(from)
    }
}

impl<R: BufRead> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = match &mut self.method {
            Method::Stored(from) => from.read(buffer),
            Method::Deflate(decoder) => decoder.read(buffer),
            Method::Bzip2(decoder) => decoder.read(buffer),
            Method::Xz(decoder) => decoder.read(buffer),
            Method::Zstd(decoder) => decoder.read(buffer),
        }?;
        self.size += read as u64;
        self.crc.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &shown(&self.name)).finish_non_exhaustive()
    }
}
