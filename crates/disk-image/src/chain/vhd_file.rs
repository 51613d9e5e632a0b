//! A VHD that may need another file.

use super::{Bytes, File, Opened, Parent, Run, RunKind};
use crate::vhd::{self, Footer, VhdError};
use crate::{Format, ImageError, be_u32, be_u64, up_to};

const SECTOR: u64 = 512;
const UNUSED: u32 = u32::MAX;
/// Entries of the list of places where the parent may be.
const LOCATORS: usize = 8;
const LOCATORS_AT: usize = 576;
/// Longest name that is read.
const MAX_NAME: u64 = 4096;

pub(super) fn open(source: Bytes) -> Result<Opened, ImageError> {
    let footer = vhd::footer(&*source)?;
    if footer.disk_type == 2 {
        let id = Some(footer.id);
        let geometry = Some(footer.geometry);
        let file = FixedFile { footer, source };
        return Ok(Opened { file: Box::new(file), parent: None, id, geometry });
    }
    let dynamic = vhd::dynamic(&*source, &footer)?;
    let mut bytes = vec![0; usize::try_from(u64::from(dynamic.entries) * 4).unwrap_or(0)];
    source.read_at(dynamic.table, &mut bytes)?;
    let (entries, _rest) = bytes.as_chunks::<4>();
    let table = entries.iter().map(|entry| u32::from_be_bytes(*entry)).collect();
    let parent = match footer.disk_type {
        4 => Some(parent(&source, &dynamic.header)?),
        _ => None,
    };
    let (id, geometry) = (Some(footer.id), Some(footer.geometry));
    let file = VhdFile {
        virtual_size: footer.virtual_size,
        block: u64::from(dynamic.block_size),
        bitmap: dynamic.bitmap,
        table,
        map: None,
        is_differencing: footer.disk_type == 4,
        source,
    };
    Ok(Opened { file: Box::new(file), parent, id, geometry })
}

/// The names of the parent, and its mark. Chains lie in one directory, so the last part is all that
/// counts; the writers of hosts name directories of theirs.
fn parent(source: &Bytes, header: &[u8]) -> Result<Parent, ImageError> {
    let mut names = Vec::new();
    let mut add = |name: String| {
        let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
        if !last.is_empty() && !names.iter().any(|other| other == last) {
            names.push(last.to_owned());
        }
    };
    for nth in 0..LOCATORS {
        let locator = header.get(LOCATORS_AT + nth * 24..).unwrap_or_default();
        let Some(code) = locator.get(..4) else { break };
        let length = u64::from(be_u32(locator, 8).unwrap_or(0));
        let offset = be_u64(locator, 16).unwrap_or(0);
        let there = source.length().saturating_sub(offset);
        if length == 0 || length > MAX_NAME || length > there {
            continue;
        }
        let bytes = up_to(&**source, offset, usize::try_from(length).unwrap_or(0))?;
        match code {
            b"MACX" => add(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()),
            b"W2ru" | b"W2ku" => add(utf16(&bytes, u16::from_le_bytes)),
            _ => {}
        }
    }
    let own = header.get(64..576).unwrap_or_default();
    add(utf16(own, u16::from_be_bytes));
    if names.is_empty() {
        return Err(VhdError::NoParent.into());
    }
    let id = header.get(40..56).and_then(|id| id.try_into().ok());
    Ok(Parent { names, format: Some(Format::Vhd), id })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let (units, _rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> =
        units.iter().map(|pair| unit(*pair)).take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

/// The disk, then a footer.
#[derive(Debug)]
struct FixedFile {
    footer: Footer,
    source: Bytes,
}

impl File for FixedFile {
    fn virtual_size(&self) -> u64 {
        self.footer.virtual_size
    }

    fn check(&self) -> Result<(), ImageError> {
        vhd::check(&*self.source).map(drop)
    }

    fn run(&mut self, _offset: u64, limit: u64) -> Result<Run, ImageError> {
        Ok(Run { kind: RunKind::Data, length: limit })
    }

    fn read(&mut self, offset: u64, target: &mut [u8]) -> Result<(), ImageError> {
        Ok(self.source.read_at(offset, target)?)
    }
}

/// Blocks, each behind a bitmap of its sectors.
#[derive(Debug)]
struct VhdFile {
    virtual_size: u64,
    block: u64,
    /// Bytes of a block's bitmap.
    bitmap: u64,
    table: Vec<u32>,
    /// The bitmap that was read last, with its block.
    map: Option<(u64, Vec<u8>)>,
    is_differencing: bool,
    source: Bytes,
}

impl VhdFile {
    /// Where a block begins in the file.
    fn place(&self, block: u64) -> Option<u64> {
        let entry = usize::try_from(block).ok().and_then(|block| self.table.get(block));
        entry.copied().filter(|entry| *entry != UNUSED).map(|entry| u64::from(entry) * SECTOR)
    }

    fn map(&mut self, block: u64, place: u64) -> Result<&[u8], ImageError> {
        if self.map.as_ref().is_none_or(|(other, _)| *other != block) {
            let mut bytes = vec![0; usize::try_from(self.bitmap).unwrap_or(0)];
            self.source.read_at(place, &mut bytes)?;
            self.map = Some((block, bytes));
        }
        Ok(self.map.as_ref().map(|(_, map)| map.as_slice()).unwrap_or_default())
    }
}

fn is_set(map: &[u8], sector: u64) -> bool {
    let byte = usize::try_from(sector / 8).ok().and_then(|at| map.get(at));
    byte.is_some_and(|byte| byte & (0x80 >> (sector % 8)) != 0)
}

impl File for VhdFile {
    fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    fn check(&self) -> Result<(), ImageError> {
        vhd::check_chained(&*self.source)
    }

    fn run(&mut self, offset: u64, limit: u64) -> Result<Run, ImageError> {
        let absent = if self.is_differencing { RunKind::Absent } else { RunKind::Zero };
        let (block, inner) = (offset / self.block, offset % self.block);
        let left = (self.block - inner).min(limit);
        let Some(place) = self.place(block) else {
            return Ok(Run { kind: absent, length: left });
        };
        let map = self.map(block, place)?;
        let sector = inner / SECTOR;
        let has = is_set(map, sector);
        let end = (inner + left).div_ceil(SECTOR);
        let same = (sector..end).take_while(|sector| is_set(map, *sector) == has).count() as u64;
        let length = ((sector + same) * SECTOR).saturating_sub(inner).min(left).max(1);
        Ok(Run { kind: if has { RunKind::Data } else { absent }, length })
    }

    fn read(&mut self, offset: u64, target: &mut [u8]) -> Result<(), ImageError> {
        let (block, inner) = (offset / self.block, offset % self.block);
        match self.place(block) {
            Some(place) => Ok(self.source.read_at(place + self.bitmap + inner, target)?),
            None => {
                target.fill(0);
                Ok(())
            }
        }
    }
}
