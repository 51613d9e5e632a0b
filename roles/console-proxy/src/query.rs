//! The query string of a console link, read as the server wrote it.
//!
//! The server puts the token's Base64 and the caller's extra text into the link without escaping
//! them, so an ordinary query parser would turn `+` into a space, lose padding and cut the extra
//! text at its first `&`.

use percent_encoding::{AsciiSet, CONTROLS};
use subtle::ConstantTimeEq;

/// The raw query of a request, without the question mark.
#[derive(Clone, Copy)]
pub struct RawQuery<'a>(pub &'a str);

impl std::fmt::Debug for RawQuery<'_> {
    /// A query holds a token; only its size is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawQuery({} bytes)", self.0.len())
    }
}

impl<'a> RawQuery<'a> {
    /// The raw value of the first parameter of that name.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }

    /// The token, percent-decoded once, with its plus signs.
    pub fn token(&self) -> Option<String> {
        let decoded = String::from_utf8(percent_decode(self.raw("token")?)).ok()?;
        Some(decoded.replace(' ', "+")).filter(|token| !token.is_empty())
    }

    /// Whether the link carries this extra text: as the server wrote it, as a browser writes that
    /// into an address, or escaped by a careful integrator. Takes the same time wherever the
    /// texts differ.
    pub fn has_extra(&self, expected: &str) -> bool {
        let Some(value) = self.raw("extra") else { return false };
        // An unescaped `&` in the text: everything up to the end, or to the one parameter that
        // the server writes after it.
        let rest = self.rest_from("extra").unwrap_or(value);
        let rest = rest.strip_suffix("&guest=windows").unwrap_or(rest);
        let in_address = browser_encode(expected);
        [value, rest].into_iter().fold(false, |found, text| {
            let decoded = percent_decode(text);
            let same = text.as_bytes().ct_eq(expected.as_bytes())
                | decoded.ct_eq(expected.as_bytes())
                | text.as_bytes().ct_eq(in_address.as_bytes());
            found | bool::from(same)
        })
    }

    /// Everything after the `=` of the first parameter of that name.
    fn rest_from(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.0;
        loop {
            let value = rest.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
            if value.is_some() {
                return value;
            }
            rest = rest.split_once('&')?.1;
        }
    }
}

/// Percent-decoding, once, that leaves malformed escapes and plus signs alone.
pub fn percent_decode(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

/// What a browser escapes in the query of an address that it is given; a percent sign it does not.
/// `#` is among them because our page puts the text behind it back.
const BROWSER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'\'');

/// A text as it stands in a query after a browser has been given an address with it.
fn browser_encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, BROWSER).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_token_survives_every_way_it_travels() {
        let check = |query: &str, expected: Option<&str>| {
            assert_eq!(RawQuery(query).token().as_deref(), expected, "{query}");
        };
        check("autoconnect=true&token=a+b/c==&port=8080", Some("a+b/c=="));
        check("token=a%2Bb%2Fc%3D%3D", Some("a+b/c=="));
        check("token=a b", Some("a+b"));
        check("token=", None);
        check("token", None);
        check("xtoken=a", None);
        check("to%6ben=a", None);
        // Decoded once: what was escaped twice stays escaped.
        check("token=%41%2541", Some("A%41"));
        check("token=%ff", None);
        check("token=a&token=b", Some("a"));
        check("", None);
    }

    #[test]
    fn the_extra_text_is_found_raw_and_escaped() {
        let odd = "a b&c=d+e%\"<é";
        let escaped = "token=x&extra=a%20b%26c%3Dd%2Be%25%22%3C%C3%A9";
        assert!(RawQuery(escaped).has_extra(odd));
        // As a browser sends the server's unescaped text.
        assert!(RawQuery("token=x&extra=a%20b&c=d+e%%22%3C%C3%A9").has_extra(odd));
        assert!(RawQuery("token=x&extra=a%20b&c=d+e%%22%3C%C3%A9&guest=windows").has_extra(odd));
        assert!(RawQuery("extra=s3cret&token=x").has_extra("s3cret"));
        assert!(!RawQuery("token=x&extra=s3cre").has_extra("s3cret"));
        assert!(!RawQuery("token=x").has_extra(""));
        assert!(!RawQuery("token=x&extra=").has_extra("s3cret"));
    }

    #[test]
    fn an_extra_text_with_escapes_and_hashes_of_its_own_is_found_however_it_travelled() {
        let check = |query: &str, expected: &str, found: bool| {
            assert_eq!(RawQuery(query).has_extra(expected), found, "{query} {expected}");
        };
        // As the server writes it, as a browser sends that on, as an integrator escapes it.
        for query in ["extra=%41 b#c'd", "extra=%41%20b%23c%27d", "extra=%2541%20b%23c%27d"] {
            check(query, "%41 b#c'd", true);
        }
        check("extra=%2541", "A", false);
        check("extra=%41", "A", true);
        check("extra=%ff", "\u{fffd}", false);
        check("xextra=a", "a", false);
        check("token=x&xextra=a&extra=b", "b", true);
        check("token=extra=a", "a", false);
        check("extra=a&b=c", "a&b=c", true);
        check("extra=a&extra=b", "b", false);
    }

    #[test]
    fn malformed_escapes_stay() {
        assert_eq!(percent_decode("%zz%4%41%"), b"%zz%4A%");
        assert_eq!(percent_decode("%ff"), [0xff]);
    }

    proptest! {
        #[test]
        fn whatever_the_text_it_is_found_in_each_of_its_forms(text in "\\PC{1,40}") {
            let all = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
            let found = |query: String| RawQuery(&query).has_extra(&text);
            let in_address = browser_encode(&text);
            let right = [
                format!("token=x&extra={all}"),
                format!("token=x&extra={in_address}"),
                format!("token=x&extra={text}&guest=windows"),
            ];
            for query in right {
                prop_assert!(found(query));
            }
            let wrong = format!("token=x&extra=x{all}");
            prop_assert!(!found(wrong));
        }
    }
}
