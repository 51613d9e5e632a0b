//! Arbitrary bytes as a key store, as certificates and as a key: no panic, and certificates that
//! were read are written and read again the same.

#![no_main]

use bedrock::Secret;
use key_store::{KeyStore, certificate, certificates, private_key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _outcome = KeyStore::read(bytes, &Secret::new("vmops.com".to_owned()));
    let _outcome = private_key(bytes);
    if let Ok(read) = certificates(bytes) {
        assert!(!read.is_empty());
        for one in &read {
            assert!(!certificate::alternative_names(one).is_empty());
        }
        assert_eq!(certificates(certificate::to_pem(&read).as_bytes()).unwrap(), read);
    }
});
