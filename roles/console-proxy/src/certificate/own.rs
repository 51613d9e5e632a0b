//! A certificate of our own, for operators who want TLS before they have a better one. Kept in the
//! state directory, so that a browser's exception for it outlives a restart.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use bedrock::Secret;
use key_store::certificate::{alternative_names, expires_at, to_pem};
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::sign::CertifiedKey;
use tls_material::{FileError, read_pair};

const CERTIFICATE: &str = "self-signed.pem";
const KEY: &str = "self-signed.key";
/// What browsers accept at most.
const DAYS: i64 = 397;
/// One that ends within this is replaced.
const LAST_DAYS: i64 = 30;
const DAY: i64 = 86_400;

/// Why there is no certificate of our own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnError {
    #[error("cannot make a self-signed certificate")]
    Make(#[from] rcgen::Error),
    #[error("cannot keep the self-signed certificate in {}", .0.display())]
    Keep(std::path::PathBuf, #[source] std::io::Error),
    #[error(transparent)]
    Read(#[from] FileError),
}

/// The one kept in `directory`, or a new one for these names. Blocks.
pub(crate) fn of_our_own(
    directory: &Path,
    names: &[String],
    now: i64,
) -> Result<Arc<CertifiedKey>, OwnError> {
    let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
    if let Ok(kept) = read_pair(&certificate, &key)
        && kept.cert.first().is_some_and(|own| {
            alternative_names(own) == names
                && expires_at(own).is_some_and(|at| at > now + LAST_DAYS * DAY)
        })
    {
        return Ok(kept);
    }
    let (made, private) = make(names, now)?;
    let keep = |path: &Path, content: &[u8], mode| {
        bedrock::files::replace(path, content, mode)
            .map_err(|source| OwnError::Keep(path.to_owned(), source))
    };
    // The key first: with it alone nothing is read, and a new pair is made.
    keep(&key, private.reveal().as_bytes(), 0o600)?;
    keep(&certificate, to_pem([made.der()]).as_bytes(), 0o644)?;
    Ok(read_pair(&certificate, &key)?)
}

fn make(names: &[String], now: i64) -> Result<(rcgen::Certificate, Secret<String>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "QuickCloud console proxy");
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    let day = |seconds: i64| {
        let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let part = |number: i8| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = day(now - DAY);
    params.not_after = day(now + DAYS * DAY - DAY);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key)?;
    Ok((certificate, Secret::new(key.serialize_pem())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_until_its_names_change_or_it_nears_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let now = jiff::Timestamp::now().as_second();
        let names = ["console.example.org".to_owned(), "192.0.2.1".to_owned()];
        let made = |names: &[String], now| {
            of_our_own(directory.path(), names, now).unwrap().cert[0].clone()
        };
        let first = made(&names, now);
        assert_eq!(alternative_names(&first), names);
        assert_eq!(made(&names, now), first);
        assert_ne!(made(&names, now + 380 * DAY), first);
        let second = made(&names[..1], now);
        assert_ne!(second, first);
        std::fs::write(directory.path().join(KEY), "torn").unwrap();
        assert_ne!(made(&names[..1], now), second);
        use std::os::unix::fs::PermissionsExt;
        let mode = directory.path().join(KEY).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
