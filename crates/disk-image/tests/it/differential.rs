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
        "-O vmdk",
        "-O vmdk -o subformat=monolithicSparse,zeroed_grain=on",
        "-O vmdk -o subformat=monolithicSparse,compat6=on,adapter_type=lsilogic",
        "-O vmdk -o subformat=streamOptimized",
        "-O vhdx",
        "-O vhdx -o subformat=fixed",
        "-O vhdx -o subformat=dynamic,block_size=1M,block_state_zero=off",
        "-O vhdx -o block_size=256M,log_size=4M",
    ] {
        make(root, &format!("convert -f raw disk.raw {options} image"));
        let image = std::fs::read(root.join("image")).unwrap();
        let format = match options.split(' ').nth(1).unwrap() {
            "vpc" => Format::Vhd,
            "vmdk" => Format::Vmdk,
            "vhdx" => Format::Vhdx,
            _ => Format::Qcow2,
        };
        let found = judge(format, &image).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert!(found.sizes.virtual_size >= 3 * 1024 * 1024 + 512, "{options}");
        assert_eq!(found.notices, [], "{options}");
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
        ("vmdk", "VMware4 disk image"),
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
    assert!(error.contains("it has a backing file: make one image of both"), "{error}");
}

/// Rules for templates that QEMU does not have.
const OURS: [&str; 20] = [
    "needs a parent disk",
    "its data is in other files",
    "without the disk's description",
    "tells",
    "its grain size is",
    "grain tables have",
    "compression",
    "names",
    "text mode",
    // QEMU reads zeros behind the end of a file; a VMDK or VHDX that was cut is not whole.
    "it is cut short",
    "sector size",
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
    let name = match format {
        Format::Vhd => "vpc",
        Format::Vmdk => "vmdk",
        Format::Vhdx => "vhdx",
        _ => "qcow2",
    };
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
                let clean = name != "vpc"
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

/// Every kind of VMDK that is in several files: refused, and its extents are named.
#[test]
fn disks_of_vmware_in_several_files_are_refused_by_their_names() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    disk(root);
    for (subformat, extent) in [
        ("monolithicFlat", "image-flat.vmdk"),
        ("twoGbMaxExtentFlat", "image-f001.vmdk"),
        ("twoGbMaxExtentSparse", "image-s001.vmdk"),
    ] {
        make(root, &format!("convert -f raw disk.raw -O vmdk -o subformat={subformat} image.vmdk"));
        let error =
            judge(Format::Vmdk, &std::fs::read(root.join("image.vmdk")).unwrap()).unwrap_err();
        assert!(
            error.contains(&format!("in other files ({extent}), it is {subformat}")),
            "{error}"
        );
        let data = std::fs::read(root.join(extent)).unwrap();
        if subformat == "twoGbMaxExtentSparse" {
            let error = judge(Format::Vmdk, &data).unwrap_err();
            assert!(error.contains("one extent of a disk without"), "{error}");
        } else {
            judge(Format::Raw, &data).unwrap();
        }
    }
    make(root, "create -f vmdk -b image.vmdk -F vmdk backed.vmdk");
    let error = judge(Format::Vmdk, &std::fs::read(root.join("backed.vmdk")).unwrap()).unwrap_err();
    assert!(error.contains("it needs a parent disk (image.vmdk)"), "{error}");
}

#[test]
fn damaged_vmdk_images_are_judged_as_qemu_judges_them() {
    let temp = tempfile::tempdir().unwrap();
    disk(temp.path());
    for subformat in ["monolithicSparse", "streamOptimized"] {
        make(
            temp.path(),
            &format!("convert -f raw disk.raw -O vmdk -o subformat={subformat} image"),
        );
        let original = std::fs::read(temp.path().join("image")).unwrap();
        let length = original.len();
        let header = (4..72).step_by(3).map(|at| Change::Byte(at, 0x41));
        let cuts = [78, 511, 512, 4_096, 21 * 512, 65_536, 131_072, length - 1, length - 512];
        compare(Format::Vmdk, &original, header.chain(cuts.map(Change::Cut)));
    }
}

#[test]
fn damaged_vhdx_images_are_judged_as_qemu_judges_them() {
    const KIB: usize = 1024;
    let temp = tempfile::tempdir().unwrap();
    disk(temp.path());
    make(temp.path(), "convert -f raw disk.raw -O vhdx -o block_size=1M image");
    let original = std::fs::read(temp.path().join("image")).unwrap();
    // QEMU reads the first table of regions only; with it damaged, the second one counts here.
    let places = [0, 64 * KIB, 64 * KIB + 8, 128 * KIB + 70, 256 * KIB, 256 * KIB + 20]
        .map(|at| Change::Byte(at, 0x33));
    let metadata = (2048 * KIB..2048 * KIB + 200).step_by(23).map(|at| Change::Byte(at, 0x55));
    let cuts =
        [100, 64 * KIB, 200 * KIB, 1024 * KIB, 2048 * KIB, 3072 * KIB, original.len() - 600_000];
    compare(
        Format::Vhdx,
        &original,
        places.into_iter().chain(metadata).chain(cuts.map(Change::Cut)),
    );
}
