//! Arbitrary bytes as a JKS store, with the digest that lets a reader look behind it: no panic, and
//! no more entries than bytes.

#![no_main]

use key_store::jks::{JavaKeyStore, MAGIC};
use libfuzzer_sys::fuzz_target;
use sha1::{Digest, Sha1};

const PASSWORD: &str = "vmops.com";

fuzz_target!(|bytes: &[u8]| {
    let _outcome = JavaKeyStore::read(bytes, PASSWORD);
    let content = [MAGIC.as_slice(), &[0, 0, 0, 2], bytes].concat();
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let digest = Sha1::new()
        .chain_update(password)
        .chain_update(b"Mighty Aphrodite")
        .chain_update(&content)
        .finalize();
    let sealed = [content.as_slice(), digest.as_slice()].concat();
    if let Ok(store) = JavaKeyStore::read(&sealed, PASSWORD) {
        assert!(store.keys.len() + store.certificates.len() <= bytes.len());
    }
});
