//! The files of the console page, built into the binary: our page and the unmodified noVNC core.

use std::borrow::Cow;
use std::io;
use std::path::{Component, Path, PathBuf};

use rust_embed::Embed;

/// Our page.
#[derive(Embed)]
#[folder = "web/page"]
struct Page;

/// The npm package's core, byte for byte.
#[derive(Embed)]
#[folder = "web/novnc"]
struct NoVnc;

/// Largest file served from a directory.
const FILE_LIMIT: u64 = 16 << 20;

/// One file with what HTTP wants to know about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asset {
    pub(crate) bytes: Cow<'static, [u8]>,
    pub(crate) content_type: &'static str,
    /// Strong entity tag, with its quotes.
    pub(crate) etag: String,
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

impl std::fmt::Debug for NoVnc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NoVnc")
    }
}

/// A built-in file by its path below `/resource/noVNC/`.
pub(crate) fn built_in(path: &str) -> Option<Asset> {
    let file = Page::get(path).or_else(|| NoVnc::get(path))?;
    let etag = etag(&file.metadata.sha256_hash());
    Some(Asset { bytes: file.data, content_type: content_type(path), etag })
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
    Ok(Some(Asset { bytes: bytes.into(), content_type: content_type(path), etag }))
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

    #[test]
    fn the_page_and_the_core_are_built_in_with_types_and_tags() {
        let page = built_in("vnc.html").unwrap();
        assert_eq!(page.content_type, "text/html; charset=utf-8");
        let core = built_in("core/rfb.js").unwrap();
        assert_eq!(core.content_type, "text/javascript; charset=utf-8");
        assert!(core.etag.len() == 26 && core.etag != page.etag, "{}", core.etag);
        assert!(built_in("vendor/pako/lib/zlib/inflate.js").is_some());
        for missing in ["", "core", "../Cargo.toml", "core/../vnc.html", "package.json"] {
            assert_eq!(built_in(missing), None, "{missing}");
        }
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
