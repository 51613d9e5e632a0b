//! What an image file is, judged by its bytes.
//!
//! The format a template was registered with decides how a hypervisor opens it. A file that is
//! something else is at best unbootable, at worst a way to read files of the host (a QCOW2 header
//! with a backing file, registered as RAW). So the content is checked against the chosen format,
//! never against a name: its beginning by [`Kind::of`] as soon as it is there, the complete image
//! by [`inspect`]. The crate does no IO: whoever holds the bytes implements [`Source`].

pub mod iso;
pub mod qcow2;
pub mod raw;
pub mod sniff;
mod text;
pub mod vhd;

pub use sniff::Kind;

/// Bytes from the start of an image that [`Kind::of`] looks at; enough for an ISO's volume
/// descriptors at 32 KiB.
pub const HEAD_LEN: usize = 64 * 1024;

/// The bytes of a complete image.
pub trait Source {
    /// Length of the image in bytes.
    fn length(&self) -> u64;

    /// Fills `target` with the bytes from `offset`. The caller stays below [`Source::length`].
    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()>;
}

impl Source for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        let end = || std::io::ErrorKind::UnexpectedEof;
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..)).ok_or_else(end)?;
        target.copy_from_slice(from.get(..target.len()).ok_or_else(end)?);
        Ok(())
    }
}

/// The formats that templates and volumes can be registered with and that are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// QEMU's copy-on-write image, version 2 or 3.
    Qcow2,
    /// The disk's bytes as they are.
    Raw,
    /// Microsoft's virtual hard disk, fixed or dynamic.
    Vhd,
    /// A CD or DVD image.
    Iso,
}

impl Format {
    /// In the order Java looks for them.
    pub const ALL: [Self; 4] = [Self::Qcow2, Self::Raw, Self::Vhd, Self::Iso];

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

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "QCOW2",
            Self::Raw => "RAW",
            Self::Vhd => "VHD",
            Self::Iso => "ISO",
        }
    }

    /// The key in `template.properties`, which is also the file name's extension.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vhd => "vhd",
            Self::Iso => "iso",
        }
    }

    /// Whether an image with this beginning can be of this format. A fixed VHD begins with the
    /// disk itself, so it passes here and is judged by its footer.
    pub const fn admits(self, kind: Kind) -> bool {
        match self {
            Self::Qcow2 => matches!(kind, Kind::Qcow2),
            Self::Iso => matches!(kind, Kind::Iso | Kind::BootSector),
            Self::Vhd => matches!(kind, Kind::Vhd) || kind.can_be_a_disk(),
            Self::Raw => kind.can_be_a_disk(),
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

/// A complete image that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// Its sizes.
    pub sizes: Sizes,
    /// An oddity that an operator may want to know.
    pub notice: Option<Notice>,
}

/// Something odd about an image that is usable nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// QEMU found an inconsistency once.
    #[error("QEMU marked the image as corrupt")]
    MarkedCorrupt,
    /// One of the two footers of a VHD is damaged.
    #[error("the VHD footer at the {damaged} of the file is damaged, its copy is sound")]
    DamagedFooter {
        /// `start` or `end`.
        damaged: &'static str,
    },
    /// A RAW image that ends with the footer of a fixed VHD.
    #[error("the image ends with a VHD footer: it is a fixed VHD")]
    FixedVhd,
    /// The end of an ISO's volume is missing, no more than its usual padding.
    #[error("the volume has {declared} bytes, the file only {length}")]
    ShortVolume {
        /// Length by the volume descriptor.
        declared: u64,
        /// Length of the file.
        length: u64,
    },
}

/// Why a complete file is not a usable image of its format. Completes "the file …".
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is nothing.
    #[error("is empty")]
    Empty,
    /// Wrong content for the format.
    #[error("is not a valid QCOW2")]
    Qcow2(#[from] qcow2::Qcow2Error),
    /// Wrong content for the format.
    #[error("is not a valid VHD")]
    Vhd(#[from] vhd::VhdError),
    /// Wrong content for the format.
    #[error("is not a valid ISO")]
    Iso(#[from] iso::IsoError),
    /// Wrong content for the format.
    #[error("is not a valid RAW")]
    Raw(#[from] raw::RawError),
    /// The bytes could not be read back.
    #[error("cannot be read")]
    Read(#[from] std::io::Error),
}

/// Judges a complete image.
pub fn inspect<S: Source + ?Sized>(format: Format, source: &S) -> Result<Inspection, ImageError> {
    let physical_size = source.length();
    if physical_size == 0 {
        return Err(ImageError::Empty);
    }
    let (virtual_size, notice) = match format {
        Format::Raw => (physical_size, raw::check(source)?),
        Format::Iso => (physical_size, iso::check(source)?),
        Format::Qcow2 => {
            let header = qcow2::check(source)?;
            (header.virtual_size, header.is_marked_corrupt().then_some(Notice::MarkedCorrupt))
        }
        Format::Vhd => {
            let disk = vhd::check(source)?;
            (disk.virtual_size, disk.notice)
        }
    };
    Ok(Inspection { sizes: Sizes { virtual_size, physical_size }, notice })
}

/// Number at `offset`, if the bytes are there.
fn be_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    bytes.get(offset..end)?.try_into().ok().map(u64::from_be_bytes)
}

fn be_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    bytes.get(offset..end)?.try_into().ok().map(u32::from_be_bytes)
}

fn le_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    be_u32(bytes, offset).map(u32::swap_bytes)
}

/// At most `limit` bytes from `offset`; fewer when the image ends before.
fn up_to<S: Source + ?Sized>(source: &S, offset: u64, limit: usize) -> std::io::Result<Vec<u8>> {
    let left = source.length().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(limit).min(limit)];
    if !bytes.is_empty() {
        source.read_at(offset, &mut bytes)?;
    }
    Ok(bytes)
}

/// Bytes of a table that are read at once.
const PIECE: u64 = 64 * 1024;

/// Reads `length` bytes from `offset` in pieces, so that no table of an image costs more memory
/// than one of them.
fn in_pieces<S: Source + ?Sized>(
    source: &S,
    offset: u64,
    length: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut done = 0;
    let mut piece = Vec::new();
    while done < length {
        let size = PIECE.min(length - done);
        piece.resize(usize::try_from(size).unwrap_or(0), 0);
        source.read_at(offset + done, &mut piece)?;
        take(&piece)?;
        done += size;
    }
    Ok(())
}
