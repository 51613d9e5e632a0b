//! Arbitrary lease files: no panic, and what is read is written the same.

#![no_main]

use dhcp::leases;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for lease in leases::parse(text) {
        assert_eq!(leases::parse(&format!("{lease}\n")), [lease]);
    }
});
