//! Magic numbers at the start of a file.

/// What the beginning of a file looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Qcow2,
    Vhd,
    Vhdx,
    Vmdk,
    Vdi,
    Tar,
    Iso,
    /// An MBR signature: a raw disk, or a hybrid ISO.
    BootSector,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    Zip,
    Html,
    Text,
    /// None of the above.
    Data,
}

const ISO_DESCRIPTOR: usize = 32_769;

impl Kind {
    /// Judges a file by its first bytes; more than [`super::HEAD_LEN`] are not looked at.
    pub fn of(head: &[u8]) -> Self {
        let at = |offset: usize, magic: &[u8]| {
            head.get(offset..).is_some_and(|rest| rest.starts_with(magic))
        };
        const MAGICS: [(usize, &[u8], Kind); 14] = [
            (0, b"QFI\xfb", Kind::Qcow2),
            (0, b"conectix", Kind::Vhd),
            (0, b"vhdxfile", Kind::Vhdx),
            (0, b"KDMV", Kind::Vmdk),
            (0, b"COWD", Kind::Vmdk),
            (0, b"# Disk DescriptorFile", Kind::Vmdk),
            (64, b"\x7f\x10\xda\xbe", Kind::Vdi),
            (0, b"\x1f\x8b\x08", Kind::Gzip),
            (0, b"BZh", Kind::Bzip2),
            (0, b"\xfd7zXZ\0", Kind::Xz),
            (0, b"\x28\xb5\x2f\xfd", Kind::Zstd),
            (0, b"PK\x03\x04", Kind::Zip),
            (ISO_DESCRIPTOR, b"CD001", Kind::Iso),
            (257, b"ustar", Kind::Tar),
        ];
        let found = MAGICS.into_iter().find(|(offset, magic, _)| at(*offset, magic));
        if let Some((.., kind)) = found {
            return kind;
        }
        if at(510, b"\x55\xaa") { Self::BootSector } else { text(head) }
    }

    /// For people; completes "found …".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "QEMU QCOW Image",
            Self::Vhd => "Microsoft Disk Image (VHD)",
            Self::Vhdx => "Microsoft Disk Image eXtended (VHDX)",
            Self::Vmdk => "VMware disk image",
            Self::Vdi => "VirtualBox Disk Image",
            Self::Tar => "POSIX tar archive",
            Self::Iso => "ISO 9660 file system",
            Self::BootSector => "DOS/MBR boot sector",
            Self::Gzip => "gzip compressed data",
            Self::Bzip2 => "bzip2 compressed data",
            Self::Xz => "XZ compressed data",
            Self::Zstd => "Zstandard compressed data",
            Self::Zip => "Zip archive data",
            Self::Html => "HTML document",
            Self::Text => "ASCII text",
            Self::Data => "data",
        }
    }
}

/// Text looks like text in its first kilobyte; a web page is worth naming, since that is what a
/// wrong link usually delivers.
fn text(head: &[u8]) -> Kind {
    let sample = head.get(..1024).unwrap_or(head);
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | b'\x0c' | b' '..=b'~');
    if sample.is_empty() || !sample.iter().all(is_text) {
        return Kind::Data;
    }
    let start: Vec<u8> = sample.iter().take(256).map(u8::to_ascii_lowercase).collect();
    let start = start.trim_ascii_start();
    if start.starts_with(b"<!doctype html") || start.starts_with(b"<html") {
        Kind::Html
    } else {
        Kind::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &[u8], expected: Kind) {
        assert_eq!(Kind::of(head), expected);
    }

    #[test]
    fn magic_numbers_are_found() {
        check(b"QFI\xfb\0\0\0\x03", Kind::Qcow2);
        check(b"conectix\0", Kind::Vhd);
        check(b"\x1f\x8b\x08\x08", Kind::Gzip);
        check(b"BZh91AY", Kind::Bzip2);
        check(b"hello world\n", Kind::Text);
        check(b" <!DOCTYPE html><html>", Kind::Html);
        check(b"", Kind::Data);
        check(&[0; 600], Kind::Data);
        let mut boot = vec![0; 512];
        boot[510..].copy_from_slice(b"\x55\xaa");
        check(&boot, Kind::BootSector);
        let mut iso = vec![0; 40_000];
        iso[32_769..32_774].copy_from_slice(b"CD001");
        check(&iso, Kind::Iso);
    }
}
