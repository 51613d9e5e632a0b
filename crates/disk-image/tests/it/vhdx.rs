//! VHDX made by QEMU, then changed.

use disk_image::{Format, Notice};

use crate::build::{Put, judge, refused};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn made(options: &str) -> Vec<u8> {
    let temp = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "vhdx", "-o", options, "image", "10M"])
        .current_dir(temp.path())
        .status();
    assert!(made.expect("qemu-img runs; it is in Debian's package qemu-utils").success());
    std::fs::read(temp.path().join("image")).unwrap()
}

/// Castagnoli's sum, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 }
        })
    })
}

fn sum(image: &mut Vec<u8>, start: usize, length: usize) {
    image.put(start + 4, &[0; 4]);
    let sum = crc32c(&image[start..start + length]);
    image.put(start + 4, &sum.to_le_bytes());
}

/// Where an item's content is: the table's entries name their places.
fn item(image: &[u8], guid: u32) -> usize {
    let at = (2..9).map(|n| n * MIB).find(|at| image[*at..].starts_with(b"metadata")).unwrap();
    let entry = (1..8).map(|n| at + 32 * n).find(|e| image[*e..*e + 4] == guid.to_le_bytes());
    let entry = entry.unwrap();
    at + u32::from_le_bytes(image[entry + 16..entry + 20].try_into().unwrap()) as usize
}

#[test]
fn both_kinds_are_accepted_with_their_size() {
    for options in ["subformat=dynamic", "subformat=fixed"] {
        let found = judge(Format::Vhdx, &made(options)).unwrap();
        assert_eq!(found.sizes.virtual_size, 10 << 20, "{options}");
        assert_eq!(found.notices, []);
    }
}

#[test]
fn a_disk_with_a_log_to_be_replayed_is_refused() {
    let mut image = made("subformat=dynamic");
    for start in [64 * KIB, 128 * KIB] {
        image.put(start + 48, &[7; 16]);
        sum(&mut image, start, 4096);
    }
    let log = u64::from_le_bytes(image[64 * KIB + 72..64 * KIB + 80].try_into().unwrap()) as usize;
    judge(Format::Vhdx, &image).expect("a log without an entry has nothing to replay");
    image.put(log + 8192, b"loge");
    image.put(log + 8192 + 32, &[6; 16]);
    judge(Format::Vhdx, &image).expect("an entry of a former session");
    image.put(log + 8192 + 32, &[7; 16]);
    refused(Format::Vhdx, &image, "its log was not replayed");
}

#[test]
fn one_sound_header_is_enough() {
    let image = made("subformat=dynamic");
    for damaged in [64 * KIB + 100, 192 * KIB + 100] {
        let mut image = image.clone();
        image[damaged] ^= 1;
        assert_eq!(judge(Format::Vhdx, &image).unwrap().notices, [Notice::DamagedVhdxHeader]);
    }
    let mut both = image.clone();
    both[64 * KIB + 100] ^= 1;
    both[128 * KIB + 100] ^= 1;
    refused(Format::Vhdx, &both, "both of its headers are damaged");
    let mut both = image;
    both[192 * KIB + 100] ^= 1;
    both[256 * KIB + 100] ^= 1;
    refused(Format::Vhdx, &both, "both of its region tables are damaged");
}

#[test]
fn facts_that_cannot_be_are_refused() {
    let image = made("subformat=dynamic");
    let change = |guid: u32, offset: usize, bytes: &[u8], part: &str| {
        let mut image = image.clone();
        let at = item(&image, guid) + offset;
        image.put(at, bytes);
        refused(Format::Vhdx, &image, part);
    };
    change(0xcaa1_6737, 4, &[2, 0, 0, 0], "differencing disk");
    change(0xcaa1_6737, 0, &[1, 0, 0, 0], "its block size is 1 bytes");
    change(0x2fa5_4224, 0, &[0; 8], "its virtual size is 0 bytes");
    change(0x2fa5_4224, 0, &[0xff; 8], "its virtual size is");
    change(0x2fa5_4224, 0, &(40_u64 << 40).to_le_bytes(), "its block allocation table has");
    change(0x8141_bf1d, 0, &[0, 4, 0, 0], "logical sector size is 1024");
    refused(Format::Vhdx, &image[..3 * MIB], "it is cut short");
    refused(Format::Vhdx, &image[..66 * KIB], "both of its headers are damaged");
    refused(Format::Vhdx, b"vhdxfile", "both of its headers are damaged");
}
