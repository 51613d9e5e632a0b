//! URLs of stores, and the directory name that follows from one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use md5::{Digest, Md5};
use uuid::Uuid;

/// Where a store is, as the management server names it: `nfs://10.0.0.9/export/sec`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreUrl {
    scheme: String,
    host: String,
    path: String,
}

/// The text is not a store's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a store URL (nfs://HOST/PATH)")]
pub struct StoreUrlError(pub String);

impl StoreUrl {
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// As written, decoded; a trailing slash counts.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Two URLs with the same key are the same store: only a trailing slash may differ.
    pub fn key(&self) -> String {
        let path = self.path.trim_end_matches('/');
        format!("{}://{}{path}", self.scheme, self.host)
    }

    /// The directory name that the management server's records refer to.
    pub fn directory_name(&self, address: IpAddr) -> String {
        name_uuid(format!("{}:{}", java_address(address), self.path).as_bytes()).to_string()
    }
}

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
        let host = &self.host;
        if host.contains(':') {
            write!(f, "{}://[{host}]{}", self.scheme, self.path)
        } else {
            write!(f, "{}://{host}{}", self.scheme, self.path)
        }
    }
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || StoreUrlError(text.to_owned());
        let (scheme, rest) = text.trim().split_once("://").ok_or_else(bad)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inner, _port)) => inner,
            None => host.split(':').next().unwrap_or_default(),
        };
        let valid_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric());
        let valid_host = !host.is_empty()
            && host.len() <= 253
            && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c))
            && !host.starts_with('-');
        let path = percent_decode(path);
        if !valid_scheme || !valid_host || path.chars().any(char::is_control) {
            return Err(bad());
        }
        Ok(Self { scheme: scheme.to_ascii_lowercase(), host: host.to_ascii_lowercase(), path })
    }
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
        let url: StoreUrl = "nfs://[fd00::1]:2049/a%20b/?x=1".parse().unwrap();
        assert_eq!((url.host(), url.path()), ("fd00::1", "/a b/"));
        assert_eq!(url.to_string(), "nfs://[fd00::1]/a b/");
        assert_eq!(url.key(), "nfs://fd00::1/a b");
        assert_eq!(java_address("fd00::1".parse().unwrap()), "fd00:0:0:0:0:0:0:1");
        for bad in ["", "nfs:/x", "nfs:///x", "nfs://a b/x", "nfs://-o/x", "/srv/sec"] {
            assert!(bad.parse::<StoreUrl>().is_err(), "{bad}");
        }
    }
}
