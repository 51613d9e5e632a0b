//! Signature version 4 of a request, by the published rules: pure, without a clock.

use std::fmt::Write;

use bedrock::Secret;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// What everything but unreserved characters becomes.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const IN_PATH: &AsciiSet = &STRICT.remove(b'/');

/// A request to be signed.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// As it is sent, encoded.
    pub path: &'a str,
    /// As it is sent, encoded and sorted.
    pub query: &'a str,
    /// Names in lower case, sorted; with `host`, `x-amz-content-sha256` and `x-amz-date`.
    pub headers: &'a [(&'a str, String)],
    /// Hex of the body's SHA-256.
    pub payload: &'a str,
}

/// Whose signature, for where and when.
#[derive(Debug)]
pub struct Signer<'a> {
    pub access_key: &'a str,
    pub secret_key: &'a Secret<String>,
    pub region: &'a str,
    /// `20130524T000000Z`.
    pub date: &'a str,
}

/// A key in a path.
pub fn encode_path(text: &str) -> String {
    utf8_percent_encode(text, IN_PATH).to_string()
}

/// A query, sorted as the signature wants it.
pub fn encode_query(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, STRICT).to_string();
    let mut encoded: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    encoded.sort();
    encoded.join("&")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _always = write!(text, "{byte:02x}");
        text
    })
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
        // Keys of any length are taken.
        Err(_never) => Vec::new(),
    }
}

impl Signer<'_> {
    /// The value of the `authorization` header.
    pub fn sign(&self, request: &Request<'_>) -> String {
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String = request
            .headers
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", value.trim()))
            .collect();
        let Request { method, path, query, payload, .. } = request;
        let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{payload}");
        let day = self.date.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let hash = sha256(canonical.as_bytes());
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hash}", self.date);
        let mut key = mac(format!("AWS4{}", self.secret_key.reveal()).as_bytes(), day);
        for step in [self.region, "s3", "aws4_request"] {
            key = mac(&key, step);
        }
        let signature = hex(&mac(&key, &text));
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
            self.access_key
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the published description.
    #[test]
    fn published_examples_have_their_published_signatures() {
        let secret = Secret::from("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE",
            secret_key: &secret,
            region: "us-east-1",
            date: "20130524T000000Z",
        };
        let empty = sha256(b"");
        let header = |name, value: &str| (name, value.to_owned());
        let host = header("host", "examplebucket.s3.amazonaws.com");
        let date = header("x-amz-date", "20130524T000000Z");
        let hash = header("x-amz-content-sha256", &empty);
        let get = [host.clone(), header("range", "bytes=0-9"), hash.clone(), date.clone()];
        let signed = signer.sign(&Request {
            method: "GET",
            path: "/test.txt",
            query: "",
            headers: &get,
            payload: &empty,
        });
        assert!(
            signed.ends_with("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            "{signed}"
        );
        let list = [host, hash, date];
        let query = encode_query(&[("prefix", "J"), ("max-keys", "2")]);
        let signed = signer.sign(&Request {
            method: "GET",
            path: "/",
            query: &query,
            headers: &list,
            payload: &empty,
        });
        assert!(
            signed.ends_with("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
            "{signed}"
        );
    }

    #[test]
    fn keys_are_encoded_byte_by_byte() {
        assert_eq!(encode_path("a b/ü+~.x"), "a%20b/%C3%BC%2B~.x");
        assert_eq!(encode_query(&[("uploads", ""), ("a", "b/c=")]), "a=b%2Fc%3D&uploads=");
    }
}
