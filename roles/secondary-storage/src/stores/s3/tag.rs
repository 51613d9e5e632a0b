//! What the tag of an object tells of its bytes.
//!
//! Of an object that came in one request it is the MD5 sum, of one that came in parts the MD5 sum of the
//! parts' sums with their number behind it. Servers that do something else use another form, but for
//! objects that are encrypted with keys of their own: their tags have the form and tell nothing.

use md5::{Digest, Md5};
use reqwest::header::HeaderMap;

pub type Md5Sum = [u8; 16];

pub fn md5(bytes: &[u8]) -> Md5Sum {
    Md5::digest(bytes).into()
}

pub fn hex(sum: Md5Sum) -> String {
    super::sign::hex(&sum)
}

/// Without the quotation marks; empty when there is none.
pub fn of(headers: &HeaderMap) -> &str {
    let tag = headers.get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or_default();
    bare(tag)
}

fn bare(tag: &str) -> &str {
    tag.trim_matches('"')
}

/// Whether the tag is made of the bytes as they were sent.
pub fn is_plain(headers: &HeaderMap) -> bool {
    let is_own = headers
        .get("x-amz-server-side-encryption")
        .and_then(|value| value.to_str().ok())
        .is_none_or(|how| how.eq_ignore_ascii_case("AES256"));
    is_own && !headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
}

/// Whether the tag of an answer says that the server got other bytes.
pub fn differs(headers: &HeaderMap, sum: Md5Sum) -> bool {
    let tag = of(headers);
    is_plain(headers) && is_sum(tag) && !tag.eq_ignore_ascii_case(&hex(sum))
}

fn is_sum(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the tag of an object of parts must be, when `tag` has the form of one of as many parts and is
/// not it.
pub fn of_other_parts(tag: &str, sums: &[Md5Sum]) -> Option<String> {
    let (sum, count) = bare(tag).rsplit_once('-')?;
    if !is_sum(sum) || count.parse() != Ok(sums.len()) {
        return None;
    }
    let expected = hex(md5(&sums.concat()));
    (!sum.eq_ignore_ascii_case(&expected)).then(|| format!("{expected}-{count}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_sum_of_other_bytes_is_seen_and_another_form_tells_nothing() {
        let sum = md5(b"hello");
        let tag = |tag: &str| headers(&[("etag", tag)]);
        assert!(!differs(&tag("\"5d41402abc4b2a76b9719d911017c592\""), sum));
        assert!(!differs(&tag("5D41402ABC4B2A76B9719D911017C592"), sum));
        assert!(differs(&tag("\"5d41402abc4b2a76b9719d911017c593\""), sum));
        for other in ["", "\"x\"", "\"5d41402abc4b2a76b9719d911017c593-1\""] {
            assert!(!differs(&tag(other), sum), "{other}");
        }
        let wrong = ("etag", "5d41402abc4b2a76b9719d911017c593");
        let name = "x-amz-server-side-encryption";
        assert!(!differs(&headers(&[wrong, (name, "aws:kms")]), sum));
        assert!(differs(&headers(&[wrong, (name, "AES256")]), sum));
    }

    #[test]
    fn the_tag_of_parts_is_the_sum_of_their_sums() {
        let sums = [md5(b"a"), md5(b"b")];
        let right = format!("\"{}-2\"", hex(md5(&sums.concat())));
        assert_eq!(of_other_parts(&right, &sums), None);
        let wrong = right.replacen(|c: char| c.is_ascii_digit(), "x", 1);
        assert_eq!(of_other_parts(&wrong, &sums), None, "another form");
        let wrong = format!("{}-2", hex(md5(b"c")));
        assert_eq!(of_other_parts(&wrong, &sums).as_deref(), Some(right.trim_matches('"')));
        assert_eq!(of_other_parts(&wrong, &sums[..1]), None, "of another number of parts");
    }
}
