//! VHD: fixed disks (the disk, then a footer) and dynamic ones (footer, header, block allocation
//! table, blocks, footer again).
//!
//! One sound footer is enough, as for the hypervisors' tools: the end of the file first, then the
//! copy at the start. Blocks beyond the end of the file mean that the file was cut.

use crate::{HEAD_LEN, ImageError, Kind, Notice, Source, be_u32, be_u64, in_pieces, up_to};

/// Length of a footer.
pub const FOOTER_LEN: usize = 512;

const SECTOR: u64 = 512;
const COOKIE: &[u8] = b"conectix";
const DYNAMIC_COOKIE: &[u8] = b"cxsparse";
const DYNAMIC_HEADER_LEN: usize = 1024;
pub(crate) const FOOTER_CHECKSUM: usize = 64;
pub(crate) const HEADER_CHECKSUM: usize = 36;
/// The format's own limit: 2040 GiB.
const MAX_SECTORS: u64 = 0xFF00_0000;
const UNUSED: u32 = u32::MAX;

/// Why a file is not a VHD that can be a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VhdError {
    /// Neither end has one.
    #[error("it has no VHD footer")]
    NoFooter,
    /// The only footer there is cannot be trusted.
    #[error("its footer is damaged (wrong checksum)")]
    Checksum,
    /// It needs another file.
    #[error("it is a differencing disk that needs a parent file: merge it first")]
    Differencing,
    /// And does not say which.
    #[error("it is a differencing disk that does not name its parent file: merge it first")]
    NoParent,
    /// Neither fixed nor dynamic.
    #[error("its disk type is {0}, not 2 (fixed) or 3 (dynamic)")]
    DiskType(u32),
    /// The footer's size cannot be.
    #[error("its virtual size is {0} bytes, allowed are 512 to 2190433320960")]
    VirtualSize(u64),
    /// It begins with an image of another kind.
    #[error("it begins like something else: {}", .0.name())]
    Kind(Kind),
    /// The header of a dynamic disk is not where the footer says.
    #[error("its dynamic disk header is missing")]
    NoHeader,
    /// The header of a dynamic disk cannot be trusted.
    #[error("its dynamic disk header is damaged (wrong checksum)")]
    HeaderChecksum,
    /// Not a power of two of at least one sector.
    #[error("its block size is {0} bytes")]
    BlockSize(u32),
    /// The table has no room for the disk.
    #[error("its block allocation table has {entries} entries, {needed} are needed")]
    Table {
        /// Entries there are.
        entries: u32,
        /// Entries that the virtual size asks for.
        needed: u64,
    },
    /// Something the disk needs lies behind the end of the file.
    #[error("it is cut short: its {what} ends at byte {end}, the file at byte {length}")]
    CutShort {
        /// What is missing.
        what: &'static str,
        /// Where it would end.
        end: u64,
        /// Length of the file.
        length: u64,
    },
}

/// A disk that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Current size of the disk.
    pub virtual_size: u64,
    /// An oddity.
    pub notice: Option<Notice>,
}

/// What is used of a footer with a right checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    pub(crate) virtual_size: u64,
    pub(crate) disk_type: u32,
    data_offset: u64,
    /// Cylinders, heads, sectors.
    pub(crate) geometry: u32,
    /// The file's mark, by which a child knows it.
    pub(crate) id: [u8; 16],
}

impl Footer {
    /// Reads a footer; `bytes` begins with it. The oldest writers left out its last byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, VhdError> {
        let bytes = bytes.get(..FOOTER_LEN).unwrap_or(bytes);
        if !bytes.starts_with(COOKIE) || bytes.len() < FOOTER_LEN - 1 {
            return Err(VhdError::NoFooter);
        }
        if be_u32(bytes, FOOTER_CHECKSUM) != Some(checksum(bytes, FOOTER_CHECKSUM)) {
            return Err(VhdError::Checksum);
        }
        let number = |offset| be_u64(bytes, offset).ok_or(VhdError::NoFooter);
        Ok(Self {
            virtual_size: number(48)?,
            disk_type: be_u32(bytes, 60).ok_or(VhdError::NoFooter)?,
            data_offset: number(16)?,
            geometry: be_u32(bytes, 56).ok_or(VhdError::NoFooter)?,
            id: bytes.get(68..84).and_then(|id| id.try_into().ok()).ok_or(VhdError::NoFooter)?,
        })
    }
}

/// Judges a complete VHD.
pub fn check<S: Source + ?Sized>(source: &S) -> Result<Disk, ImageError> {
    let length = source.length();
    let head = up_to(source, 0, HEAD_LEN)?;
    let kind = Kind::of(&head);
    if !crate::Format::Vhd.admits(kind) {
        return Err(VhdError::Kind(kind).into());
    }
    let (footer, notice) = sound_footer(source, &head)?;
    let virtual_size = footer.virtual_size;
    match footer.disk_type {
        2 => check_end("disk", virtual_size.saturating_add(FOOTER_LEN as u64 - 1), length)?,
        3 => check_dynamic(source, footer)?,
        4 => return Err(VhdError::Differencing.into()),
        other => return Err(VhdError::DiskType(other).into()),
    }
    Ok(Disk { virtual_size, notice })
}

/// The footer of a file that may need another one.
pub(crate) fn footer<S: Source + ?Sized>(source: &S) -> Result<Footer, ImageError> {
    let head = up_to(source, 0, FOOTER_LEN)?;
    Ok(sound_footer(source, &head)?.0)
}

/// One of two, the one at the end first.
fn sound_footer<S: Source + ?Sized>(
    source: &S,
    head: &[u8],
) -> Result<(Footer, Option<Notice>), ImageError> {
    let end = end_footer(source)?;
    let start = Footer::parse(head);
    let (footer, notice) = match (end, start) {
        (Ok(footer), Err(VhdError::Checksum)) => {
            (footer, Some(Notice::DamagedFooter { damaged: "start" }))
        }
        (Ok(footer), _) => (footer, None),
        (Err(_), Ok(footer)) => (footer, Some(Notice::DamagedFooter { damaged: "end" })),
        // A damaged footer says more than none.
        (Err(VhdError::Checksum), _) | (_, Err(VhdError::Checksum)) => {
            return Err(VhdError::Checksum.into());
        }
        (Err(error), Err(_)) => return Err(error.into()),
    };
    let virtual_size = footer.virtual_size;
    if !(SECTOR..=MAX_SECTORS * SECTOR).contains(&virtual_size) {
        return Err(VhdError::VirtualSize(virtual_size).into());
    }
    Ok((footer, notice))
}

/// The last 512 bytes, or 511 of an old writer.
fn end_footer<S: Source + ?Sized>(source: &S) -> std::io::Result<Result<Footer, VhdError>> {
    let length = source.length();
    let tail = up_to(source, length.saturating_sub(FOOTER_LEN as u64), FOOTER_LEN)?;
    Ok(match Footer::parse(&tail) {
        Err(VhdError::NoFooter) => Footer::parse(tail.get(1..).unwrap_or_default()),
        footer => footer,
    })
}

/// Looks at all tables of a dynamic disk that may need another file.
pub(crate) fn check_chained<S: Source + ?Sized>(source: &S) -> Result<(), ImageError> {
    check_dynamic(source, footer(source)?)
}

/// What is used of a dynamic disk's header.
#[derive(Debug)]
pub(crate) struct Dynamic {
    pub(crate) header: Vec<u8>,
    /// Where the block allocation table is.
    pub(crate) table: u64,
    pub(crate) entries: u32,
    pub(crate) block_size: u32,
    /// Bytes of a block's bitmap.
    pub(crate) bitmap: u64,
}

pub(crate) fn dynamic<S: Source + ?Sized>(
    source: &S,
    footer: &Footer,
) -> Result<Dynamic, ImageError> {
    let length = source.length();
    let header = up_to(source, footer.data_offset, DYNAMIC_HEADER_LEN)?;
    let header_end = footer.data_offset.saturating_add(DYNAMIC_HEADER_LEN as u64);
    check_end("dynamic disk header", header_end, length)?;
    if !header.starts_with(DYNAMIC_COOKIE) {
        return Err(VhdError::NoHeader.into());
    }
    if be_u32(&header, HEADER_CHECKSUM) != Some(checksum(&header, HEADER_CHECKSUM)) {
        return Err(VhdError::HeaderChecksum.into());
    }
    let table = be_u64(&header, 16).ok_or(VhdError::NoHeader)?;
    let entries = be_u32(&header, 28).ok_or(VhdError::NoHeader)?;
    let block_size = be_u32(&header, 32).ok_or(VhdError::NoHeader)?;
    if !block_size.is_power_of_two() || u64::from(block_size) < SECTOR {
        return Err(VhdError::BlockSize(block_size).into());
    }
    let needed = footer.virtual_size.div_ceil(u64::from(block_size));
    if needed > u64::from(entries) {
        return Err(VhdError::Table { entries, needed }.into());
    }
    let table_length = u64::from(entries) * 4;
    check_end("block allocation table", table.saturating_add(table_length), length)?;
    // One bit for each sector of the block, in whole sectors.
    let bitmap = (u64::from(block_size) / SECTOR / 8).next_multiple_of(SECTOR);
    Ok(Dynamic { header, table, entries, block_size, bitmap })
}

fn check_dynamic<S: Source + ?Sized>(source: &S, footer: Footer) -> Result<(), ImageError> {
    let length = source.length();
    let Dynamic { table, entries, block_size, bitmap, .. } = dynamic(source, &footer)?;
    let table_length = u64::from(entries) * 4;
    let block = bitmap + u64::from(block_size);
    in_pieces(source, table, table_length, |piece| {
        let (entries, _rest) = piece.as_chunks::<4>();
        let mut sectors = entries.iter().map(|entry| u32::from_be_bytes(*entry));
        let last = sectors.by_ref().filter(|sector| *sector != UNUSED).max();
        match last {
            Some(sector) => {
                Ok(check_end("last block", u64::from(sector) * SECTOR + block, length)?)
            }
            None => Ok(()),
        }
    })
}

const fn check_end(what: &'static str, end: u64, length: u64) -> Result<(), VhdError> {
    if end > length { Err(VhdError::CutShort { what, end, length }) } else { Ok(()) }
}

/// Writes the checksum into a footer or header that is complete but for it.
pub(crate) fn seal(bytes: &mut [u8], own: usize) {
    let sum = checksum(bytes, own);
    if let Some(place) = bytes.get_mut(own..own + 4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

/// One's complement of the sum of all bytes but the checksum itself, which is at `own`.
fn checksum(bytes: &[u8], own: usize) -> u32 {
    let counted = bytes.iter().enumerate().filter(|(at, _)| !(own..own + 4).contains(at));
    !counted.fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}
