//! The console token: what the management server lets a browser carry to us.
//!
//! The server encrypts what a console needs (where the VM's screen is, its password, a ticket)
//! with a key that it hands to every proxy when the proxy registers. Today that is AES-256-GCM;
//! servers before 4.18.1 used AES-128-CBC with the same key material.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bedrock::Secret;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::resume::Tickets;
use crate::upstream::Upstream;

/// Longest token looked at; real ones have 500 to 1200 characters.
pub(crate) const TOKEN_LIMIT: usize = 4096;
const NONCE_LENGTH: usize = 12;
const BLOCK_LENGTH: usize = 16;

/// Both alphabets are mapped to this one; padding may be there or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text: Zeroizing<String> = Zeroizing::new(
        text.trim_end_matches('=')
            .chars()
            .map(|c| match c {
                '+' => '-',
                '/' => '_',
                other => other,
            })
            .collect(),
    );
    LENIENT.decode(text.as_bytes()).ok().map(Zeroizing::new)
}

/// Why the server's key material cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the console key from the management server is not JSON with two keys")]
    Shape,
    #[error("the console key from the management server is not twice 16 bytes of Base64")]
    Length,
}

/// Why a token is refused. One variant on purpose: the difference between a bad padding and a bad
/// content would help to forge tokens of the old cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the console link is damaged or was issued with another key")]
pub struct TokenError;

/// The key for tokens, as the server sent it.
pub struct TokenKey {
    key: Zeroizing<[u8; 16]>,
    vector: Zeroizing<[u8; 16]>,
    gcm: Aes256Gcm,
    /// A server issues tokens of one kind; after the first of today's kind the old one is refused,
    /// since it is not authenticated.
    seen_gcm: AtomicBool,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(***)")
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        (self.key.ct_eq(&*other.key) & self.vector.ct_eq(&*other.vector)).into()
    }
}

/// The JSON inside `encryptorPassword`.
#[derive(Deserialize)]
struct KeyMaterial {
    #[serde(rename = "base64EncodedKeyBytes")]
    key: String,
    #[serde(rename = "base64EncodedIvBytes")]
    vector: String,
}

impl Drop for KeyMaterial {
    fn drop(&mut self) {
        self.key.zeroize();
        self.vector.zeroize();
    }
}

impl TokenKey {
    /// Reads the JSON text that the server sends as the encryptor's password.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let material: KeyMaterial = serde_json::from_str(text).map_err(|_error| KeyError::Shape)?;
        let sixteen = |text: &str| {
            let bytes = decode(text).ok_or(KeyError::Length)?;
            bytes.as_slice().try_into().map(Zeroizing::new).map_err(|_error| KeyError::Length)
        };
        let key: Zeroizing<[u8; 16]> = sixteen(&material.key)?;
        let vector = sixteen(&material.vector)?;
        let gcm = Aes256Gcm::new(&Sha256::digest(key.as_slice()));
        Ok(Self { key, vector, gcm, seen_gcm: AtomicBool::new(false) })
    }

    /// Tickets for coming back, under a key that follows from this one.
    pub(crate) fn tickets(&self) -> Tickets {
        let digest = Sha256::new()
            .chain_update(b"quickcloud console resume 1")
            .chain_update(self.key.as_slice())
            .chain_update(self.vector.as_slice())
            .finalize();
        Tickets::new(Zeroizing::new(digest.into()))
    }

    /// Decrypts and reads a token as it stood in a link.
    pub fn open(&self, token: &str) -> Result<ConsoleToken, TokenError> {
        if token.is_empty() || token.len() > TOKEN_LIMIT {
            return Err(TokenError);
        }
        let bytes = decode(token).ok_or(TokenError)?;
        if let Some(plaintext) = self.open_gcm(&bytes) {
            let token = ConsoleToken::parse(&plaintext)?;
            self.seen_gcm.store(true, Ordering::Relaxed);
            return Ok(token);
        }
        if self.seen_gcm.load(Ordering::Relaxed) {
            return Err(TokenError);
        }
        ConsoleToken::parse(&self.open_cbc(&bytes).ok_or(TokenError)?)
    }

    fn open_gcm(&self, bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LENGTH)?;
        let nonce: Nonce<_> = <[u8; NONCE_LENGTH]>::try_from(nonce).ok()?.into();
        let payload = Payload { msg: sealed, aad: self.vector.as_slice() };
        self.gcm.decrypt(&nonce, payload).ok().map(Zeroizing::new)
    }

    /// The cipher of servers before 4.18.1.
    fn open_cbc(&self, bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(BLOCK_LENGTH) {
            return None;
        }
        let cipher =
            cbc::Decryptor::<aes::Aes128>::new(&(*self.key).into(), &(*self.vector).into());
        cipher.decrypt_padded_vec::<Pkcs7>(bytes).ok().map(Zeroizing::new)
    }
}

/// A console as the server describes it. Everything a console needs comes from here and nothing
/// from the URL around it.
#[derive(Debug, Clone)]
pub struct ConsoleToken {
    /// Where the VNC server is, exactly as in the token: the ticket covers these texts.
    pub host: String,
    pub port: i32,
    /// Password of the VM's VNC server; the management server calls it sid.
    pub sid: Secret<String>,
    /// UUID of the VM.
    pub vm: String,
    pub display_name: String,
    pub ticket: Secret<String>,
    /// The client's address as the server saw it.
    pub source: Option<String>,
    pub session: Option<String>,
    /// Every console of this VM is a viewer of its own.
    pub new_viewer: bool,
    /// What the caller of the API wants to see in the URL besides the token.
    pub extra: Option<Secret<String>>,
    /// How the VNC server is reached; `None` when the token does not say.
    pub upstream: Option<Upstream>,
}

/// Members as they stand in the token; unknown ones are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    client_host_address: Option<String>,
    client_host_port: Option<i32>,
    client_host_password: Option<String>,
    client_tag: Option<String>,
    client_display_name: Option<String>,
    client_tunnel_url: Option<String>,
    client_tunnel_session: Option<String>,
    hyperv_host: Option<String>,
    websocket_url: Option<String>,
    ticket: Option<String>,
    #[serde(rename = "sourceIP")]
    source: Option<String>,
    session_uuid: Option<String>,
    session_requires_new_viewer: Option<bool>,
    extra_security_token: Option<String>,
}

impl Members {
    /// The first of these that is filled in counts.
    fn upstream(&self) -> Option<Upstream> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        if let Some(host) = filled(&self.hyperv_host) {
            return Some(Upstream::HyperV { host });
        }
        if let Some(url) = filled(&self.websocket_url) {
            return Some(Upstream::WebSocket { url: Secret::new(url) });
        }
        Upstream::tunnel(&text(&self.client_tunnel_url), &text(&self.client_tunnel_session))
            .or_else(|| {
                let port = self.client_host_port.unwrap_or_default();
                Upstream::tcp(&text(&self.client_host_address), port)
            })
    }
}

impl ConsoleToken {
    fn parse(plaintext: &[u8]) -> Result<Self, TokenError> {
        let members: Members = serde_json::from_slice(plaintext).map_err(|_error| TokenError)?;
        let upstream = members.upstream();
        Ok(Self {
            upstream,
            host: members.client_host_address.unwrap_or_default(),
            port: members.client_host_port.unwrap_or_default(),
            sid: Secret::new(members.client_host_password.unwrap_or_default()),
            vm: members.client_tag.unwrap_or_default(),
            display_name: members.client_display_name.unwrap_or_default(),
            ticket: Secret::new(members.ticket.unwrap_or_default()),
            source: members.source,
            session: members.session_uuid.filter(|uuid| !uuid.trim().is_empty()),
            new_viewer: members.session_requires_new_viewer.unwrap_or_default(),
            extra: members
                .extra_security_token
                .filter(|extra| !extra.trim().is_empty())
                .map(Secret::new),
        })
    }

    /// What a second console of the same VM displaces.
    pub fn viewer_key(&self) -> String {
        match &self.session {
            Some(session) if self.new_viewer => session.clone(),
            _ if !self.vm.trim().is_empty() => self.vm.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests;
