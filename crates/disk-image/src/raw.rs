//! A RAW disk: refused only for what it recognisably is instead.

use crate::{HEAD_LEN, ImageError, Kind, Notice, Source, le_u32, le_u64, up_to, vhd};

/// Sector of every disk; a smaller file is none.
const SECTOR: u64 = 512;
/// The last sector of an Apple disk image begins with this.
const APPLE_TRAILER: &[u8] = b"koly";

/// Why a file is not a RAW disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// Most errors of object stores are this short.
    #[error("it has {0} bytes, less than one sector")]
    Short(u64),
    /// Its beginning or its end belongs to something else.
    #[error("it is something else: {}", .0.name())]
    Kind(Kind),
}

/// Judges a complete RAW image.
pub fn check<S: Source + ?Sized>(source: &S) -> Result<Vec<Notice>, ImageError> {
    let length = source.length();
    let kind = Kind::of(&up_to(source, 0, HEAD_LEN)?);
    if !kind.can_be_a_disk() {
        return Err(RawError::Kind(kind).into());
    }
    if length < SECTOR {
        return Err(RawError::Short(length).into());
    }
    let tail = up_to(source, length - SECTOR, vhd::FOOTER_LEN)?;
    if tail.starts_with(APPLE_TRAILER) {
        return Err(RawError::Kind(Kind::Foreign("Apple disk image")).into());
    }
    let fixed = vhd::Footer::parse(&tail).ok().map(|_footer| Notice::FixedVhd);
    let beyond = partitions_end(source)?.filter(|end| *end > length);
    let beyond = beyond.map(|end| Notice::PartitionsBeyond { end, length });
    Ok(fixed.into_iter().chain(beyond).collect())
}

/// Where the last partition of a GPT or an MBR ends. Of a disk that was cut short this is behind the
/// end of the file.
fn partitions_end<S: Source + ?Sized>(source: &S) -> std::io::Result<Option<u64>> {
    const ENTRY: usize = 446;
    let head = up_to(source, 0, 2 * 512)?;
    let (mbr, gpt) = head.split_at_checked(512).unwrap_or((&head, &[]));
    if mbr.get(510..) != Some(b"\x55\xaa") {
        return Ok(None);
    }
    if gpt.starts_with(b"EFI PART") {
        // The copy of the table is in the last sector.
        return Ok(le_u64(gpt, 32).map(|last| last.saturating_add(1).saturating_mul(SECTOR)));
    }
    let (entries, _rest) = mbr.get(ENTRY..510).unwrap_or_default().as_chunks::<16>();
    // Boot code without a table has anything there: a status is one of two values.
    if entries.iter().any(|entry| !matches!(entry, [0 | 0x80, ..])) {
        return Ok(None);
    }
    let used = entries.iter().filter(|entry| entry.get(4).is_some_and(|kind| *kind != 0));
    let ends = used.filter_map(|entry| {
        Some((u64::from(le_u32(entry, 8)?) + u64::from(le_u32(entry, 12)?)) * SECTOR)
    });
    Ok(ends.max())
}
