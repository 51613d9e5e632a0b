//! Small images, made field by field.

use disk_image::{Format, Inspection, inspect};

pub const CLUSTER: usize = 0x1_0000;

/// What [`inspect`] says, causes included.
pub fn judge(format: Format, bytes: &[u8]) -> Result<Inspection, String> {
    inspect(format, &bytes).map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    })
}

/// The refusal must contain `part`.
pub fn refused(format: Format, bytes: &[u8], part: &str) {
    let found = judge(format, bytes);
    assert!(found.as_ref().is_err_and(|text| text.contains(part)), "{part:?} not in {found:?}");
}

/// Writes big-endian numbers and bytes at offsets.
pub trait Put {
    fn put32(&mut self, at: usize, value: u32);
    fn put64(&mut self, at: usize, value: u64);
    fn put(&mut self, at: usize, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_be_bytes());
    }

    fn put64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_be_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// 1 MiB disk with one data cluster: header, refcount table, refcount block, L1, L2, data.
pub fn qcow2(version: u32) -> Vec<u8> {
    let mut image = vec![0; 6 * CLUSTER];
    image.put(0, b"QFI\xfb");
    image.put32(4, version);
    image.put32(20, 16);
    image.put64(24, 1 << 20);
    image.put32(36, 1);
    image.put64(40, 3 * CLUSTER as u64);
    image.put64(48, CLUSTER as u64);
    image.put32(56, 1);
    if version == 3 {
        image.put32(96, 4);
        image.put32(100, 104);
    }
    image.put64(CLUSTER, 2 * CLUSTER as u64);
    for cluster in 0..6 {
        image.put(2 * CLUSTER + 2 * cluster, &[0, 1]);
    }
    image.put64(3 * CLUSTER, (1 << 63) | (4 * CLUSTER as u64));
    image.put64(4 * CLUSTER, (1 << 63) | (5 * CLUSTER as u64));
    image[5 * CLUSTER..].fill(0x5a);
    image
}

pub fn vhd_checksum(bytes: &mut Vec<u8>, start: usize, length: usize, own: usize) {
    bytes.put32(start + own, 0);
    let sum = bytes[start..start + length].iter().map(|byte| u32::from(*byte)).sum::<u32>();
    bytes.put32(start + own, !sum);
}

pub fn vhd_footer(disk_type: u32, size: u64, data_offset: u64) -> Vec<u8> {
    let mut footer = vec![0; 512];
    footer.put(0, b"conectix");
    footer.put32(8, 2);
    footer.put32(12, 0x1_0000);
    footer.put64(16, data_offset);
    footer.put(28, b"win ");
    footer.put64(40, size);
    footer.put64(48, size);
    footer.put(56, &[0, 1, 1, 1]);
    footer.put32(60, disk_type);
    vhd_checksum(&mut footer, 0, 512, 64);
    footer
}

/// 64 KiB disk in blocks of 4 KiB, of which two are there.
pub fn dynamic_vhd() -> Vec<u8> {
    let footer = vhd_footer(3, 1 << 16, 512);
    let mut image = vec![0; 2048];
    image.put(0, &footer);
    image.put(512, b"cxsparse");
    image.put64(520, u64::MAX);
    image.put64(528, 1536);
    image.put32(536, 0x1_0000);
    image.put32(540, 16);
    image.put32(544, 4096);
    vhd_checksum(&mut image, 512, 1024, 36);
    image[1536..2048].fill(0xff);
    image.put32(1536, 4);
    image.put32(1540, 13);
    for _block in 0..2 {
        image.extend([0xff; 512]);
        image.extend([0x5a; 4096]);
    }
    image.extend(footer);
    image
}

pub fn fixed_vhd() -> Vec<u8> {
    let mut image = vec![0x5a; 8192];
    image.put(510, b"\x55\xaa");
    image.extend(vhd_footer(2, 8192, u64::MAX));
    image
}
