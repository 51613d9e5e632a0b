//! The files of the console page: built into the binary, compressed, or from the operator's
//! directory.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use axum::http::HeaderMap;
use axum::http::header::ACCEPT_ENCODING;
use flate2::read::GzDecoder;

/// A file as the build script packs it.
struct Packed {
    /// Below `/resource/noVNC/`.
    path: &'static str,
    /// Of the content.
    tag: &'static str,
    /// The path changes with the content.
    named: bool,
    /// Bytes unpacked.
    length: usize,
    gz: &'static [u8],
    br: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/packed.rs"));

/// Largest file served from a directory.
const FILE_LIMIT: u64 = 16 << 20;

/// How bytes are packed on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Brotli,
}

impl Encoding {
    /// The value of `Content-Encoding`.
    pub(crate) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Brotli => Some("br"),
        }
    }

    /// The best one that a client takes (RFC 9110 §12.5.3): what it refuses with `q=0` is not used.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let mut best = Self::Identity;
        let values =
            headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for item in values.flat_map(|value| value.split(',')) {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let refused = parts
                .filter_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .any(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0));
            match name.to_ascii_lowercase().as_str() {
                _ if refused => {}
                "br" => best = Self::Brotli,
                "gzip" | "x-gzip" if best == Self::Identity => best = Self::Gzip,
                _ => {}
            }
        }
        best
    }
}

/// One file with what HTTP wants to know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asset {
    pub(crate) bytes: Cow<'static, [u8]>,
    pub(crate) encoding: Encoding,
    pub(crate) content_type: &'static str,
    /// Strong entity tag, with its quotes.
    pub(crate) etag: String,
    /// The content of this path never changes.
    pub(crate) immutable: bool,
}

/// A built-in file by its path below `/resource/noVNC/`.
pub(crate) fn built_in(path: &str, accepted: Encoding) -> Option<Asset> {
    let file = PACKED.iter().find(|file| file.path == path)?;
    let bytes = match accepted {
        Encoding::Brotli => Cow::Borrowed(file.br),
        Encoding::Gzip => Cow::Borrowed(file.gz),
        Encoding::Identity => {
            let mut bytes = Vec::with_capacity(file.length);
            // Packed by ourselves.
            GzDecoder::new(file.gz).read_to_end(&mut bytes).ok()?;
            Cow::Owned(bytes)
        }
    };
    // Each representation has a tag of its own.
    let etag = match accepted.name() {
        Some(name) => format!("\"{}-{name}\"", file.tag),
        None => format!("\"{}\"", file.tag),
    };
    let (content_type, immutable) = (content_type(path), file.named);
    Some(Asset { bytes, encoding: accepted, content_type, etag, immutable })
}

/// The same from a directory; `None` for what is not there or not for viewers. Blocking.
pub(crate) fn from_directory(directory: &Path, path: &str) -> io::Result<Option<Asset>> {
    use sha2::Digest;
    let relative = PathBuf::from(path);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.is_empty() {
        return Ok(None);
    }
    let directory = directory.canonicalize()?;
    let file = match directory.join(relative).canonicalize() {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !file.starts_with(&directory) || !metadata.is_file() {
        return Ok(None);
    }
    if metadata.len() > FILE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
    }
    let bytes = std::fs::read(&file)?;
    let etag = etag(&sha2::Sha256::digest(&bytes));
    let (encoding, content_type) = (Encoding::Identity, content_type(path));
    Ok(Some(Asset { bytes: bytes.into(), encoding, content_type, etag, immutable: false }))
}

/// Not there, as opposed to "cannot be looked at". A name that no file can have is not there.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename | InvalidInput)
}

fn etag(hash: &[u8]) -> String {
    let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// By extension; module scripts are refused by browsers under any other type.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg") => "image/jpeg",
        Some("ico") => "image/x-icon",
        Some("woff") => "font/woff",
        Some("woff2") => "font/woff2",
        Some("ttf") => "font/ttf",
        Some("oga" | "ogg") => "audio/ogg",
        Some("mp3") => "audio/mpeg",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ if path.ends_with("AUTHORS") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(path: &str) -> String {
        String::from_utf8(built_in(path, Encoding::Identity).unwrap().bytes.into_owned()).unwrap()
    }

    #[test]
    fn the_page_names_files_that_are_there_and_never_change() {
        let page = text_of("vnc.html");
        let mut named = 0;
        for reference in page.split(['"', '\'']).filter(|text| text.starts_with("app/")) {
            let asset = built_in(reference, Encoding::Identity).unwrap();
            assert!(asset.immutable, "{reference}");
            named += 1;
        }
        assert_eq!(named, 3, "{page}");
        assert!(!built_in("vnc.html", Encoding::Identity).unwrap().immutable);
        assert!(text_of("LICENSE.txt").contains("MPL"));
        for missing in ["", "app", "../Cargo.toml", "app/../vnc.html", "package.json"] {
            assert_eq!(built_in(missing, Encoding::Gzip), None, "{missing}");
        }
    }

    #[test]
    fn every_packing_holds_the_same_bytes_under_a_tag_of_its_own() {
        for file in PACKED {
            let plain = built_in(file.path, Encoding::Identity).unwrap();
            assert_eq!(plain.bytes.len(), file.length, "{}", file.path);
            let mut inflated = Vec::new();
            GzDecoder::new(file.gz).read_to_end(&mut inflated).unwrap();
            assert_eq!(inflated, plain.bytes.as_ref());
            let mut unpacked = Vec::new();
            brotli::BrotliDecompress(&mut &*file.br, &mut unpacked).unwrap();
            assert_eq!(unpacked, plain.bytes.as_ref());
            let tags = [Encoding::Identity, Encoding::Gzip, Encoding::Brotli]
                .map(|encoding| built_in(file.path, encoding).unwrap().etag);
            assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2]);
        }
    }

    #[test]
    fn the_packing_is_what_the_client_takes() {
        let check = |values: &[&'static str], expected: Encoding| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, value.parse().unwrap());
            }
            assert_eq!(Encoding::accepted(&headers), expected, "{values:?}");
        };
        check(&[], Encoding::Identity);
        check(&["gzip, deflate, br, zstd"], Encoding::Brotli);
        check(&["gzip"], Encoding::Gzip);
        check(&["br;q=0, gzip;q=0.5"], Encoding::Gzip);
        check(&["deflate", "GZIP"], Encoding::Gzip);
        check(&["br;q=0", "gzip; q=0.0"], Encoding::Identity);
        check(&["identity, *;q=0"], Encoding::Identity);
    }

    #[test]
    fn a_directory_gives_its_files_and_nothing_outside() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("novnc");
        std::fs::create_dir_all(directory.join("app")).unwrap();
        std::fs::write(base.path().join("secret"), "s").unwrap();
        std::fs::write(directory.join("app/ui.js"), "x").unwrap();
        std::os::unix::fs::symlink("../secret", directory.join("link")).unwrap();
        let asset = from_directory(&directory, "app/ui.js").unwrap().unwrap();
        assert_eq!(
            (&*asset.bytes, asset.content_type),
            (&b"x"[..], "text/javascript; charset=utf-8")
        );
        let long = "x".repeat(300);
        let absent = ["app/none", "app/ui.js/x", "nul\0", long.as_str()];
        let outside = ["link", "../secret", "app", "/etc/passwd", "app/../../secret", ""];
        for path in absent.iter().chain(&outside) {
            assert_eq!(from_directory(&directory, path).unwrap(), None, "{path}");
        }
        // What cannot be read is not the same as what is not there.
        std::os::unix::fs::symlink("loop", directory.join("loop")).unwrap();
        assert!(from_directory(&directory, "loop").is_err());
        assert!(from_directory(&base.path().join("gone"), "vnc.html").is_err());
    }
}
