//! Arbitrary ranges and conditions: no panic, never a byte outside of the file.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use secondary_storage::links::range::{Part, Version, part};

const NAMES: [&str; 6] =
    ["range", "if-range", "if-none-match", "if-modified-since", "if-match", "if-unmodified-since"];

fuzz_target!(|input: ([Option<&[u8]>; 6], u64)| {
    let (values, length) = input;
    let mut headers = HeaderMap::new();
    for (name, value) in NAMES.into_iter().zip(values) {
        if let Some(Ok(value)) = value.map(HeaderValue::from_bytes) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    // Thu, 30 Oct 2025 12:05:09 GMT
    let modified = UNIX_EPOCH + Duration::from_secs(1_761_825_909);
    let version = Version { etag: "\"a-1\"".to_owned(), modified };
    if let Part::Some(range) = part(&headers, &version, length) {
        assert!(range.start < range.end && range.end <= length);
    }
});
