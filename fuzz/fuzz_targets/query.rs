//! Arbitrary queries of console links: no panic, nothing grows beyond its replacement characters.

#![no_main]

use console_proxy::query::{RawQuery, percent_decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (text, extra) = input;
    assert!(percent_decode(text).len() <= text.len() * 3);
    let query = RawQuery(text);
    if let Some(token) = query.token() {
        assert!(!token.is_empty() && !token.contains(' '));
    }
    query.has_extra(extra);
    // What the server writes is found again, whatever the text is.
    if !extra.ends_with("&guest=windows") && !extra.contains('%') {
        let link = format!("token=a&port=8080&extra={extra}");
        assert!(RawQuery(&link).has_extra(extra));
    }
});
