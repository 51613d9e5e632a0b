//! What a RAW disk or an ISO may be, and what it may not be taken for.

use disk_image::{Format, Kind, Notice};

use crate::build::{Put, dynamic_vhd, fixed_vhd, judge, qcow2, refused};

fn padded(start: &[u8]) -> Vec<u8> {
    let mut bytes = start.to_vec();
    // Not a byte of text follows.
    bytes.resize(bytes.len().max(4096), 0);
    bytes
}

fn raw(name: &str, bytes: &[u8]) {
    assert!(judge(Format::Raw, bytes).is_ok(), "{name}: {:?}", judge(Format::Raw, bytes));
}

fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn whatever_a_disk_may_begin_with_is_raw() {
    let at = |offset: usize, bytes: &[u8]| {
        let mut disk = vec![0; 70_000];
        disk.put(offset, bytes);
        disk
    };
    raw("zeros", &[0; 4096]);
    for byte in [0xff, 0xf6, 0xe5, b'Z', b' ', 0xaa] {
        raw("one byte repeated", &[byte; 4096]);
    }
    for seed in 0..2_000 {
        raw("random, as an encrypted disk", &random(seed, 600));
    }
    raw("MBR", &at(510, b"\x55\xaa"));
    raw("GPT without a protective MBR", &at(512, b"EFI PART"));
    raw("GPT, sectors of 4096 bytes", &at(4096, b"EFI PART"));
    raw("LUKS", &padded(b"LUKS\xba\xbe\0\x02"));
    raw("LVM", &at(512, b"LABELONE"));
    raw("XFS", &padded(b"XFSB\0\0\x10\0"));
    raw("NTFS", &padded(b"\xebR\x90NTFS    "));
    raw("ext4", &at(1080, b"\x53\xef"));
    raw("btrfs", &at(65_600, b"_BHRfS_M"));
    raw("swap", &at(4086, b"SWAPSPACE2"));
    raw("squashfs", &padded(b"hsqs\x01\0\0\0"));
    raw("erofs", &at(1024, b"\xe2\xe1\xf5\xe0"));
    raw("Apple partition map", &padded(b"ER\x02\0"));
    raw("Amiga", &padded(b"RDSK\0\0\0\x40"));
    raw("Sun", &at(508, b"\xda\xbe"));
    raw("ISO", &at(32_769, b"CD001"));
    raw("UDF", &at(32_769, b"BEA01"));
    let mut boot = at(510, b"\x55\xaa");
    for start in [&b"MZ\xea\x07"[..], b"\xff\xd8\xff\xe0", b"\x1f\x9d\x90", b"ID3\x03"] {
        boot.put(0, start);
        raw("a boot sector with any code", &boot);
    }
    raw("length that is not in sectors", &[0; 1000]);
    let mut log = padded(b"plain words, then a disk");
    log.put(100, &[0, 1, 2, 3]);
    raw("words before binary data", &log);
}

#[test]
fn pages_errors_and_other_text_are_not_raw() {
    let refuse = |found: &str, bytes: &[u8]| {
        refused(Format::Raw, bytes, &format!("it is something else: {found}"));
    };
    let fill =
        |text: &str| text.as_bytes().iter().copied().cycle().take(5_000).collect::<Vec<u8>>();
    refuse("HTML", "<!DOCTYPE html>\n<html lang=\"de\"><title>Größe für alle</title>".as_bytes());
    refuse("HTML", "\u{feff}<html><body>bitte anmelden".as_bytes());
    refuse("HTML", "\n\n   <script>location = '/login'</script>".as_bytes());
    refuse("HTML", b"<!-- cached --><p>caf\xe9</p>");
    refuse("HTML", &fill("<p>日本語のページ</p>"));
    refuse("HTML", b"<html><title>\x83\x47\x83\x89\x81\x5b</title>");
    refuse(
        "XML",
        "<?xml version=\"1.0\"?><Error><Message>Schlüssel fehlt</Message></Error>".as_bytes(),
    );
    refuse("JSON", "{\"error\": \"größer\"}".as_bytes());
    refuse("JSON", b"[ {\"a\": 1} ]");
    refuse("ASCII text", &fill("4f53b2  disk.raw\n"));
    refuse("ASCII text", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4096\n");
    refuse("UTF-8", &fill("Zugriff verweigert für größere Dateien — "));
    refuse(
        "ISO-8859",
        &fill("x")
            .iter()
            .map(|_| 0)
            .zip(b"d\xe9j\xe0 vu, not found. ".iter().cycle())
            .map(|(_, b)| *b)
            .collect::<Vec<u8>>(),
    );
    // Every length: the sample ends within a character.
    for length in 1_015..1_024 {
        let mut text = vec![b'a'; length];
        text[0] = b'b';
        text.extend(fill("ü"));
        refuse("UTF-8", &text);
    }
    for little in [true, false] {
        let wide = |text: &str| -> Vec<u8> {
            text.encode_utf16()
                .flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() })
                .collect()
        };
        refuse("Unicode text, UTF-16", &wide("\u{feff}<html>größer 日本</html>"));
        refuse("Unicode text, UTF-16", &wide(&"no byte order mark, but text. ".repeat(9)));
    }
    refuse("HTTP message", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\0\0\0");
    refuse("HTTP message", b"--bound\r\nContent-Range: bytes 0-1/2\r\n\r\n\0\0\0");
    refuse("HTTP message", b"------WebKitForm\r\nContent-Disposition: form-data\r\n\r\n\0\0");
}

#[test]
fn archives_documents_and_other_images_are_not_raw() {
    let start = |found: &str, bytes: &[u8]| {
        refused(Format::Raw, &padded(bytes), &format!("it is something else: {found}"));
    };
    start("PDF", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n");
    start("PDF", b"\n\n%PDF-1.7\n\0");
    start("QEMU QED", b"QED\0\0\0\x01\0");
    start("QEMU QCOW Image (v1)", b"QFI\xfb\0\0\0\x01");
    start("Microsoft Disk Image eXtended", b"vhdxfile");
    start("VMware4 disk image (monolithic sparse)", b"KDMV\x01\0\0\0\x03\0\0\0");
    start("VMware4 disk image (stream-optimized)", b"KDMV\x03\0\0\0\x01\0\x03\0");
    start("VMware disk image description", b"# Disk DescriptorFile\nversion=1\n");
    start("VirtualBox", &[vec![b'<'; 64], b"\x7f\x10\xda\xbe".to_vec()].concat());
    start("Parallels", b"WithoutFreeSpace");
    start("gzip", b"\x1f\x8b\x08\0");
    start("bzip2", b"BZh91AY&SY");
    start("XZ", b"\xfd7zXZ\0");
    start("Zstandard", b"\x28\xb5\x2f\xfd");
    start("LZ4", b"\x04\x22\x4d\x18");
    start("Zip", b"PK\x03\x04");
    start("7-zip", b"7z\xbc\xaf\x27\x1c");
    start("RAR", b"Rar!\x1a\x07\x01\0");
    start("Windows imaging", b"MSWIM\0\0\0");
    start("Android sparse", b"\x3a\xff\x26\xed");
    start("ELF", b"\x7fELF\x02\x01");
    start("PNG", b"\x89PNG\r\n\x1a\n");
    start("JPEG", b"\xff\xd8\xff\xe0\0\x10JFIF");
    let mut tar = vec![0; 1024];
    tar.put(257, b"ustar\0");
    start("POSIX tar", &tar);
    let mut program = vec![0; 512];
    program.put(0, b"MZ");
    program.put(60, b"\x80\0\0\0");
    program.put(0x80, b"PE\0\0");
    start("PE executable", &program);
    refused(Format::Raw, &qcow2(3), "it is something else: QEMU QCOW Image");
    refused(Format::Raw, &dynamic_vhd(), "it is something else: Microsoft Disk Image");
    let mut apple = vec![0; 8192];
    apple.put(8192 - 512, b"koly");
    refused(Format::Raw, &apple, "it is something else: Apple disk image");
    refused(Format::Raw, &[0; 300], "it has 300 bytes, less than one sector");
    refused(Format::Raw, &[], "is empty");
    let fixed = judge(Format::Raw, &fixed_vhd()).unwrap();
    assert_eq!(fixed.notices, [Notice::FixedVhd]);
}

#[test]
fn an_iso_may_be_either_file_system_and_is_not_cut() {
    let iso = |identifier: &[u8], blocks: u32| {
        let mut image = vec![0; 64 * 2048];
        image[32_768] = 1;
        image.put(32_769, identifier);
        image.put(32_768 + 80, &blocks.to_le_bytes());
        image.put32(32_768 + 84, blocks);
        image.put(32_768 + 128, &[0, 8, 8, 0]);
        image
    };
    assert_eq!(judge(Format::Iso, &iso(b"CD001", 64)).unwrap().notices, []);
    refused(Format::Iso, &iso(b"BEA01", 0), "the anchor of its volume is missing");
    let udf = |sectors: usize| {
        let mut image = vec![0; sectors * 2048];
        image.put(32_769, b"BEA01");
        image.put(34_817, b"NSR02");
        let anchor = 256 * 2048;
        image.put(anchor, &[2, 0]);
        image.put(anchor + 16, &2048_u32.to_le_bytes());
        image.put(anchor + 20, &260_u32.to_le_bytes());
        image.put(260 * 2048, &[5, 0]);
        image.put(260 * 2048 + 188, &270_u32.to_le_bytes());
        image.put(260 * 2048 + 192, &2_000_u32.to_le_bytes());
        image
    };
    assert_eq!(judge(Format::Iso, &udf(2_270)).unwrap().notices, []);
    refused(Format::Iso, &udf(300), "its volume has 4648960 bytes, the file only 614400");
    assert_eq!(
        judge(Format::Iso, &iso(b"CD001", 64 + 150)).unwrap().notices,
        [Notice::ShortVolume { declared: 438_272, length: 131_072 }]
    );
    refused(Format::Iso, &iso(b"CD001", 4_000), "it is cut short: its volume has 8192000 bytes");
    let mut hybrid = vec![0; 4096];
    hybrid.put(510, b"\x55\xaa");
    judge(Format::Iso, &hybrid).unwrap();
    refused(Format::Iso, &[0; 40_000], "it is something else: data");
    refused(Format::Iso, b"<html>", "it is something else: HTML document");
}

#[test]
fn a_disk_that_is_shorter_than_its_partitions_is_told() {
    let mut disk = vec![0; 1 << 20];
    disk.put(510, b"\x55\xaa");
    disk.put(446, &[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x10, 0, 0]);
    let end = (2048 + 4096) * 512;
    let found = judge(Format::Raw, &disk).unwrap().notices;
    assert_eq!(found, [Notice::PartitionsBeyond { end, length: 1 << 20 }]);
    disk.resize(4 << 20, 0);
    assert_eq!(judge(Format::Raw, &disk).unwrap().notices, []);
    disk.put(512, b"EFI PART");
    disk.put(512 + 32, &16_383_u64.to_le_bytes());
    let found = judge(Format::Raw, &disk).unwrap().notices;
    assert_eq!(found, [Notice::PartitionsBeyond { end: 16_384 * 512, length: 4 << 20 }]);
    // Boot code where a table would be.
    let mut code = vec![0x90; 4096];
    code.put(510, b"\x55\xaa");
    assert_eq!(judge(Format::Raw, &code).unwrap().notices, []);
}

#[test]
fn pages_in_any_character_set_are_not_raw() {
    let refuse = |found: &str, bytes: &[u8]| {
        refused(Format::Raw, bytes, &format!("it is something else: {found}"));
    };
    let wide = |text: &str, little: bool| -> Vec<u8> {
        let bytes = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    };
    let wider = |text: &str, little: bool| -> Vec<u8> {
        let bytes = |unit: char| {
            let unit = u32::from(unit);
            if little { unit.to_le_bytes() } else { unit.to_be_bytes() }
        };
        text.chars().flat_map(bytes).collect()
    };
    for little in [true, false] {
        for text in [
            "<html><body>Доступ запрещён",
            "{\"error\":\"見つかりません\"}",
            "<?xml version='1.0'?><Ошибка/>",
        ] {
            refuse("Unicode text, UTF-16", &wide(text, little));
            refuse("Unicode text, UTF-32", &wider(text, little));
        }
    }
    // "Доступ запрещён, " in KOI8-R and in Windows-1251, "見つかりません。" in Shift-JIS and in EUC-JP.
    for text in [
        &b"\xe4\xcf\xd3\xd4\xd5\xd0 \xda\xc1\xd0\xd2\xc5\xdd\xa3\xce, "[..],
        b"\xc4\xee\xf1\xf2\xf3\xef \xe7\xe0\xef\xf0\xe5\xf9\xb8\xed, ",
        b"\x8c\xa9\x82\xc2\x82\xa9\x82\xe8\x82\xdc\x82\xb9\x82\xf1\x81B\n",
        b"\xb8\xab\xa4\xc4\xa4\xab\xa4\xea\xa4\xde\xa4\xbb\xa4\xf3\xa1\xa3\n",
    ] {
        refuse("ISO-8859 text", &text.iter().copied().cycle().take(3_000).collect::<Vec<u8>>());
    }
    refuse("ASCII text", b"+ADw-html+AD4-Zugriff verweigert+ADw-/html+AD4-");
    refuse("EBCDIC text", b"\x4c\x6f\xa7\x94\x93\x40\xa5\x85\x99\xa2\x89\x96\x95");
    refuse("EBCDIC text", b"\x4c\x5a\xc4\xd6\xc3\xe3\xe8\xd7\xc5\x15\x25");
    let wiped: Vec<u8> = [0xaa, 0x55, 0xff, 0x24].into_iter().cycle().take(4_096).collect();
    raw("a disk wiped with a pattern", &wiped);
}

#[test]
fn a_beginning_is_judged_for_the_chosen_format() {
    assert!(Format::Qcow2.admits(Kind::Qcow2));
    assert!(!Format::Raw.admits(Kind::Qcow2));
    assert!(!Format::Qcow2.admits(Kind::Foreign("ASCII text")));
    assert!(Format::Vhd.admits(Kind::Data), "a fixed VHD begins with the disk itself");
    assert!(!Format::Iso.admits(Kind::Data));
    assert_eq!(Kind::of(b"BZh91AY&SY"), Kind::Bzip2);
    assert_eq!(Kind::of(b"BZhello"), Kind::Foreign("ASCII text"));
    assert_eq!(Kind::of(b""), Kind::Data);
    // Programs that unpack themselves are text in front only.
    let packed = [&b"#!/bin/sh\nexec tail -c +40 $0\n"[..], &[0; 4096]].concat();
    assert_eq!(Kind::of(&packed), Kind::Foreign("script"));
    let torrent = [&b"d8:announce35:udp://tracker.example"[..], &[7; 600]].concat();
    assert_eq!(Kind::of(&torrent), Kind::Foreign(disk_image::sniff::TORRENT));
    for format in Format::ALL {
        assert_eq!(Format::by_name(format.name()), Some(format));
    }
}
