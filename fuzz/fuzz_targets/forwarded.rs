//! Arbitrary lines of proxies: no panic, and nobody is believed who is not trusted.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use axum::http::{HeaderMap, HeaderValue};
use http_front::{client_address, parse_address};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: (&[u8], &[u8], &str)| {
    let mut headers = HeaderMap::new();
    for (name, line) in [("x-forwarded-for", lines.0), ("forwarded", lines.1)] {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(client_address(peer, &headers, &[]), peer);
    let everybody = ["0.0.0.0/0", "::/0"].map(|text| text.parse().expect("a constant network"));
    client_address(peer, &headers, &everybody);
    if let Some(address) = parse_address(lines.2) {
        assert_eq!(parse_address(&address.to_string()), Some(address));
    }
});
