//! A damaged QCOW2: no panic, no read outside the image, and little memory.
//! The first bytes of the input change the header, the rest is the image behind it.

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

fuzz_target!(|bytes: &[u8]| {
    for magic in [&b"QFI\xfb\0\0\0\x02"[..], b"QFI\xfb\0\0\0\x03"] {
        if let Ok(found) = inspect(Format::Qcow2, &Strict([magic, bytes].concat())) {
            assert!(found.sizes.virtual_size > 0);
        }
    }
    let _any = inspect(Format::Qcow2, &Strict(bytes.to_vec()));
});
