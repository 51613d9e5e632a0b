//! Compressed files as they are found: several members one after the other, padded with zeros to a
//! tape's block, or with something else behind them.
//!
//! As gzip and bzip2 themselves do it: what follows the last member is ignored and told, a member
//! that is begun must be whole. Streams of xz may have padding between them, and frames of zstd
//! others that are passed over; both belong to the format.

use std::fmt;
use std::io::{BufRead, ErrorKind, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use super::windows::{self, Window};

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapper {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Wrapper {
    /// What each member begins with.
    const fn magic(self) -> &'static [u8] {
        match self {
            Self::Gzip => b"\x1f\x8b",
            Self::Bzip2 => b"BZh",
            Self::Xz => b"\xfd7zXZ\0",
            Self::Zstd => b"\x28\xb5\x2f\xfd",
        }
    }
}

/// Bytes behind the compressed data that are not part of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored {
    pub bytes: u64,
    /// Padding; otherwise nobody knows what.
    pub only_zeros: bool,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.only_zeros { "zero bytes" } else { "bytes" };
        write!(f, "{} {what} after the compressed data were ignored", self.bytes)
    }
}

/// A reader whose next bytes can be looked at.
#[derive(Debug)]
pub(super) struct Peeked<R> {
    front: Vec<u8>,
    at: usize,
    rest: R,
}

impl<R: BufRead> Peeked<R> {
    /// Looks at the next `length` bytes, or fewer at the end.
    pub(super) fn new(mut rest: R, length: usize) -> std::io::Result<Self> {
        let mut front = Vec::new();
        rest.by_ref().take(length as u64).read_to_end(&mut front)?;
        Ok(Self { front, at: 0, rest })
    }

    /// What was looked at, and the rest.
    pub(super) fn into_parts(self) -> (Vec<u8>, R) {
        let Self { mut front, at, rest } = self;
        front.drain(..at);
        (front, rest)
    }

    pub(super) fn front(&self) -> &[u8] {
        self.front.get(self.at..).unwrap_or_default()
    }

    /// Looks at the next bytes again, after others were read; at no fewer than before.
    pub(super) fn again(mut self, length: usize) -> std::io::Result<Self> {
        let mut front = self.front().to_vec();
        let missing = length.saturating_sub(front.len());
        self.rest.by_ref().take(missing as u64).read_to_end(&mut front)?;
        Ok(Self { front, at: 0, rest: self.rest })
    }
}

impl<R: BufRead> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Peeked<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        match self.front.get(self.at..) {
            Some(front) if !front.is_empty() => Ok(front),
            Some(_) | None => self.rest.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        if self.at < self.front.len() {
            self.at += amount;
        } else {
            self.rest.consume(amount);
        }
    }
}

enum State<R: BufRead> {
    Gzip(Box<GzDecoder<Peeked<R>>>),
    Bzip2(BzDecoder<Peeked<R>>),
    Xz(Box<XzDecoder<Peeked<R>>>),
    Zstd(zstd::Decoder<'static, Peeked<R>>),
    Over,
}

/// The content of all members.
pub(super) struct Members<R: BufRead> {
    wrapper: Wrapper,
    state: State<R>,
    /// Memory of the member at hand.
    window: Option<Window>,
    ignored: Option<Ignored>,
}

impl<R: BufRead> Members<R> {
    pub(super) fn new(wrapper: Wrapper, from: Peeked<R>) -> std::io::Result<Self> {
        let from = if wrapper == Wrapper::Zstd { skip_frames(from)? } else { from };
        let mut members = Self { wrapper, state: State::Over, window: None, ignored: None };
        members.begin(from)?;
        Ok(members)
    }

    /// What followed the last member; known at the end.
    pub(super) const fn ignored(&self) -> Option<Ignored> {
        self.ignored
    }

    /// A member begins, once there is memory for it.
    fn begin(&mut self, from: Peeked<R>) -> std::io::Result<()> {
        let (from, window) = match self.wrapper {
            Wrapper::Xz => {
                let from = from.again(windows::HEAD)?;
                let window = windows::of_xz(from.front());
                (from, window)
            }
            Wrapper::Zstd => {
                let from = from.again(windows::HEAD)?;
                let window = windows::of_zstd(from.front());
                (from, window)
            }
            Wrapper::Gzip | Wrapper::Bzip2 => (from, Some(0)),
        };
        self.window = Some(Window::wait_for(window));
        self.state = State::begin(self.wrapper, from)?;
        Ok(())
    }

    /// A member has ended.
    fn go_on(&mut self) -> std::io::Result<()> {
        let rest = match std::mem::replace(&mut self.state, State::Over) {
            State::Gzip(member) => member.into_inner(),
            State::Bzip2(member) => member.into_inner(),
            State::Xz(member) => member.into_inner(),
            State::Zstd(member) => member.finish(),
            State::Over => return Ok(()),
        };
        self.window = None;
        let (rest, padding) = match self.wrapper {
            Wrapper::Xz => skip_zeros(rest)?,
            Wrapper::Zstd => (skip_frames(rest)?, 0),
            Wrapper::Gzip | Wrapper::Bzip2 => (rest, 0),
        };
        let magic = self.wrapper.magic();
        let rest = rest.again(magic.len())?;
        if rest.front().starts_with(magic) && padding % XZ_PADDING == 0 {
            self.begin(rest)?;
        } else if !rest.front().is_empty() {
            let rest = ignore(rest)?;
            let only_zeros = rest.only_zeros;
            self.ignored = Some(Ignored { bytes: padding + rest.bytes, only_zeros });
        }
        Ok(())
    }
}

impl<R: BufRead> State<R> {
    fn begin(wrapper: Wrapper, from: Peeked<R>) -> std::io::Result<Self> {
        Ok(match wrapper {
            Wrapper::Gzip => Self::Gzip(Box::new(GzDecoder::new(from))),
            Wrapper::Bzip2 => Self::Bzip2(BzDecoder::new(from)),
            Wrapper::Xz => Self::Xz(Box::new(xz(from)?)),
            Wrapper::Zstd => Self::Zstd(zstd_frame(from)?),
        })
    }
}

/// One stream of xz, in bounded memory.
pub(super) fn xz<R: BufRead>(from: R) -> std::io::Result<XzDecoder<R>> {
    let stream = Stream::new_stream_decoder(windows::LIMIT + windows::BESIDES, 0)?;
    Ok(XzDecoder::new_stream(from, stream))
}

/// One frame of zstd, in bounded memory.
pub(super) fn zstd_frame<R: BufRead>(from: R) -> std::io::Result<zstd::Decoder<'static, R>> {
    let mut decoder = zstd::Decoder::with_buffer(from)?.single_frame();
    decoder.window_log_max(windows::LIMIT_LOG)?;
    Ok(decoder)
}

/// Padding between streams of xz comes in fours.
const XZ_PADDING: u64 = 4;

fn skip_zeros<R: BufRead>(mut from: Peeked<R>) -> std::io::Result<(Peeked<R>, u64)> {
    let mut skipped = 0;
    loop {
        let available = from.fill_buf()?;
        let zeros = available.iter().take_while(|byte| **byte == 0).count();
        if zeros == 0 {
            return Ok((from, skipped));
        }
        from.consume(zeros);
        skipped += zeros as u64;
    }
}

/// Passes over the frames that are not for the decoder: a magic of sixteen, a length, bytes.
fn skip_frames<R: BufRead>(mut from: Peeked<R>) -> std::io::Result<Peeked<R>> {
    loop {
        from = from.again(8)?;
        let &[0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, ..] = from.front() else {
            return Ok(from);
        };
        let length = 8 + u64::from(u32::from_le_bytes([a, b, c, d]));
        let skipped = std::io::copy(&mut from.by_ref().take(length), &mut std::io::sink())?;
        if skipped < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let read = match &mut self.state {
                State::Gzip(member) => member.read(buffer)?,
                State::Bzip2(member) => member.read(buffer)?,
                State::Xz(member) => member.read(buffer)?,
                State::Zstd(member) => member.read(buffer)?,
                State::Over => return Ok(0),
            };
            if read > 0 {
                return Ok(read);
            }
            self.go_on()?;
        }
    }
}

/// Reads to the end: the digest covers all of a file.
pub(super) fn ignore(mut rest: impl BufRead) -> std::io::Result<Ignored> {
    let mut ignored = Ignored { bytes: 0, only_zeros: true };
    loop {
        let available = match rest.fill_buf() {
            Ok([]) => return Ok(ignored),
            Ok(available) => available,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let length = available.len();
        ignored.bytes += length as u64;
        ignored.only_zeros &= available.iter().all(|byte| *byte == 0);
        rest.consume(length);
    }
}
