//! The PROXY protocol, versions 1 and 2: where the header ends, and whom it names.
//!
//! The header stands before everything else, TLS included. Bytes in, values out.

use std::net::SocketAddr;

use ppp::{v1, v2};

/// The longest header that is read: addresses and a few properties of the connection. Version 2
/// could announce 64 KiB.
const LIMIT: usize = 2048;
/// The longest line of version 1, its end included.
const LINE_LIMIT: usize = 107;
/// Fixed part of a header of version 2.
const FIXED: usize = 16;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// More bytes are needed.
    Incomplete,
    /// A whole header of so many bytes. Without a source, the proxy speaks for itself.
    Complete { length: usize, source: Option<SocketAddr> },
}

/// Why a connection does not begin with a PROXY header.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ProxyHeaderError {
    #[error("no PROXY header although the peer is a proxy that sends one")]
    Missing,
    #[error("the PROXY header is longer than {LIMIT} bytes")]
    TooLong,
    #[error("the PROXY header is damaged")]
    Text(#[source] v1::BinaryParseError),
    #[error("the PROXY header is damaged")]
    Binary(#[source] v2::ParseError),
}

/// Reads the header at the beginning of `bytes`.
pub fn parse_proxy_header(bytes: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let Some(length) = length(bytes)? else { return Ok(ProxyHeader::Incomplete) };
    let Some(header) = bytes.get(..length) else { return Ok(ProxyHeader::Incomplete) };
    let source = if header.starts_with(v2::PROTOCOL_PREFIX) {
        let header = v2::Header::try_from(header).map_err(ProxyHeaderError::Binary)?;
        match (header.command, header.addresses) {
            // A health check of the proxy itself.
            (v2::Command::Local, _) => None,
            (_, v2::Addresses::IPv4(a)) => Some((a.source_address, a.source_port).into()),
            (_, v2::Addresses::IPv6(a)) => Some((a.source_address, a.source_port).into()),
            (_, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
        }
    } else {
        match v1::Header::try_from(header).map_err(ProxyHeaderError::Text)?.addresses {
            v1::Addresses::Tcp4(a) => Some((a.source_address, a.source_port).into()),
            v1::Addresses::Tcp6(a) => Some((a.source_address, a.source_port).into()),
            v1::Addresses::Unknown => None,
        }
    };
    Ok(ProxyHeader::Complete { length, source })
}

/// How long the header is; `None` while that cannot be seen.
fn length(bytes: &[u8]) -> Result<Option<usize>, ProxyHeaderError> {
    let begins_with = |prefix: &[u8]| {
        let common = prefix.len().min(bytes.len());
        bytes.get(..common) == prefix.get(..common)
    };
    if begins_with(v2::PROTOCOL_PREFIX) {
        let Some(&[high, low]) = bytes.get(FIXED - 2..FIXED) else { return Ok(None) };
        let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
        return if length > LIMIT { Err(ProxyHeaderError::TooLong) } else { Ok(Some(length)) };
    }
    if !begins_with(b"PROXY ") {
        return Err(ProxyHeaderError::Missing);
    }
    match bytes.iter().take(LINE_LIMIT).position(|byte| *byte == b'\n') {
        Some(end) => Ok(Some(end + 1)),
        None if bytes.len() >= LINE_LIMIT => Err(ProxyHeaderError::TooLong),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], source: Option<&str>) {
        let source = source.map(|text| text.parse().unwrap());
        let whole = ProxyHeader::Complete { length: bytes.len(), source };
        assert_eq!(parse_proxy_header(bytes), Ok(whole), "{bytes:?}");
        // Whatever arrives so far, it is only incomplete; what follows belongs to the next layer.
        for end in 0..bytes.len() {
            assert_eq!(parse_proxy_header(&bytes[..end]), Ok(ProxyHeader::Incomplete), "{end}");
        }
        assert_eq!(parse_proxy_header(&[bytes, b"GET / HTTP/1.1\r\n"].concat()), Ok(whole));
    }

    fn binary(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &length, payload].concat()
    }

    #[test]
    fn headers_of_both_versions_name_their_source() {
        check(b"PROXY TCP4 203.0.113.9 192.0.2.1 50123 80\r\n", Some("203.0.113.9:50123"));
        check(b"PROXY TCP6 2001:db8::9 2001:db8::1 50123 80\r\n", Some("[2001:db8::9]:50123"));
        check(b"PROXY UNKNOWN\r\n", None);
        let four = [203, 0, 113, 9, 192, 0, 2, 1, 0xc3, 0xcb, 0, 80];
        check(&binary(0x21, 0x11, &four), Some("203.0.113.9:50123"));
        check(&binary(0x20, 0x11, &four), None);
        check(&binary(0x20, 0x00, &[]), None);
        check(&binary(0x21, 0x31, &[0; 216]), None);
        // With a property (its type, its length, its value) after the addresses.
        let with_more = [four.as_slice(), &[0x04, 0, 1, 0]].concat();
        check(&binary(0x21, 0x11, &with_more), Some("203.0.113.9:50123"));
        let six = [
            [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9].as_slice(),
            &[0; 16],
            &[0, 1, 0, 80],
        ];
        check(&binary(0x21, 0x21, &six.concat()), Some("[2001:db8::9]:1"));
    }

    #[test]
    fn what_is_not_a_header_is_an_error_at_once() {
        for missing in [b"GET / HTTP/1.1\r\n".as_slice(), b"\x16\x03\x01", b"PROXX", b"\r\n\r\nx"] {
            assert_eq!(parse_proxy_header(missing), Err(ProxyHeaderError::Missing));
        }
        for damaged in
            ["PROXY TCP4 a b 1 2\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", "PROXY TCP4\n"]
        {
            let error = parse_proxy_header(damaged.as_bytes()).unwrap_err();
            assert!(matches!(error, ProxyHeaderError::Text(_)), "{damaged} {error}");
        }
        for damaged in [binary(0x31, 0x11, &[0; 12]), binary(0x21, 0x11, &[0; 11])] {
            let error = parse_proxy_header(&damaged).unwrap_err();
            assert!(matches!(error, ProxyHeaderError::Binary(_)), "{error}");
        }
        assert_eq!(
            parse_proxy_header(&[b"PROXY ".as_slice(), &[b'a'; 200]].concat()),
            Err(ProxyHeaderError::TooLong)
        );
        assert_eq!(
            parse_proxy_header(&binary(0x21, 0x11, &[0; 4096])),
            Err(ProxyHeaderError::TooLong)
        );
    }
}
