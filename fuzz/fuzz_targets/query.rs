//! Arbitrary queries, and extra texts in each form in which they travel: no panic, and a text is found
//! in its own forms and in no other's.

#![no_main]

use console_proxy::query::{RawQuery, percent_decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (query, text) = input;
    let query = RawQuery(query);
    if let Some(token) = query.token() {
        assert!(!token.is_empty() && !token.contains(' '));
    }
    let decoded = percent_decode(query.0);
    assert!(decoded.len() <= query.0.len());
    let _found = query.has_extra(text);
    let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(percent_decode(&escaped), text.as_bytes());
    let (with, other) = (format!("token=x&extra={escaped}"), format!("token=x&extra={escaped}%00"));
    assert!(RawQuery(&with).has_extra(text));
    assert!(!RawQuery(&other).has_extra(text));
    // As the server writes it, whatever the text is.
    if !text.ends_with("&guest=windows") {
        assert!(RawQuery(&format!("token=a&port=8080&extra={text}")).has_extra(text));
    }
});
