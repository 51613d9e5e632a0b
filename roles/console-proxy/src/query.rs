//! The query string of a console link, read as the server wrote it.
//!
//! The server puts the token's Base64 and the caller's extra text into the link without escaping
//! them, so an ordinary query parser would turn `+` into a space, lose padding and cut the extra
//! text at its first `&`.

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

    /// The token, percent-decoded, with its plus signs.
    pub fn token(&self) -> Option<String> {
        let decoded = percent_decode(self.raw("token")?);
        Some(decoded.replace(' ', "+")).filter(|token| !token.is_empty())
    }

    /// Whether the link carries this extra text: as the server wrote it, or escaped as a browser
    /// or a careful integrator would. Takes the same time wherever the texts differ.
    pub fn has_extra(&self, expected: &str) -> bool {
        let Some(value) = self.raw("extra") else { return false };
        let same = |text: &str| bool::from(text.as_bytes().ct_eq(expected.as_bytes()));
        // An unescaped `&` in the text: everything up to the end, or to the one parameter that
        // the server writes after it.
        let rest = self.0.split_once("extra=").map_or("", |(_, rest)| rest);
        let rest = rest.strip_suffix("&guest=windows").unwrap_or(rest);
        let decoded = [percent_decode(value), percent_decode(rest)];
        decoded.iter().fold(same(value) | same(rest), |found, text| found | same(text))
    }
}

/// Percent-decoding that leaves malformed escapes and plus signs alone.
pub fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
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
    fn malformed_escapes_stay() {
        assert_eq!(percent_decode("%zz%4%41%"), "%zz%4A%");
        assert_eq!(percent_decode("%ff"), "\u{fffd}");
    }
}
