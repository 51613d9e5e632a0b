//! TARs as the world writes them, and as it should not.

use disk_image::{Format, Kind};

use crate::build::{Put, judge, refused};

/// A header in POSIX' form.
pub fn header(name: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut header = vec![0; 512];
    header.put(0, name.as_bytes());
    header.put(100, b"0000644\0");
    header.put(124, format!("{size:011o}\0").as_bytes());
    header.put(136, b"00000000000\0");
    header.put(156, &[kind]);
    header.put(257, b"ustar\x0000");
    seal(&mut header);
    header
}

pub fn seal(header: &mut Vec<u8>) {
    header.put(148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header.put(148, format!("{sum:06o}\0 ").as_bytes());
}

pub fn member(name: &str, content: &[u8]) -> Vec<u8> {
    typed(name, b'0', content)
}

pub fn typed(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut member = header(name, kind, content.len() as u64);
    member.extend(content);
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

pub fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let line = |(key, value): &(&str, &str)| {
        let rest = format!(" {key}={value}\n");
        let length = (1..).find(|n: &usize| n.to_string().len() + rest.len() == *n).unwrap();
        format!("{length}{rest}")
    };
    let text: String = records.iter().map(line).collect();
    typed("pax", b'x', text.as_bytes())
}

pub fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = members.concat();
    archive.extend([0; 1024]);
    archive
}

fn tar(members: &[Vec<u8>]) -> Result<(), String> {
    judge(Format::Tar, &archive(members)).map(|_| ())
}

#[test]
fn every_form_of_header_is_read() {
    let long = "d/".repeat(80) + "file";
    let gnu_name = [long.as_bytes(), b"\0"].concat();
    tar(&[member("a", b"x"), typed("d/", b'5', b""), typed("l", b'2', b"")]).unwrap();
    tar(&[typed("././@LongLink", b'L', &gnu_name), member("short", b"x")]).unwrap();
    tar(&[pax(&[("path", &long), ("mtime", "1.5")]), member("short", b"x")]).unwrap();
    let mut binary = header("big", b'0', 0);
    binary.put(124, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    seal(&mut binary);
    tar(&[binary, vec![1; 512]]).unwrap();
    let mut old = header("old", b'0', 0);
    old[257..265].fill(0);
    seal(&mut old);
    tar(&[old.clone()]).unwrap();
    assert_eq!(Kind::of(&old), Kind::Tar, "before POSIX there was no magic");
    let unended = member("a", b"x");
    judge(Format::Tar, &unended).expect("some writers leave out the end");
}

#[test]
fn a_size_in_a_record_wins() {
    // Who reads the header's size finds a member inside the content of this one.
    let hidden = archive(&[member("hidden", b"x")]);
    let size = hidden.len().to_string();
    let mut outer = pax(&[("size", &size)]);
    outer.extend(header("outer", b'0', 0));
    outer.extend(&hidden);
    let ova = archive(&[outer, member("a.ovf", b"<x/>")]);
    refused(Format::Ova, &ova, "its root is \"x\"");
}

#[test]
fn damaged_archives_are_refused() {
    let mut wrong = member("a", b"x");
    wrong[0] = b'b';
    refused(Format::Tar, &archive(&[member("ok", b""), wrong]), "header at byte 512 is damaged");
    let whole = archive(&[member("a", &[1; 2000])]);
    refused(Format::Tar, &whole[..1500], "\"a\" ends at byte 2512, the file at byte 1500");
    refused(Format::Tar, &archive(&[member("../etc/cron.d/x", b"x")]), "leads elsewhere");
    refused(Format::Tar, &archive(&[pax(&[("path", "a/../../b")]), member("a", b"")]), "elsewhere");
    refused(Format::Tar, &archive(&[typed("pax", b'x', b"9 path"), member("a", b"")]), "record at");
    refused(
        Format::Tar,
        &archive(&[typed("pax", b'g', b"11 size=10\n"), member("a", b"")]),
        "global",
    );
    let mut huge = header("a", b'0', 0);
    huge.put(124, &[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut huge);
    refused(Format::Tar, &archive(&[huge]), "no valid size");
    refused(Format::Tar, &[0; 2048], "it has no members");
}
