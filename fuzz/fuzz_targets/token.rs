//! Arbitrary queries, tokens and key material: no panic.

#![no_main]

use console_proxy::query::RawQuery;
use console_proxy::token::TokenKey;
use libfuzzer_sys::fuzz_target;

const KEY: &str = r#"{"base64EncodedKeyBytes":"AAECAwQFBgcICQoLDA0ODw","base64EncodedIvBytes":"EBESExQVFhcYGRobHB0eHw"}"#;

fuzz_target!(|text: &str| {
    let _outcome = TokenKey::parse(text);
    let query = RawQuery(text);
    let key = TokenKey::parse(KEY).expect("a constant key");
    for token in [Some(text.to_owned()), query.token()].into_iter().flatten() {
        // By chance something may open as a token of the old, unauthenticated cipher.
        if let Ok(token) = key.open(&token) {
            drop(token.viewer_key());
        }
    }
});
