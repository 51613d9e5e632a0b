//! Certificates, keys and key stores from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedrock::Secret;
use key_store::{CertificatesError, KeyError, KeyStore, KeyStoreError, MAX_BYTES, PairError};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why a file is not what it should be. Every text ends with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {}; check that it exists and that this user may read it", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} has more than {MAX_BYTES} bytes; give a PEM file or a key store", .0.display())]
    TooLarge(PathBuf),
    #[error("cannot take certificates from {}", path.display())]
    Certificates { path: PathBuf, source: CertificatesError },
    #[error("cannot take a private key from {}", path.display())]
    Key { path: PathBuf, source: KeyError },
    #[error("cannot use the key in {} with the certificate in {}", key.display(), certificate.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: PairError },
    #[error("cannot use the key store {}", path.display())]
    Store { path: PathBuf, source: KeyStoreError },
}

impl FileError {
    /// The kernel says that there is no such file, as opposed to one that cannot be read.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Every certificate of a file, in order; at least one.
///
/// # Errors
/// See [`FileError`].
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates_in(&read_bounded(path)?, path)
}

/// As [`read_certificates`]; `None` when the file does not exist. Only what the kernel calls absent
/// is absent: a file that cannot be read is an error, never an empty list.
///
/// # Errors
/// See [`FileError`].
pub fn read_optional(path: &Path) -> Result<Option<Vec<CertificateDer<'static>>>, FileError> {
    match read_bounded(path) {
        Ok(bytes) => certificates_in(&bytes, path).map(Some),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

fn certificates_in(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    key_store::certificates(bytes)
        .map_err(|source| FileError::Certificates { path: path.to_owned(), source })
}

/// The private key of a file.
///
/// # Errors
/// See [`FileError`].
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let bytes = Secret::new(read_bounded(path)?);
    key_store::private_key(bytes.reveal())
        .map_err(|source| FileError::Key { path: path.to_owned(), source })
}

/// A chain and its key, each from a file, ready for TLS.
///
/// # Errors
/// See [`FileError`].
pub fn read_pair(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, FileError> {
    let chain = read_certificates(certificate)?;
    key_store::pair(chain, read_key(key)?).map_err(|source| FileError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// A JKS or PKCS#12 key store. The password is the first line of its file; `None` means
/// `default_password`.
///
/// # Errors
/// See [`FileError`].
pub fn read_key_store(
    file: &Path,
    password_file: Option<&Path>,
    default_password: &str,
) -> Result<KeyStore, FileError> {
    let bytes = Secret::new(read_bounded(file)?);
    let password = match password_file {
        Some(path) => read_password(path)?,
        None => Secret::new(default_password.to_owned()),
    };
    KeyStore::read(bytes.reveal(), &password)
        .map_err(|source| FileError::Store { path: file.to_owned(), source })
}

/// The first line of the file, without its line end.
fn read_password(path: &Path) -> Result<Secret<String>, FileError> {
    let bytes = Secret::new(read_bounded(path)?);
    let text = Secret::new(String::from_utf8_lossy(bytes.reveal()).into_owned());
    Ok(Secret::new(text.reveal().lines().next().unwrap_or_default().to_owned()))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, FileError> {
    use std::io::Read;
    let read = |source| FileError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use bedrock::chain;

    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
            std::fs::write(self.path(name), content).unwrap();
            self.path(name)
        }
    }

    fn own() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_name_and_a_remedy() {
        let (certificate, key) = own();
        let (_, other) = own();
        let files = Files::new();
        for (certificate, key, expected) in [
            (certificate.as_str(), other.as_str(), "k.pem with the certificate in "),
            (&certificate, &other, "does not belong to the certificate; give the pair"),
            (&certificate, "", "k.pem: there is no private key in it; give PEM with BEGIN PRIVATE"),
            ("", &key, "c.pem: there is no certificate in it; give PEM with BEGIN CERTIFICATE"),
            (&key, &key, "c.pem: there is no certificate in it"),
            ("-----BEGIN CERTIFICATE-----\nA", &key, "c.pem: it is not valid PEM; write it again"),
        ] {
            let (certificate, key) = (files.write("c.pem", certificate), files.write("k.pem", key));
            let error = chain(&read_pair(&certificate, &key).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        let (certificate, key) = (files.write("c.pem", certificate), files.write("k.pem", key));
        read_pair(&certificate, &key).unwrap();
    }

    #[test]
    fn only_what_the_kernel_calls_absent_is_absent() {
        let files = Files::new();
        assert_eq!(read_optional(&files.path("none.pem")).unwrap(), None);
        // As EACCES and EIO, but also for root: a directory where a file should be, a loop of
        // links, a file where a directory should be.
        let file = files.write("file", "");
        std::os::unix::fs::symlink("loop", files.path("loop")).unwrap();
        for path in [files.0.path().to_owned(), files.path("loop"), file.join("x.pem")] {
            let error = chain(&read_optional(&path).unwrap_err());
            assert!(error.starts_with("cannot read "), "{error}");
        }
        assert!(matches!(read_optional(&file), Err(FileError::Certificates { .. })));
    }

    #[test]
    fn a_file_without_an_end_is_not_read_to_its_end() {
        let error = read_certificates(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, FileError::TooLarge(_)), "{error:?}");
    }
}
