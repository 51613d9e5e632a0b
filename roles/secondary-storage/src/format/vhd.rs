//! The VHD footer: virtual size of fixed and dynamic disks.

use super::{be_u32, be_u64};

pub const FOOTER_LEN: usize = 512;

const COOKIE: &[u8] = b"conectix";
const CURRENT_SIZE: usize = 48;
const CHECKSUM: usize = 64;
const DISK_TYPE: usize = 60;
const DIFFERENCING: u32 = 4;

/// Why a file is not a VHD that can be a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VhdError {
    #[error("it has no VHD footer")]
    NoFooter,
    #[error("its footer is damaged (wrong checksum)")]
    Checksum,
    #[error("it is a differencing disk that needs a parent file")]
    Differencing,
    #[error("its virtual size is 0")]
    VirtualSize,
}

/// The current size from the footer at the end of the file, else from its copy at the start.
pub fn virtual_size(head: &[u8], tail: &[u8]) -> Result<u64, VhdError> {
    let footer = [tail, head]
        .into_iter()
        .filter_map(|bytes| bytes.get(..FOOTER_LEN))
        .find(|bytes| bytes.starts_with(COOKIE))
        .ok_or(VhdError::NoFooter)?;
    if be_u32(footer, CHECKSUM) != Some(checksum(footer)) {
        return Err(VhdError::Checksum);
    }
    if be_u32(footer, DISK_TYPE) == Some(DIFFERENCING) {
        return Err(VhdError::Differencing);
    }
    match be_u64(footer, CURRENT_SIZE) {
        Some(size) if size > 0 => Ok(size),
        Some(_) | None => Err(VhdError::VirtualSize),
    }
}

/// One's complement of the sum of all bytes but the checksum itself.
fn checksum(footer: &[u8]) -> u32 {
    let own = CHECKSUM..CHECKSUM + 4;
    !footer
        .iter()
        .enumerate()
        .filter(|(at, _)| !own.contains(at))
        .fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer(disk_type: u32, size: u64) -> Vec<u8> {
        let mut footer = vec![0_u8; FOOTER_LEN];
        footer[..8].copy_from_slice(COOKIE);
        footer[40..48].copy_from_slice(&(size + 1).to_be_bytes());
        footer[48..56].copy_from_slice(&size.to_be_bytes());
        footer[60..64].copy_from_slice(&disk_type.to_be_bytes());
        let sum = checksum(&footer);
        footer[64..68].copy_from_slice(&sum.to_be_bytes());
        footer
    }

    #[test]
    fn fixed_and_dynamic_disks_report_their_current_size() {
        assert_eq!(virtual_size(b"anything", &footer(2, 4096)), Ok(4096));
        assert_eq!(virtual_size(&footer(3, 1 << 30), &footer(3, 1 << 30)), Ok(1 << 30));
        assert_eq!(virtual_size(&footer(3, 1 << 30), &[]), Ok(1 << 30), "the copy at the start");
    }

    #[test]
    fn unusable_footers_are_refused() {
        assert_eq!(virtual_size(&[0; 512], &[0; 512]), Err(VhdError::NoFooter));
        assert_eq!(virtual_size(&[], &footer(4, 4096)), Err(VhdError::Differencing));
        assert_eq!(virtual_size(&[], &footer(2, 0)), Err(VhdError::VirtualSize));
        let mut damaged = footer(2, 4096);
        damaged[50] ^= 1;
        assert_eq!(virtual_size(&[], &damaged), Err(VhdError::Checksum));
    }
}
