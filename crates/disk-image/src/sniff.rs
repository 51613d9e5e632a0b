//! Magic numbers at the start of a file.
//!
//! A RAW disk may hold anything, so it can only be refused for what it recognisably is instead: an
//! image of another kind, an archive, a document, a page of text. What disks begin with (boot
//! code, partition tables, file systems, volume managers, encryption, zeros, random bytes) is
//! never among the magic numbers here.

use crate::text;

/// What the beginning of a file looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Version 2 or later.
    Qcow2,
    /// A VHD with the copy of its footer at the start.
    Vhd,
    /// ISO 9660, UDF or both.
    Iso,
    /// An MBR signature: a raw disk, or a hybrid ISO.
    BootSector,
    /// Compressed by gzip.
    Gzip,
    /// Compressed by bzip2.
    Bzip2,
    /// Compressed by xz.
    Xz,
    /// Compressed by zstd.
    Zstd,
    /// An archive by zip.
    Zip,
    /// A TAR, or an OVA, which is one.
    Tar,
    /// Microsoft's second disk image.
    Vhdx,
    /// VMware's disk image: an extent, or a description of several.
    Vmdk(&'static str),
    /// Something that is not a disk, by its usual name.
    Foreign(&'static str),
    /// None of the above.
    Data,
}

/// Volume descriptors of a CD begin in its sector 16; the identifier is their second byte.
const DESCRIPTOR: usize = 32_769;

/// Magic numbers too long to be met by chance, in the order they are looked for.
const MAGICS: [(usize, &[u8], Kind); 48] = [
    (0, b"QFI\xfb\0\0\0\x01", Kind::Foreign("QEMU QCOW Image (v1)")),
    (0, b"QFI\xfb", Kind::Qcow2),
    (0, b"conectix", Kind::Vhd),
    (0, b"QED\0", Kind::Foreign("QEMU QED Image")),
    (0, b"vhdxfile", Kind::Vhdx),
    (0, b"KDMV", Kind::Vmdk(SPARSE)),
    (0, b"COWD", Kind::Vmdk("VMware3 disk image")),
    (0, b"# Disk DescriptorFile", Kind::Vmdk("VMware disk image description")),
    (64, b"\x7f\x10\xda\xbe", Kind::Foreign("VirtualBox Disk Image")),
    (0, b"WithoutFreeSpace", Kind::Foreign("Parallels disk image")),
    (0, b"WithouFreSpacExt", Kind::Foreign("Parallels disk image")),
    (0, b"Bochs Virtual HD Image", Kind::Foreign("Bochs disk image")),
    (0, b"OOOM", Kind::Foreign("User-mode Linux COW file")),
    (0, b"SH-V", Kind::Foreign("Sheepdog image")),
    (0, b"EVF\x09\x0d\x0a\xff\0", Kind::Foreign("EnCase disk image")),
    (0, b"MSWIM\0\0\0", Kind::Foreign("Windows imaging (WIM) image")),
    (0, b"\x3a\xff\x26\xed", Kind::Foreign("Android sparse image")),
    (0, b"\x27\x05\x19\x56", Kind::Foreign("u-boot legacy uImage")),
    (0, b"ANDROID!", Kind::Foreign("Android bootimg")),
    (0, b"partclone-image", Kind::Foreign("partclone image")),
    (0, b"\xfd7zXZ\0", Kind::Xz),
    (0, b"\x28\xb5\x2f\xfd", Kind::Zstd),
    (0, b"\x04\x22\x4d\x18", Kind::Foreign("LZ4 compressed data")),
    (0, b"LZIP\x01", Kind::Foreign("lzip compressed data")),
    (0, b"\x89LZO\0\r\n\x1a\n", Kind::Foreign("lzop compressed data")),
    (0, b"PK\x03\x04", Kind::Zip),
    (0, b"PK\x05\x06", Kind::Foreign("Zip archive data (empty)")),
    (0, b"PK\x07\x08", Kind::Foreign("Zip archive data (split)")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind::Foreign("7-zip archive data")),
    (0, b"Rar!\x1a\x07", Kind::Foreign("RAR archive data")),
    (0, b"MSCF\0\0\0\0", Kind::Foreign("Microsoft Cabinet archive data")),
    (0, b"!<arch>\n", Kind::Foreign("current ar archive")),
    (0, b"\xed\xab\xee\xdb", Kind::Foreign("RPM package")),
    (0, b"070701", Kind::Foreign("ASCII cpio archive")),
    (0, b"070702", Kind::Foreign("ASCII cpio archive")),
    (0, b"070707", Kind::Foreign("ASCII cpio archive")),
    (0, b"\x7fELF", Kind::Foreign("ELF executable")),
    (0, b"\x89PNG\r\n\x1a\n", Kind::Foreign("PNG image data")),
    (0, b"GIF8", Kind::Foreign("GIF image data")),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind::Foreign("Composite Document File")),
    (0, b"SQLite format 3\0", Kind::Foreign("SQLite 3.x database")),
    (0, b"OggS\0", Kind::Foreign("Ogg data")),
    (0, b"#!/", Kind::Foreign("script")),
    (0, b"d8:announce", Kind::Foreign(TORRENT)),
    (0, b"d13:announce-list", Kind::Foreign(TORRENT)),
    (4, b"ftyp", Kind::Foreign("ISO Media")),
    (257, b"ustar", Kind::Tar),
    (
        0,
        b"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0",
        Kind::Foreign("raw CD image (sectors of 2352 bytes)"),
    ),
];

/// Shorter ones: a boot sector or a disk of random bytes may begin like this.
const SHORT_MAGICS: [(&[u8], &str); 8] = [
    (b"\xff\xd8\xff\xe0", "JPEG image data"),
    (b"\xff\xd8\xff\xe1", "JPEG image data"),
    (b"\xff\xd8\xff\xdb", "JPEG image data"),
    (b"ID3\x03", "Audio file with ID3"),
    (b"ID3\x04", "Audio file with ID3"),
    (b"\x1f\x9d\x90", "compress'd data"),
    (b"\x5d\0\0\x80\0", "LZMA compressed data"),
    (b"\x5d\0\0\0\x04", "LZMA compressed data"),
];

impl Kind {
    /// Judges a file by its first bytes; more than [`crate::HEAD_LEN`] are not looked at.
    pub fn of(head: &[u8]) -> Self {
        let head = head.get(..crate::HEAD_LEN).unwrap_or(head);
        let at = |offset: usize, magic: &[u8]| {
            head.get(offset..).is_some_and(|rest| rest.starts_with(magic))
        };
        if let Some((.., kind)) = MAGICS.iter().find(|(offset, magic, _)| at(*offset, magic)) {
            return match *kind {
                Self::Vmdk(SPARSE) => Self::Vmdk(vmware(head)),
                found => found,
            };
        }
        if at(0, b"\x1f\x8b\x08") {
            return Self::Gzip;
        }
        if is_skippable_frame(head) {
            return Self::Zstd;
        }
        if is_bzip2(head) {
            return Self::Bzip2;
        }
        let first = head.get(..1024).unwrap_or(head);
        if first.windows(5).any(|window| window == b"%PDF-") && !at(510, b"\x55\xaa") {
            return Self::Foreign("PDF document");
        }
        if is_cd(head) {
            return Self::Iso;
        }
        if at(510, b"\x55\xaa") {
            return Self::BootSector;
        }
        // Before POSIX there was no magic.
        if crate::tar::is_header(head) {
            return Self::Tar;
        }
        if let Some((_, name)) = SHORT_MAGICS.iter().find(|(magic, _)| at(0, magic)) {
            return Self::Foreign(name);
        }
        if is_windows_program(head) {
            return Self::Foreign("PE executable");
        }
        text::name(first).map_or(Self::Data, Self::Foreign)
    }

    /// For people; completes "found …".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "QEMU QCOW Image",
            Self::Vhd => "Microsoft Disk Image (VHD)",
            Self::Iso => "ISO 9660 file system",
            Self::BootSector => "DOS/MBR boot sector",
            Self::Gzip => "gzip compressed data",
            Self::Bzip2 => "bzip2 compressed data",
            Self::Xz => "XZ compressed data",
            Self::Zstd => "Zstandard compressed data",
            Self::Zip => "Zip archive data",
            Self::Tar => "POSIX tar archive",
            Self::Vhdx => "Microsoft Disk Image eXtended (VHDX)",
            Self::Vmdk(name) => name,
            Self::Foreign(name) => name,
            Self::Data => "data",
        }
    }

    /// Whether it is something around an image, which is taken off.
    pub const fn is_wrapper(self) -> bool {
        matches!(self, Self::Gzip | Self::Bzip2 | Self::Xz | Self::Zstd | Self::Zip)
    }

    /// Whether it is a page, an error or another text in place of an image.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Foreign(name) if text::NAMES.contains(&name))
    }

    /// Whether the bytes of a disk may begin like this.
    pub const fn can_be_a_disk(self) -> bool {
        matches!(self, Self::BootSector | Self::Data | Self::Iso)
    }
}

/// Not the image but where to get it.
pub const TORRENT: &str = "BitTorrent file";
const SPARSE: &str = "VMware4 disk image (monolithic sparse)";

/// Zstandard files of some writers begin with a frame that readers pass over.
fn is_skippable_frame(head: &[u8]) -> bool {
    let skippable = matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    let length = crate::le_u32(head, 4).and_then(|length| usize::try_from(length).ok());
    let next = length.and_then(|length| head.get(length.checked_add(8)?..)).unwrap_or_default();
    skippable && (next.starts_with(b"\x28\xb5\x2f\xfd") || is_skippable_frame_start(next))
}

const fn is_skippable_frame_start(bytes: &[u8]) -> bool {
    matches!(bytes, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// The stream-optimised variant, that OVAs hold, has its flags set.
fn vmware(head: &[u8]) -> &'static str {
    const COMPRESSED: u32 = 1 << 16;
    match crate::le_u32(head, 8) {
        Some(flags) if flags & COMPRESSED != 0 => "VMware4 disk image (stream-optimized)",
        _ => SPARSE,
    }
}

/// `BZh`, a digit, and a block or the end of the stream.
fn is_bzip2(head: &[u8]) -> bool {
    let level = head.get(3).is_some_and(|digit| (b'1'..=b'9').contains(digit));
    let block = head.get(4..10).unwrap_or_default();
    let whole = block == b"1AY&SY" || block == b"\x17\x72\x45\x38\x50\x90";
    head.starts_with(b"BZh") && level && whole
}

/// ISO 9660 or UDF; the descriptors of UDF may follow those of ISO 9660 or stand alone.
fn is_cd(head: &[u8]) -> bool {
    let identifier = head.get(DESCRIPTOR..DESCRIPTOR + 5).unwrap_or_default();
    identifier == b"CD001" || identifier == b"BEA01" || identifier.starts_with(b"NSR0")
}

/// `MZ` alone is too short; the header it leads to is not.
fn is_windows_program(head: &[u8]) -> bool {
    let header = crate::le_u32(head, 60).and_then(|at| usize::try_from(at).ok());
    let is_header = |at: usize| head.get(at..).is_some_and(|rest| rest.starts_with(b"PE\0\0"));
    head.starts_with(b"MZ") && header.is_some_and(is_header)
}
