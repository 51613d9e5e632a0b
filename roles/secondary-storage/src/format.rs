//! What an image file is, judged by its bytes.
//!
//! The format a template was registered with decides how a hypervisor opens it. A file that is
//! something else is at best unbootable, at worst a way to read files of the host (a QCOW2 header
//! with a backing file, registered as RAW). So the content is checked against the chosen format,
//! never against the URL's extension. All functions are pure and take untrusted bytes.

pub mod qcow2;
pub mod sniff;
pub mod vhd;

pub use sniff::Kind;

/// Bytes from the start of an image that the checks look at; enough for an ISO's volume
/// descriptor at 32 KiB and for QCOW2's header extensions.
pub const HEAD_LEN: usize = 64 * 1024;

/// The formats that templates and volumes can be registered with and that this role installs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Qcow2,
    Raw,
    Vhd,
    Iso,
}

impl Format {
    /// By the name on the wire.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "QCOW2" => Self::Qcow2,
            "RAW" => Self::Raw,
            "VHD" => Self::Vhd,
            "ISO" => Self::Iso,
            _ => return None,
        })
    }

    /// By the key in `template.properties`, which is also the file name's extension.
    pub fn by_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    /// In the order Java looks for them.
    pub const ALL: [Self; 4] = [Self::Qcow2, Self::Raw, Self::Vhd, Self::Iso];

    pub const fn extension(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vhd => "vhd",
            Self::Iso => "iso",
        }
    }

    /// Whether an image with this beginning can be of this format. A fixed VHD has nothing at its
    /// start, so it passes here and is judged by its footer.
    pub const fn admits(self, kind: Kind) -> bool {
        match self {
            Self::Qcow2 => matches!(kind, Kind::Qcow2),
            Self::Iso => matches!(kind, Kind::Iso | Kind::BootSector),
            Self::Vhd => matches!(kind, Kind::Vhd | Kind::BootSector | Kind::Data),
            Self::Raw => matches!(kind, Kind::BootSector | Kind::Data | Kind::Iso),
        }
    }
}

/// Both sizes of an image, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// What the VM sees.
    pub virtual_size: u64,
    /// Length of the file.
    pub physical_size: u64,
}

/// Why a complete file is not a usable image of its format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("The downloaded file is not a valid QCOW2")]
    Qcow2(#[source] qcow2::Qcow2Error),
    #[error("The downloaded file is not a valid VHD")]
    Vhd(#[source] vhd::VhdError),
    #[error("The downloaded file is empty")]
    Empty,
}

/// Reads the sizes of a complete image of `length` bytes. `head` is its beginning, at most
/// [`HEAD_LEN`] bytes, `tail` its last [`vhd::FOOTER_LEN`] bytes.
pub fn inspect(
    format: Format,
    head: &[u8],
    tail: &[u8],
    length: u64,
) -> Result<Sizes, FormatError> {
    if length == 0 {
        return Err(FormatError::Empty);
    }
    let virtual_size = match format {
        Format::Raw | Format::Iso => length,
        Format::Qcow2 => qcow2::Header::parse(head).map_err(FormatError::Qcow2)?.virtual_size,
        Format::Vhd => vhd::virtual_size(head, tail).map_err(FormatError::Vhd)?,
    };
    Ok(Sizes { virtual_size, physical_size: length })
}

/// Big-endian number at `offset`, if the bytes are there.
fn be_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    bytes.get(offset..end)?.try_into().ok().map(u64::from_be_bytes)
}

fn be_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    bytes.get(offset..end)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_format_admits_only_what_it_can_be() {
        assert!(Format::Qcow2.admits(Kind::Qcow2));
        assert!(!Format::Raw.admits(Kind::Qcow2));
        assert!(!Format::Qcow2.admits(Kind::Text));
        assert!(Format::Vhd.admits(Kind::Data), "a fixed VHD begins with the disk itself");
        assert!(!Format::Iso.admits(Kind::Data));
    }

    #[test]
    fn raw_and_iso_are_as_large_as_their_file() {
        let sizes = Sizes { virtual_size: 1024, physical_size: 1024 };
        assert_eq!(inspect(Format::Raw, &[], &[], 1024), Ok(sizes));
        assert_eq!(inspect(Format::Iso, &[], &[], 1024), Ok(sizes));
        assert_eq!(inspect(Format::Raw, &[], &[], 0), Err(FormatError::Empty));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(
            mut head in proptest::collection::vec(proptest::num::u8::ANY, 0..1000),
            tail in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
            magic in 0..3_u8,
        ) {
            let prefix: &[u8] = match magic { 0 => b"QFI\xfb\0\0\0\x03", 1 => b"conectix", _ => b"" };
            head.splice(..0, prefix.iter().copied());
            let length = head.len() as u64;
            proptest::prop_assert!(!Kind::of(&head).name().is_empty());
            for format in Format::ALL {
                if let Ok(sizes) = inspect(format, &head, &tail, length) {
                    proptest::prop_assert!(sizes.virtual_size > 0);
                }
            }
        }
    }
}
