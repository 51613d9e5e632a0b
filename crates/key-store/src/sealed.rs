//! Texts that a management server sealed with a password of its own: values of its database, the
//! order of an upload.
//!
//! Since 4.18 that is AES-256-GCM under the password's SHA-256, the nonce in front. Servers before
//! that, and their successors' fall-back, wrote what Jasypt writes: in front are eight bytes of salt;
//! key and vector come from the password and the salt by 1000 rounds, the way of PKCS#12 (RFC 7292,
//! appendix B) for SHA-1 with triple DES, that of PKCS#5 (RFC 8018, 5.1) for MD5 with DES.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use md5::{Digest, Md5};

const SALT: usize = 8;
const ROUNDS: usize = 1_000;
/// Of SHA-1.
const BLOCK: usize = 64;

/// The plain text of a sealed one in Base64, if one of the ways opens it. The padding of a wrong old
/// way fits once in 256 times, so what comes of it must look like what is sealed: `is_plain`.
pub fn open(password: &str, sealed: &str, is_plain: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let bytes = BASE64_STANDARD.decode(sealed).ok()?;
    open_gcm(password, &bytes).or_else(|| open_old(password, &bytes, is_plain))
}

fn open_gcm(password: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
    let hashed = digest::digest(&digest::SHA256, password.as_bytes());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, hashed.as_ref()).ok()?);
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut sealed = sealed.to_vec();
    let length = key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?.len();
    sealed.truncate(length);
    Some(sealed)
}

fn open_old(password: &str, sealed: &[u8], is_plain: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let (salt, sealed) = sealed.split_at_checked(SALT)?;
    if !password.is_ascii() || sealed.is_empty() || !sealed.len().is_multiple_of(SALT) {
        return None;
    }
    let fits = |plain: &Vec<u8>| is_plain(plain);
    triple_des(password, salt, sealed)
        .filter(fits)
        .or_else(|| single_des(password, salt, sealed).filter(fits))
}

fn triple_des(password: &str, salt: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let key: [u8; 24] = derive(1, 24, password, salt).try_into().ok()?;
    let vector: [u8; 8] = derive(2, 8, password, salt).try_into().ok()?;
    let cipher = cbc::Decryptor::<des::TdesEde3>::new(&key.into(), &vector.into());
    cipher.decrypt_padded_vec::<Pkcs7>(sealed).ok()
}

fn single_des(password: &str, salt: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut derived: [u8; 16] = Md5::digest([password.as_bytes(), salt].concat()).into();
    for _round in 1..ROUNDS {
        derived = Md5::digest(derived).into();
    }
    let (key, vector) = derived.split_at_checked(8)?;
    let (key, vector): ([u8; 8], [u8; 8]) = (key.try_into().ok()?, vector.try_into().ok()?);
    let cipher = cbc::Decryptor::<des::Des>::new(&key.into(), &vector.into());
    cipher.decrypt_padded_vec::<Pkcs7>(sealed).ok()
}

/// `length` bytes for the purpose `id`: 1 for a key, 2 for a vector.
fn derive(id: u8, length: usize, password: &str, salt: &[u8]) -> Vec<u8> {
    // Two bytes a character, two of zeros at the end.
    let units: Vec<u8> = password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect();
    let filled = |bytes: &[u8]| {
        let length = bytes.len().div_ceil(BLOCK) * BLOCK;
        bytes.iter().copied().cycle().take(length).collect::<Vec<u8>>()
    };
    let mut input = [filled(salt), filled(&units)].concat();
    let mut out = Vec::new();
    while out.len() < length {
        let mut hashed = sha1(&[&[id; BLOCK], input.as_slice()].concat());
        for _round in 1..ROUNDS {
            hashed = sha1(&hashed);
        }
        let step: Vec<u8> = hashed.iter().copied().cycle().take(BLOCK).collect();
        for block in input.chunks_mut(BLOCK) {
            add_one_more(block, &step);
        }
        out.extend_from_slice(&hashed);
    }
    out.truncate(length);
    out
}

fn sha1(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()
}

/// `block` += `step` + 1, as numbers with the greatest byte first.
fn add_one_more(block: &mut [u8], step: &[u8]) {
    let mut carry = 1_u16;
    for (byte, step) in block.iter_mut().zip(step).rev() {
        carry += u16::from(*byte) + u16::from(*step);
        let [high, low] = carry.to_be_bytes();
        *byte = low;
        carry = u16::from(high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_sealed_that_way_is_nothing() {
        let is_object = |plain: &[u8]| plain.starts_with(b"{") && plain.ends_with(b"}");
        for sealed in [&b""[..], &[1; 8], &[1; 15], &[1; 16], &[1; 64]] {
            assert_eq!(open("k", &BASE64_STANDARD.encode(sealed), is_object), None);
        }
        assert_eq!(open("ü", &BASE64_STANDARD.encode([1; 16]), is_object), None);
        assert_eq!(open("k", "tea", is_object), None);
    }
}
