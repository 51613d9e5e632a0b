//! Arbitrary bytes as an answer of the CloudStack API: no panic, no overflow of the stack, and a
//! list is only ever what the document holds.

#![no_main]

use cloudstack_api::answer::read;
use cloudstack_api::commands::{ListNetworks, ListVirtualMachines, QueryAsyncJob};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Ok(page)) = read::<ListVirtualMachines>(bytes) {
        let text = std::str::from_utf8(bytes).unwrap();
        assert!(page.items.len() <= text.matches("<virtualmachine").count());
    }
    let _networks = read::<ListNetworks>(bytes);
    let _job = read::<QueryAsyncJob>(bytes);
});
