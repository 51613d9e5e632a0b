//! VHDX: two headers, two region tables, a log, a block allocation table and metadata.
//!
//! A disk that was copied while it was in use has changes in its log that are nowhere else; only
//! who replays the log sees the disk. QEMU refuses to open such a file for reading, and so does
//! this check.

mod metadata;
mod table;

use crate::{ImageError, Notice, Source, le_u16, le_u32, le_u64, up_to};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const SIGNATURE: &[u8] = b"vhdxfile";
const HEADERS: [u64; 2] = [64 * KIB, 128 * KIB];
const HEADER_LEN: usize = 4096;
const REGION_TABLES: [u64; 2] = [192 * KIB, 256 * KIB];
const REGION_TABLE_LEN: usize = 64 * 1024;
const MAX_REGIONS: u32 = 2047;
/// The format's own limits.
const MAX_DISK: u64 = 64 << 40;
const BLOCKS: std::ops::RangeInclusive<u64> = MIB..=256 * MIB;
/// Longest log that is looked through; Hyper-V makes them 1 MiB long.
const MAX_LOG: u64 = 64 * MIB;
const LOG_SECTOR: usize = 4096;

/// Sixteen bytes as they are in the file.
type Guid = [u8; 16];

const BAT: Guid = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
const METADATA: Guid = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";

/// Why a file is not a VHDX that can be a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VhdxError {
    /// Another file.
    #[error("it has no VHDX signature")]
    Signature,
    /// Neither of the two can be trusted.
    #[error("both of its headers are damaged")]
    Headers,
    /// Neither of the two can be trusted.
    #[error("both of its region tables are damaged")]
    Regions,
    /// Unknown version.
    #[error("version {0} is not 1")]
    Version(u16),
    /// Needed, and unknown here.
    #[error("it needs a {0} that is not known")]
    Required(&'static str),
    /// There is none.
    #[error("its {0} is missing")]
    Missing(&'static str),
    /// Two parts at one place, or one that does not begin where parts may.
    #[error("its {what} at byte {offset} lies where it may not")]
    Place {
        /// Which part.
        what: &'static str,
        /// Where it begins.
        offset: u64,
    },
    /// Changes that are only there.
    #[error(
        "its log was not replayed, it was copied while it was in use: shut the virtual machine down, or run qemu-img check -r all on a copy, and give it again"
    )]
    Log,
    /// Longer than any that is made.
    #[error("its log has {0} bytes")]
    LogLength(u64),
    /// It needs another file.
    #[error("it is a differencing disk that needs a parent file: merge it first")]
    Differencing,
    /// The metadata's size cannot be.
    #[error("its virtual size is {0} bytes, allowed are multiples of its sector up to 64 TiB")]
    VirtualSize(u64),
    /// Not a power of two from 1 to 256 MiB.
    #[error("its block size is {0} bytes")]
    BlockSize(u64),
    /// Neither 512 nor 4096.
    #[error("its {what} sector size is {bytes} bytes")]
    SectorSize {
        /// Logical or physical.
        what: &'static str,
        /// As it says.
        bytes: u32,
    },
    /// The table has no room for the disk.
    #[error("its block allocation table has {entries} entries, {needed} are needed")]
    Table {
        /// Entries there are.
        entries: u64,
        /// Entries that the virtual size asks for.
        needed: u64,
    },
    /// Unknown, or one of a differencing disk.
    #[error("a block of its table has state {0}")]
    BlockState(u8),
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
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// An oddity.
    pub notice: Option<Notice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    sequence: u64,
    log: Guid,
    log_length: u64,
    log_offset: u64,
}

/// A part of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    offset: u64,
    length: u64,
}

/// Judges a complete VHDX.
pub fn check<S: Source + ?Sized>(source: &S) -> Result<Disk, ImageError> {
    if up_to(source, 0, SIGNATURE.len())? != SIGNATURE {
        return Err(VhdxError::Signature.into());
    }
    let (header, header_notice) = header(source)?;
    let (regions, region_notice) = regions(source)?;
    let find = |guid: Guid, what| {
        let found = regions.iter().find(|(id, ..)| *id == guid);
        found.map(|(_, region, _)| *region).ok_or(VhdxError::Missing(what))
    };
    let bat = find(BAT, "block allocation table")?;
    let metadata = find(METADATA, "metadata")?;
    if regions.iter().any(|(id, _, required)| *required && *id != BAT && *id != METADATA) {
        return Err(VhdxError::Required("region").into());
    }
    check_places(&header, bat, metadata, source.length())?;
    check_log(&header, source)?;
    let parameters = metadata::read(source, metadata)?;
    table::check(source, bat, &parameters)?;
    Ok(Disk { virtual_size: parameters.virtual_size, notice: header_notice.or(region_notice) })
}

/// The newer of two sound headers.
fn header<S: Source + ?Sized>(source: &S) -> Result<(Header, Option<Notice>), ImageError> {
    let mut sound = Vec::new();
    for offset in HEADERS {
        sound.extend(parse_header(&up_to(source, offset, HEADER_LEN)?)?);
    }
    let newest = sound.iter().max_by_key(|header| header.sequence).copied();
    let damaged = (sound.len() < HEADERS.len()).then_some(Notice::DamagedVhdxHeader);
    Ok((newest.ok_or(VhdxError::Headers)?, damaged))
}

/// `None` when it is damaged.
fn parse_header(bytes: &[u8]) -> Result<Option<Header>, VhdxError> {
    if !bytes.starts_with(b"head") || !has_checksum(bytes, HEADER_LEN) {
        return Ok(None);
    }
    let parse = || {
        Some((
            le_u16(bytes, 66)?,
            Header {
                sequence: le_u64(bytes, 8)?,
                log: guid(bytes, 48)?,
                log_length: u64::from(le_u32(bytes, 68)?),
                log_offset: le_u64(bytes, 72)?,
            },
        ))
    };
    match parse() {
        Some((1, header)) => Ok(Some(header)),
        Some((version, _)) => Err(VhdxError::Version(version)),
        None => Ok(None),
    }
}

type Regions = Vec<(Guid, Region, bool)>;

/// The first sound table of regions.
fn regions<S: Source + ?Sized>(source: &S) -> Result<(Regions, Option<Notice>), ImageError> {
    let mut notice = None;
    for offset in REGION_TABLES {
        let bytes = up_to(source, offset, REGION_TABLE_LEN)?;
        match parse_regions(&bytes) {
            Some(regions) => return Ok((regions, notice)),
            None => notice = Some(Notice::DamagedVhdxHeader),
        }
    }
    Err(VhdxError::Regions.into())
}

fn parse_regions(bytes: &[u8]) -> Option<Regions> {
    if !bytes.starts_with(b"regi") || !has_checksum(bytes, REGION_TABLE_LEN) {
        return None;
    }
    let count = le_u32(bytes, 8).filter(|count| *count <= MAX_REGIONS)?;
    let (entries, _rest) = bytes.get(16..)?.as_chunks::<32>();
    let entry = |entry: &[u8; 32]| {
        let region = Region { offset: le_u64(entry, 16)?, length: u64::from(le_u32(entry, 24)?) };
        Some((guid(entry, 0)?, region, le_u32(entry, 28)? & 1 != 0))
    };
    entries.iter().take(usize::try_from(count).ok()?).map(entry).collect()
}

fn guid(bytes: &[u8], at: usize) -> Option<Guid> {
    bytes.get(at..at + 16)?.try_into().ok()
}

/// Table, metadata and log are where parts may be, apart from each other, and in the file.
fn check_places(
    header: &Header,
    bat: Region,
    metadata: Region,
    length: u64,
) -> Result<(), VhdxError> {
    let log = Region { offset: header.log_offset, length: header.log_length };
    let parts = [("block allocation table", bat), ("metadata", metadata), ("log", log)];
    for (at, (what, part)) in parts.into_iter().enumerate() {
        let Region { offset, length: size } = part;
        if what == "log" && size == 0 {
            continue;
        }
        if offset < MIB || !offset.is_multiple_of(MIB) || !size.is_multiple_of(MIB) {
            return Err(VhdxError::Place { what, offset });
        }
        check_end(what, offset.saturating_add(size), length)?;
        let apart = |other: Region| {
            offset.saturating_add(size) <= other.offset
                || other.offset.saturating_add(other.length) <= offset
        };
        if parts.iter().take(at).any(|(_, other)| !apart(*other)) {
            return Err(VhdxError::Place { what, offset });
        }
    }
    Ok(())
}

const fn check_end(what: &'static str, end: u64, length: u64) -> Result<(), VhdxError> {
    if end > length { Err(VhdxError::CutShort { what, end, length }) } else { Ok(()) }
}

/// Whether the log has an entry of this session.
fn check_log<S: Source + ?Sized>(header: &Header, source: &S) -> Result<(), ImageError> {
    if header.log == [0; 16] {
        return Ok(());
    }
    if header.log_length > MAX_LOG {
        return Err(VhdxError::LogLength(header.log_length).into());
    }
    crate::in_pieces(source, header.log_offset, header.log_length, |piece| {
        let is_ours =
            |entry: &[u8]| entry.starts_with(b"loge") && guid(entry, 32) == Some(header.log);
        if piece.chunks(LOG_SECTOR).any(is_ours) { Err(VhdxError::Log.into()) } else { Ok(()) }
    })
}

/// The checksum is at byte 4 and counts as zero.
fn has_checksum(bytes: &[u8], length: usize) -> bool {
    let Some(bytes) = bytes.get(..length) else { return false };
    let Some((start, rest)) = bytes.split_at_checked(4) else { return false };
    let rest = rest.get(4..).unwrap_or_default();
    let counted = start.iter().chain(&[0; 4]).chain(rest);
    le_u32(bytes, 4) == Some(crc32c(counted))
}

/// Castagnoli's polynomial, reflected.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { (value >> 1) ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
            {
                table[at] = value;
            }
            at += 1;
        }
        table
    };
    !bytes.fold(u32::MAX, |sum, byte| {
        let at = usize::from(sum.to_le_bytes()[0] ^ *byte);
        TABLE.get(at).copied().unwrap_or(0) ^ (sum >> 8)
    })
}
