//! A self-signed certificate for a listener that was given none.
//!
//! It is kept in a file, because whoever has told a browser to accept it does not want to do so
//! again at each restart. It is made anew when it is not for the same names any more, and some time
//! before its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use key_store::certificate::{alternative_names, expires_at};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::sign::CertifiedKey;

use crate::files::{self, FileError};

/// How long it is valid; what browsers allow for any certificate.
const VALIDITY: Duration = Duration::from_hours(397 * 24);
/// Made anew so long before its end.
const RENEWED_BEFORE: Duration = Duration::from_hours(30 * 24);
/// Clocks of clients may be late.
const VALID_BEFORE: Duration = Duration::from_hours(24);
/// Readable by this user only: the key is in it.
const MODE: u32 = 0o600;

/// Why there is no certificate of our own.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    #[error("cannot make a certificate for {names}")]
    Make { names: String, source: rcgen::Error },
    #[error("cannot write {}; check that this user may write there", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Read(#[from] FileError),
}

/// The pair kept in `file`, or a new one for these names (DNS names and addresses), kept there from
/// now on. Blocks.
///
/// # Errors
/// See [`OwnError`].
pub fn own_pair(
    file: &Path,
    names: &[String],
    now: SystemTime,
) -> Result<Arc<CertifiedKey>, OwnError> {
    if let Ok(pair) = files::read_pair(file, file)
        && is_good(&pair, names, now)
    {
        return Ok(pair);
    }
    let pem =
        make(names, now).map_err(|source| OwnError::Make { names: names.join(", "), source })?;
    let written = match file.parent() {
        Some(directory) => std::fs::create_dir_all(directory),
        None => Ok(()),
    };
    written
        .and_then(|()| bedrock::files::replace(file, pem.as_bytes(), MODE))
        .map_err(|source| OwnError::Write { path: file.to_owned(), source })?;
    Ok(files::read_pair(file, file)?)
}

fn is_good(pair: &CertifiedKey, names: &[String], now: SystemTime) -> bool {
    let seconds = |time: SystemTime| {
        i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
            .unwrap_or(i64::MAX)
    };
    pair.cert.first().is_some_and(|certificate| {
        alternative_names(certificate) == names
            && expires_at(certificate).is_some_and(|end| end > seconds(now + RENEWED_BEFORE))
    })
}

/// Certificate and key as PEM.
fn make(names: &[String], now: SystemTime) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    let name = names.first().map_or("quickcloud", String::as_str);
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since.saturating_sub(VALID_BEFORE);
    params.not_after = epoch + since + VALIDITY;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_kept_until_its_names_or_its_end_want_another() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("deep/own.pem");
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (one, two) = (names(&["203.0.113.7", "a.example.org", "::1"]), names(&["203.0.113.8"]));
        let now = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let take = |names: &[String], now| own_pair(&file, names, now).unwrap().cert[0].clone();
        let first = take(&one, now);
        assert_eq!(alternative_names(&first), one);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(take(&one, now), first, "kept");
        assert_eq!(take(&one, now + VALIDITY / 2), first, "kept");
        let second = take(&one, now + VALIDITY - RENEWED_BEFORE);
        assert_ne!(second, first, "its end is near");
        assert_ne!(take(&two, now), second, "for another address");
        std::fs::write(&file, "damaged").unwrap();
        take(&two, now);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("file"), "").unwrap();
        let file = temp.path().join("file/own.pem");
        let error = own_pair(&file, &["a".to_owned()], UNIX_EPOCH).unwrap_err();
        assert!(error.to_string().contains("file/own.pem; check that"), "{error}");
    }
}
