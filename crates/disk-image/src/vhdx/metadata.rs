//! The facts about the disk, each an item with an id.

use super::{BLOCKS, Guid, MAX_DISK, Region, VhdxError, guid};
use crate::{ImageError, Source, le_u16, le_u32, le_u64, up_to};

const TABLE_LEN: usize = 64 * 1024;
const MAX_ITEMS: u16 = 2047;
const REQUIRED: u32 = 1 << 2;
const HAS_PARENT: u32 = 1 << 1;
const FILE_PARAMETERS: Guid = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
const DISK_SIZE: Guid = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
const DISK_ID: Guid = *b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46";
const LOGICAL: Guid = *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
const PHYSICAL: Guid = *b"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56";
const PARENT: Guid = *b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";
const KNOWN: [Guid; 6] = [FILE_PARAMETERS, DISK_SIZE, DISK_ID, LOGICAL, PHYSICAL, PARENT];

/// What the disk is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) virtual_size: u64,
    pub(super) block_size: u64,
    pub(super) sector_size: u64,
}

pub(super) fn read<S: Source + ?Sized>(
    source: &S,
    region: Region,
) -> Result<Parameters, ImageError> {
    let table = up_to(source, region.offset, TABLE_LEN)?;
    let items = items(&table).ok_or(VhdxError::Missing("metadata"))?;
    if items.iter().any(|(id, _, _, flags)| flags & REQUIRED != 0 && !KNOWN.contains(id)) {
        return Err(VhdxError::Required("metadata item").into());
    }
    let item = |id: Guid, what: &'static str, length: u32| -> Result<Vec<u8>, ImageError> {
        let found = items.iter().find(|(other, ..)| *other == id);
        let (_, offset, size, _) = found.ok_or(VhdxError::Missing(what))?;
        let end = u64::from(*offset).saturating_add(u64::from(*size));
        if *size < length || end > region.length {
            return Err(VhdxError::Place { what, offset: u64::from(*offset) }.into());
        }
        Ok(up_to(source, region.offset + u64::from(*offset), 8)?)
    };
    let parameters = item(FILE_PARAMETERS, "file parameters", 8)?;
    let block_size = u64::from(le_u32(&parameters, 0).unwrap_or(0));
    let has_parent = le_u32(&parameters, 4).unwrap_or(0) & HAS_PARENT != 0;
    if has_parent || items.iter().any(|(id, ..)| *id == PARENT) {
        return Err(VhdxError::Differencing.into());
    }
    if !BLOCKS.contains(&block_size) || !block_size.is_power_of_two() {
        return Err(VhdxError::BlockSize(block_size).into());
    }
    let sector = |id, what| -> Result<u64, ImageError> {
        let bytes = le_u32(&item(id, what, 4)?, 0).unwrap_or(0);
        match bytes {
            512 | 4096 => Ok(u64::from(bytes)),
            _ => Err(VhdxError::SectorSize { what, bytes }.into()),
        }
    };
    let sector_size = sector(LOGICAL, "logical")?;
    sector(PHYSICAL, "physical")?;
    let virtual_size = le_u64(&item(DISK_SIZE, "virtual size", 8)?, 0).unwrap_or(0);
    if virtual_size == 0 || virtual_size > MAX_DISK || !virtual_size.is_multiple_of(sector_size) {
        return Err(VhdxError::VirtualSize(virtual_size).into());
    }
    Ok(Parameters { virtual_size, block_size, sector_size })
}

/// Id, offset, length and flags of every item.
fn items(table: &[u8]) -> Option<Vec<(Guid, u32, u32, u32)>> {
    if !table.starts_with(b"metadata") {
        return None;
    }
    let count = le_u16(table, 10).filter(|count| *count <= MAX_ITEMS)?;
    let (entries, _rest) = table.get(32..)?.as_chunks::<32>();
    let entry = |entry: &[u8; 32]| {
        Some((guid(entry, 0)?, le_u32(entry, 16)?, le_u32(entry, 20)?, le_u32(entry, 24)?))
    };
    entries.iter().take(usize::from(count)).map(entry).collect()
}
