//! Arbitrary JSON as bodies of the dhcp API: no panic, and what is taken is taken again as it is shown.

#![no_main]

use dhcp_api::read::{Read, whole};
use dhcp_api::record::{Record, RecordType};
use dhcp_api::request::{BatchBody, ReservationBody};
use dhcp_api::resource::{
    Meta, OptionSetContent, RangeContent, Source, SubnetContent, ZoneContent,
};
use dhcp_api::whole::{DesiredBody, DocumentBody};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn check<T: Read + serde::Serialize + PartialEq + std::fmt::Debug>(body: &Value) {
    if let Ok(read) = whole::<T>(body.clone()) {
        let shown = serde_json::to_value(&read).expect("it can be shown");
        let again = whole::<T>(shown).expect("what is shown is taken");
        assert_eq!(again, read);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else { return };
    check::<ZoneContent>(&body);
    check::<SubnetContent>(&body);
    check::<RangeContent>(&body);
    check::<ReservationBody>(&body);
    check::<BatchBody>(&body);
    check::<OptionSetContent>(&body);
    check::<DesiredBody>(&body);
    check::<DocumentBody>(&body);
    for kind in ["A", "AAAA", "CNAME", "TXT", "SRV", "PTR"] {
        let kind: RecordType = kind.parse().expect("a record type");
        let name = "x".parse().expect("a record name");
        let _outcome = Record::read(name, kind, body.clone(), Meta::new(Source::Api));
    }
});
