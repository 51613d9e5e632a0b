//! `Range` and the conditions of a request, judged against a file.

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};

/// What part of the file is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Whole,
    Some(Range<u64>),
    /// The range lies outside of the file.
    Unsatisfiable,
    /// The client has this version already.
    NotModified,
}

/// Identity of one version of a file, as sent in `ETag` and `Last-Modified`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub etag: String,
    pub modified: String,
}

/// Decides from the request's headers. Several ranges at once are answered with the whole file,
/// which is allowed and which nobody needs for images.
pub fn part(headers: &HeaderMap, version: &Version, length: u64) -> Part {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let not_modified = match text(IF_NONE_MATCH) {
        Some(tags) => tags.split(',').any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.trim_start_matches("W/") == version.etag
        }),
        None => text(IF_MODIFIED_SINCE) == Some(version.modified.as_str()),
    };
    if not_modified {
        return Part::NotModified;
    }
    let Some(wanted) = text(RANGE) else { return Part::Whole };
    if text(IF_RANGE).is_some_and(|known| known != version.etag && known != version.modified) {
        return Part::Whole;
    }
    of_range(wanted, length)
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

    fn check(pairs: &[(&'static str, &str)], expected: Part) {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let version = Version { etag: "\"a\"".to_owned(), modified: "Tue".to_owned() };
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
        check(&[("if-none-match", "\"b\""), ("if-modified-since", "Tue")], Part::Whole);
        check(&[("if-modified-since", "Tue")], Part::NotModified);
        check(&[("range", "bytes=0-9"), ("if-range", "\"a\"")], Part::Some(0..10));
        check(&[("range", "bytes=0-9"), ("if-range", "Tue")], Part::Some(0..10));
        check(&[("range", "bytes=0-9"), ("if-range", "\"old\"")], Part::Whole);
    }
}
