//! QCOW2: what is refused, and with which words.

use disk_image::{Format, Notice};

use crate::build::{CLUSTER, Put, judge, qcow2, refused};

/// Changes a sound image of version 3 and expects the refusal.
fn changed(part: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut image = qcow2(3);
    change(&mut image);
    refused(Format::Qcow2, &image, part);
}

#[test]
fn sound_images_of_both_versions_pass() {
    for version in [2, 3] {
        let found = judge(Format::Qcow2, &qcow2(version)).unwrap();
        assert_eq!(found.sizes.virtual_size, 1 << 20);
        assert_eq!(found.sizes.physical_size, 6 * CLUSTER as u64);
        assert_eq!(found.notices, []);
    }
    changed("version 1 is not", |image| image.put32(4, 1));
    changed("version 4 is not", |image| image.put32(4, 4));
    changed("does not begin with", |image| image.put32(0, 0));
}

#[test]
fn whatever_reaches_outside_the_file_is_refused() {
    changed("has a backing file", |image| image.put64(8, 512));
    changed("has a backing file", |image| image.put32(16, 9));
    changed("data is in another file", |image| image.put64(72, 4));
    changed("not supported (bits 0x20)", |image| image.put64(72, 0x20));
    changed("extended L2 entries", |image| image.put64(72, 0x10));
    changed("is encrypted", |image| image.put32(32, 1));
    changed("is encrypted", |image| image.put32(32, 2));
    let extension = |kind: u32, size: u32| {
        move |image: &mut Vec<u8>| {
            // Behind a feature table, padded to eight bytes.
            image.put32(104, 0x6803_F857);
            image.put32(108, 3);
            image.put32(120, kind);
            image.put32(124, size);
        }
    };
    changed("has a backing file", extension(0xE279_2ACA, 5));
    changed("data is in another file", extension(0x4441_5441, 8));
    changed("is encrypted", extension(0x0537_be77, 16));
    changed("extension 0x12345678 of 4294967295 bytes", extension(0x1234_5678, u32::MAX));
    changed("extension 0x23852875 of 8 bytes", extension(0x2385_2875, 8));
    let mut image = qcow2(3);
    extension(0x1234_5678, 64)(&mut image);
    judge(Format::Qcow2, &image).expect("unknown extensions are ignored");
}

#[test]
fn flags_that_the_original_tolerates_pass_and_corruption_is_told() {
    let with = |features: u64| {
        let mut image = qcow2(3);
        image.put64(72, features);
        judge(Format::Qcow2, &image).map(|found| found.notices)
    };
    assert_eq!(with(1), Ok(vec![]), "dirty: QEMU repairs it when it opens it");
    assert_eq!(with(3), Ok(vec![Notice::MarkedCorrupt]));
    let mut zstd = qcow2(3);
    zstd.put64(72, 8);
    zstd.put32(100, 112);
    zstd[104] = 1;
    judge(Format::Qcow2, &zstd).unwrap();
    zstd[104] = 2;
    refused(Format::Qcow2, &zstd, "compression type 2 is unknown");
    zstd[104] = 0;
    refused(Format::Qcow2, &zstd, "compression type 0 contradicts");
}

/// Row 13 of the weaknesses of the original storage agent: it reads the extension as version 3 features.
#[test]
fn a_version_2_extension_is_not_an_unknown_feature() {
    let mut image = qcow2(2);
    image.put32(72, 0x6803_F857);
    image.put32(76, 48);
    judge(Format::Qcow2, &image).unwrap();
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    changed("virtual size is 0 bytes", |image| image.put64(24, 0));
    changed("virtual size is 18446744073709551615", |image| image.put64(24, u64::MAX));
    changed("cluster size is 2^8", |image| image.put32(20, 8));
    changed("cluster size is 2^22", |image| image.put32(20, 22));
    changed("header length is 103", |image| image.put32(100, 103));
    changed("header length is 65537", |image| image.put32(100, 65_537));
    changed("reference counts have 2^7", |image| image.put32(96, 7));
    // Enough for 512 MiB, one entry for each.
    changed("L1 table is too small: 1 entries, 2 are needed", |image| {
        image.put64(24, (512 << 20) + 512);
    });
    changed("L1 table is too small: 0 entries, 1 are needed", |image| image.put32(36, 0));
    changed("its L1 table is too large (34359738360)", |image| image.put32(36, u32::MAX));
    changed("has no refcount table", |image| image.put32(56, 0));
    changed("its refcount table is too large", |image| image.put32(56, 1000));
    changed("its snapshot table is too large (65537)", |image| image.put32(60, 65_537));
}

#[test]
fn tables_and_clusters_lie_in_the_file_at_their_boundaries() {
    let beyond = 6 * CLUSTER as u64;
    for (what, at) in [
        ("its L1 table", 40),
        ("its refcount table", 48),
        ("a refcount block", CLUSTER),
        ("an L2 table", 3 * CLUSTER),
        ("a cluster", 4 * CLUSTER),
    ] {
        let text = |rest: &str| format!("{what} at byte {rest}");
        changed(&text("393216 lies beyond the end of the file (393216 bytes)"), |image| {
            image.put64(at, beyond);
        });
        changed(&text("36028797018898432 lies beyond"), |image| {
            image.put64(at, 0x007f_ffff_fff0_0000 & !0xf_ffff | 0xf0000);
        });
        changed(&text("66048 is not at a cluster boundary"), |image| image.put64(at, 66_048));
    }
    changed("its L1 table names", |image| {
        image.put32(36, 7);
        for entry in 0..7 {
            image.put64(3 * CLUSTER + 8 * entry, 4 * CLUSTER as u64);
        }
    });
    changed("a compressed cluster at byte 393216", |image| {
        image.put64(4 * CLUSTER, 1 << 62 | beyond);
    });
    let mut old = qcow2(2);
    old.put64(4 * CLUSTER, 1);
    refused(Format::Qcow2, &old, "zero cluster");
}

#[test]
fn a_cut_image_is_refused_wherever_it_was_cut() {
    let image = qcow2(3);
    for length in [4, 30, 71, 103, 112, 512, CLUSTER, 2 * CLUSTER, 4 * CLUSTER + 8, 5 * CLUSTER] {
        let found = judge(Format::Qcow2, &image[..length]);
        assert!(found.is_err(), "cut at {length}");
    }
    // QEMU writes no more of the last cluster than the disk has.
    judge(Format::Qcow2, &image[..5 * CLUSTER + 512]).unwrap();
}

#[test]
fn internal_snapshots_are_kept_and_their_list_must_be_whole() {
    let with = |extra: u32, cut: usize| {
        let mut image = qcow2(3);
        image.put32(60, 1);
        image.put64(64, 6 * CLUSTER as u64);
        let mut entry = vec![0; 72];
        entry.put(12, &[0, 1, 0, 3]);
        entry.put32(36, extra);
        image.extend(&entry[..cut]);
        image
    };
    judge(Format::Qcow2, &with(16, 64)).unwrap();
    judge(Format::Qcow2, &with(16, 60)).expect("without the padding");
    refused(Format::Qcow2, &with(16, 50), "its snapshot table at byte 393216 lies beyond");
    refused(Format::Qcow2, &with(16, 30), "its snapshot table at byte 393216 lies beyond");
    refused(Format::Qcow2, &with(5_000, 72), "its snapshot table is too large (5000)");
}
