//! Taking an image out of what it was sent in: the coding that a server put on its answer, then the
//! wrapper that the file itself is.
//!
//! A coding is announced and belongs to the transfer, so the digest is of the bytes inside; a
//! wrapper is told by its bytes and belongs to the file, so the digest covers it. Everything here
//! blocks and runs on the ingest's own thread.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read};

use bytes::Bytes;
use disk_image::{Format, HEAD_LEN, Kind};
use flate2::bufread::{DeflateDecoder, ZlibDecoder};

use super::error::IngestError;
use super::members::{Ignored, Members, Peeked, Wrapper};
use super::windows;
use super::zip;
use crate::sources::Coding;

/// Largest piece that is handed on at once.
pub const BLOCK: usize = 128 * 1024;

/// Takes an image, block by block.
pub type Out<'a> = dyn FnMut(Bytes) -> Result<(), IngestError> + 'a;

/// A reader whose bytes can be had without a copy.
pub trait Shared: BufRead {
    /// The next bytes; `None` at the end.
    fn shared(&mut self) -> std::io::Result<Option<Bytes>>;
}

/// Readers mark a failure of their own with this, to tell it from a decompressor's complaint.
#[derive(Debug, thiserror::Error)]
#[error("the source ended early")]
pub struct InputBroken;

/// A failure of a coding, on its way through the reader of a wrapper.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct CodingBroken {
    what: &'static str,
    reason: String,
}

/// What was found around an image and is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beside {
    /// Bytes behind the compressed data.
    Behind(Ignored),
    /// Other files of an archive.
    Files(Vec<String>),
}

impl std::fmt::Display for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Behind(ignored) => ignored.fmt(f),
            Self::Files(names) => {
                write!(f, "other files of the archive were ignored: {}", names.join(", "))
            }
        }
    }
}

/// Reads `from` to its end and gives the image of `format` inside to `out`, block by block. Without
/// a format the bytes are passed on as they are.
pub fn decompress(
    from: impl Shared,
    format: Option<Format>,
    out: &mut Out<'_>,
) -> Result<Option<Beside>, IngestError> {
    let Some(format) = format else {
        pass(from, out)?;
        return Ok(None);
    };
    let from = Peeked::new(from, HEAD_LEN).map_err(|error| failed(&error, "data"))?;
    let kind = Kind::of(from.front());
    let wrapper = match kind {
        Kind::Gzip => Wrapper::Gzip,
        Kind::Bzip2 => Wrapper::Bzip2,
        Kind::Xz => Wrapper::Xz,
        Kind::Zstd => Wrapper::Zstd,
        Kind::Zip => return zip::extract(from, format, out),
        _ => {
            let (front, rest) = from.into_parts();
            if !front.is_empty() {
                out(front.into())?;
            }
            pass(rest, out)?;
            return Ok(None);
        }
    };
    let begun = Members::new(wrapper, from);
    let mut members = begun.map_err(|error| failed(&error, kind.name()))?;
    copy(&mut members, out, kind.name())?;
    Ok(members.ignored().map(Beside::Behind))
}

/// The bytes inside a server's coding; at most `limit` of them.
pub fn decoded<'a>(
    coding: Coding,
    from: impl BufRead + 'a,
    limit: u64,
) -> std::io::Result<Box<dyn BufRead + 'a>> {
    let inner: Box<dyn Read + 'a> = match coding {
        Coding::Identity => return Ok(Box::new(from)),
        Coding::Gzip => Box::new(Members::new(Wrapper::Gzip, Peeked::new(from, 0)?)?),
        Coding::Deflate => {
            let from = Peeked::new(from, 2)?;
            // Servers send either; what HTTP calls deflate is the one with zlib's header.
            if is_zlib(from.front()) {
                Box::new(ZlibDecoder::new(from))
            } else {
                Box::new(DeflateDecoder::new(from))
            }
        }
    };
    let marked = Marked { inner, what: coding.name(), left: limit, limit };
    Ok(Box::new(BufReader::with_capacity(BLOCK, marked)))
}

const fn is_zlib(start: &[u8]) -> bool {
    match start {
        [method, flags, ..] => {
            *method & 0x0f == 8 && (*method as u16 * 256 + *flags as u16).is_multiple_of(31)
        }
        _ => false,
    }
}

/// Counts what a coding expands to, and names it in its errors.
struct Marked<'a> {
    inner: Box<dyn Read + 'a>,
    what: &'static str,
    left: u64,
    limit: u64,
}

impl Read for Marked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = match self.inner.read(buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted || is_broken_input(&error) => {
                return Err(error);
            }
            Err(error) => {
                let reason = error.to_string();
                return Err(Error::other(CodingBroken { what: self.what, reason }));
            }
        };
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                let reason = format!("it has more than {} bytes inside", self.limit);
                return Err(Error::other(CodingBroken { what: self.what, reason }));
            }
        }
        Ok(read)
    }
}

fn is_broken_input(error: &Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<InputBroken>())
}

/// When the other side gave up, it knows why: this error is replaced by its own.
pub(super) fn failed(error: &Error, what: &'static str) -> IngestError {
    if is_broken_input(error) {
        tracing::debug!(%error, "the download's source ended");
        return IngestError::Aborted;
    }
    let coding = error.get_ref().and_then(|inner| inner.downcast_ref::<CodingBroken>());
    let what = coding.map_or(what, |coding| coding.what);
    let reason = match error.to_string() {
        text if text.contains("memory limit") || text.contains("too much memory") => format!(
            "it needs a window of more than {} bytes; compress it again, xz with -9 or less, zstd without --long",
            windows::LIMIT
        ),
        text => text,
    };
    IngestError::Decompress { what, reason }
}

/// Gives everything of `from` to `out` as it is.
pub(super) fn pass(mut from: impl Shared, out: &mut Out<'_>) -> Result<(), IngestError> {
    while let Some(bytes) = from.shared().map_err(|error| failed(&error, "data"))? {
        out(bytes)?;
    }
    Ok(())
}

/// Gives everything that is read from `from` to `out`, block by block.
fn copy(mut from: impl Read, out: &mut Out<'_>, what: &'static str) -> Result<(), IngestError> {
    let mut block = vec![0_u8; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(read) => out(Bytes::copy_from_slice(block.get(..read).unwrap_or_default()))?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(&error, what)),
        }
    }
}
