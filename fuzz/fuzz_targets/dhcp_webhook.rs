//! The body of a webhook: whatever it is, it only ever says where to look.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    // A machine that is named is named by an id and nothing else.
    let _wake = dhcp::sync::wake_of(body);
});
