//! An ISO: ISO 9660 with or without UDF, UDF alone, or a disk with a boot sector.

use crate::{HEAD_LEN, ImageError, Kind, Notice, Source, be_u32, le_u32, up_to};

/// Why a file is not a usable ISO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IsoError {
    /// Neither a volume descriptor nor a boot sector.
    #[error("it is something else: {}", .0.name())]
    Kind(Kind),
    /// UDF alone, without the descriptor that leads to everything else.
    #[error("it is cut short: it is UDF, and the anchor of its volume is missing")]
    NoAnchor,
    /// The file ends long before its volume.
    #[error("it is cut short: its volume has {declared} bytes, the file only {length}")]
    CutShort {
        /// Length by the volume descriptor.
        declared: u64,
        /// Length of the file.
        length: u64,
    },
}

const PRIMARY: usize = 32_768;
/// Writing programs declare up to 150 sectors of padding that copies of a disc may lack.
const PADDING: u64 = 1 << 20;

/// Judges a complete ISO.
pub fn check<S: Source + ?Sized>(source: &S) -> Result<Option<Notice>, ImageError> {
    let head = up_to(source, 0, HEAD_LEN)?;
    let kind = Kind::of(&head);
    if !crate::Format::Iso.admits(kind) {
        return Err(IsoError::Kind(kind).into());
    }
    let length = source.length();
    let mut size = declared(head.get(PRIMARY..).unwrap_or_default());
    let identifier = head.get(PRIMARY + 1..PRIMARY + 6).unwrap_or_default();
    if size.is_none() && identifier == b"BEA01" {
        size = udf(source)?;
    }
    match size {
        Some(declared) if declared > length.saturating_add(PADDING) => {
            Err(IsoError::CutShort { declared, length }.into())
        }
        Some(declared) if declared > length => Ok(Some(Notice::ShortVolume { declared, length })),
        Some(_) | None => Ok(None),
    }
}

/// Length of the volume by its primary descriptor; both byte orders must tell the same.
fn declared(descriptor: &[u8]) -> Option<u64> {
    if !descriptor.starts_with(b"\x01CD001") {
        return None;
    }
    let blocks = le_u32(descriptor, 80).filter(|le| be_u32(descriptor, 84) == Some(*le))?;
    let size = descriptor.get(128..130).and_then(|bytes| bytes.try_into().ok());
    Some(u64::from(blocks) * u64::from(u16::from_le_bytes(size?)))
}

/// Length of a volume that is UDF alone: the end of its last partition. The anchor in sector 256
/// leads to the descriptors, of which one is the partition's.
fn udf<S: Source + ?Sized>(source: &S) -> Result<Option<u64>, ImageError> {
    const SECTOR: u64 = 2048;
    const ANCHOR: u64 = 256;
    const LONGEST: usize = 64 * 1024;
    let tag = |bytes: &[u8]| crate::le_u16(bytes, 0);
    let anchor = up_to(source, ANCHOR * SECTOR, 512)?;
    let (Some(2), Some(length), Some(start)) =
        (tag(&anchor), le_u32(&anchor, 16), le_u32(&anchor, 20))
    else {
        // Other anchors are at the end; volumes with other sectors have it elsewhere.
        let is_short = source.length() <= ANCHOR * SECTOR;
        return if is_short { Err(IsoError::NoAnchor.into()) } else { Ok(None) };
    };
    let length = usize::try_from(length).unwrap_or(LONGEST).min(LONGEST);
    let descriptors = up_to(source, u64::from(start) * SECTOR, length)?;
    let partitions = descriptors.chunks(2048).filter(|descriptor| tag(descriptor) == Some(5));
    let ends = partitions.filter_map(|descriptor| {
        Some(u64::from(le_u32(descriptor, 188)?) + u64::from(le_u32(descriptor, 192)?))
    });
    Ok(ends.max().map(|end| end * SECTOR))
}
