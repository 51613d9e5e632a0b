//! `Range` and the conditions of a request, judged against a file.

use std::ops::Range;
use std::time::SystemTime;

use axum::http::HeaderMap;
use axum::http::header::{
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};

/// What part of the file is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Whole,
    Some(Range<u64>),
    /// The range lies outside of the file.
    Unsatisfiable,
    /// The client has this version already.
    NotModified,
    /// The client wants another version only.
    Failed,
}

/// Identity of one version of a file, as sent in `ETag` and `Last-Modified`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub etag: String,
    /// In whole seconds.
    pub modified: SystemTime,
}

/// Decides from the request's headers, in the order of RFC 9110, 13.2.2. Several ranges at once are
/// answered with the whole file, which is allowed and which nobody needs for images.
pub fn part(headers: &HeaderMap, version: &Version, length: u64) -> Part {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let date = |name| text(name).and_then(|text| httpdate::parse_http_date(text).ok());
    let expected = match text(IF_MATCH) {
        Some(tags) => lists(tags, |tag| tag == version.etag),
        None => date(IF_UNMODIFIED_SINCE).is_none_or(|date| version.modified <= date),
    };
    if !expected {
        return Part::Failed;
    }
    let not_modified = match text(IF_NONE_MATCH) {
        Some(tags) => lists(tags, |tag| tag.trim_start_matches("W/") == version.etag),
        None => date(IF_MODIFIED_SINCE).is_some_and(|date| version.modified <= date),
    };
    if not_modified {
        return Part::NotModified;
    }
    let Some(wanted) = text(RANGE) else { return Part::Whole };
    // Exactly this version: a date that is merely later says nothing about the bytes.
    let is_same = text(IF_RANGE).is_none_or(|known| {
        known == version.etag
            || httpdate::parse_http_date(known).is_ok_and(|date| date == version.modified)
    });
    if is_same { of_range(wanted, length) } else { Part::Whole }
}

/// Whether a list of tags has one of this kind, or stands for all.
fn lists(tags: &str, is_one: impl Fn(&str) -> bool) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || is_one(tag))
}

/// What a `Range` header's value asks of a file of `length` bytes.
pub fn of_range(value: &str, length: u64) -> Part {
    match single_range(value, length) {
        Some(Ok(range)) => Part::Some(range),
        Some(Err(Outside)) => Part::Unsatisfiable,
        None => Part::Whole,
    }
}

struct Outside;

/// `None` for what is not a single byte range: it is ignored, as the standard wants.
fn single_range(text: &str, length: u64) -> Option<Result<Range<u64>, Outside>> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => {
            let count = number(suffix)?;
            length.saturating_sub(count)..length
        }
        (first, "") => number(first)?..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Some(if range.start < range.end { Ok(range) } else { Err(Outside) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = "Thu, 30 Oct 2025 12:05:08 GMT";
    const MODIFIED: &str = "Thu, 30 Oct 2025 12:05:09 GMT";
    const LATER: &str = "Thu, 30 Oct 2025 12:05:10 GMT";

    fn check(pairs: &[(&'static str, &str)], expected: Part) {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let modified = httpdate::parse_http_date(MODIFIED).unwrap();
        let version = Version { etag: "\"a\"".to_owned(), modified };
        assert_eq!(part(&headers, &version, 100), expected, "{pairs:?}");
    }

    #[test]
    fn ranges() {
        check(&[], Part::Whole);
        check(&[("range", "bytes=0-9")], Part::Some(0..10));
        check(&[("range", "bytes=90-")], Part::Some(90..100));
        check(&[("range", "bytes=-5")], Part::Some(95..100));
        check(&[("range", "bytes=-500")], Part::Some(0..100));
        check(&[("range", "bytes=50-500")], Part::Some(50..100));
        check(&[("range", "bytes=100-")], Part::Unsatisfiable);
        check(&[("range", "bytes=-0")], Part::Unsatisfiable);
        check(&[("range", "bytes=99999999999999999999-")], Part::Unsatisfiable);
        for ignored in
            ["bytes=9-0", "bytes=a-b", "lines=0-9", "bytes=0-1,5-6", "bytes=", "bytes=+1-2"]
        {
            check(&[("range", ignored)], Part::Whole);
        }
    }

    #[test]
    fn conditions() {
        check(&[("if-none-match", "\"b\", W/\"a\"")], Part::NotModified);
        check(&[("if-none-match", "*")], Part::NotModified);
        check(&[("if-none-match", "\"b\""), ("if-modified-since", MODIFIED)], Part::Whole);
        check(&[("if-modified-since", MODIFIED)], Part::NotModified);
        check(&[("if-modified-since", LATER)], Part::NotModified);
        check(&[("if-modified-since", EARLIER)], Part::Whole);
        check(&[("if-modified-since", "nonsense")], Part::Whole);
        check(&[("if-match", "\"b\"")], Part::Failed);
        check(&[("if-match", "\"b\", \"a\"")], Part::Whole);
        check(&[("if-match", "W/\"a\"")], Part::Failed);
        check(&[("if-unmodified-since", EARLIER)], Part::Failed);
        check(&[("if-unmodified-since", LATER)], Part::Whole);
        let range = ("range", "bytes=0-9");
        check(&[range, ("if-range", "\"a\"")], Part::Some(0..10));
        check(&[range, ("if-range", MODIFIED)], Part::Some(0..10));
        for other in ["\"old\"", "W/\"a\"", EARLIER, LATER, "nonsense"] {
            check(&[range, ("if-range", other)], Part::Whole);
        }
    }
}
