//! A file of a chain of snapshots, damaged: no panic, no read outside it, and every byte of the disk it
//! describes can be asked for. The first byte chooses the format.
#![no_main]

use disk_image::chain::{Chain, Opened, open};
use disk_image::{Format, Source};
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

fuzz_target!(|input: &[u8]| {
    let Some((first, image)) = input.split_first() else { return };
    let (format, magic) = match first % 3 {
        0 => (Format::Vhd, &b""[..]),
        1 => (Format::Qcow2, &b"QFI\xfb\0\0\0\x02"[..]),
        _ => (Format::Qcow2, &b"QFI\xfb\0\0\0\x03"[..]),
    };
    let image = [magic, image].concat();
    if let Ok(Opened { file, parent, .. }) = open(format, Box::new(Strict(image))) {
        assert!(parent.is_none_or(|parent| !parent.names.is_empty()));
        if let Ok(mut chain) = Chain::new(vec![file]) {
            let mut bytes = vec![0; 5000];
            let end = chain.virtual_size();
            for offset in [0, end / 2, end.saturating_sub(1)] {
                drop(chain.read(offset, &mut bytes));
            }
        }
    }
});
