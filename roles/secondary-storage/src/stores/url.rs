//! URLs of stores, and the directory name that follows from one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::redacted::RedactedUrl;

/// Where a store is, as the management server names it: `nfs://10.0.0.9/export/sec`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreUrl {
    scheme: String,
    host: String,
    path: String,
}

/// The text is not a store's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a store URL (nfs://HOST/PATH)")]
pub struct StoreUrlError(RedactedUrl);

impl StoreUrl {
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Name or address, without brackets; empty for a directory of this machine.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// As written, decoded; a trailing slash counts.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Two URLs with the same key are the same store: only a trailing slash may differ.
    pub fn key(&self) -> String {
        self.with_path(self.path.trim_end_matches('/'))
    }

    /// A text that is read as the same URL again.
    fn with_path(&self, path: &str) -> String {
        let path = utf8_percent_encode(path, AMBIGUOUS);
        match self.host.parse::<Ipv6Addr>() {
            Ok(host) => format!("{}://[{host}]{path}", self.scheme),
            Err(_) => format!("{}://{}{path}", self.scheme, self.host),
        }
    }

    /// The directory name that the management server's records refer to.
    pub fn directory_name(&self, address: IpAddr) -> String {
        name_uuid(format!("{}:{}", java_address(address), self.path).as_bytes()).to_string()
    }
}

/// What would be read as something else in a path.
const AMBIGUOUS: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');

/// Java's `UUID.nameUUIDFromBytes`: version 3 over the bytes alone, without a namespace.
pub fn name_uuid(bytes: &[u8]) -> Uuid {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    uuid::Builder::from_md5_bytes(digest).into_uuid()
}

/// An address as Java prints it: IPv6 in full, without compression.
fn java_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let groups: Vec<String> =
                address.segments().iter().map(|group| format!("{group:x}")).collect();
            groups.join(":")
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_path(&self.path))
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || StoreUrlError(RedactedUrl::of(text));
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(bad)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit('@').next().unwrap_or_default();
        // The port tells apart what two object servers of a host keep under the same name.
        let keeps_port = scheme.eq_ignore_ascii_case("s3") && has_port(authority);
        let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            _ if keeps_port => Some(authority),
            Some((inner, _port)) => Some(inner).filter(|inner| inner.parse::<Ipv6Addr>().is_ok()),
            // An address without brackets is meant, whatever the standard says.
            None if authority.parse::<Ipv6Addr>().is_ok() => Some(authority),
            // A directory of this machine.
            None if authority.is_empty() && scheme.eq_ignore_ascii_case("file") => Some(""),
            None => authority.split(':').next().filter(|host| is_host_name(host)),
        };
        let host = host.ok_or_else(bad)?;
        let valid_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
        let path = percent_decode(path);
        if !valid_scheme || path.chars().any(char::is_control) {
            return Err(bad());
        }
        Ok(Self { scheme: scheme.to_ascii_lowercase(), host: host.to_ascii_lowercase(), path })
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = StoreUrlError;

    fn try_from(text: String) -> Result<Self, StoreUrlError> {
        text.parse()
    }
}

impl From<StoreUrl> for String {
    fn from(url: StoreUrl) -> Self {
        url.to_string()
    }
}

/// `HOST:PORT` or `[ADDRESS]:PORT`.
fn has_port(authority: &str) -> bool {
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    is_host && port.parse::<u16>().is_ok()
}

fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        && !host.starts_with('-')
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, address: &str, expected: &str) {
        let url: StoreUrl = url.parse().unwrap();
        assert_eq!(url.directory_name(address.parse().unwrap()), expected, "{url}");
    }

    #[test]
    fn directory_names_are_those_of_the_original() {
        check(
            "nfs://192.168.1.10/exports/secondary",
            "192.168.1.10",
            "6f427b4f-3373-307e-9319-bb7f85cc840f",
        );
        check(
            "nfs://192.168.1.10/exports/secondary/",
            "192.168.1.10",
            "5bcbcfe9-eb12-38fd-bdc5-bc86269ce013",
        );
        check(
            "nfs://nas.example/export/secondary",
            "10.1.1.5",
            "665d3814-9fdc-3bca-8727-7c2d56b42bd1",
        );
        check("nfs://127.0.0.1/export/sec", "127.0.0.1", "b523f0c4-0847-33cd-bb44-f46c4da95327");
        check("nfs://127.0.0.1/export/sec2", "127.0.0.1", "6a95e0af-0bf0-3bb1-8b31-586af122ee52");
    }

    #[test]
    fn urls_are_taken_apart() {
        for text in ["s3://127.0.0.1:9000/sec", "s3://[::1]:9000/sec", "s3://h.example/sec"] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.path()), (text, "/sec"));
            assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
        }
        let url: StoreUrl = "nfs://[fd00::1]:2049/a%20b/?x=1".parse().unwrap();
        assert_eq!((url.host(), url.path()), ("fd00::1", "/a b/"));
        assert_eq!(url.to_string(), "nfs://[fd00::1]/a b/");
        assert_eq!(url.key(), "nfs://[fd00::1]/a b");
        assert_eq!(java_address("fd00::1".parse().unwrap()), "fd00:0:0:0:0:0:0:1");
        for bad in
            ["", "nfs:/x", "nfs:///x", "nfs://a b/x", "nfs://-o/x", "/srv/sec", "nfs://[::1/x"]
        {
            assert!(bad.parse::<StoreUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_printed_is_read_as_the_same_store() {
        for text in [
            "nfs://10.0.0.9/export/sec",
            "nfs://[fd00::1]/x",
            "nfs://fd00::1/x/",
            "nfs://nas.example:2049/a%20b%25c%3Fd",
            "cifs://u:p@h/share?user=u&password=p",
            "file:///srv/sec",
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url, "{text}");
            let by_key: StoreUrl = url.key().parse().unwrap();
            assert_eq!(by_key.key(), url.key(), "{text}");
        }
    }

    #[test]
    fn no_secret_of_a_malformed_url_is_told() {
        for text in ["cifs:/h/s?user=u&password=geheim", "nfs://u:geheim@-/x", "geheim@h"] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
        }
    }
}
