//! The secrets of a console link: the token that carries where the screen is, encrypted for the
//! proxy, and the ticket by which the server recognises its own link for two minutes.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::Mac;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};

use crate::random::{self, RandomError};

const NONCE_BYTES: usize = 12;

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The plaintext is not JSON.
    #[error("write the console token")]
    Write(#[source] serde_json::Error),
    /// The cipher refused, which it only does for absurd lengths.
    #[error("encrypt the console token")]
    Encrypt,
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The installation's pair of key and additional data for console tokens.
#[derive(Clone)]
pub struct TokenKey {
    key: [u8; 16],
    iv: [u8; 16],
}

impl TokenKey {
    /// A new random pair.
    ///
    /// # Errors
    /// [`RandomError`] without random bytes.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self { key: random::bytes()?, iv: random::bytes()? })
    }

    /// A given pair, for tests with recorded tokens.
    pub fn of(key: [u8; 16], iv: [u8; 16]) -> Self {
        Self { key, iv }
    }

    /// The pair in the text that a proxy gets as `encryptorPassword`.
    pub fn parse(encryptor_password: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Pair {
            base64_encoded_key_bytes: String,
            base64_encoded_iv_bytes: String,
        }
        let pair: Pair = serde_json::from_str(encryptor_password).ok()?;
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok();
        let (key, iv) = (&pair.base64_encoded_key_bytes, &pair.base64_encoded_iv_bytes);
        Some(Self { key: bytes(key)?, iv: bytes(iv)? })
    }

    /// The JSON text that the proxy gets as `encryptorPassword`.
    pub(crate) fn encryptor_password(&self) -> String {
        format!(
            r#"{{"base64EncodedKeyBytes":"{}","base64EncodedIvBytes":"{}"}}"#,
            URL_SAFE_NO_PAD.encode(self.key),
            URL_SAFE_NO_PAD.encode(self.iv)
        )
    }

    /// Encrypts a token's parameters; the result stands unescaped in the link.
    ///
    /// # Errors
    /// [`TokenError`] when the parameters cannot be written or encrypted.
    pub(crate) fn encrypt(&self, parameters: &ClientParameters) -> Result<String, TokenError> {
        let plaintext = serde_json::to_string(parameters).map_err(TokenError::Write)?;
        self.seal(escape_html(&plaintext).as_bytes(), random::bytes()?)
    }

    fn seal(&self, plaintext: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<String, TokenError> {
        let key: [u8; 32] = Sha256::digest(self.key).into();
        let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
        let payload = Payload { msg: plaintext, aad: &self.iv };
        let sealed = cipher
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_: aes_gcm::Error| TokenError::Encrypt)?;
        Ok(STANDARD.encode([&nonce[..], &sealed].concat()))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenKey(***)")
    }
}

/// What a token says, in the order of the original.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientParameters {
    /// Address of the host's VNC server, as the ticket hashes it.
    pub(crate) client_host_address: String,
    /// Its port.
    pub(crate) client_host_port: i64,
    /// VNC password of the VM, the ticket's `sid`.
    pub(crate) client_host_password: String,
    /// UUID of the VM.
    pub(crate) client_tag: String,
    /// Name shown as the desktop's title.
    pub(crate) client_display_name: String,
    /// See [`ticket`].
    pub(crate) ticket: String,
    /// Keyboard of the VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) locale: Option<String>,
    /// Always false for hosts with a lasting password.
    pub(crate) session_requires_new_viewer: bool,
    /// Address of the browser as the server saw it.
    #[serde(rename = "sourceIP")]
    pub(crate) source_ip: String,
    /// UUID of the console session.
    pub(crate) session_uuid: String,
    /// The extra token that the caller demanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) extra_security_token: Option<String>,
}

impl fmt::Debug for ClientParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientParameters")
            .field("client_tag", &self.client_tag)
            .field("session_uuid", &self.session_uuid)
            .finish_non_exhaustive()
    }
}

/// What a ticket is computed from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TicketFacts<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: &'a str,
    pub(crate) sid: &'a str,
    pub(crate) tag: &'a str,
    pub(crate) session: &'a str,
}

/// The ticket of one minute: HMAC-SHA-512 over the facts and the number of the minute, keyed with
/// the text of the installation's hash key.
pub(crate) fn ticket(hash_key: &str, facts: TicketFacts<'_>, minute: i64) -> String {
    let TicketFacts { host, port, sid, tag, session } = facts;
    let message = format!("host={host}&port={port}&sid={sid}&tag={tag}&session={session}{minute}");
    STANDARD.encode(hmac_sha512(hash_key.as_bytes(), message.as_bytes()))
}

fn hmac_sha512(key: &[u8], message: &[u8]) -> Vec<u8> {
    // A key longer than a block is hashed first by HMAC itself, so every length is accepted.
    match <hmac::Hmac<Sha512> as hmac::digest::KeyInit>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        }
        Err(_) => Vec::new(),
    }
}

/// Gson's escaping of characters that mean something in HTML; none of them stands outside of
/// strings in JSON.
fn escape_html(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '=' | '\'' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documented_key() -> TokenKey {
        let key = std::array::from_fn(|index| index as u8);
        let iv = std::array::from_fn(|index| 0x10 + index as u8);
        TokenKey::of(key, iv)
    }

    fn documented_nonce() -> [u8; NONCE_BYTES] {
        std::array::from_fn(|index| 0x20 + index as u8)
    }

    #[test]
    fn empty_and_short_plaintexts_encrypt_to_the_known_tokens() {
        let key = documented_key();
        assert_eq!(
            key.seal(b"", documented_nonce()).unwrap(),
            "ICEiIyQlJicoKSorbr9uP84EFL/o+wN3Zf1Xgg=="
        );
        assert_eq!(
            key.seal(b"{}", documented_nonce()).unwrap(),
            "ICEiIyQlJicoKSorlEgsQujT/ECwEf5b0YgT3xSm"
        );
    }

    #[test]
    fn the_encryptor_password_is_the_pair_in_url_safe_text() {
        assert_eq!(
            documented_key().encryptor_password(),
            r#"{"base64EncodedKeyBytes":"AAECAwQFBgcICQoLDA0ODw","base64EncodedIvBytes":"EBESExQVFhcYGRobHB0eHw"}"#
        );
        let parsed = TokenKey::parse(&documented_key().encryptor_password()).unwrap();
        assert_eq!((parsed.key, parsed.iv), (documented_key().key, documented_key().iv));
        assert!(TokenKey::parse("{}").is_none());
    }

    #[test]
    fn the_ticket_of_the_known_facts_is_the_known_ticket() {
        let facts = TicketFacts {
            host: "192.0.2.21",
            port: "5901",
            sid: "S3cr3tVncPassw0rd-_abc",
            tag: "7f6e3c1a-52b0-4d0e-9a39-0c6f3b1d2e4f",
            session: "0b9f6f0e-2f0c-4a57-8f5e-6f3d9d1c7a11",
        };
        assert_eq!(
            ticket("MDEyMzQ1Njc4OWFiY2RlZg", facts, 29_000_000),
            "uUI0I4ef9LHjnqGIkGcMK/+NdtFCuYp2bA1p2S04M5vdOWmq2CAmSfhFCUZJyM3xAvvcBXZjDIzbRFCgp88NCA=="
        );
    }

    #[test]
    fn a_token_has_members_and_escapes_of_the_original() {
        let parameters = ClientParameters {
            client_host_address: "10.77.2.1".to_owned(),
            client_host_port: 5901,
            client_host_password: "secret".to_owned(),
            client_tag: "8a112b6e-0e48-419d-af9b-31a68db815c0".to_owned(),
            client_display_name: "a<b>&'é".to_owned(),
            ticket: "abc==".to_owned(),
            locale: None,
            session_requires_new_viewer: false,
            source_ip: "127.0.0.1".to_owned(),
            session_uuid: "b93a2386-9d71-41f8-9264-250746dd8b1f".to_owned(),
            extra_security_token: None,
        };
        assert_eq!(
            escape_html(&serde_json::to_string(&parameters).unwrap()),
            "{\"clientHostAddress\":\"10.77.2.1\",\"clientHostPort\":5901,\
             \"clientHostPassword\":\"secret\",\"clientTag\":\"8a112b6e-0e48-419d-af9b-31a68db815c0\",\
             \"clientDisplayName\":\"a\\u003cb\\u003e\\u0026\\u0027é\",\"ticket\":\"abc\\u003d\\u003d\",\
             \"sessionRequiresNewViewer\":false,\"sourceIP\":\"127.0.0.1\",\
             \"sessionUuid\":\"b93a2386-9d71-41f8-9264-250746dd8b1f\"}"
        );
        assert!(!format!("{parameters:?}").contains("secret"));
        let key = TokenKey::generate().unwrap();
        assert_ne!(key.encrypt(&parameters).unwrap(), key.encrypt(&parameters).unwrap());
    }
}
