//! A chain as one dynamic VHD, made front to back.
//!
//! ```text
//! footer │ header │ block allocation table │ blocks, each behind its bitmap │ footer
//! ```

use std::ops::Range;

use super::{BLOCK as PIECE, Chain, count};
use crate::{ImageError, vhd};

const SECTOR: u64 = 512;
const BLOCK: u64 = 2 << 20;
/// One bit for each sector of a block, in whole sectors.
const BITMAP: u64 = BLOCK / SECTOR / 8;
const HEADER_AT: u64 = SECTOR;
const TABLE_AT: u64 = HEADER_AT + 1024;
const UNUSED: u32 = u32::MAX;

/// What is not in the chain.
#[derive(Debug, Clone, Copy)]
pub struct VhdIdentity {
    /// The image's mark.
    pub id: [u8; 16],
    /// Seconds since the year 2000.
    pub seconds: u32,
    /// Cylinders, heads, sectors of the youngest file.
    pub geometry: u32,
}

/// Gives the bytes of the image, block after block.
#[derive(Debug)]
pub struct VhdImage {
    chain: Chain,
    identity: VhdIdentity,
    /// Blocks of the disk that get data.
    data: Vec<Range<u64>>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Head,
    /// Nth stretch, block in it, byte of the block.
    Data(usize, u64, u64),
    Over,
}

impl VhdImage {
    pub(super) fn new(mut chain: Chain, identity: VhdIdentity) -> Result<Self, ImageError> {
        let data = chain.units(BLOCK)?;
        Ok(Self { chain, identity, data, stage: Stage::Head })
    }

    const fn entries(&self) -> u64 {
        self.chain.virtual_size().div_ceil(BLOCK)
    }

    const fn blocks_at(&self) -> u64 {
        TABLE_AT + (self.entries() * 4).next_multiple_of(SECTOR)
    }

    /// Length of the whole image.
    pub fn length(&self) -> u64 {
        self.blocks_at() + count(&self.data) * (BITMAP + BLOCK) + SECTOR
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the chain cannot be read.
    pub fn next_block(&mut self) -> Result<Option<Vec<u8>>, ImageError> {
        loop {
            match self.stage {
                Stage::Head => {
                    self.stage = Stage::Data(0, 0, 0);
                    return Ok(Some(self.head()));
                }
                Stage::Over => return Ok(None),
                Stage::Data(nth, block, byte) => {
                    let Some(range) = self.data.get(nth) else {
                        self.stage = Stage::Over;
                        return Ok(Some(self.footer()));
                    };
                    let at = range.start + block;
                    if at >= range.end {
                        self.stage = Stage::Data(nth + 1, 0, 0);
                        continue;
                    }
                    let mut bytes = Vec::new();
                    if byte == 0 {
                        bytes.resize(usize::try_from(BITMAP).unwrap_or(0), 0xff);
                    }
                    let begin = bytes.len();
                    bytes.resize(begin + usize::try_from(PIECE).unwrap_or(0), 0);
                    let content = bytes.get_mut(begin..).unwrap_or_default();
                    self.chain.read(at * BLOCK + byte, content)?;
                    let next = byte + PIECE;
                    self.stage = if next < BLOCK {
                        Stage::Data(nth, block, next)
                    } else {
                        Stage::Data(nth, block + 1, 0)
                    };
                    return Ok(Some(bytes));
                }
            }
        }
    }

    fn footer(&self) -> Vec<u8> {
        let size = self.chain.virtual_size();
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"conectix");
        out.extend_from_slice(&2_u32.to_be_bytes());
        out.extend_from_slice(&0x0001_0000_u32.to_be_bytes());
        out.extend_from_slice(&HEADER_AT.to_be_bytes());
        out.extend_from_slice(&self.identity.seconds.to_be_bytes());
        // Readers take the size from the geometry unless this writer's name stands here.
        out.extend_from_slice(b"tap\0");
        out.extend_from_slice(&0x0001_0003_u32.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&self.identity.geometry.to_be_bytes());
        out.extend_from_slice(&3_u32.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.identity.id);
        out.resize(512, 0);
        vhd::seal(&mut out, vhd::FOOTER_CHECKSUM);
        out
    }

    fn head(&self) -> Vec<u8> {
        let mut out = self.footer();
        let mut header = Vec::with_capacity(1024);
        header.extend_from_slice(b"cxsparse");
        header.extend_from_slice(&u64::MAX.to_be_bytes());
        header.extend_from_slice(&TABLE_AT.to_be_bytes());
        header.extend_from_slice(&0x0001_0000_u32.to_be_bytes());
        let entries = u32::try_from(self.entries()).unwrap_or(u32::MAX);
        header.extend_from_slice(&entries.to_be_bytes());
        header.extend_from_slice(&u32::try_from(BLOCK).unwrap_or(0).to_be_bytes());
        header.resize(1024, 0);
        vhd::seal(&mut header, vhd::HEADER_CHECKSUM);
        out.extend_from_slice(&header);
        let mut place = self.blocks_at() / SECTOR;
        let mut stretches = self.data.iter();
        let mut current = stretches.next();
        for block in 0..self.entries() {
            if current.is_some_and(|range| range.end <= block) {
                current = stretches.next();
            }
            let entry = if current.is_some_and(|range| range.contains(&block)) {
                let entry = u32::try_from(place).unwrap_or(UNUSED);
                place += (BITMAP + BLOCK) / SECTOR;
                entry
            } else {
                UNUSED
            };
            out.extend_from_slice(&entry.to_be_bytes());
        }
        out.resize(usize::try_from(self.blocks_at()).unwrap_or(0), 0xff);
        out
    }
}
