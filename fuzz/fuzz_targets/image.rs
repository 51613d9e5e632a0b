//! Complete images of every format that has tables of its own, the first byte choosing which.
#![no_main]

use disk_image::{Format, describe, inspect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, image)) = input.split_first() else { return };
    let formats = [Format::Vmdk, Format::Vhdx, Format::Ova, Format::Tar, Format::Iso, Format::Raw];
    if let Some(format) = formats.get(usize::from(*first) % formats.len())
        && let Ok(found) = inspect(*format, &image)
    {
        assert_eq!(found.sizes.physical_size, image.len() as u64);
    }
    drop(describe(&image));
});
