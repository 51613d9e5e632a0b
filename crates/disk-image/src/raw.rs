//! A RAW disk: refused only for what it recognisably is instead.

use crate::{HEAD_LEN, ImageError, Kind, Notice, Source, up_to, vhd};

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
pub fn check<S: Source + ?Sized>(source: &S) -> Result<Option<Notice>, ImageError> {
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
    Ok(vhd::Footer::parse(&tail).ok().map(|_footer| Notice::FixedVhd))
}
