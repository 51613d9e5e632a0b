//! The signed order of an upload: what a browser may upload, sealed by the management server.
//!
//! The server tells this host nothing beforehand. It signs the URL, an expiry and an encrypted
//! description of the object with a key that it sends at set-up; the browser carries them in three
//! headers. The signature covers the URL as the server wrote it, which this host sees only in parts
//! (a proxy may have taken off TLS, the port, the name), so every URL that it may have been is
//! tried: none but the right one fits.

use std::time::SystemTime;

use agent_protocol::storage::PostUploadOrder;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bedrock::Secret;
use jiff::Timestamp;

/// The key that signs uploads, as a text: it is used as it is, never decoded.
pub type UploadKey = Secret<String>;

/// Longest header looked at; the description of a template has at most 4096 characters.
const MAX_HEADER: usize = 60 * 1024;
/// More forms of one URL than any chain of proxies leaves.
const MAX_URLS: usize = 32;

/// The three headers of a request, as they are.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    pub signature: &'a str,
    pub metadata: &'a str,
    pub expires: &'a str,
}

/// Why an order is not obeyed. The texts begin as the original's, which people search for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error(
        "signature, metadata and expires are compulsory fields: send the headers x-signature, x-metadata and x-expires as the API answered them"
    )]
    Missing,
    #[error("a header of the upload has more than {MAX_HEADER} characters")]
    TooLong,
    #[error(
        "uploads cannot be checked: this storage host got no upload key from the management server yet, and none is configured (roles.secondary_storage.upload_key)"
    )]
    NoKey,
    #[error(
        "signature validation failed. Use the four values of one answer of the API unchanged; if they are right, the name by which this host was asked is not the one in the URL of the API, or the upload key of this host is another"
    )]
    Signature,
    #[error("the expiry {0:?} is not a date and time")]
    Expiry(String),
    #[error("request not valid anymore: it ended at {0}; ask the API for a new upload")]
    Expired(String),
    #[error("unable decode and deserialize metadata, although its signature is right")]
    Metadata,
    #[error("the signature is that of another upload, {0}")]
    OtherUpload(String),
}

/// Checks the signature for the first of `urls` that fits, then the expiry, then opens the order.
///
/// # Errors
/// [`OrderError`]; before the signature is known to be right nothing else of the request is believed.
pub fn open(
    keys: &[UploadKey],
    sealed: Sealed<'_>,
    urls: &[String],
    now: SystemTime,
) -> Result<PostUploadOrder, OrderError> {
    let Sealed { signature, metadata, expires } = sealed;
    let all = [signature, metadata, expires];
    if all.iter().any(|text| text.is_empty()) {
        return Err(OrderError::Missing);
    }
    if all.iter().any(|text| text.len() > MAX_HEADER) {
        return Err(OrderError::TooLong);
    }
    if keys.is_empty() {
        return Err(OrderError::NoKey);
    }
    let signature = BASE64_STANDARD.decode(signature).map_err(|_text| OrderError::Signature)?;
    let fits = |key: &&UploadKey| {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.reveal().as_bytes());
        urls.iter().take(MAX_URLS).any(|url| {
            let signed = [metadata, url, expires].concat();
            hmac::verify(&key, signed.as_bytes(), &signature).is_ok()
        })
    };
    let key = keys.iter().find(fits).ok_or(OrderError::Signature)?;
    let end: Timestamp = expires.parse().map_err(|_error| OrderError::Expiry(shown(expires)))?;
    let now = Timestamp::try_from(now).unwrap_or(Timestamp::MAX);
    if now > end {
        return Err(OrderError::Expired(end.to_string()));
    }
    let plain = unseal(key, metadata).ok_or(OrderError::Metadata)?;
    serde_json::from_slice(&plain).map_err(|error| {
        tracing::debug!(%error, "an upload's order cannot be read");
        OrderError::Metadata
    })
}

/// A header in a message: bounded, without control characters.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The plain order.
fn unseal(key: &UploadKey, metadata: &str) -> Option<Vec<u8>> {
    let is_object = |plain: &[u8]| plain.starts_with(b"{") && plain.ends_with(b"}");
    key_store::sealed::open(key.reveal(), metadata, is_object)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const KEY: &str = "k3Zq0mJb2mJ0f5o1f0V7yQ";
    const URL: &str = "https://203.0.113.10/upload/5b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
    const EXPIRES: &str = "2025-10-30T13:05:09.123Z";
    const METADATA: &str = "AAECAwQFBgcICQoLf9hi01FbBA3eLBg74wfRHnsQuOy4LXTXAnD6jt75";
    const SIGNATURE: &str = "59BY1Qx6gFMNycbJ6GLlLlR7rns=";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Within the order's time.
    const DURING: u64 = 1_761_829_500;

    fn check(sealed: Sealed<'_>, urls: &[&str], now: u64) -> Result<i64, OrderError> {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        let keys = [UploadKey::from("another"), UploadKey::from(KEY)];
        open(&keys, sealed, &urls, at(now)).map(|order| order.entity_id)
    }

    const GOOD: Sealed<'_> = Sealed { signature: SIGNATURE, metadata: METADATA, expires: EXPIRES };

    #[test]
    fn an_order_opens_under_the_url_it_was_signed_for() {
        assert_eq!(check(GOOD, &["http://203.0.113.10/upload/x", URL], DURING), Ok(1));
        let other = URL.replace("203.0.113.10", "203.0.113.10:8443");
        assert_eq!(check(GOOD, &[&other], DURING), Err(OrderError::Signature));
        assert_eq!(check(GOOD, &[], DURING), Err(OrderError::Signature));
        assert_eq!(open(&[], GOOD, &[], at(DURING)), Err(OrderError::NoKey));
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let late = "2026-10-30T13:05:09.123Z";
        assert_eq!(
            check(Sealed { expires: late, ..GOOD }, &[URL], DURING),
            Err(OrderError::Signature)
        );
        let other = METADATA.replace("AAEC", "AAED");
        assert_eq!(
            check(Sealed { metadata: &other, ..GOOD }, &[URL], DURING),
            Err(OrderError::Signature)
        );
        for signature in ["59BY1Qx6gFMNycbJ6GLlLlR7rnt=", "AAAA", "%%%", "59BY"] {
            assert_eq!(
                check(Sealed { signature, ..GOOD }, &[URL], DURING),
                Err(OrderError::Signature)
            );
        }
        assert_eq!(
            check(Sealed { signature: "", ..GOOD }, &[URL], DURING),
            Err(OrderError::Missing)
        );
        let long = "A".repeat(MAX_HEADER + 1);
        assert_eq!(
            check(Sealed { metadata: &long, ..GOOD }, &[URL], DURING),
            Err(OrderError::TooLong)
        );
    }

    #[test]
    fn an_order_ends() {
        let end = Err(OrderError::Expired("2025-10-30T13:05:09.123Z".to_owned()));
        assert_eq!(check(GOOD, &[URL], DURING + 3_600), end);
    }

    /// Signs as the server does; used where a vector would only repeat it.
    fn signed(metadata: &str, expires: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, KEY.as_bytes());
        BASE64_STANDARD.encode(hmac::sign(&key, [metadata, URL, expires].concat().as_bytes()))
    }

    #[test]
    fn an_expiry_that_is_no_date_and_metadata_that_do_not_open_are_told() {
        let signature = signed(METADATA, "tomorrow");
        let sealed = Sealed { signature: &signature, metadata: METADATA, expires: "tomorrow" };
        assert_eq!(check(sealed, &[URL], DURING), Err(OrderError::Expiry("tomorrow".to_owned())));
        for metadata in
            ["AAEC", "no base64", "AAECAwQFBgcICQoLf9hi01FbBA3eLBg74wfRHnsQuOy4LXTXAnD6jt76"]
        {
            let signature = signed(metadata, EXPIRES);
            let sealed = Sealed { signature: &signature, metadata, expires: EXPIRES };
            assert_eq!(check(sealed, &[URL], DURING), Err(OrderError::Metadata), "{metadata}");
        }
    }

    /// Made by the JDK's own ciphers: 4.11 to 4.17, and what later ones fall back to.
    #[test]
    fn orders_of_servers_before_gcm_open() {
        for metadata in ["AQIDBAUGBwj5ggE5aKtoFqmJDWBgV7p9", "AQIDBAUGBwiWYXQrLGfOo5tkDiDV8jK9"] {
            let signature = signed(metadata, EXPIRES);
            let sealed = Sealed { signature: &signature, metadata, expires: EXPIRES };
            assert_eq!(check(sealed, &[URL], DURING), Ok(1), "{metadata}");
        }
    }
}
