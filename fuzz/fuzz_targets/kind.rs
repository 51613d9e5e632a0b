//! Any beginning of a file: a name for it, the same whatever follows the part that is looked at.

#![no_main]

use disk_image::{Format, HEAD_LEN, Kind, inspect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let kind = Kind::of(bytes);
    assert!(!kind.name().is_empty());
    let head = bytes.get(..HEAD_LEN).unwrap_or(bytes);
    assert_eq!(Kind::of(head), kind);
    for format in [Format::Raw, Format::Iso] {
        let found = inspect(format, &bytes);
        assert!(found.is_err() || format.admits(kind));
    }
});
