//! The tables of a QCOW2: that they are large enough, in the file, and name what is in the file.
//!
//! QEMU opens an image whose clusters lie beyond its end and reads zeros there, so a file cut in
//! transfer looks whole until the guest's file system is found damaged. Here every table is read
//! once; none costs more memory than a piece of it, and all L2 tables together are not longer than
//! the file.

use super::{Header, MAX_L1_BYTES, MAX_REFCOUNT_TABLE_BYTES, MAX_SNAPSHOTS, Part, Qcow2Error};
use crate::{ImageError, Source, be_u32, in_pieces};

/// Bits 9 to 55 of an entry: an offset.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
pub(crate) const COMPRESSED: u64 = 1 << 62;
pub(crate) const ZERO: u64 = 1;
const SECTOR: u64 = 512;
/// QEMU's limits.
const MAX_SNAPSHOT_EXTRA: u32 = 1024;
const MAX_SNAPSHOT_BYTES: u64 = 64 << 20;

/// The first table maps the disk and lies in the file.
pub(super) fn check_l1(header: &Header, length: u64) -> Result<(), ImageError> {
    let cluster = header.cluster_size();
    let l1_bytes = u64::from(header.l1_entries) * 8;
    let needed = header.virtual_size.div_ceil(cluster * (cluster / 8));
    if needed > u64::from(header.l1_entries) {
        return Err(Qcow2Error::L1TooSmall { entries: header.l1_entries, needed }.into());
    }
    if l1_bytes > MAX_L1_BYTES {
        return Err(Qcow2Error::TooLarge { what: Part::L1, size: l1_bytes }.into());
    }
    Ok(check_table(header, Part::L1, header.l1_offset, l1_bytes, length)?)
}

pub(super) fn check<S: Source + ?Sized>(header: &Header, source: &S) -> Result<(), ImageError> {
    let length = source.length();
    let cluster = header.cluster_size();
    let l1_bytes = u64::from(header.l1_entries) * 8;
    check_l1(header, length)?;
    check_refcounts(header, source)?;
    check_snapshots(header, source)?;
    let mut tables = 0_u64;
    in_pieces(source, header.l1_offset, l1_bytes, |piece| {
        for offset in entries(piece).map(|entry| entry & OFFSET).filter(|offset| *offset != 0) {
            tables += 1;
            // Each has a place of its own, which bounds what is read in all.
            if tables.saturating_mul(cluster) > length {
                return Err(Qcow2Error::SharedTables(tables).into());
            }
            check_table(header, Part::L2, offset, cluster, length)?;
            in_pieces(source, offset, cluster, |piece| {
                Ok(entries(piece).try_for_each(|entry| check_entry(header, entry, length))?)
            })?;
        }
        Ok(())
    })
}

fn entries(piece: &[u8]) -> impl Iterator<Item = u64> {
    let (entries, _rest) = piece.as_chunks::<8>();
    entries.iter().map(|entry| u64::from_be_bytes(*entry))
}

/// A table begins at a cluster and lies in the file with all its bytes.
pub(super) const fn check_table(
    header: &Header,
    what: Part,
    offset: u64,
    size: u64,
    length: u64,
) -> Result<(), Qcow2Error> {
    if !offset.is_multiple_of(header.cluster_size()) {
        return Err(Qcow2Error::Unaligned { what, offset });
    }
    match offset.checked_add(size) {
        Some(end) if end <= length => Ok(()),
        Some(_) | None => Err(Qcow2Error::Beyond { what, offset, length }),
    }
}

/// Offset and length of a compressed cluster.
pub(super) const fn compressed(header: &Header, entry: u64) -> (u64, u64) {
    let shift = 62 - (header.cluster_bits - 8);
    let offset = entry & ((1 << shift) - 1);
    let sectors = ((entry & (COMPRESSED - 1)) >> shift) + 1;
    (offset, sectors * SECTOR - offset % SECTOR)
}

fn check_entry(header: &Header, entry: u64, length: u64) -> Result<(), Qcow2Error> {
    let cluster = header.cluster_size();
    let (what, offset, size) = if entry & COMPRESSED != 0 {
        let (offset, size) = compressed(header, entry);
        (Part::Compressed, offset, size)
    } else {
        if entry & ZERO != 0 && header.version == 2 {
            return Err(Qcow2Error::ZeroCluster);
        }
        (Part::Cluster, entry & OFFSET, cluster)
    };
    if offset == 0 && what == Part::Cluster {
        return Ok(());
    }
    if what == Part::Cluster && !offset.is_multiple_of(cluster) {
        return Err(Qcow2Error::Unaligned { what, offset });
    }
    // QEMU writes no more of the last cluster than the disk has, and rounds compressed ones up.
    if offset >= length || offset + size >= length + cluster {
        return Err(Qcow2Error::Beyond { what, offset, length });
    }
    Ok(())
}

fn check_refcounts<S: Source + ?Sized>(header: &Header, source: &S) -> Result<(), ImageError> {
    let (cluster, length) = (header.cluster_size(), source.length());
    let size = u64::from(header.refcount_clusters) * cluster;
    let what = Part::RefcountTable;
    if size == 0 {
        return Err(Qcow2Error::NoRefcounts.into());
    }
    if size > MAX_REFCOUNT_TABLE_BYTES {
        return Err(Qcow2Error::TooLarge { what, size }.into());
    }
    check_table(header, what, header.refcount_offset, size, length)?;
    in_pieces(source, header.refcount_offset, size, |piece| {
        for offset in entries(piece).map(|entry| entry & !(SECTOR - 1)).filter(|entry| *entry != 0)
        {
            check_table(header, Part::RefcountBlock, offset, cluster, length)?;
        }
        Ok(())
    })
}

/// Snapshots inside the image are kept; their list must be there for QEMU to open it.
fn check_snapshots<S: Source + ?Sized>(header: &Header, source: &S) -> Result<(), ImageError> {
    const FIXED: usize = 40;
    let (what, start, length) = (Part::Snapshots, header.snapshots_offset, source.length());
    if header.snapshots > MAX_SNAPSHOTS {
        return Err(Qcow2Error::TooLarge { what, size: header.snapshots.into() }.into());
    }
    if !start.is_multiple_of(header.cluster_size()) {
        return Err(Qcow2Error::Unaligned { what, offset: start }.into());
    }
    if i64::try_from(start).is_err() {
        return Err(Qcow2Error::Beyond { what, offset: start, length }.into());
    }
    let mut size = 0;
    for _snapshot in 0..header.snapshots {
        check_table(header, what, start, size + FIXED as u64, length)?;
        let mut fixed = [0; FIXED];
        source.read_at(start + size, &mut fixed)?;
        let u16_at = |offset| be_u32(&fixed, offset).map_or(0, |word| u64::from(word >> 16));
        let extra = be_u32(&fixed, 36).unwrap_or(0);
        if extra > MAX_SNAPSHOT_EXTRA {
            return Err(Qcow2Error::TooLarge { what, size: extra.into() }.into());
        }
        let entry = FIXED as u64 + u64::from(extra) + u16_at(12) + u16_at(14);
        size += entry.next_multiple_of(8);
    }
    if header.snapshots > 0 {
        // The padding of the last entry need not be there.
        check_table(header, what, start, size.saturating_sub(7), length)?;
    }
    if size > MAX_SNAPSHOT_BYTES {
        return Err(Qcow2Error::TooLarge { what, size }.into());
    }
    Ok(())
}
