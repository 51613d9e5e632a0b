//! Arbitrary first bytes of a connection: no panic, a header never longer than what was given.

#![no_main]

use http_front::{ProxyHeader, parse_proxy_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ProxyHeader::Complete { length, source }) = parse_proxy_header(bytes) {
        assert!(length > 0 && length <= bytes.len());
        // What follows a header changes nothing about it.
        let whole = Ok(ProxyHeader::Complete { length, source });
        assert_eq!(parse_proxy_header(&bytes[..length]), whole);
    }
});
