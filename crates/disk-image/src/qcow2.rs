//! QCOW2: the header with everything that makes an image unfit as a template, then the tables,
//! which must lie within the file together with what they name.

mod tables;

use crate::{ImageError, Source, be_u32, be_u64, up_to};

/// What is used of a header that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// What the VM sees, in bytes.
    pub virtual_size: u64,
    cluster_bits: u32,
    l1_entries: u32,
    l1_offset: u64,
    refcount_clusters: u32,
    refcount_offset: u64,
    snapshots: u32,
    snapshots_offset: u64,
    features: u64,
    autoclear: u64,
    header_length: u32,
}

/// Why an image is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Error {
    /// Not a QCOW2 at all.
    #[error("it does not begin with the QCOW2 magic")]
    Magic,
    /// The file ends within the header.
    #[error("its header is cut short")]
    Short,
    /// Unknown version.
    #[error("version {0} is not 2 or 3")]
    Version(u32),
    /// It needs another file, which would be one of the host's.
    #[error(
        "it has a backing file: make one image of both (qemu-img convert -O qcow2 IMAGE WHOLE)"
    )]
    BackingFile,
    /// Its name is not where names are.
    #[error("the name of its backing file ({length} bytes at byte {offset}) is not valid")]
    BackingName {
        /// Where it should be.
        offset: u64,
        /// Its length.
        length: u32,
    },
    /// The same for its data.
    #[error(
        "its data is in another file: make one image of both (qemu-img convert -O qcow2 IMAGE WHOLE)"
    )]
    DataFile,
    /// Incompatible features nobody here knows.
    #[error("it needs features that are not supported (bits {0:#x})")]
    Features(u64),
    /// A feature that CloudStack's hosts refuse.
    #[error(
        "it uses extended L2 entries (subclusters), which are not supported: convert it (qemu-img convert -O qcow2 IMAGE PLAIN)"
    )]
    ExtendedL2,
    /// By AES or LUKS.
    #[error(
        "it is encrypted, and the hosts have no key: convert it to an image without encryption"
    )]
    Encrypted,
    /// Outside 512 bytes to 2 MiB.
    #[error("its cluster size is 2^{0} bytes, allowed are 2^9 to 2^21")]
    ClusterSize(u32),
    /// Header length of version 3.
    #[error("its header length is {0} bytes")]
    HeaderLength(u32),
    /// Width of a reference count.
    #[error("its reference counts have 2^{0} bits, allowed are up to 2^6")]
    RefcountOrder(u32),
    /// Neither zlib nor zstd.
    #[error("its compression type {0} is unknown")]
    CompressionType(u8),
    /// The type and the feature bit contradict each other.
    #[error("its compression type {0} contradicts its feature bits")]
    CompressionBit(u8),
    /// An extension that does not fit where extensions are.
    #[error("its header extension {kind:#010x} of {length} bytes is not valid")]
    Extension {
        /// Type of the extension.
        kind: u32,
        /// Length it claims.
        length: u32,
    },
    /// Zero or absurd.
    #[error("its virtual size is {0} bytes")]
    VirtualSize(u64),
    /// The L1 table cannot map the disk.
    #[error("its L1 table is too small: {entries} entries, {needed} are needed")]
    L1TooSmall {
        /// Entries there are.
        entries: u32,
        /// Entries that the virtual size asks for.
        needed: u64,
    },
    /// A table beyond QEMU's limit.
    #[error("{what} is too large ({size})")]
    TooLarge {
        /// Which table.
        what: Part,
        /// Its size as the header tells it.
        size: u64,
    },
    /// Nothing counts the references.
    #[error("it has no refcount table")]
    NoRefcounts,
    /// A table or cluster that does not begin at a cluster's boundary.
    #[error("{what} at byte {offset} is not at a cluster boundary")]
    Unaligned {
        /// Which part.
        what: Part,
        /// Where it begins.
        offset: u64,
    },
    /// Something the image needs lies behind the end of the file.
    #[error("{what} at byte {offset} lies beyond the end of the file ({length} bytes)")]
    Beyond {
        /// Which part.
        what: Part,
        /// Where it begins.
        offset: u64,
        /// Length of the file.
        length: u64,
    },
    /// The tables name the same L2 table several times.
    #[error("its L1 table names {0} L2 tables, more than the file can hold")]
    SharedTables(u64),
    /// Version 2 has none.
    #[error("it has a zero cluster, which version 2 does not know")]
    ZeroCluster,
}

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Part {
    /// First level of the mapping.
    #[error("its L1 table")]
    L1,
    /// Second level of the mapping.
    #[error("an L2 table")]
    L2,
    /// First level of the reference counts.
    #[error("its refcount table")]
    RefcountTable,
    /// Second level of the reference counts.
    #[error("a refcount block")]
    RefcountBlock,
    /// Data of the disk.
    #[error("a cluster")]
    Cluster,
    /// Compressed data of the disk.
    #[error("a compressed cluster")]
    Compressed,
    /// List of internal snapshots.
    #[error("its snapshot table")]
    Snapshots,
    /// List of dirty bitmaps.
    #[error("its bitmap directory")]
    Bitmaps,
}

/// The file that another one needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backing {
    /// As it is written.
    pub(crate) name: String,
    /// `raw`, `qcow2`, whatever QEMU knows.
    pub(crate) format: Option<String>,
}

pub(crate) use tables::{COMPRESSED, OFFSET, ZERO};

/// QEMU's limit.
const MAX_BACKING_NAME: u32 = 1023;
const MAGIC: &[u8] = b"QFI\xfb";
const V2_HEADER_LEN: u32 = 72;
const V3_HEADER_LEN: u32 = 104;
const CORRUPT_FEATURE: u64 = 1 << 1;
const DATA_FILE_FEATURE: u64 = 1 << 2;
const COMPRESSION_FEATURE: u64 = 1 << 3;
const EXTENDED_L2_FEATURE: u64 = 1 << 4;
/// Dirty, corrupt and compression type are tolerated, as in the original.
const TOLERATED_FEATURES: u64 = 1 | CORRUPT_FEATURE | COMPRESSION_FEATURE;
const BITMAPS_AUTOCLEAR: u64 = 1;
const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
/// QEMU's own limit is far below; larger values only serve to overflow sums.
const MAX_VIRTUAL_SIZE: u64 = 1 << 60;
const LARGEST_CLUSTER: usize = 1 << 21;
/// QEMU's limits.
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
const MAX_SNAPSHOTS: u32 = 65_536;
const MAX_BITMAPS: u32 = 65_535;

/// Judges a complete QCOW2.
pub fn check<S: Source + ?Sized>(source: &S) -> Result<Header, ImageError> {
    let head = up_to(source, 0, LARGEST_CLUSTER)?;
    let header = Header::parse(&head)?;
    header.check_extensions(&head, source.length())?;
    tables::check(&header, source)?;
    Ok(header)
}

impl Header {
    /// Reads the header in `head`, the first bytes of the image.
    pub fn parse(head: &[u8]) -> Result<Self, Qcow2Error> {
        let header = Self::parse_any(head)?;
        let has_backing = be_u64(head, 8) != Some(0) || be_u32(head, 16) != Some(0);
        if has_backing { Err(Qcow2Error::BackingFile) } else { Ok(header) }
    }

    /// The same of an image that may need another file, with that file.
    pub(crate) fn parse_chained(head: &[u8]) -> Result<(Self, Option<Backing>), Qcow2Error> {
        let header = Self::parse_any(head)?;
        let (offset, length) = (be_u64(head, 8), be_u32(head, 16));
        let (Some(offset), Some(length)) = (offset, length) else { return Err(Qcow2Error::Short) };
        if offset == 0 || length == 0 {
            return Ok((header, None));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        let name = head.get(start..end).filter(|_name| length <= MAX_BACKING_NAME);
        let name = name.ok_or(Qcow2Error::BackingName { offset, length })?;
        let name = String::from_utf8_lossy(name).into_owned();
        Ok((header, Some(Backing { name, format: header.backing_format(head) })))
    }

    /// By the extension that tells it.
    fn backing_format(&self, head: &[u8]) -> Option<String> {
        let start = usize::try_from(self.header_length).unwrap_or(LARGEST_CLUSTER);
        let mut rest = head.get(start..)?;
        loop {
            let (kind, size) = (be_u32(rest, 0)?, be_u32(rest, 4)?);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            match kind {
                0 => return None,
                EXTENSION_BACKING_FORMAT => {
                    let format = rest.get(8..8_usize.checked_add(size)?)?;
                    return Some(String::from_utf8_lossy(format).into_owned());
                }
                _ => rest = rest.get(size.checked_next_multiple_of(8)?.checked_add(8)?..)?,
            }
        }
    }

    fn parse_any(head: &[u8]) -> Result<Self, Qcow2Error> {
        if !head.starts_with(MAGIC) {
            return Err(Qcow2Error::Magic);
        }
        let u32_at = |offset| be_u32(head, offset).ok_or(Qcow2Error::Short);
        let u64_at = |offset| be_u64(head, offset).ok_or(Qcow2Error::Short);
        let version = u32_at(4)?;
        if !(2..=3).contains(&version) {
            return Err(Qcow2Error::Version(version));
        }
        if u32_at(32)? != 0 {
            return Err(Qcow2Error::Encrypted);
        }
        let cluster_bits = u32_at(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Qcow2Error::ClusterSize(cluster_bits));
        }
        let virtual_size = u64_at(24)?;
        if virtual_size == 0 || virtual_size > MAX_VIRTUAL_SIZE {
            return Err(Qcow2Error::VirtualSize(virtual_size));
        }
        // In version 2 the header ends here and extensions begin: no feature bits.
        let (features, autoclear, header_length) = if version == 2 {
            u64_at(64)?;
            (0, 0, V2_HEADER_LEN)
        } else {
            (u64_at(72)?, u64_at(88)?, u32_at(100)?)
        };
        let header = Self {
            version,
            virtual_size,
            cluster_bits,
            l1_entries: u32_at(36)?,
            l1_offset: u64_at(40)?,
            refcount_offset: u64_at(48)?,
            refcount_clusters: u32_at(56)?,
            snapshots: u32_at(60)?,
            snapshots_offset: u64_at(64)?,
            features,
            autoclear,
            header_length,
        };
        if version == 3 {
            header.check_version_3(head)?;
        }
        Ok(header)
    }

    /// Whether QEMU found the image inconsistent once.
    pub const fn is_marked_corrupt(&self) -> bool {
        self.features & CORRUPT_FEATURE != 0
    }

    pub(crate) const fn l1_offset(&self) -> u64 {
        self.l1_offset
    }

    pub(crate) const fn l1_length(&self) -> u64 {
        self.l1_entries as u64 * 8
    }

    /// Whether compressed clusters are those of zstd; otherwise of deflate.
    pub(crate) const fn is_zstd(&self) -> bool {
        self.features & COMPRESSION_FEATURE != 0
    }

    /// Makes sure that the first table is there and large enough.
    pub(crate) fn check_l1<S: Source + ?Sized>(&self, source: &S) -> Result<(), ImageError> {
        tables::check_l1(self, source.length())
    }

    /// Makes sure that everything that the tables name is there.
    pub(crate) fn check_tables<S: Source + ?Sized>(&self, source: &S) -> Result<(), ImageError> {
        tables::check(self, source)
    }

    /// Offset and length of a compressed cluster.
    pub(crate) const fn compressed(&self, entry: u64) -> (u64, u64) {
        tables::compressed(self, entry)
    }

    pub(crate) const fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn check_version_3(&self, head: &[u8]) -> Result<(), Qcow2Error> {
        if self.features & DATA_FILE_FEATURE != 0 {
            return Err(Qcow2Error::DataFile);
        }
        let unknown = self.features & !TOLERATED_FEATURES;
        if unknown == EXTENDED_L2_FEATURE {
            return Err(Qcow2Error::ExtendedL2);
        }
        if unknown != 0 {
            return Err(Qcow2Error::Features(unknown));
        }
        let allowed = u64::from(V3_HEADER_LEN)..=self.cluster_size();
        if !allowed.contains(&u64::from(self.header_length)) {
            return Err(Qcow2Error::HeaderLength(self.header_length));
        }
        let order = be_u32(head, 96).ok_or(Qcow2Error::Short)?;
        if order > 6 {
            return Err(Qcow2Error::RefcountOrder(order));
        }
        let has_type = self.header_length > V3_HEADER_LEN;
        let compression = head.get(104).copied().filter(|_byte| has_type).unwrap_or(0);
        let says_type = self.features & COMPRESSION_FEATURE != 0;
        match compression {
            2.. => Err(Qcow2Error::CompressionType(compression)),
            _ if says_type != (compression != 0) => Err(Qcow2Error::CompressionBit(compression)),
            _ => Ok(()),
        }
    }

    /// Walks the extensions: type, length, data padded to 8 bytes, ended by type 0 or the cluster.
    fn check_extensions(&self, head: &[u8], length: u64) -> Result<(), Qcow2Error> {
        let cluster = usize::try_from(self.cluster_size()).unwrap_or(LARGEST_CLUSTER);
        let start = usize::try_from(self.header_length).unwrap_or(LARGEST_CLUSTER);
        let first = head.get(..cluster).unwrap_or(head);
        let mut rest = first.get(start..).unwrap_or_default();
        // What a file shorter than its first cluster lacks reads as zeros.
        let mut room = cluster.saturating_sub(start);
        while let (Some(kind), Some(size)) = (be_u32(rest, 0), be_u32(rest, 4)) {
            let bytes = usize::try_from(size).unwrap_or(usize::MAX);
            let invalid = Qcow2Error::Extension { kind, length: size };
            if bytes > room.saturating_sub(8) {
                return Err(invalid);
            }
            if kind == 0 {
                break;
            }
            let data = rest.get(8..).unwrap_or_default();
            match kind {
                EXTENSION_BACKING_FORMAT => return Err(Qcow2Error::BackingFile),
                EXTENSION_DATA_FILE => return Err(Qcow2Error::DataFile),
                EXTENSION_ENCRYPTION => return Err(Qcow2Error::Encrypted),
                EXTENSION_BITMAPS if size != 24 => return Err(invalid),
                EXTENSION_BITMAPS if self.autoclear & BITMAPS_AUTOCLEAR != 0 => {
                    self.check_bitmaps(data, length).ok_or(invalid)??;
                }
                _ => {}
            }
            let next = 8 + bytes.next_multiple_of(8);
            room = room.saturating_sub(next);
            rest = rest.get(next..).unwrap_or_default();
        }
        Ok(())
    }

    /// Number, reserved, size and offset of the directory of bitmaps; `None` when they cannot be.
    fn check_bitmaps(&self, data: &[u8], length: u64) -> Option<Result<(), Qcow2Error>> {
        let (count, reserved) = (be_u32(data, 0)?, be_u32(data, 4)?);
        let (size, offset) = (be_u64(data, 8)?, be_u64(data, 16)?);
        if reserved != 0
            || !(1..=MAX_BITMAPS).contains(&count)
            || size > u64::from(MAX_BITMAPS) * 1024
        {
            return None;
        }
        Some(tables::check_table(self, Part::Bitmaps, offset, size, length))
    }
}
