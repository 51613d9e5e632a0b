//! The block allocation table: after each chunk of blocks an entry for their sector bitmap, which
//! only differencing disks use.

use super::metadata::Parameters;
use super::{Region, VhdxError, check_end};
use crate::{ImageError, Source, in_pieces};

/// Sectors that one sector bitmap covers.
const SECTORS_PER_BITMAP: u64 = 1 << 23;
const STATE: u64 = 7;
const OFFSET: u64 = !((1 << 20) - 1);
const FULLY_PRESENT: u64 = 6;

pub(super) fn check<S: Source + ?Sized>(
    source: &S,
    region: Region,
    parameters: &Parameters,
) -> Result<(), ImageError> {
    let length = source.length();
    let blocks = parameters.virtual_size.div_ceil(parameters.block_size);
    let ratio = (SECTORS_PER_BITMAP * parameters.sector_size / parameters.block_size).max(1);
    let needed = blocks + (blocks - 1) / ratio;
    let entries = region.length / 8;
    if needed > entries {
        return Err(VhdxError::Table { entries, needed }.into());
    }
    let mut number = 0_u64;
    in_pieces(source, region.offset, needed * 8, |piece| {
        let (entries, _rest) = piece.as_chunks::<8>();
        for entry in entries.iter().map(|entry| u64::from_le_bytes(*entry)) {
            let is_bitmap = number % (ratio + 1) == ratio;
            number += 1;
            if !is_bitmap {
                check_block(entry, parameters, length)?;
            }
        }
        Ok(())
    })
}

fn check_block(entry: u64, parameters: &Parameters, length: u64) -> Result<(), VhdxError> {
    match entry & STATE {
        // Not there, undefined, zero, unmapped (by two numbers): nothing is read.
        0..=3 | 5 => Ok(()),
        FULLY_PRESENT => {
            let end = (entry & OFFSET).saturating_add(parameters.block_size);
            check_end("last block", end, length)
        }
        // Partially present, in differencing disks only.
        other => Err(VhdxError::BlockState(u8::try_from(other).unwrap_or(u8::MAX))),
    }
}
