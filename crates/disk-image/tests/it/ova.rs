//! OVAs: sound ones in every order, and those that would write elsewhere, or be something else.

use disk_image::{Format, Inspection, Notice};

use crate::archives::{archive, header, member, pax, typed};
use crate::build::{Put, judge, qcow2, refused};
use crate::vmdk::{sparse, streamed};

pub const OVF: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References><File ovf:id="file1" ovf:href="disk1.vmdk"/></References>
  <DiskSection><Info/><Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20"/></DiskSection>
  <VirtualSystem ovf:id="vm"><Info/></VirtualSystem>
</Envelope>"#;

fn ovf() -> Vec<u8> {
    member("app.ovf", OVF.as_bytes())
}

fn disk() -> Vec<u8> {
    member("disk1.vmdk", &streamed())
}

fn accepted(members: &[Vec<u8>]) -> Inspection {
    judge(Format::Ova, &archive(members)).unwrap()
}

fn refuse(members: &[Vec<u8>], part: &str) {
    refused(Format::Ova, &archive(members), part);
}

fn names(found: &Inspection) -> Vec<&str> {
    found.package.as_ref().unwrap().files.iter().map(|file| file.name.as_str()).collect()
}

#[test]
fn members_may_come_in_any_order_and_with_the_directory_before() {
    let hex = "0".repeat(64);
    let manifest =
        member("app.mf", format!("SHA256(app.ovf)= {hex}\nSHA256(disk1.vmdk)= {hex}\n").as_bytes());
    for members in [
        vec![ovf(), disk()],
        vec![disk(), ovf()],
        vec![ovf(), manifest.clone(), disk()],
        vec![manifest, disk(), ovf()],
        vec![
            typed("./", b'5', b""),
            member("./disk1.vmdk", &sparse()),
            member("./app.ovf", OVF.as_bytes()),
        ],
    ] {
        let found = accepted(&members);
        assert_eq!(found.sizes.virtual_size, 1 << 20);
        assert_eq!(found.notices, []);
        let package = found.package.unwrap();
        assert_eq!(package.ovf, "app.ovf");
        let with = package.files.iter().filter(|file| file.digest.is_some()).count();
        assert_eq!(with, if package.files.len() == 3 { 2 } else { 0 });
    }
}

#[test]
fn only_what_belongs_to_the_machine_is_unpacked() {
    let found = accepted(&[ovf(), disk(), member("readme.txt", b"hello")]);
    assert_eq!(names(&found), ["app.ovf", "disk1.vmdk"]);
    assert_eq!(found.notices, [Notice::UnusedMember("readme.txt".to_owned())]);
}

#[test]
fn names_that_lead_elsewhere_or_mean_something_are_refused() {
    for name in ["../disk1.vmdk", "/etc/cron.d/x", "a/b.vmdk", "..", "a\\b", ".hidden", "-rf"] {
        let found = judge(Format::Ova, &archive(&[ovf(), disk(), member(name, b"x")])).unwrap_err();
        assert!(
            found.contains("leads elsewhere") || found.contains("cannot be unpacked"),
            "{found}"
        );
    }
    // The original unpacks with tar: such a member replaces the record of the template.
    for name in ["template.properties", "Volume.Properties", "x.ova", "x.ova.meta", "app.ovf.orig"]
    {
        refuse(&[ovf(), disk(), member(name, b"x")], "cannot be unpacked");
    }
    refuse(&[ovf(), disk(), pax(&[("path", "../x")]), member("ok", b"x")], "leads elsewhere");
    refuse(&[ovf(), disk(), member("disk1.vmdk", b"x")], "two members \"disk1.vmdk\"");
    let mut latin = header("caf", b'0', 0);
    latin.put(3, &[0xe9]);
    crate::archives::seal(&mut latin);
    refuse(&[ovf(), disk(), latin], "cannot be unpacked");
}

#[test]
fn links_devices_and_sparse_files_are_refused() {
    for (kind, what) in [
        (b'1', "a link"),
        (b'2', "a link"),
        (b'3', "a device or a pipe"),
        (b'6', "a device or a pipe"),
        (b'5', "a directory"),
        (b'S', "a sparse file"),
        (b'V', "of an unknown type"),
    ] {
        refuse(&[ovf(), disk(), typed("odd", kind, b"")], &format!("\"odd\" is {what}"));
    }
    let sparse = pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")]);
    refuse(&[ovf(), sparse, disk()], "\"disk1.vmdk\" is a sparse file");
}

#[test]
fn the_description_and_the_archive_must_agree() {
    refuse(&[disk()], "it has no .ovf");
    refuse(&[ovf(), disk(), member("other.OVF", OVF.as_bytes())], "two descriptions");
    refuse(&[ovf()], "refers to \"disk1.vmdk\", which is not in the archive");
    let with = |text: &str| vec![member("app.ovf", text.as_bytes()), disk()];
    refuse(&with("<html/>"), "its root is \"html\"");
    refuse(&with("not xml"), "is not valid XML");
    refuse(&with(&OVF.replace("<Envelope", "<!DOCTYPE x [<!ENTITY a \"b\">]><Envelope")), "XML");
    refuse(
        &with(&OVF.replace("<VirtualSystem ovf:id", "<VirtualSystem/><VirtualSystem ovf:id")),
        "2 virtual systems",
    );
    refuse(&with(&OVF.replace("disk1.vmdk", "http://10.0.0.1/disk1.vmdk")), "not in the archive");
    refuse(&with(&OVF.replace("disk1.vmdk", "../../1/3/a.vmdk")), "not in the archive");
    refuse(
        &with(&OVF.replace("fileRef=\"file1\"", "fileRef=\"file2\"")),
        "not among its references",
    );
    refuse(
        &with(&OVF.replace("ovf:diskId", "ovf:parentRef=\"p\" ovf:diskId")),
        "needs a parent disk",
    );
    refuse(&with(&OVF.replace("ovf:href", "ovf:chunkSize=\"7\" ovf:href")), "in pieces");
    let no_disk = OVF.replace("<Disk ", "<Other ");
    refuse(&with(&no_disk), "has no disk");
    let wide: Vec<u8> = format!("\u{feff}{}", OVF.replace("UTF-8", "UTF-16"))
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    accepted(&[member("app.ovf", &wide), disk()]);
}

#[test]
fn disks_are_vmdks_in_one_file() {
    let with = |content: &[u8]| vec![ovf(), member("disk1.vmdk", content)];
    refuse(&with(&qcow2(3)), "\"disk1.vmdk\" is not a VMDK but QEMU QCOW Image");
    refuse(&with(&[0; 600]), "is not a VMDK but data");
    refuse(&with(&archive(&[ovf(), disk()])), "is not a VMDK but POSIX tar archive");
    // CVE-2022-47951 inside an OVA.
    let flat = crate::vmdk::descriptor("monolithicFlat", "RW 1 FLAT \"/etc/passwd\" 0");
    refuse(&with(flat.as_bytes()), "other files (/etc/passwd)");
    refuse(&with(&streamed()[..2000]), "is not a valid VMDK");
    let packed = member("disk1.vmdk.gz", b"\x1f\x8b\x08\0\0\0\0\0");
    let text = OVF.replace("disk1.vmdk\"", "disk1.vmdk.gz\" ovf:compression=\"gzip\"");
    let found = accepted(&[member("app.ovf", text.as_bytes()), packed]);
    assert_eq!(found.notices, [Notice::CompressedDisk("disk1.vmdk.gz".to_owned())]);
    assert_eq!(found.sizes.virtual_size, 1 << 20);
}

#[test]
fn the_larger_size_counts() {
    let with = |capacity: &str, units: &str| {
        let text = OVF.replace("capacity=\"1\"", &format!("capacity=\"{capacity}\""));
        let text = text.replace("byte * 2^20", units);
        accepted(&[member("app.ovf", text.as_bytes()), disk()])
    };
    // Less than the disk has: nobody gets more than is counted.
    let small = with("1", "byte");
    assert_eq!(small.sizes.virtual_size, 1 << 20);
    assert!(matches!(&small.notices[..], [Notice::DiskSize { told: 1, inside: 1_048_576, .. }]));
    for (capacity, units, bytes) in [
        ("2", "GB", 2_u64 << 30),
        ("2", "GigaBytes", 2 << 30),
        ("2", "byte*2^30", 2 << 30),
        ("3", "byte * 10^9", 3_000_000_000),
        ("5000000", "", 5_000_000),
        ("${size}", "byte * 2^30", 1 << 20),
    ] {
        assert_eq!(with(capacity, units).sizes.virtual_size, bytes, "{capacity} {units}");
    }
    let told = OVF.replace("ovf:href", "ovf:size=\"7\" ovf:href");
    let found = accepted(&[member("app.ovf", told.as_bytes()), disk()]);
    assert!(matches!(&found.notices[..], [Notice::MemberSize { told: 7, .. }]));
}

#[test]
fn a_manifest_is_of_this_archive() {
    let with = |text: &str| vec![ovf(), disk(), member("app.mf", text.as_bytes())];
    let hex = |digits: usize| "A".repeat(digits);
    let found = accepted(&with(&format!(
        "\u{feff}SHA1 (app.ovf) = {}\r\n\r\n# x\nsha-512(disk1.vmdk)={}\n",
        hex(40),
        hex(128)
    )));
    let package = found.package.unwrap();
    let digests: Vec<&str> =
        package.files.iter().filter_map(|file| Some(&*file.digest.as_ref()?.algorithm)).collect();
    assert_eq!(digests, ["SHA1", "SHA512"]);
    refuse(&with(&format!("SHA1(gone.vmdk)= {}", hex(40))), "manifest names \"gone.vmdk\"");
    refuse(&with("SHA1(app.ovf)= 12"), "line 1: its digest is not as long");
    refuse(&with("\nCRC(app.ovf)= 12"), "line 2: its algorithm is unknown");
    refuse(&with("nonsense"), "line 1: there is no =");
    let twice = format!("SHA1(app.ovf)= {}\nSHA1(app.ovf)= {}", hex(40), "b".repeat(40));
    refuse(&with(&twice), "two digests of one file");
}
