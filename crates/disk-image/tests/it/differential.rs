//! The same judgement as QEMU: what it makes is accepted, what it cannot open is refused, and what
//! is refused here is refused by its check too, unless it is our rule for templates.

use std::path::Path;
use std::process::Command;

use disk_image::Format;

use crate::build::{dynamic_vhd, judge, qcow2};

const INSTALL: &str = "qemu-img runs; it is in Debian's package qemu-utils";

fn qemu_img(directory: &Path, arguments: &[&str]) -> Option<i32> {
    let output = Command::new("qemu-img").args(arguments).current_dir(directory).output();
    output.expect(INSTALL).status.code()
}

fn make(directory: &Path, arguments: &str) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    assert_eq!(qemu_img(directory, &arguments), Some(0), "{arguments:?}");
}

/// Some data at both ends and in the middle, zeros, and bytes that do not compress.
fn disk(directory: &Path) {
    let mut bytes = vec![0_u8; 3 * 1024 * 1024 + 512];
    let length = bytes.len();
    for (at, byte) in bytes[..200_000].iter_mut().enumerate() {
        *byte = (at * at / 7 % 251) as u8;
    }
    bytes[1 << 20..(1 << 20) + 70_000].fill(0x5a);
    bytes[length - 512..].fill(7);
    std::fs::write(directory.join("disk.raw"), bytes).unwrap();
}

#[test]
fn images_that_qemu_makes_are_accepted() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    disk(root);
    for options in [
        "-O qcow2",
        "-O qcow2 -c",
        "-O qcow2 -o compat=0.10",
        "-O qcow2 -c -o compat=0.10",
        "-O qcow2 -o cluster_size=512",
        "-O qcow2 -c -o cluster_size=2M",
        "-O qcow2 -o lazy_refcounts=on,refcount_bits=1",
        "-O qcow2 -o refcount_bits=64",
        "-O qcow2 -o preallocation=metadata",
        "-O qcow2 -o preallocation=falloc",
        "-O qcow2 -o preallocation=full,cluster_size=4k",
        "-O qcow2 -c -o compression_type=zstd",
        "-O vpc",
        "-O vpc -o subformat=fixed",
        "-O vpc -o force_size=on",
        "-O vpc -o subformat=fixed,force_size=on",
    ] {
        make(root, &format!("convert -f raw disk.raw {options} image"));
        let image = std::fs::read(root.join("image")).unwrap();
        let format = if options.contains("vpc") { Format::Vhd } else { Format::Qcow2 };
        let found = judge(format, &image).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert!(found.sizes.virtual_size >= 3 * 1024 * 1024 + 512, "{options}");
        assert_eq!(found.notice, None, "{options}");
    }
    make(root, "convert -f raw disk.raw -O qcow2 snapshots");
    for name in ["one", "two-with-a-longer-name"] {
        make(root, &format!("snapshot -c {name} snapshots"));
    }
    make(root, "bitmap --add snapshots changed");
    make(root, "resize snapshots 600M");
    judge(Format::Qcow2, &std::fs::read(root.join("snapshots")).unwrap()).unwrap();
    make(root, "create -f qcow2 empty 2T");
    judge(Format::Qcow2, &std::fs::read(root.join("empty")).unwrap()).unwrap();
    for (format, options) in [
        ("vhdx", "Microsoft"),
        ("vmdk", "VMware4"),
        ("vdi", "VirtualBox"),
        ("qed", "QED"),
        ("parallels", "Parallels"),
        ("qcow", "QCOW Image (v1)"),
    ] {
        make(root, &format!("convert -f raw disk.raw -O {format} other"));
        let error = judge(Format::Raw, &std::fs::read(root.join("other")).unwrap()).unwrap_err();
        assert!(error.contains(options), "{format}: {error}");
    }
    make(root, "create -f qcow2 -b disk.raw -F raw backed");
    let error = judge(Format::Qcow2, &std::fs::read(root.join("backed")).unwrap()).unwrap_err();
    assert!(error.ends_with("it has a backing file"), "{error}");
}

/// Rules for templates that QEMU does not have.
const OURS: [&str; 9] = [
    "backing file",
    "another file",
    "is encrypted",
    "extended L2",
    "virtual size is",
    "differencing",
    "disk type is",
    "its L1 table names",
    "zero cluster",
];

/// Judges changed copies of `original` here and by QEMU. Returns how many QEMU could not open.
fn compare(format: Format, original: &[u8], changes: impl Iterator<Item = Change>) -> usize {
    let name = if format == Format::Vhd { "vpc" } else { "qcow2" };
    let temp = tempfile::tempdir().unwrap();
    let mut unopened = 0;
    for change in changes {
        let mut image = original.to_vec();
        match change {
            Change::Byte(at, value) => image[at] = value,
            Change::Cut(length) => image.truncate(length),
        }
        std::fs::write(temp.path().join("image"), &image).unwrap();
        let opens = qemu_img(temp.path(), &["info", "-f", name, "image"]) == Some(0);
        unopened += usize::from(!opens);
        match judge(format, &image) {
            Ok(_) => assert!(opens, "{change:?} is accepted, QEMU cannot open it"),
            Err(error) if opens && !OURS.iter().any(|ours| error.contains(ours)) => {
                let clean = name == "qcow2"
                    && qemu_img(temp.path(), &["check", "-q", "-f", name, "image"]) == Some(0);
                assert!(!clean, "{change:?} is refused, QEMU finds no fault: {error}");
            }
            Err(_) => {}
        }
    }
    unopened
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Byte(usize, u8),
    Cut(usize),
}

#[test]
fn damaged_qcow2_images_are_judged_as_qemu_judges_them() {
    let original = qcow2(3);
    let header = (4..112).flat_map(|at| {
        let values: &[u8] = if (36..72).contains(&at) { &[0x01, 0xff] } else { &[0x01] };
        values.iter().map(move |value| Change::Byte(at, *value))
    });
    let tables = [1, 3, 4].into_iter().flat_map(|cluster| {
        (0..8).map(move |at| Change::Byte(cluster * 0x1_0000 + at, 0x40 + at as u8))
    });
    let cuts =
        [112, 0x1_0000, 0x1_8000, 0x2_0000, 0x3_0004, 0x4_0008, 0x5_0000, 0x5_0001, 0x5_fe00];
    let changes = header.chain(tables).chain(cuts.map(Change::Cut));
    let unopened = compare(Format::Qcow2, &original, changes);
    assert!(unopened > 20, "QEMU could not open {unopened}: the changes reach nothing");
}

#[test]
fn damaged_vhd_images_are_judged_as_qemu_judges_them() {
    let original = dynamic_vhd();
    let header = (512..576).step_by(3).map(|at| Change::Byte(at, 0x03));
    let table = (1536..1548).map(|at| Change::Byte(at, 0x01));
    let cuts = [512, 1000, 1536, 1599, 2048, 6656, 10_000, 11_263].map(Change::Cut);
    let unopened = compare(Format::Vhd, &original, header.chain(table).chain(cuts));
    assert!(unopened > 15, "QEMU could not open {unopened}: the changes reach nothing");
}
