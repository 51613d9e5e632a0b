//! VMDK in one file: monolithic sparse (tables in front) and stream-optimized (compressed grains,
//! tables and a footer at the end), both with their description inside.
//!
//! A description alone, or one extent of several, needs other files, and they would be files of
//! whoever opens it: such a disk is refused by their names. What VMware's hosts and QEMU read is
//! the header, so the description must say the same.

mod descriptor;

use crate::{ImageError, Source, in_pieces, le_u16, le_u32, le_u64, up_to};
use descriptor::Descriptor;

const SECTOR: u64 = 512;
const HEADER_LEN: usize = 512;
const MAGIC: &[u8] = b"KDMV";
const NEWLINE_TEST: u32 = 1;
const REDUNDANT_DIRECTORY: u32 = 1 << 1;
const ZERO_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
/// In place of the directory's offset: the footer has it.
const AT_END: u64 = u64::MAX;
/// Marker, footer, end marker.
const FOOTER_LEN: u64 = 3 * SECTOR;
const FOOTER_MARKER: u32 = 3;
/// QEMU's limits.
const MAX_GRAIN: u64 = 0x20_0000;
const MAX_TABLE_ENTRIES: u32 = 512;
/// Maps 256 TiB of usual grains.
const MAX_DIRECTORY_BYTES: u64 = 32 << 20;
/// Longest description that is read.
const MAX_DESCRIPTOR: u64 = 64 * 1024;
/// Marker in front of a compressed grain: its sector and its length.
const GRAIN_MARKER_LEN: u64 = 12;

/// Why a file is not a VMDK that can be a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VmdkError {
    /// Neither a sparse extent nor a description.
    #[error("it has no VMDK header")]
    Magic,
    /// The file ends within the header.
    #[error("its header is cut short")]
    Short,
    /// The format of ESX 2 and of its redo logs.
    #[error("it is an extent of VMware 3 (COWD): convert the disk with qemu-img convert -O vmdk")]
    Cowd,
    /// Unknown version.
    #[error("version {0} is not 1 to 3")]
    Version(u32),
    /// Line ends were changed on the way.
    #[error("its bytes were changed by a transfer in text mode: transfer it in binary mode")]
    TextMode,
    /// The data is elsewhere.
    #[error(
        "its data is in other files ({files}), it is {kind}: convert the disk to one file with qemu-img convert -O vmdk -o subformat=streamOptimized"
    )]
    OtherFiles {
        /// What the description says it is.
        kind: String,
        /// The first of their names.
        files: String,
    },
    /// One extent of several, without the description.
    #[error(
        "it is one extent of a disk without the disk's description: convert the whole disk to one file with qemu-img convert -O vmdk -o subformat=streamOptimized"
    )]
    NoDescriptor,
    /// It needs another file.
    #[error("it needs a parent disk{}: give the whole disk, without snapshots", named(.0))]
    Parent(Option<String>),
    /// By VMware.
    #[error("it is encrypted, and the hosts have no key: export the disk without encryption")]
    Encrypted,
    /// Zero or absurd.
    #[error("its capacity is {0} sectors")]
    Capacity(u64),
    /// Not a power of two, zero, or above QEMU's limit.
    #[error("its grain size is {0} sectors")]
    Grain(u64),
    /// Outside 1 to 512.
    #[error("its grain tables have {0} entries, allowed are 1 to 512")]
    TableEntries(u32),
    /// Neither none nor deflate.
    #[error("its compression {0} is unknown")]
    Compression(u16),
    /// Of a stream-optimized disk.
    #[error("it is cut short: its footer is missing")]
    NoFooter,
    /// Header, footer and description do not tell the same size.
    #[error("its {one} tells {first} sectors, its {other} {second}")]
    Sizes {
        /// First teller.
        one: &'static str,
        /// Its number.
        first: u64,
        /// Second teller.
        other: &'static str,
        /// Its number.
        second: u64,
    },
    /// A table beyond the limit.
    #[error("its grain directory is too large ({0} bytes)")]
    TooLarge(u64),
    /// The directory names the same table several times.
    #[error("its grain directory names {0} tables, more than the file can hold")]
    SharedTables(u64),
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

fn named(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default()
}

/// A disk that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Compressed, as OVAs hold it.
    pub is_stream_optimized: bool,
}

/// The header of a sparse extent; the footer has the same form. Numbers are sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    flags: u32,
    capacity: u64,
    grain: u64,
    descriptor: u64,
    descriptor_size: u64,
    table_entries: u32,
    redundant_directory: u64,
    directory: u64,
    overhead: u64,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, VmdkError> {
        if !bytes.starts_with(MAGIC) {
            return Err(VmdkError::Magic);
        }
        let u32_at = |at| le_u32(bytes, at).ok_or(VmdkError::Short);
        let u64_at = |at| le_u64(bytes, at).ok_or(VmdkError::Short);
        let version = u32_at(4)?;
        if !(1..=3).contains(&version) {
            return Err(VmdkError::Version(version));
        }
        let header = Self {
            flags: u32_at(8)?,
            capacity: u64_at(12)?,
            grain: u64_at(20)?,
            descriptor: u64_at(28)?,
            descriptor_size: u64_at(36)?,
            table_entries: u32_at(44)?,
            redundant_directory: u64_at(48)?,
            directory: u64_at(56)?,
            overhead: u64_at(64)?,
        };
        let newlines = bytes.get(73..77).ok_or(VmdkError::Short)?;
        if header.flags & NEWLINE_TEST != 0 && newlines != b"\n \r\n" {
            return Err(VmdkError::TextMode);
        }
        match le_u16(bytes, 77).ok_or(VmdkError::Short)? {
            0 | 1 => Ok(header),
            other => Err(VmdkError::Compression(other)),
        }
    }

    const fn is_compressed(&self) -> bool {
        self.flags & COMPRESSED != 0
    }

    /// What bounds the sums below.
    const fn check_numbers(&self) -> Result<(), VmdkError> {
        if self.capacity == 0 || self.capacity > 1 << 51 {
            return Err(VmdkError::Capacity(self.capacity));
        }
        if !self.grain.is_power_of_two() || self.grain > MAX_GRAIN {
            return Err(VmdkError::Grain(self.grain));
        }
        match self.table_entries {
            1..=MAX_TABLE_ENTRIES => Ok(()),
            other => Err(VmdkError::TableEntries(other)),
        }
    }
}

/// Judges a complete VMDK.
pub fn check<S: Source + ?Sized>(source: &S) -> Result<Disk, ImageError> {
    let head = up_to(source, 0, HEADER_LEN)?;
    if head.starts_with(b"COWD") {
        return Err(VmdkError::Cowd.into());
    }
    if descriptor::is_descriptor(&head) {
        let text = up_to(source, 0, usize::try_from(MAX_DESCRIPTOR).unwrap_or(0))?;
        return Err(Descriptor::parse(&text).needs_other_files().into());
    }
    let header = Header::parse(&head)?;
    let described = check_descriptor(&header, source)?;
    header.check_numbers()?;
    let used = if header.directory == AT_END { footer(&header, source)? } else { header };
    if described.abs_diff(used.capacity) >= used.grain {
        let (one, other) = ("header", "description");
        let (first, second) = (used.capacity, described);
        return Err(VmdkError::Sizes { one, first, other, second }.into());
    }
    check_tables(&used, source)?;
    Ok(Disk { virtual_size: used.capacity * SECTOR, is_stream_optimized: used.is_compressed() })
}

fn beyond(what: &'static str, sector: u64, bytes: u64, length: u64) -> Result<(), VmdkError> {
    let end = sector.saturating_mul(SECTOR).saturating_add(bytes);
    if end > length { Err(VmdkError::CutShort { what, end, length }) } else { Ok(()) }
}

/// The sectors that the description inside the file tells, once it is one of a disk in one file.
fn check_descriptor<S: Source + ?Sized>(header: &Header, source: &S) -> Result<u64, ImageError> {
    if header.descriptor == 0 || header.descriptor_size == 0 {
        return Err(VmdkError::NoDescriptor.into());
    }
    let size = header.descriptor_size.saturating_mul(SECTOR).min(MAX_DESCRIPTOR);
    beyond("description", header.descriptor, size, source.length())?;
    let start = header.descriptor * SECTOR;
    let text = up_to(source, start, usize::try_from(size).unwrap_or(0))?;
    let descriptor = Descriptor::parse(&text);
    // QEMU leaves room for one in every extent.
    if descriptor.is_empty() {
        return Err(VmdkError::NoDescriptor.into());
    }
    descriptor.check_embedded()?;
    Ok(descriptor.sectors())
}

/// The header at the end, which has the directory's place.
fn footer<S: Source + ?Sized>(header: &Header, source: &S) -> Result<Header, ImageError> {
    let start = source.length().checked_sub(FOOTER_LEN).ok_or(VmdkError::NoFooter)?;
    let bytes = up_to(source, start, HEADER_LEN * 3)?;
    let (marker, rest) = bytes.split_at_checked(HEADER_LEN).ok_or(VmdkError::NoFooter)?;
    let (footer, end) = rest.split_at_checked(HEADER_LEN).ok_or(VmdkError::NoFooter)?;
    let is_end = |bytes: &[u8]| le_u64(bytes, 0) == Some(0) && le_u64(bytes, 8) == Some(0);
    if le_u32(marker, 8) != Some(0) || le_u32(marker, 12) != Some(FOOTER_MARKER) || !is_end(end) {
        return Err(VmdkError::NoFooter.into());
    }
    let footer = Header::parse(footer).map_err(|_bad| VmdkError::NoFooter)?;
    footer.check_numbers()?;
    if footer.capacity != header.capacity {
        let (one, other) = ("header", "footer");
        let (first, second) = (header.capacity, footer.capacity);
        return Err(VmdkError::Sizes { one, first, other, second }.into());
    }
    if footer.directory == AT_END {
        return Err(VmdkError::NoFooter.into());
    }
    Ok(footer)
}

/// Every table and every grain lies in the file: a file cut in transfer is found here.
fn check_tables<S: Source + ?Sized>(header: &Header, source: &S) -> Result<(), ImageError> {
    let length = source.length();
    beyond("header", header.overhead, 0, length)?;
    let table_bytes = u64::from(header.table_entries) * 4;
    let mapped = u64::from(header.table_entries) * header.grain;
    let directory_bytes = header.capacity.div_ceil(mapped) * 4;
    if directory_bytes > MAX_DIRECTORY_BYTES {
        return Err(VmdkError::TooLarge(directory_bytes).into());
    }
    if header.flags & REDUNDANT_DIRECTORY != 0 {
        let sector = header.redundant_directory;
        beyond("redundant grain directory", sector, directory_bytes, length)?;
    }
    beyond("grain directory", header.directory, directory_bytes, length)?;
    let mut tables = 0_u64;
    in_pieces(source, header.directory * SECTOR, directory_bytes, |piece| {
        for sector in entries(piece).filter(|sector| *sector != 0) {
            tables += 1;
            // Each has a place of its own, which bounds what is read in all.
            if tables.saturating_mul(table_bytes.max(SECTOR)) > length {
                return Err(VmdkError::SharedTables(tables).into());
            }
            beyond("grain table", sector, table_bytes, length)?;
            in_pieces(source, sector * SECTOR, table_bytes, |piece| {
                Ok(entries(piece).try_for_each(|entry| check_grain(header, entry, length))?)
            })?;
        }
        Ok(())
    })
}

fn entries(piece: &[u8]) -> impl Iterator<Item = u64> {
    let (entries, _rest) = piece.as_chunks::<4>();
    entries.iter().map(|entry| u64::from(u32::from_le_bytes(*entry)))
}

fn check_grain(header: &Header, sector: u64, length: u64) -> Result<(), VmdkError> {
    let is_zero = sector == 1 && header.flags & ZERO_GRAINS != 0;
    if sector == 0 || is_zero {
        return Ok(());
    }
    let bytes = if header.is_compressed() {
        GRAIN_MARKER_LEN
    } else {
        // The last grain of a disk may be shorter.
        let last = header.capacity % header.grain;
        let smallest = if last == 0 { header.grain } else { last };
        smallest * SECTOR
    };
    beyond("last grain", sector, bytes, length)
}
