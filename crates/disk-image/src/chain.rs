//! Disks that are chains of files, and one file made of such a chain.
//!
//! A snapshot may hold only what changed since its parent. [`open`] reads one file of a chain and tells
//! which file it needs; [`Chain`] is the disk that they make together, and [`qcow2_of`] and [`vhd_of`]
//! write it out as one image, front to back in one pass, so that any kind of store can take it. The
//! places of everything are known beforehand: the tables are read first, the data once.

mod qcow2_file;
mod qcow2_image;
mod vhd_file;
mod vhd_image;

use std::fmt;
use std::ops::Range;

use crate::{Format, ImageError, Source, raw};

pub use qcow2_image::Qcow2Image;
pub use vhd_image::{VhdIdentity, VhdImage};

/// Files in a chain; hypervisors keep a few dozen at most.
pub const MAX_FILES: usize = 128;
/// Bytes of an image that are made at once.
const BLOCK: u64 = 1 << 20;

/// What is wrong with a chain, beside its files themselves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Another file took the parent's place.
    #[error("its parent is not the one that it was made on")]
    OtherParent,
    /// Nobody says what the parent is, and guessing is how files of a host are read.
    #[error("the format of its parent {0:?} is not told, and it is not a QCOW2")]
    UnknownParent(String),
    /// A format without chains.
    #[error("chains of {0} are not supported")]
    Format(&'static str),
    /// A compressed cluster.
    #[error("the compressed cluster at byte {0} is damaged")]
    Compressed(u64),
    /// Its data lies in so many pieces that their places alone would fill the memory.
    #[error("its data is scattered over more than {0} places")]
    Scattered(usize),
    /// There is nothing.
    #[error("the chain has no file")]
    Empty,
}

/// A part of a disk as one file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// What is there.
    pub kind: RunKind,
    /// Bytes, at least one.
    pub length: u64,
}

/// What a file has at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// Nothing: the parent's bytes count.
    Absent,
    /// Zeros, whatever the parent has.
    Zero,
    /// Bytes of its own.
    Data,
}

/// One file of a chain.
pub trait File: fmt::Debug + Send {
    /// Bytes of the disk.
    fn virtual_size(&self) -> u64;

    /// Makes sure that everything that the file names is in it.
    fn check(&self) -> Result<(), ImageError>;

    /// What is at `offset`, for no more than `limit` bytes; both lie in the disk.
    fn run(&mut self, offset: u64, limit: u64) -> Result<Run, ImageError>;

    /// Bytes of a run of data.
    fn read(&mut self, offset: u64, target: &mut [u8]) -> Result<(), ImageError>;
}

/// The file that another one needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// As it is named: a path, absolute or from the file's own directory. Of several the first that is
    /// there counts.
    pub names: Vec<String>,
    /// What it is said to be; `None`: not said.
    pub format: Option<Format>,
    /// By which the right one is told, where there is such a mark.
    pub id: Option<[u8; 16]>,
}

/// An opened file of a chain.
#[derive(Debug)]
pub struct Opened {
    /// Itself.
    pub file: Box<dyn File>,
    /// What it needs.
    pub parent: Option<Parent>,
    /// Its own mark, where it has one.
    pub id: Option<[u8; 16]>,
    /// Shape of the disk in a VHD's words: cylinders, heads, sectors.
    pub geometry: Option<u32>,
}

/// A source that can be given to another thread.
pub type Bytes = Box<dyn Source + Send>;

impl fmt::Debug for dyn Source + Send {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("length", &self.length()).finish()
    }
}

/// Reads a file of a chain. Only its first tables are looked at: see [`File::check`].
///
/// # Errors
/// When the file is not of the format, or damaged.
pub fn open(format: Format, source: Bytes) -> Result<Opened, ImageError> {
    match format {
        Format::Qcow2 => qcow2_file::open(source),
        Format::Vhd => vhd_file::open(source),
        Format::Raw => {
            let file = Box::new(RawFile(source));
            Ok(Opened { file, parent: None, id: None, geometry: None })
        }
        other => Err(ChainError::Format(other.name()).into()),
    }
}

/// The parent of a file, told apart from everything that only looks like one.
///
/// # Errors
/// When it is not the one that the file was made on.
pub fn open_parent(parent: &Parent, source: Bytes) -> Result<Opened, ImageError> {
    let format = match parent.format {
        Some(format) => format,
        None => {
            let mut magic = [0; 4];
            if source.length() >= 4 {
                source.read_at(0, &mut magic)?;
            }
            let unknown = || ChainError::UnknownParent(parent.names.join(", "));
            (magic == *b"QFI\xfb").then_some(Format::Qcow2).ok_or_else(unknown)?
        }
    };
    let opened = open(format, source)?;
    if parent.id.is_some() && parent.id != opened.id {
        return Err(ChainError::OtherParent.into());
    }
    Ok(opened)
}

/// A disk's bytes as they are.
#[derive(Debug)]
struct RawFile(Bytes);

impl File for RawFile {
    fn virtual_size(&self) -> u64 {
        self.0.length()
    }

    fn check(&self) -> Result<(), ImageError> {
        raw::check(&*self.0).map(drop)
    }

    fn run(&mut self, _offset: u64, limit: u64) -> Result<Run, ImageError> {
        Ok(Run { kind: RunKind::Data, length: limit })
    }

    fn read(&mut self, offset: u64, target: &mut [u8]) -> Result<(), ImageError> {
        Ok(self.0.read_at(offset, target)?)
    }
}

/// The disk that the files of a chain make together.
#[derive(Debug)]
pub struct Chain {
    /// The youngest first.
    files: Vec<Box<dyn File>>,
    virtual_size: u64,
}

impl Chain {
    /// Of files, the youngest first, whose tables are all looked at now.
    ///
    /// # Errors
    /// When there is none, or one is damaged.
    pub fn new(files: Vec<Box<dyn File>>) -> Result<Self, ImageError> {
        let virtual_size = files.first().ok_or(ChainError::Empty)?.virtual_size();
        for file in &files {
            file.check()?;
        }
        Ok(Self { files, virtual_size })
    }

    /// What the VM sees, in bytes.
    pub const fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Which file has the bytes at `offset`; `None`: they are zeros.
    fn find(&mut self, offset: u64, limit: u64) -> Result<(Option<usize>, u64), ImageError> {
        let mut limit = limit.min(self.virtual_size.saturating_sub(offset));
        for (nth, file) in self.files.iter_mut().enumerate() {
            // A parent may be smaller than its child: what it lacks are zeros.
            let inside = file.virtual_size().saturating_sub(offset);
            if inside == 0 {
                break;
            }
            limit = limit.min(inside);
            let Run { kind, length } = file.run(offset, limit)?;
            limit = limit.min(length.max(1));
            match kind {
                RunKind::Absent => {}
                RunKind::Zero => return Ok((None, limit)),
                RunKind::Data => return Ok((Some(nth), limit)),
            }
        }
        Ok((None, limit))
    }

    /// Fills `target` with the disk's bytes from `offset`; what lies behind the disk is zeros.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&mut self, offset: u64, target: &mut [u8]) -> Result<(), ImageError> {
        let mut done = 0;
        while done < target.len() {
            let at = offset.saturating_add(done as u64);
            let rest = target.get_mut(done..).unwrap_or_default();
            if at >= self.virtual_size {
                rest.fill(0);
                break;
            }
            let (found, length) = self.find(at, rest.len() as u64)?;
            let length = usize::try_from(length).unwrap_or(rest.len()).clamp(1, rest.len());
            let piece = rest.get_mut(..length).unwrap_or_default();
            match found.and_then(|nth| self.files.get_mut(nth)) {
                Some(file) => file.read(at, piece)?,
                None => piece.fill(0),
            }
            done += length;
        }
        Ok(())
    }

    /// Units of `size` bytes that are not only zeros, as far as the tables tell.
    fn units(&mut self, size: u64) -> Result<Vec<Range<u64>>, ImageError> {
        let mut found: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        while at < self.virtual_size {
            let (file, length) = self.find(at, u64::MAX)?;
            let end = at.saturating_add(length);
            if file.is_some() {
                let units = at / size..end.div_ceil(size);
                let is_full = found.len() >= MAX_RANGES;
                match found.last_mut() {
                    Some(last) if last.end >= units.start => last.end = last.end.max(units.end),
                    _ if is_full => {
                        return Err(ChainError::Scattered(MAX_RANGES).into());
                    }
                    _ => found.push(units),
                }
            }
            at = end;
        }
        Ok(found)
    }
}

/// Stretches of data that are remembered: 64 MiB of memory.
const MAX_RANGES: usize = 4 << 20;

/// The chain as one QCOW2.
///
/// # Errors
/// When a file of it cannot be read.
pub fn qcow2_of(chain: Chain) -> Result<Qcow2Image, ImageError> {
    Qcow2Image::new(chain)
}

/// The chain as one dynamic VHD.
///
/// # Errors
/// When a file of it cannot be read.
pub fn vhd_of(chain: Chain, identity: VhdIdentity) -> Result<VhdImage, ImageError> {
    VhdImage::new(chain, identity)
}

/// How many units there are.
fn count(units: &[Range<u64>]) -> u64 {
    units.iter().map(|range| range.end - range.start).sum()
}
