//! Random bytes from the TLS provider's generator: nonces, keys, passwords and link sequence bases
//! come from one place, so that no second source of randomness is linked in.

use rustls::crypto::aws_lc_rs;

/// The system's random generator did not deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read random bytes")]
pub struct RandomError;

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut buffer = [0_u8; N];
    aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut buffer)
        .map_err(|_: rustls::crypto::GetRandomFailed| RandomError)?;
    Ok(buffer)
}

/// A password of `length` letters and digits, as the original makes for `/copy`.
pub(crate) fn password(length: usize) -> Result<String, RandomError> {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";
    let mut text = String::with_capacity(length);
    while text.len() < length {
        for byte in bytes::<32>()? {
            // Bytes beyond the last whole multiple of the alphabet would favour its beginning.
            let usable = usize::from(byte) < LETTERS.len() * (256 / LETTERS.len());
            if let Some(letter) = LETTERS.get(usize::from(byte) % LETTERS.len())
                && usable
                && text.len() < length
            {
                text.push(char::from(*letter));
            }
        }
    }
    Ok(text)
}

/// Eight hexadecimal digits, the log id that a server puts into its commands.
pub(crate) fn log_id() -> Result<String, RandomError> {
    Ok(format!("{:08x}", u32::from_be_bytes(bytes::<4>()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_have_the_asked_length_and_differ() {
        let one = password(12).unwrap();
        assert_eq!(one.len(), 12);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(one, password(12).unwrap());
        assert_eq!(password(0).unwrap(), "");
    }

    #[test]
    fn log_ids_are_eight_hexadecimal_digits() {
        let id = log_id().unwrap();
        assert!(id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
}
