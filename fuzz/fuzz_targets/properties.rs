//! Arbitrary properties files: no panic; what was read is written so that it is read again.

#![no_main]

use std::time::SystemTime;

use java_properties::Properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let properties = Properties::parse(bytes);
    let written = properties.to_bytes(SystemTime::UNIX_EPOCH);
    assert_eq!(Properties::parse(&written), properties);
});
