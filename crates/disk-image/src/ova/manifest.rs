//! The manifest: `SHA256(disk1.vmdk)= 9f86…`, one line for each member.

use super::{File, MAX_MANIFEST, OvaError, slice};
use crate::{ImageError, Source, up_to};

/// What the bytes of a member must give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// `SHA1`, `SHA256`, `SHA512` or another of that family, in capitals.
    pub algorithm: String,
    /// In small letters.
    pub hex: String,
}

/// Algorithms and the digits of each.
const ALGORITHMS: [(&str, usize); 6] =
    [("MD5", 32), ("SHA1", 40), ("SHA224", 56), ("SHA256", 64), ("SHA384", 96), ("SHA512", 128)];

/// Gives every member that the manifest names its digest.
pub(super) fn apply<S: Source + ?Sized>(
    source: &S,
    manifest: &File,
    files: &mut [File],
) -> Result<(), ImageError> {
    let wrong = |line, reason: &str| OvaError::Manifest {
        name: manifest.name.clone(),
        line,
        reason: reason.to_owned(),
    };
    if manifest.length > MAX_MANIFEST {
        return Err(wrong(1, "it is too long").into());
    }
    let length = usize::try_from(manifest.length).unwrap_or(0);
    let bytes = up_to(&slice(source, manifest), 0, length)?;
    let text = std::str::from_utf8(&bytes).map_err(|_bad| wrong(1, "it is not UTF-8"))?;
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, digest) = parse(line).map_err(|reason| wrong(at + 1, reason))?;
        let file = files.iter_mut().find(|file| file.name == name);
        let file = file.ok_or_else(|| OvaError::ManifestOf(name.to_owned()))?;
        if file.digest.as_ref().is_some_and(|other| *other != digest) {
            return Err(wrong(at + 1, "it has two digests of one file").into());
        }
        file.digest = Some(digest);
    }
    Ok(())
}

pub(super) fn is_manifest(head: &[u8]) -> bool {
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    std::str::from_utf8(first).is_ok_and(|line| parse(line.trim()).is_ok())
}

fn parse(line: &str) -> Result<(&str, Digest), &'static str> {
    let (start, hex) = line.rsplit_once('=').ok_or("there is no =")?;
    let (algorithm, name) = start.split_once('(').ok_or("there is no (")?;
    let name = name.trim_end().strip_suffix(')').ok_or("there is no )")?;
    let name = name.strip_prefix("./").unwrap_or(name);
    let algorithm = algorithm.trim().replace('-', "").to_ascii_uppercase();
    let known = ALGORITHMS.iter().find(|(known, _)| *known == algorithm);
    let (_, digits) = known.ok_or("its algorithm is unknown")?;
    let hex = hex.trim().to_ascii_lowercase();
    if hex.len() != *digits || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("its digest is not as long as the algorithm's");
    }
    Ok((name, Digest { algorithm, hex }))
}
