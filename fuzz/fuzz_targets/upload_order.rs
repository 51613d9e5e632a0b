//! Sealed orders of uploads: whatever stands in the headers, without a right signature nothing opens.
#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use secondary_storage::uploads::order::{Sealed, UploadKey, open};

fuzz_target!(|input: (&str, &str, &str, &str)| {
    let (signature, metadata, expires, url) = input;
    let sealed = Sealed { signature, metadata, expires };
    let key = UploadKey::from("k3Zq0mJb2mJ0f5o1f0V7yQ");
    assert!(open(&[key], sealed, &[url.to_owned()], SystemTime::UNIX_EPOCH).is_err());
});
