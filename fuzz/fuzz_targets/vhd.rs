//! A damaged VHD: no panic and no read outside the image, with right and wrong checksums.

#![no_main]

use disk_image::{Format, Source, inspect};
use libfuzzer_sys::fuzz_target;

struct Strict(Vec<u8>);

impl Source for Strict {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        assert!(target.is_empty() || offset + target.len() as u64 <= self.length());
        self.0.as_slice().read_at(offset, target)
    }
}

/// Makes the checksum at `own` right, so that the fields behind it are reached.
fn seal(bytes: &mut [u8], own: usize) {
    if bytes.len() >= own + 4 {
        bytes[own..own + 4].fill(0);
        let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        bytes[own..own + 4].copy_from_slice(&(!sum).to_be_bytes());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut image = [b"conectix", bytes].concat();
    let _unsealed = inspect(Format::Vhd, &Strict(image.clone()));
    let length = image.len();
    seal(&mut image[..length.min(512)], 64);
    if length >= 1536 {
        image[512..520].copy_from_slice(b"cxsparse");
        seal(&mut image[512..1536], 36);
    }
    if let Ok(found) = inspect(Format::Vhd, &Strict(image)) {
        assert!(found.sizes.virtual_size >= 512);
    }
});
