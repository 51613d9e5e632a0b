//! Addresses in tokens.

use std::net::IpAddr;

use http_front::parse_address;

/// Whether a text is this address, however it is written: Java writes IPv6 uncompressed.
pub(crate) fn is_address(text: &str, address: IpAddr) -> bool {
    parse_address(text).is_some_and(|parsed| parsed == address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_compared_as_addresses() {
        let check = |text: &str, address: &str, expected: bool| {
            assert_eq!(is_address(text, ip(address)), expected, "{text} {address}");
        };
        check("2001:db8:0:0:0:0:0:1", "2001:db8::1", true);
        check("::ffff:192.0.2.1", "192.0.2.1", true);
        check("fe80::1%eth0", "fe80::1", true);
        check("[2001:db8::1]", "2001:db8::1", true);
        check("192.0.2.1", "192.0.2.2", false);
        check("", "192.0.2.2", false);
    }
}
