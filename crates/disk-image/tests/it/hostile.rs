//! Images made after published holes of image services, each refused here and, where QEMU opens it,
//! shown to be one that QEMU would follow.

use std::process::Command;

use disk_image::Format;

use crate::build::{Put, qcow2, refused};

/// What `qemu-img info` says of a file beside a secret one, without being told the format.
fn info(image: &[u8]) -> String {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("image"), image).unwrap();
    std::fs::write(temp.path().join("secret"), vec![b's'; 1 << 20]).unwrap();
    let output = Command::new("qemu-img")
        .args(["info", "image"])
        .current_dir(temp.path())
        .output()
        .expect("qemu-img runs; it is in Debian's package qemu-utils");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A version 3 header with an extension behind it.
fn with_extension(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut image = qcow2(3);
    image.put32(104, kind);
    image.put32(108, u32::try_from(data.len()).unwrap());
    image.put(112, data);
    image
}

#[test]
fn cve_2015_5163_a_backing_file_of_the_host() {
    let mut image = qcow2(3);
    image.put64(8, 0x200);
    image.put32(16, 6);
    image.put(0x200, b"secret");
    assert!(info(&image).contains("backing file: secret"), "{}", info(&image));
    refused(Format::Qcow2, &image, "it has a backing file");
    refused(Format::Raw, &image, "it is something else: QEMU QCOW Image");
}

#[test]
fn cve_2024_32498_a_data_file_of_the_host() {
    let mut image = with_extension(0x4441_5441, b"secret");
    image.put64(72, 4);
    assert!(info(&image).contains("data file: secret"), "{}", info(&image));
    refused(Format::Qcow2, &image, "its data is in another file");
    // Without the feature bit QEMU ignores the name; a later version may not.
    refused(Format::Qcow2, &with_extension(0x4441_5441, b"secret"), "another file");
}

#[test]
fn cve_2024_4467_a_data_file_that_is_a_description() {
    let name = b"json:{\"driver\":\"file\",\"filename\":\"secret\"}";
    let mut image = with_extension(0x4441_5441, name);
    image.put64(72, 4);
    refused(Format::Qcow2, &image, "its data is in another file");
}

#[test]
fn cve_2022_47951_a_vmdk_whose_extent_is_a_file_of_the_host() {
    let text = crate::vmdk::descriptor("monolithicFlat", "RW 2048 FLAT \"secret\" 0");
    assert!(info(text.as_bytes()).contains("filename: secret"), "{}", info(text.as_bytes()));
    refused(Format::Vmdk, text.as_bytes(), "its data is in other files (secret)");
    // The same under another name: a description is text, and text is no disk.
    refused(Format::Raw, text.as_bytes(), "it is something else: VMware disk image description");
    refused(Format::Qcow2, text.as_bytes(), "is not a valid QCOW2");
}

#[test]
fn cve_2024_40767_a_format_that_was_not_told() {
    // Registered as one format, opened as what it is.
    for image in [qcow2(2), qcow2(3), crate::vmdk::sparse(), crate::vmdk::streamed()] {
        refused(Format::Raw, &image, "it is something else");
        refused(Format::Iso, &image, "it is something else");
    }
}

#[test]
fn a_header_with_a_master_key_inside_is_encrypted() {
    let mut luks = qcow2(3);
    luks.put32(32, 2);
    refused(Format::Qcow2, &luks, "it is encrypted");
    let key = with_extension(0x0537_be77, &[0; 16]);
    refused(Format::Qcow2, &key, "it is encrypted");
}
