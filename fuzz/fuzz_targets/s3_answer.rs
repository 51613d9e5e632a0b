//! Answers of S3 servers: no panic, and a page never says that it is the last when it is not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use secondary_storage::stores::s3::answer;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(page) = answer::page(text) {
        assert!(page.next.is_none_or(|next| !next.is_empty()));
    }
    if let Ok(upload) = answer::upload(text) {
        assert!(!upload.is_empty());
    }
    drop(answer::uploads(text));
    drop(answer::refusal(text));
});
