//! Arbitrary bytes as a metalink: no panic, and what it describes stands in the document.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secondary_storage::sources::metalink::parse;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = parse(bytes) {
        assert!(!file.mirrors.is_empty() && file.mirrors.len() <= 100);
        assert!(file.mirrors.iter().all(|mirror| mirror.len() <= bytes.len()));
        assert!(file.hash.is_none_or(|hash| hash.hex.len() == hash.algorithm.hex_len()));
    }
});
