//! VHD: fixed and dynamic, damaged, cut and impossible.

use disk_image::{Format, Notice};

use crate::build::{Put, dynamic_vhd, fixed_vhd, judge, refused, vhd_checksum, vhd_footer};

fn notice(image: &[u8], virtual_size: u64) -> Option<Notice> {
    let found = judge(Format::Vhd, image).unwrap();
    assert_eq!(found.sizes.virtual_size, virtual_size);
    assert_eq!(found.sizes.physical_size, image.len() as u64);
    found.notices.into_iter().next()
}

#[test]
fn fixed_and_dynamic_disks_report_their_current_size() {
    assert_eq!(notice(&fixed_vhd(), 8192), None);
    assert_eq!(notice(&dynamic_vhd(), 1 << 16), None);
    let mut old = fixed_vhd();
    old.pop();
    assert_eq!(notice(&old, 8192), None, "a footer of 511 bytes, as the oldest writers made");
}

#[test]
fn one_sound_footer_of_a_dynamic_disk_is_enough() {
    let mut end = dynamic_vhd();
    let length = end.len();
    end[length - 450] ^= 1;
    assert_eq!(notice(&end, 1 << 16), Some(Notice::DamagedFooter { damaged: "end" }));
    end.truncate(length - 512);
    assert_eq!(notice(&end, 1 << 16), Some(Notice::DamagedFooter { damaged: "end" }));
    end.extend([0; 4096]);
    assert_eq!(notice(&end, 1 << 16), Some(Notice::DamagedFooter { damaged: "end" }));
    let mut start = dynamic_vhd();
    start[50] ^= 1;
    assert_eq!(notice(&start, 1 << 16), Some(Notice::DamagedFooter { damaged: "start" }));
    let mut both = start;
    both[length - 450] ^= 1;
    refused(Format::Vhd, &both, "its footer is damaged");
}

#[test]
fn a_fixed_disk_has_one_footer_only() {
    let mut damaged = fixed_vhd();
    damaged[8192 + 50] ^= 1;
    refused(Format::Vhd, &damaged, "its footer is damaged");
    refused(Format::Vhd, &fixed_vhd()[..8192], "it has no VHD footer");
    refused(Format::Vhd, &fixed_vhd()[4096..], "it is cut short: its disk ends at byte 8703");
    refused(Format::Vhd, &[0; 100], "it has no VHD footer");
}

#[test]
fn a_dynamic_disk_that_was_cut_is_refused_wherever_it_was_cut() {
    let image = dynamic_vhd();
    for length in [512, 600, 1536, 1599, 2048, 6656, 11_000] {
        refused(Format::Vhd, &image[..length], "it is cut short: its ");
    }
}

#[test]
fn disks_that_cannot_be_are_refused() {
    let refuse = |part: &str, footer: Vec<u8>| {
        let image = [vec![0x11; 8192], footer].concat();
        refused(Format::Vhd, &image, part);
    };
    refuse("differencing disk", vhd_footer(4, 4096, 512));
    refuse("disk type is 0", vhd_footer(0, 4096, 512));
    refuse("virtual size is 0 bytes", vhd_footer(2, 0, 512));
    refuse("virtual size is 2199023255552 bytes", vhd_footer(3, 2 << 40, 512));
    refuse("dynamic disk header is missing", vhd_footer(3, 4096, 512));
    refuse(
        "its dynamic disk header ends at byte 18446744073709551615",
        vhd_footer(3, 4096, u64::MAX),
    );
    let header = |part: &str, at: usize, value: u32, seal: bool| {
        let mut image = dynamic_vhd();
        image.put32(512 + at, value);
        if seal {
            vhd_checksum(&mut image, 512, 1024, 36);
        }
        refused(Format::Vhd, &image, part);
    };
    header("dynamic disk header is damaged", 24, 7, false);
    header("block size is 4095", 32, 4095, true);
    header("block size is 256", 32, 256, true);
    header("block size is 0", 32, 0, true);
    header("has 15 entries, 16 are needed", 28, 15, true);
    header("its block allocation table ends at byte 17179870716", 28, u32::MAX, true);
    header("its block allocation table ends at byte ", 16, 1, true);
    let mut beyond = dynamic_vhd();
    beyond.put32(1544, 0x00ff_ffff);
    refused(Format::Vhd, &beyond, "its last block ends at byte 8589938688");
}

#[test]
fn what_begins_as_something_else_is_not_a_fixed_disk() {
    let mut image = fixed_vhd();
    image.put(0, b"QFI\xfb\0\0\0\x03");
    refused(Format::Vhd, &image, "it begins like something else: QEMU QCOW Image");
}
