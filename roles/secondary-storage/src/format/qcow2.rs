//! The QCOW2 header: virtual size, and everything that makes an image unfit as a template.

use super::{be_u32, be_u64};

/// What is used of a header that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    pub virtual_size: u64,
}

/// Why an image is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Error {
    #[error("it does not begin with the QCOW2 magic")]
    Magic,
    #[error("its header is cut short")]
    Short,
    #[error("version {0} is not 2 or 3")]
    Version(u32),
    #[error("it has a backing file")]
    BackingFile,
    #[error("its data is in another file")]
    DataFile,
    #[error("it needs features that are not supported (bits {0:#x})")]
    Features(u64),
    #[error("it is encrypted")]
    Encrypted,
    #[error("its cluster size is not allowed")]
    ClusterSize,
    #[error("its virtual size is {0} bytes")]
    VirtualSize(u64),
}

const MAGIC: &[u8] = b"QFI\xfb";
const V2_HEADER_LEN: usize = 72;
const V3_HEADER_LEN: usize = 104;
/// Dirty, corrupt and compression type are tolerated, as in the original.
const TOLERATED_FEATURES: u64 = 1 | 1 << 1 | 1 << 3;
const DATA_FILE_FEATURE: u64 = 1 << 2;
const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
/// QEMU's own limit is far below; larger values only serve to overflow sums.
const MAX_VIRTUAL_SIZE: u64 = 1 << 60;

impl Header {
    /// Reads the header in `head`, the first bytes of the image.
    pub fn parse(head: &[u8]) -> Result<Self, Qcow2Error> {
        if !head.starts_with(MAGIC) {
            return Err(Qcow2Error::Magic);
        }
        let u32_at = |offset| be_u32(head, offset).ok_or(Qcow2Error::Short);
        let u64_at = |offset| be_u64(head, offset).ok_or(Qcow2Error::Short);
        let version = u32_at(4)?;
        if !(2..=3).contains(&version) {
            return Err(Qcow2Error::Version(version));
        }
        if u64_at(8)? != 0 || u32_at(16)? != 0 {
            return Err(Qcow2Error::BackingFile);
        }
        let virtual_size = u64_at(24)?;
        if u32_at(32)? != 0 {
            return Err(Qcow2Error::Encrypted);
        }
        if !(9..=21).contains(&u32_at(20)?) {
            return Err(Qcow2Error::ClusterSize);
        }
        let header_len = if version == 2 {
            // In version 2 the header ends here and extensions begin: no feature bits.
            V2_HEADER_LEN
        } else {
            check_features(u64_at(72)?)?;
            usize::try_from(u32_at(100)?).unwrap_or(0).max(V3_HEADER_LEN)
        };
        check_extensions(head.get(header_len..).unwrap_or_default())?;
        if virtual_size == 0 || virtual_size > MAX_VIRTUAL_SIZE {
            return Err(Qcow2Error::VirtualSize(virtual_size));
        }
        Ok(Self { version, virtual_size })
    }
}

const fn check_features(incompatible: u64) -> Result<(), Qcow2Error> {
    if incompatible & DATA_FILE_FEATURE != 0 {
        return Err(Qcow2Error::DataFile);
    }
    let unknown = incompatible & !TOLERATED_FEATURES;
    if unknown == 0 { Ok(()) } else { Err(Qcow2Error::Features(unknown)) }
}

/// Walks the extensions: type, length, data padded to 8 bytes, ended by type 0.
fn check_extensions(mut rest: &[u8]) -> Result<(), Qcow2Error> {
    while let (Some(kind), Some(length)) = (be_u32(rest, 0), be_u32(rest, 4)) {
        match kind {
            0 => break,
            EXTENSION_BACKING_FORMAT => return Err(Qcow2Error::BackingFile),
            EXTENSION_DATA_FILE => return Err(Qcow2Error::DataFile),
            _ => {}
        }
        let padded = usize::try_from(length).unwrap_or(usize::MAX).checked_next_multiple_of(8);
        let Some(next) = padded.and_then(|len| len.checked_add(8)) else { break };
        let Some(following) = rest.get(next..) else { break };
        rest = following;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(version: u32, change: impl FnOnce(&mut Vec<u8>)) -> Result<Header, Qcow2Error> {
        let mut head = vec![0_u8; 512];
        head[..4].copy_from_slice(MAGIC);
        head[4..8].copy_from_slice(&version.to_be_bytes());
        head[20..24].copy_from_slice(&16_u32.to_be_bytes());
        head[24..32].copy_from_slice(&(1_u64 << 30).to_be_bytes());
        head[100..104].copy_from_slice(&104_u32.to_be_bytes());
        if version == 2 {
            head[72..512].fill(0);
        }
        change(&mut head);
        Header::parse(&head)
    }

    #[test]
    fn both_versions_give_the_virtual_size() {
        assert_eq!(image(3, |_| {}), Ok(Header { version: 3, virtual_size: 1 << 30 }));
        assert_eq!(image(2, |_| {}), Ok(Header { version: 2, virtual_size: 1 << 30 }));
        assert_eq!(image(1, |_| {}), Err(Qcow2Error::Version(1)));
        assert_eq!(image(3, |h| h[..32].fill(0)), Err(Qcow2Error::Magic));
        assert_eq!(image(3, |h| h.truncate(30)), Err(Qcow2Error::Short));
    }

    #[test]
    fn whatever_reaches_outside_the_file_is_refused() {
        assert_eq!(image(3, |h| h[15] = 1), Err(Qcow2Error::BackingFile));
        assert_eq!(image(3, |h| h[79] = 4), Err(Qcow2Error::DataFile));
        assert_eq!(image(3, |h| h[79] = 16), Err(Qcow2Error::Features(16)));
        assert_eq!(image(3, |h| h[79] = 1 | 2 | 8).map(|h| h.version), Ok(3));
        assert_eq!(image(3, |h| h[35] = 1), Err(Qcow2Error::Encrypted));
        let extension = |kind: u32| {
            move |h: &mut Vec<u8>| {
                h[104..108].copy_from_slice(&0x6803_F857_u32.to_be_bytes());
                h[108..112].copy_from_slice(&3_u32.to_be_bytes());
                h[120..124].copy_from_slice(&kind.to_be_bytes());
            }
        };
        assert_eq!(image(3, extension(EXTENSION_BACKING_FORMAT)), Err(Qcow2Error::BackingFile));
        assert_eq!(image(3, extension(EXTENSION_DATA_FILE)), Err(Qcow2Error::DataFile));
        assert_eq!(image(3, extension(0)).map(|h| h.version), Ok(3));
    }

    #[test]
    fn a_version_2_extension_is_no_unknown_feature() {
        let with_table = |h: &mut Vec<u8>| {
            h[72..76].copy_from_slice(&0x6803_F857_u32.to_be_bytes());
            h[76..80].copy_from_slice(&48_u32.to_be_bytes());
        };
        assert_eq!(image(2, with_table), Ok(Header { version: 2, virtual_size: 1 << 30 }));
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        assert_eq!(image(3, |h| h[24..32].fill(0)), Err(Qcow2Error::VirtualSize(0)));
        assert_eq!(image(3, |h| h[24..32].fill(255)), Err(Qcow2Error::VirtualSize(u64::MAX)));
        assert_eq!(image(3, |h| h[23] = 63), Err(Qcow2Error::ClusterSize));
    }
}
