//! Descriptions of machines.
#![no_main]

use disk_image::ovf::Ovf;
use libfuzzer_sys::fuzz_target;
use secondary_storage::objects::ovf::information;

fuzz_target!(|input: &[u8]| {
    let parsed = Ovf::parse(input).is_ok();
    let described = information(input, "/store", &std::collections::BTreeMap::new());
    assert_eq!(described.is_ok(), parsed);
});
