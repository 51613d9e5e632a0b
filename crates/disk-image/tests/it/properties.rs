//! Any bytes are judged without a panic, and a judgement never reads outside the image.

use disk_image::{Format, Kind, Source, inspect};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, proptest};

use crate::build::{dynamic_vhd, qcow2};

/// Fails on a read that the contract forbids.
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

proptest! {
    #[test]
    fn any_bytes(head in vec(any::<u8>(), 0..1500), magic in 0..4_u8) {
        let prefix: &[u8] = [&b"QFI\xfb\0\0\0\x03"[..], b"QFI\xfb\0\0\0\x02", b"conectix", b""][usize::from(magic)];
        let image = Strict([prefix, &head].concat());
        prop_assert!(!Kind::of(&image.0).name().is_empty());
        for format in Format::ALL {
            if let Ok(found) = inspect(format, &image) {
                prop_assert!(found.sizes.virtual_size > 0);
            }
        }
    }

    #[test]
    fn damaged_images(
        changes in vec((0..2048_usize, any::<u8>()), 1..12),
        far in any::<u16>(),
        keep in 0..500_000_usize,
        vhd in any::<bool>(),
    ) {
        let mut image = if vhd { dynamic_vhd() } else { qcow2(3) };
        for (at, value) in changes {
            image[at] = value;
        }
        let at = usize::from(far) * 5 % image.len();
        image[at] ^= 0x81;
        image.truncate(keep);
        for format in Format::ALL {
            if let Ok(found) = inspect(format, &Strict(image.clone())) {
                prop_assert!(found.sizes.virtual_size > 0);
            }
        }
    }
}
