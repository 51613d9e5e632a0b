//! URLs as a log, an answer or a status may show them.
//!
//! URLs of images and stores carry secrets: user and password, a signature in the query. Whatever
//! is logged or answered holds this type instead of the text, whether the text is a URL or not.

use std::fmt;

/// A URL, or what was meant as one, without user, password, query and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactedUrl(String);

/// Longest text that is shown.
const MAX_LEN: usize = 1024;
const LEFT_OUT: &str = "…";

impl RedactedUrl {
    /// Of any text: nothing behind the first `?` or `#` and nothing before the last `@` of what
    /// may be an authority is kept.
    pub fn of(text: &str) -> Self {
        let text = text.trim();
        let end = text.find(['?', '#']).unwrap_or(text.len());
        let (plain, rest) = text.split_at(end);
        let is_scheme = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
        };
        let (scheme, rest_of_url) = match plain.split_once("://") {
            Some((scheme, _)) if is_scheme(scheme) => plain.split_at(scheme.len() + 3),
            Some(_) | None => ("", plain),
        };
        // Without a scheme, or with a slash in a password, the end of the authority is in doubt:
        // then everything before the last `@` may be a secret.
        let place = match rest_of_url.rsplit_once('@') {
            Some((_secret, place)) => place,
            None => rest_of_url,
        };
        let hidden = if place.len() < rest_of_url.len() { "…@" } else { "" };
        let mark = rest.chars().next().filter(|_| rest.len() > 1);
        let query = mark.map(|mark| format!("{mark}{LEFT_OUT}")).unwrap_or_default();
        let mut shown = format!("{scheme}{hidden}{place}{query}");
        if let Some((at, _)) = shown.char_indices().nth(MAX_LEN) {
            shown.truncate(at);
            shown.push_str(LEFT_OUT);
        }
        Self(shown)
    }
}

impl fmt::Display for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is not a URL may hold anything: line ends and escapes do not reach a log.
        for c in self.0.chars() {
            if c.is_control() { c.escape_default().fmt(f)? } else { c.fmt(f)? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(RedactedUrl::of(text).to_string(), expected, "{text}");
    }

    #[test]
    fn what_may_be_a_secret_is_left_out() {
        check("https://h/a.qcow2", "https://h/a.qcow2");
        check("https://u:p@h:8080/a.qcow2?sig=s#f", "https://…@h:8080/a.qcow2?…");
        check("cifs://h/share?user=u&password=p", "cifs://h/share?…");
        check("nfs:/h/p?password=p", "nfs:/h/p?…");
        check("u:p@h/p", "…@h/p");
        check("http://u:p/w@h/x", "http://…@h/x");
        check("http://u:p@[fd00::1]/x#geheim", "http://…@[fd00::1]/x#…");
        check("a\nb", "a\\nb");
        check("", "");
    }

    proptest::proptest! {
        #[test]
        fn no_password_and_no_query_is_shown(
            before in "[a-z:/]{0,8}", after in "[a-z:/@.]{0,12}", query in "[a-z=&@/]{0,8}"
        ) {
            let text = format!("{before}:SECRET@{after}?{query}SECRET");
            proptest::prop_assert!(!RedactedUrl::of(&text).to_string().contains("SECRET"));
        }
    }
}
