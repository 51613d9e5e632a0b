//! Chains of files as one image: QEMU compares it with the chain, and checks it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use disk_image::chain::{
    Bytes, Chain, Opened, Parent, VhdIdentity, open, open_parent, qcow2_of, vhd_of,
};
use disk_image::{Format, ImageError, Source};

use crate::build::{Put, dynamic_vhd, judge, qcow2, vhd_checksum, vhd_footer};

/// A file, read where it is asked.
#[derive(Debug)]
struct OnDisk(File);

impl Source for OnDisk {
    fn length(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(target, offset)
    }
}

fn on_disk(path: impl AsRef<Path>) -> Bytes {
    Box::new(OnDisk(File::open(path).unwrap()))
}

struct InMemory(Vec<u8>);

impl Source for InMemory {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        self.0.as_slice().read_at(offset, target)
    }
}

fn in_memory(bytes: &[u8]) -> Bytes {
    Box::new(InMemory(bytes.to_vec()))
}

fn run(directory: &Path, program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let output = output.expect("it is in Debian's package qemu-utils");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&said));
}

fn qemu_img(directory: &Path, arguments: &str) {
    run(directory, "qemu-img", &arguments.split(' ').collect::<Vec<_>>());
}

/// Writes patterns: `OFFSET LENGTH PATTERN` each.
fn write(directory: &Path, image: &str, writes: &[&str]) {
    let mut arguments = vec!["-f", "qcow2"];
    let commands: Vec<String> = writes
        .iter()
        .map(|write| {
            let parts: Vec<&str> = write.split(' ').collect();
            match parts[2] {
                "zero" => format!("write -z {} {}", parts[0], parts[1]),
                "gone" => format!("discard {} {}", parts[0], parts[1]),
                pattern => format!("write -P {pattern} {} {}", parts[0], parts[1]),
            }
        })
        .collect();
    for command in &commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(image);
    run(directory, "qemu-io", &arguments);
}

/// The chain that ends with `top`, each parent beside its child.
fn chain(directory: &Path, top: &str) -> Result<Chain, ImageError> {
    let Opened { file, mut parent, .. } = open(Format::Qcow2, on_disk(directory.join(top)))?;
    let mut files = vec![file];
    while let Some(wanted) = parent {
        let opened = open_parent(&wanted, on_disk(directory.join(&wanted.names[0])))?;
        files.push(opened.file);
        parent = opened.parent;
    }
    Chain::new(files)
}

fn flatten(directory: &Path, top: &str) {
    let disk = chain(directory, top).unwrap();
    let size = disk.virtual_size();
    let mut image = qcow2_of(disk).unwrap();
    let mut bytes = Vec::new();
    while let Some(block) = image.next_block().unwrap() {
        bytes.extend(block);
    }
    assert_eq!(bytes.len() as u64, image.length(), "{top}");
    std::fs::write(directory.join("flat"), &bytes).unwrap();
    let judged = judge(Format::Qcow2, &bytes).unwrap_or_else(|error| panic!("{top}: {error}"));
    assert_eq!(judged.sizes.virtual_size, size, "{top}");
    qemu_img(directory, "check -q -f qcow2 flat");
    qemu_img(directory, &format!("compare -f qcow2 -F qcow2 flat {top}"));
}

#[test]
fn chains_of_every_make_become_one_image_that_qemu_takes() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    // One after the other, so that also a chain of four different makes is there.
    let makes = [
        ("base", "-o cluster_size=64k 40M"),
        ("lazy", "-o cluster_size=2M,lazy_refcounts=on -b base -F qcow2"),
        ("small", "-o cluster_size=4k,compat=0.10 -b lazy -F qcow2"),
        ("grown", "-o cluster_size=64k -b small -F qcow2 45M"),
    ];
    for (nth, (name, options)) in makes.iter().enumerate() {
        let options: Vec<&str> = options.split(' ').collect();
        let (options, size) = match options.as_slice() {
            [rest @ .., size] if size.ends_with('M') => (rest.join(" "), *size),
            all => (all.join(" "), ""),
        };
        qemu_img(root, format!("create -q -f qcow2 {options} {name} {size}").trim_end());
        let at = nth * 3;
        let first = format!("{}M 3M {}", at, nth + 1);
        let inner = format!("{}k 12k {}", at * 1024 + 5000, nth + 101);
        write(root, name, &[&first, &inner, "39M 1M 9"]);
        match nth {
            1 => write(root, name, &["1M 2M zero", "39M 512k zero"]),
            2 => write(root, name, &["8k 4k 77", "1M 64k 78"]),
            _ => {}
        }
        flatten(root, name);
    }
    // Snapshots inside do not count; what they keep is not written out.
    qemu_img(root, "snapshot -c inner grown");
    write(root, "grown", &["0 1M 55", "44M 1M 56"]);
    flatten(root, "grown");
    qemu_img(root, "create -q -f qcow2 empty 3G");
    flatten(root, "empty");
    let length = std::fs::metadata(root.join("flat")).unwrap().len();
    assert!(length <= 6 * 65536, "{length}");
}

#[test]
fn compressed_clusters_and_raw_bases_are_read() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let mut disk = vec![0_u8; (3 << 20) + 512];
    for (at, byte) in disk.iter_mut().enumerate() {
        *byte = (at / 700 % 251) as u8;
    }
    disk[1 << 20..2 << 20].fill(0);
    std::fs::write(root.join("raw"), &disk).unwrap();
    for (nth, options) in
        ["", "-o cluster_size=2M", "-o cluster_size=512", "-o compression_type=zstd"]
            .iter()
            .enumerate()
    {
        let packed = format!("packed{nth}");
        qemu_img(
            root,
            format!("convert -c -f raw -O qcow2 {options} raw {packed}")
                .replace("  ", " ")
                .as_str(),
        );
        let top = format!("top{nth}");
        qemu_img(root, &format!("create -q -f qcow2 -b {packed} -F qcow2 {top}"));
        write(root, &top, &["100k 300k 7", "2M 4k zero"]);
        flatten(root, &top);
    }
    qemu_img(root, "create -q -f qcow2 -b raw -F raw onraw");
    write(root, "onraw", &["64k 64k 8"]);
    flatten(root, "onraw");
}

#[test]
fn a_parent_that_is_cut_damaged_or_not_told_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let told = |error: ImageError| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    };
    qemu_img(root, "create -q -f qcow2 base 8M");
    write(root, "base", &["0 4M 1"]);
    qemu_img(root, "create -q -f qcow2 -b base -F qcow2 top");
    let whole = std::fs::read(root.join("base")).unwrap();
    std::fs::write(root.join("base"), &whole[..whole.len() / 2]).unwrap();
    let error = told(chain(root, "top").unwrap_err());
    assert!(error.contains("beyond the end of the file"), "{error}");
    // A base without a format that only looks like a disk: QEMU would guess.
    std::fs::write(root.join("base"), vec![0; 8 << 20]).unwrap();
    let parent = Parent { names: vec!["base".to_owned()], format: None, id: None };
    let error = told(open_parent(&parent, on_disk(root.join("base"))).unwrap_err());
    assert!(error.contains("the format of its parent \"base\" is not told"), "{error}");
    let mut odd = qcow2(3);
    odd.put64(8, u64::MAX);
    odd.put32(16, 4);
    let error = told(open(Format::Qcow2, in_memory(&odd)).unwrap_err());
    assert!(error.contains("the name of its backing file"), "{error}");
    let other = open(Format::Vmdk, in_memory(b"x")).unwrap_err();
    assert!(told(other).contains("chains of VMDK are not supported"));
    assert!(Chain::new(Vec::new()).is_err());
}

const SECTOR: usize = 512;

/// A child of [`dynamic_vhd`] in which sectors 1 and 2 of block 0, and all of block 5, are its own.
fn differencing(parent: &[u8], name: &str) -> Vec<u8> {
    let mut footer = vhd_footer(4, 1 << 16, 512);
    footer.put(68, &[0xc; 16]);
    vhd_checksum(&mut footer, 0, 512, 64);
    let mut image = vec![0; 2560];
    image.put(0, &footer);
    image.put(512, b"cxsparse");
    image.put64(520, u64::MAX);
    image.put64(528, 1536);
    image.put32(536, 0x1_0000);
    image.put32(540, 16);
    image.put32(544, 4096);
    image.put(552, &parent[68..84]);
    // A place of a host that wrote it: only the last part counts.
    let url = format!("file:///mnt/host/{name}");
    image.put(512 + 576, b"MACX");
    image.put32(512 + 576 + 4, 1);
    image.put32(512 + 576 + 8, url.len() as u32);
    image.put64(512 + 576 + 16, 2048);
    vhd_checksum(&mut image, 512, 1024, 36);
    image.put(2048, url.as_bytes());
    image[1536..2048].fill(0xff);
    image.put32(1536, 5);
    image.put32(1536 + 5 * 4, 14);
    for map in [0b0110_0000, 0xff] {
        let mut bitmap = [0_u8; SECTOR];
        bitmap[0] = map;
        image.extend(bitmap);
        image.extend([map; 4096]);
    }
    image.extend(footer);
    image
}

#[test]
fn a_chain_of_vhds_becomes_one_that_qemu_reads_the_same() {
    let mut base = dynamic_vhd();
    let length = base.len();
    for at in [0, length - 512] {
        base.put(at + 68, &[0xb; 16]);
        vhd_checksum(&mut base, at, 512, 64);
    }
    let child = differencing(&base, "base.vhd");
    let Opened { file, parent, geometry, .. } = open(Format::Vhd, in_memory(&child)).unwrap();
    let parent = parent.unwrap();
    assert_eq!(parent.names, ["base.vhd"]);
    let opened = open_parent(&parent, in_memory(&base)).unwrap();
    let identity = VhdIdentity { id: [7; 16], seconds: 800_000_000, geometry: geometry.unwrap() };
    let mut image = vhd_of(Chain::new(vec![file, opened.file]).unwrap(), identity).unwrap();
    let mut bytes = Vec::new();
    while let Some(block) = image.next_block().unwrap() {
        bytes.extend(block);
    }
    assert_eq!(bytes.len() as u64, image.length());
    assert_eq!(judge(Format::Vhd, &bytes).unwrap().sizes.virtual_size, 1 << 16);
    let mut expected = vec![0; 1 << 16];
    expected[..2 * 4096].fill(0x5a);
    expected[SECTOR..3 * SECTOR].fill(0b0110_0000);
    expected[5 * 4096..6 * 4096].fill(0xff);
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("flat.vhd"), &bytes).unwrap();
    std::fs::write(temp.path().join("expected"), &expected).unwrap();
    qemu_img(temp.path(), "compare -f vpc -F raw flat.vhd expected");
    // Another disk under the parent's name.
    let mut other = base.clone();
    other.put(68, &[9; 16]);
    other.put(length - 512 + 68, &[9; 16]);
    for at in [0, length - 512] {
        vhd_checksum(&mut other, at, 512, 64);
    }
    open_parent(&parent, in_memory(&other)).unwrap_err();
    let cut = in_memory(&base[..base.len() - 2000]);
    let opened = open_parent(&parent, cut).unwrap();
    assert!(Chain::new(vec![opened.file]).is_err(), "the parent is cut");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_files_of_a_chain_never_panic(
        at in 0_usize..400, value in proptest::num::u8::ANY, cut in 0_usize..2000, vhd in proptest::bool::ANY
    ) {
        let (format, mut image) = match vhd {
            true => (Format::Vhd, differencing(&dynamic_vhd(), "p.vhd")),
            false => (Format::Qcow2, qcow2(3)),
        };
        let place = at * 7 % image.len();
        image[place] = value;
        image.truncate(image.len() - cut);
        if let Ok(Opened { file, .. }) = open(format, in_memory(&image))
            && let Ok(mut chain) = Chain::new(vec![file])
        {
            let mut bytes = vec![0; 9000];
            drop(chain.read(0, &mut bytes));
            drop(chain.read(60_000, &mut bytes));
        }
    }
}
