//! VMDK, field by field.

use disk_image::Format;

use crate::build::{Put, judge, refused};

const SECTOR: usize = 512;
pub const CAPACITY: u64 = 2048;
const GRAIN: u64 = 128;

pub fn descriptor(kind: &str, extents: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n\
         # Extent description\n{extents}\n\n# The Disk Data Base\nddb.adapterType = \"ide\"\n"
    )
}

pub fn put_le(image: &mut Vec<u8>, at: usize, value: u64, bytes: usize) {
    image.put(at, &value.to_le_bytes()[..bytes]);
}

fn header(flags: u32, directory: u64) -> Vec<u8> {
    let mut header = vec![0; SECTOR];
    header.put(0, b"KDMV");
    put_le(&mut header, 4, if flags >> 16 == 0 { 1 } else { 3 }, 4);
    put_le(&mut header, 8, u64::from(flags), 4);
    put_le(&mut header, 12, CAPACITY, 8);
    put_le(&mut header, 20, GRAIN, 8);
    put_le(&mut header, 28, 1, 8);
    put_le(&mut header, 36, 20, 8);
    put_le(&mut header, 44, 512, 4);
    put_le(&mut header, 56, directory, 8);
    put_le(&mut header, 64, 128, 8);
    header.put(73, b"\n \r\n");
    put_le(&mut header, 77, u64::from(flags >> 16 & 1), 2);
    header
}

/// 1 MiB in grains of 64 KiB: header, description, directory, table, one grain.
pub fn sparse() -> Vec<u8> {
    let mut image = vec![0; 256 * SECTOR];
    image.put(0, &header(1, 21));
    image.put(SECTOR, descriptor("monolithicSparse", "RW 2048 SPARSE \"disk.vmdk\"").as_bytes());
    put_le(&mut image, 21 * SECTOR, 22, 4);
    put_le(&mut image, 22 * SECTOR, 128, 4);
    image
}

/// The same as it is streamed: the tables follow the grains, the footer says where.
pub fn streamed() -> Vec<u8> {
    let mut image = vec![0; 140 * SECTOR];
    image.put(0, &header(0x3_0001, u64::MAX));
    image.put(SECTOR, descriptor("streamOptimized", "RW 2048 SPARSE \"disk.vmdk\"").as_bytes());
    put_le(&mut image, 128 * SECTOR + 8, 20, 4);
    put_le(&mut image, 130 * SECTOR, 128, 4);
    put_le(&mut image, 135 * SECTOR, 130, 4);
    put_le(&mut image, 137 * SECTOR, 1, 8);
    put_le(&mut image, 137 * SECTOR + 12, 3, 4);
    image.put(138 * SECTOR, &header(0x3_0001, 135));
    image
}

#[test]
fn both_kinds_of_one_file_are_accepted() {
    for image in [sparse(), streamed()] {
        let found = judge(Format::Vmdk, &image).unwrap();
        assert_eq!(found.sizes.virtual_size, 1 << 20);
        assert_eq!(found.sizes.physical_size, image.len() as u64);
    }
}

#[test]
fn descriptions_name_what_is_missing() {
    let refuse = |kind: &str, extents: &str, part: &str| {
        refused(Format::Vmdk, descriptor(kind, extents).as_bytes(), part);
    };
    refuse("monolithicFlat", "RW 2048 FLAT \"disk-flat.vmdk\" 0", "other files (disk-flat.vmdk)");
    refuse("vmfs", "RW 2048 VMFS \"disk-flat.vmdk\"", "(disk-flat.vmdk), it is vmfs");
    // CVE-2022-47951: any file of the host, as the extent of a disk.
    refuse("monolithicFlat", "RW 1 FLAT \"/etc/passwd\" 0", "other files (/etc/passwd)");
    refuse("fullDevice", "RW 63 FLAT \"/dev/sda\" 0", "(/dev/sda), it is fullDevice");
    let many: String =
        (1..9).map(|n| format!("RW 4192256 SPARSE \"disk-s00{n}.vmdk\"\n")).collect();
    refuse("twoGbMaxExtentSparse", &many, "disk-s001.vmdk, disk-s002.vmdk, disk-s003.vmdk, …");
    refuse("x", "", "none is named");
    let child = descriptor("vmfsSparse", "RW 1 VMFSSPARSE \"d-000001-delta.vmdk\"")
        .replace("parentCID=ffffffff", "parentCID=12345678\nparentFileNameHint=\"d.vmdk\"");
    refused(Format::Vmdk, child.as_bytes(), "needs a parent disk (d.vmdk)");
    let encrypted =
        format!("{}encryption.keySafe = \"vmware:key/\"\n", descriptor("vmfs", "RW 1 VMFS \"a\""));
    refused(Format::Vmdk, encrypted.as_bytes(), "it is encrypted");
}

#[test]
fn a_description_inside_is_of_this_file_only() {
    let with = |text: &str| {
        let mut image = sparse();
        image[SECTOR..21 * SECTOR].fill(0);
        image.put(SECTOR, text.as_bytes());
        image
    };
    let flat = descriptor("monolithicFlat", "RW 2048 FLAT \"/etc/shadow\" 0");
    refused(Format::Vmdk, &with(&flat), "other files (/etc/shadow)");
    let two = "RW 1024 SPARSE \"a\"\nRW 1024 SPARSE \"b\"";
    refused(Format::Vmdk, &with(&descriptor("monolithicSparse", two)), "other files (a, b)");
    let parent = descriptor("monolithicSparse", "RW 2048 SPARSE \"a\"");
    let parent = parent.replace("CID=ffffffff", "CID=ffffff00");
    refused(Format::Vmdk, &with(&parent), "needs a parent disk");
    let larger = descriptor("monolithicSparse", "RW 4096 SPARSE \"a\"");
    refused(Format::Vmdk, &with(&larger), "header tells 2048 sectors, its description 4096");
    let mut none = sparse();
    put_le(&mut none, 28, 0, 8);
    refused(Format::Vmdk, &none, "one extent of a disk without the disk's description");
}

#[test]
fn what_is_cut_or_changed_on_the_way_is_found() {
    let image = sparse();
    refused(Format::Vmdk, &image[..255 * SECTOR], "it is cut short: its last grain ends at byte");
    refused(Format::Vmdk, &image[..60], "its header is cut short");
    let mut text = image.clone();
    text.put(73, b"\n \n\n");
    refused(Format::Vmdk, &text, "text mode");
    let streamed = streamed();
    refused(Format::Vmdk, &streamed[..139 * SECTOR], "its footer is missing");
    let mut other = streamed.clone();
    put_le(&mut other, 138 * SECTOR + 12, 4096, 8);
    refused(Format::Vmdk, &other, "its header tells 2048 sectors, its footer 4096");
    let mut beyond = streamed;
    put_le(&mut beyond, 135 * SECTOR, 9_000, 4);
    refused(Format::Vmdk, &beyond, "its grain table ends at byte");
    refused(Format::Vmdk, &[b"COWD".to_vec(), vec![0; 600]].concat(), "extent of VMware 3");
}

#[test]
fn absurd_numbers_are_refused_before_they_are_used() {
    for (at, value, bytes, part) in [
        (4, 9, 4, "version 9 is not 1 to 3"),
        (12, 0, 8, "its capacity is 0 sectors"),
        (12, u64::MAX, 8, "its capacity is"),
        (20, 0, 8, "its grain size is 0"),
        (20, 3, 8, "its grain size is 3"),
        (20, 1 << 40, 8, "its grain size is"),
        (44, 0, 4, "its grain tables have 0"),
        (44, 1 << 20, 4, "its grain tables have"),
        (56, u64::MAX - 1, 8, "its grain directory ends at byte"),
        (64, u64::MAX, 8, "its header ends at byte"),
        (28, u64::MAX, 8, "its description ends at byte"),
        (77, 7, 2, "its compression 7 is unknown"),
    ] {
        let mut image = sparse();
        put_le(&mut image, at, value, bytes);
        refused(Format::Vmdk, &image, part);
    }
    // Every entry of the directory names one table: reading it so often would take for ever.
    let mut shared = sparse();
    put_le(&mut shared, 12, 1 << 30, 8);
    put_le(&mut shared, 44, 1, 4);
    shared.put(SECTOR, descriptor("monolithicSparse", "RW 1073741824 SPARSE \"a\"").as_bytes());
    shared.resize(34 << 20, 0);
    put_le(&mut shared, 56, 1000, 8);
    shared[1000 * SECTOR..]
        .chunks_exact_mut(4)
        .for_each(|entry| entry.copy_from_slice(&[22, 0, 0, 0]));
    let found = judge(Format::Vmdk, &shared).unwrap_err();
    assert!(
        found.contains("more than the file can hold") || found.contains("too large"),
        "{found}"
    );
}
