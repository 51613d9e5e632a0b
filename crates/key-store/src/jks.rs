//! Reads Java key stores of type JKS: what a stock agent keeps its certificate in.
//!
//! ```text
//! u32 magic FEEDFEED   u32 version 1 or 2   u32 count
//! per entry: u32 tag   utf alias   u64 time in ms
//!   tag 1, private key:  u32 length, EncryptedPrivateKeyInfo   u32 chain length, certificates
//!   tag 2, certificate:  one certificate
//! certificate: utf type (version 2 only)   u32 length, DER
//! 20 bytes SHA-1 over password (UTF-16BE), "Mighty Aphrodite", everything before
//! ```
//!
//! The key protection is an XOR with a chain of SHA-1 digests, a keyed digest of the plain key at
//! the end. It protects nothing by today's measure; it only has to be read.

use bedrock::Secret;
use rustls_pki_types::CertificateDer;
use sha1::{Digest, Sha1};

/// First four bytes of every JKS file.
pub const MAGIC: [u8; 4] = [0xFE, 0xED, 0xFE, 0xED];
const WHITENER: &[u8] = b"Mighty Aphrodite";
/// 1.3.6.1.4.1.42.2.17.1.1, the key protector of this format.
const PROTECTOR_OID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01];
const DIGEST_LEN: usize = 20;
/// A store of an agent has a handful of entries, each of a few KiB.
const MAX_ENTRIES: u32 = 1000;

/// Why a JKS file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JksError {
    #[error("the file is cut off at byte {0}")]
    Truncated(usize),
    #[error("the file is not of a known JKS form at byte {0}")]
    Malformed(usize),
    #[error("the password is wrong or the file is damaged")]
    Password,
    #[error("the private key of entry {0:?} has another password than the store")]
    KeyPassword(String),
}

/// A private key with its chain, the key's own certificate first.
#[derive(Debug)]
pub struct KeyEntry {
    /// As the store names it; only to be shown.
    pub alias: String,
    /// PKCS#8 DER.
    pub key: Secret<Vec<u8>>,
    /// The key's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
}

/// The entries of a store in file order.
#[derive(Debug, Default)]
pub struct JavaKeyStore {
    /// Private keys with their chains.
    pub keys: Vec<KeyEntry>,
    /// Certificates that the store trusts.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl JavaKeyStore {
    /// Reads a whole file; keys must have the store's password, as stock agents' have.
    pub fn read(bytes: &[u8], password: &str) -> Result<Self, JksError> {
        let password = utf16(password);
        let content_len = bytes.len().saturating_sub(DIGEST_LEN);
        let (content, trailer) =
            bytes.split_at_checked(content_len).ok_or(JksError::Truncated(bytes.len()))?;
        let mut reader = Reader { bytes: content, at: 0 };
        if reader.take(4)? != MAGIC.as_slice() {
            return Err(JksError::Malformed(0));
        }
        let version = reader.u32()?;
        if version != 1 && version != 2 {
            return Err(JksError::Malformed(4));
        }
        let keyed = Sha1::new()
            .chain_update(password.reveal())
            .chain_update(WHITENER)
            .chain_update(content)
            .finalize();
        if keyed.as_slice() != trailer {
            return Err(JksError::Password);
        }
        let count = reader.u32()?;
        if count > MAX_ENTRIES {
            return Err(JksError::Malformed(8));
        }
        let mut store = Self::default();
        for _entry in 0..count {
            store.read_entry(&mut reader, version, &password)?;
        }
        Ok(store)
    }

    fn read_entry(
        &mut self,
        reader: &mut Reader<'_>,
        version: u32,
        password: &Secret<Vec<u8>>,
    ) -> Result<(), JksError> {
        let start = reader.at;
        let tag = reader.u32()?;
        let alias = reader.utf()?;
        reader.take(8)?;
        match tag {
            1 => {
                let sealed = sealed_bytes(reader.block()?).ok_or(JksError::Malformed(start))?;
                let key =
                    open(sealed, password).ok_or_else(|| JksError::KeyPassword(alias.clone()))?;
                let length = reader.u32()?;
                if length > MAX_ENTRIES {
                    return Err(JksError::Malformed(reader.at));
                }
                let mut chain = Vec::new();
                for _certificate in 0..length {
                    chain.push(reader.certificate(version)?);
                }
                self.keys.push(KeyEntry { alias, key, chain });
            }
            2 => self.certificates.push(reader.certificate(version)?),
            _ => return Err(JksError::Malformed(start)),
        }
        Ok(())
    }
}

fn utf16(text: &str) -> Secret<Vec<u8>> {
    Secret::new(text.encode_utf16().flat_map(u16::to_be_bytes).collect())
}

/// `None` when the password does not fit.
fn open(sealed: &[u8], password: &Secret<Vec<u8>>) -> Option<Secret<Vec<u8>>> {
    let (salt, rest) = sealed.split_at_checked(DIGEST_LEN)?;
    let (cipher, check) = rest.split_at_checked(rest.len().checked_sub(DIGEST_LEN)?)?;
    let mut stream = salt.to_vec();
    let mut plain = Vec::with_capacity(cipher.len());
    for block in cipher.chunks(DIGEST_LEN) {
        stream =
            Sha1::new().chain_update(password.reveal()).chain_update(&stream).finalize().to_vec();
        plain.extend(block.iter().zip(&stream).map(|(byte, pad)| byte ^ pad));
    }
    let plain = Secret::new(plain);
    let keyed = Sha1::new().chain_update(password.reveal()).chain_update(plain.reveal()).finalize();
    (keyed.as_slice() == check).then_some(plain)
}

/// The OCTET STRING of `SEQUENCE { SEQUENCE { OID, NULL }, OCTET STRING }`.
fn sealed_bytes(info: &[u8]) -> Option<&[u8]> {
    let (body, rest) = der(info, 0x30)?;
    if !rest.is_empty() {
        return None;
    }
    let (algorithm, rest) = der(body, 0x30)?;
    let (oid, _parameters) = der(algorithm, 0x06)?;
    if oid != PROTECTOR_OID {
        return None;
    }
    Some(der(rest, 0x04)?.0)
}

/// Content and rest of the DER value at the beginning of `bytes`, if it has `tag`.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    if *found != tag {
        return None;
    }
    let (first, rest) = rest.split_first()?;
    if *first < 0x80 {
        return rest.split_at_checked(usize::from(*first));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
    if length.len() > 4 {
        return None;
    }
    let length = length.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
    rest.split_at_checked(length)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], JksError> {
        let end = self.at.checked_add(length).ok_or(JksError::Truncated(self.at))?;
        let taken = self.bytes.get(self.at..end).ok_or(JksError::Truncated(self.at))?;
        self.at = end;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, JksError> {
        Ok(self.take(4)?.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte)))
    }

    fn block(&mut self) -> Result<&'a [u8], JksError> {
        let length = usize::try_from(self.u32()?).map_err(|_big| JksError::Truncated(self.at))?;
        self.take(length)
    }

    /// Aliases are modified UTF-8; they are only shown, so anything odd is replaced.
    fn utf(&mut self) -> Result<String, JksError> {
        let length = self.take(2)?.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn certificate(&mut self, version: u32) -> Result<CertificateDer<'static>, JksError> {
        if version == 2 {
            let at = self.at;
            if self.utf()? != "X.509" {
                return Err(JksError::Malformed(at));
            }
        }
        Ok(CertificateDer::from(self.block()?.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "q83vEjRWeJCrze8SNFZ4kA==";
    /// As a JDK 17 writes it.
    const EMPTY: &str = "feedfeed00000002000000009e72910c5cf1c8b4ae90139e07bf6f9341f1e024";
    /// Salt 00…13, plaintext "0123456789abcdefghijklmnopqrst".
    const SEALED: &str = "000102030405060708090a0b0c0d0e0f101112136aac16ccd9622ed2604a2de36823417ab\
                          146f924a7fab1f7a54db3b2e732de13d7927deaee858d6447f3721e5882167cb30a";

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn sealed_info(sealed: &[u8]) -> Vec<u8> {
        let mut algorithm = vec![0x30, 0x0e, 0x06, 0x0a];
        algorithm.extend_from_slice(PROTECTOR_OID);
        algorithm.extend_from_slice(&[0x05, 0x00]);
        let length = u8::try_from(sealed.len()).unwrap();
        let mut body = algorithm;
        body.extend_from_slice(&[0x04, length]);
        body.extend_from_slice(sealed);
        let mut info = vec![0x30, u8::try_from(body.len()).unwrap()];
        info.extend_from_slice(&body);
        info
    }

    #[test]
    fn the_empty_store_of_a_jdk_is_read() {
        let store = JavaKeyStore::read(&unhex(EMPTY), PASSWORD).unwrap();
        assert!(store.keys.is_empty() && store.certificates.is_empty());
    }

    #[test]
    fn a_wrong_password_and_a_flipped_byte_are_told() {
        let mut bytes = unhex(EMPTY);
        assert_eq!(JavaKeyStore::read(&bytes, "x").unwrap_err(), JksError::Password);
        bytes[11] ^= 1;
        assert_eq!(JavaKeyStore::read(&bytes, PASSWORD).unwrap_err(), JksError::Password);
        bytes[0] ^= 1;
        assert_eq!(JavaKeyStore::read(&bytes, PASSWORD).unwrap_err(), JksError::Malformed(0));
    }

    #[test]
    fn a_protected_key_is_opened_with_the_right_password_only() {
        let info = sealed_info(&unhex(SEALED));
        let sealed = sealed_bytes(&info).unwrap();
        let plain = open(sealed, &utf16(PASSWORD)).unwrap();
        assert_eq!(plain.reveal(), b"0123456789abcdefghijklmnopqrst");
        assert_eq!(open(sealed, &utf16("x")), None);
        assert_eq!(sealed_bytes(&info[1..]), None);
    }

    #[test]
    fn every_prefix_is_an_error_and_never_a_panic() {
        let bytes = unhex(EMPTY);
        for end in 0..bytes.len() {
            assert!(JavaKeyStore::read(&bytes[..end], PASSWORD).is_err(), "{end}");
        }
    }
}
