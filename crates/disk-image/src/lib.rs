//! What an image file is, judged by its bytes.
//!
//! The format a template was registered with decides how a hypervisor opens it. A file that is
//! something else is at best unbootable, at worst a way to read files of the host (a QCOW2 header
//! with a backing file, registered as RAW). So the content is checked against the chosen format,
//! never against a name: its beginning by [`Kind::of`] as soon as it is there, the complete image
//! by [`inspect`]. The crate does no IO: whoever holds the bytes implements [`Source`].

pub mod chain;
mod format;
pub mod iso;
mod numbers;
pub mod ova;
pub mod ovf;
pub mod qcow2;
pub mod raw;
pub mod sniff;
pub mod tar;
mod text;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

pub use format::{Format, UnknownFormat};
use numbers::{be_u32, be_u64, le_u16, le_u32, le_u64};

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

impl<S: Source + ?Sized> Source for &S {
    fn length(&self) -> u64 {
        (**self).length()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        (**self).read_at(offset, target)
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its sizes.
    pub sizes: Sizes,
    /// Oddities that an operator may want to know.
    pub notices: Vec<Notice>,
    /// What is unpacked beside an OVA.
    pub package: Option<ova::Package>,
}

/// Something odd about an image that is usable nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// A partition table of a larger disk.
    #[error("its partitions end at byte {end}, the file at byte {length}: is it complete?")]
    PartitionsBeyond {
        /// Where the last partition ends.
        end: u64,
        /// Length of the file.
        length: u64,
    },
    /// One of two headers or region tables of a VHDX.
    #[error("one of the two headers of the VHDX is damaged, the other is sound")]
    DamagedVhdxHeader,
    /// A member of an OVA that nothing refers to.
    #[error("{0:?} is not part of the machine and not unpacked")]
    UnusedMember(String),
    /// A member of an OVA whose description tells another length.
    #[error("the description tells {told} bytes for {name:?}, it has {length}")]
    MemberSize {
        /// Name of the member.
        name: String,
        /// By the description.
        told: u64,
        /// In the archive.
        length: u64,
    },
    /// A disk of an OVA that is larger than its description says.
    #[error("the description tells {told} bytes for the disk {name:?}, it has {inside}")]
    DiskSize {
        /// Name of the member.
        name: String,
        /// By the description.
        told: u64,
        /// By the disk itself.
        inside: u64,
    },
    /// A disk of an OVA that is not looked into.
    #[error("the disk {0:?} is compressed inside the archive: hosts may refuse to import it")]
    CompressedDisk(String),
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
    /// Wrong content for the format.
    #[error("is not a valid VMDK")]
    Vmdk(#[from] vmdk::VmdkError),
    /// Wrong content for the format.
    #[error("is not a valid VHDX")]
    Vhdx(#[from] vhdx::VhdxError),
    /// Wrong content for the format.
    #[error("is not a valid OVA")]
    Ova(#[from] ova::OvaError),
    /// It needs other files, and they do not fit together.
    #[error("is not the end of a usable chain of files")]
    Chain(#[from] chain::ChainError),
    /// Wrong content for the format.
    #[error("is not a valid TAR")]
    Tar(#[from] tar::TarError),
    /// The bytes could not be read back.
    #[error("cannot be read")]
    Read(#[from] std::io::Error),
}

/// Judges a complete image.
pub fn inspect(format: Format, source: &dyn Source) -> Result<Inspection, ImageError> {
    let physical_size = source.length();
    if physical_size == 0 {
        return Err(ImageError::Empty);
    }
    let mut package = None;
    let (virtual_size, notices) = match format {
        Format::Raw => (physical_size, raw::check(source)?),
        Format::Iso => (physical_size, iso::check(source)?.into_iter().collect()),
        Format::Tar => {
            tar::check(source)?;
            (physical_size, Vec::new())
        }
        Format::Qcow2 => {
            let header = qcow2::check(source)?;
            let corrupt = header.is_marked_corrupt().then_some(Notice::MarkedCorrupt);
            (header.virtual_size, corrupt.into_iter().collect())
        }
        Format::Vhd => {
            let disk = vhd::check(source)?;
            (disk.virtual_size, disk.notice.into_iter().collect())
        }
        Format::Vhdx => {
            let disk = vhdx::check(source)?;
            (disk.virtual_size, disk.notice.into_iter().collect())
        }
        Format::Vmdk => (vmdk::check(source)?.virtual_size, Vec::new()),
        Format::Ova => {
            let mut found = ova::check(source)?;
            let notices = std::mem::take(&mut found.notices);
            let virtual_size = found.virtual_size;
            package = Some(found);
            (virtual_size, notices)
        }
    };
    Ok(Inspection { sizes: Sizes { virtual_size, physical_size }, notices, package })
}

/// Describes a file that is kept as it is, a snapshot for one: its sizes as far as its own header
/// tells them. A page or an error in its place is refused; a description of VMware's is text.
pub fn describe(source: &dyn Source) -> Result<Inspection, ImageError> {
    let physical_size = source.length();
    let head = up_to(source, 0, HEAD_LEN)?;
    let kind = Kind::of(&head);
    let is_ovf =
        head.windows(9).take(4096).any(|window| window == b"<Envelope" || window == b":Envelope");
    if kind.is_text() && !is_ovf && !ova::is_manifest(&head) {
        return Err(raw::RawError::Kind(kind).into());
    }
    let virtual_size = match kind {
        Kind::Qcow2 => be_u64(&head, 24),
        Kind::Vhd => be_u64(&head, 48),
        _ => None,
    };
    let virtual_size = virtual_size.unwrap_or(physical_size);
    let sizes = Sizes { virtual_size, physical_size };
    Ok(Inspection { sizes, notices: Vec::new(), package: None })
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

/// What may hold a header with all that belongs to it: the largest cluster of a QCOW2.
const LARGEST_HEAD: usize = 1 << 21;

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
