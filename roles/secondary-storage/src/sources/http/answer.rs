//! What a server says of its answer: length, range, coding, and which version of the file it is.
//!
//! An image is whole or it is an error: every number here is compared with the bytes that come, and
//! a continued download must show that it is of the same version.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::sources::error::SourceError;
use crate::sources::{Coding, Version};

/// Headers in which object stores and proxies tell a length when there is no `Content-Length`.
const LENGTH_HEADERS: [&str; 8] = [
    "x-goog-stored-content-length",
    "x-goog-meta-size",
    "x-amz-meta-size",
    "x-amz-meta-content-length",
    "x-object-meta-size",
    "x-original-content-length",
    "x-oss-meta-content-length",
    "x-file-size",
];

/// Names that are put into `Content-Encoding` by mistake and change no byte.
const NO_CODINGS: [&str; 8] =
    ["identity", "none", "binary", "8bit", "utf-8", "utf8", "null", "aws-chunked"];
/// Codings that are the file itself when its name ends like this.
const OWN_CODINGS: [(&str, &[&str]); 4] = [
    ("gzip", &[".gz", ".tgz"]),
    ("bzip2", &[".bz2", ".tbz2"]),
    ("xz", &[".xz", ".txz"]),
    ("zstd", &[".zst"]),
];
/// A date names a version only when the file was not changed in the second it was sent.
const DATE_PRECISION: Duration = Duration::from_secs(1);

/// The first value of a header as text.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The parts of all values of a list header.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + use<'a> {
    let values = headers.get_all(name).into_iter();
    values
        .flat_map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>()
        })
        .filter(|part| !part.is_empty())
}

/// Digits only: a sign or a blank inside is not a length.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Length of the body and what wraps it on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    /// Reliable: the body has exactly this many bytes.
    pub exact: Option<u64>,
    /// Good for showing progress.
    pub hint: Option<u64>,
}

/// Reads how long a body is. With both lengths the chunks count, as the protocol says. Without either
/// nobody can tell a whole body from a cut one, unless a digest judges it.
pub(super) fn length(headers: &HeaderMap, is_judged: bool) -> Result<Length, SourceError> {
    let mut given = list(headers, &header::CONTENT_LENGTH).map(|part| number(&part));
    let told = given.next().flatten();
    let told = told.filter(|_length| given.all(|other| other == told));
    let transfer: Vec<String> = list(headers, &header::TRANSFER_ENCODING).collect();
    if let Some(other) =
        transfer.iter().find(|coding| *coding != "chunked" && *coding != "identity")
    {
        return Err(SourceError::Coding(other.clone()));
    }
    let stored = LENGTH_HEADERS.iter().find_map(|name| number(headers.get(*name)?.to_str().ok()?));
    if transfer.iter().any(|coding| coding == "chunked") {
        return Ok(Length { exact: None, hint: stored.or(told) });
    }
    let is_absent = !headers.contains_key(header::CONTENT_LENGTH);
    match told {
        Some(length) => Ok(Length { exact: Some(length), hint: None }),
        None if is_judged && is_absent => Ok(Length { exact: None, hint: stored }),
        None => Err(SourceError::NoLength),
    }
}

/// A part of a file: `Content-Range: bytes 5-9/10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub first: u64,
    pub last: u64,
    pub total: Option<u64>,
}

impl Part {
    /// `None` for what is not a range of bytes, or contradicts itself.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let (unit, rest) = text(headers, &header::CONTENT_RANGE)?.split_once([' ', '='])?;
        let (range, total) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = match total.trim() {
            "*" => None,
            total => Some(number(total)?),
        };
        let part = Self { first: number(first.trim())?, last: number(last.trim())?, total };
        let is_sound = part.first <= part.last && total.is_none_or(|total| part.last < total);
        (unit.eq_ignore_ascii_case("bytes") && is_sound).then_some(part)
    }

    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.total, Some(total) if self.first == 0 && self.last + 1 == total)
    }
}

/// How long a file is of which no part could be given: `Content-Range: bytes */10`.
pub(super) fn unsatisfied(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, &header::CONTENT_RANGE)?.strip_prefix("bytes */")?.trim())
}

/// What names the version of a file that an answer is about.
pub(super) fn version(headers: &HeaderMap) -> Version {
    let strong = |value: &&str| value.starts_with('"');
    let date = |name: &HeaderName| httpdate::parse_http_date(text(headers, name)?).ok();
    let changed_just_now = date(&header::DATE)
        .zip(date(&header::LAST_MODIFIED))
        .is_some_and(|(now, then)| now.duration_since(then).unwrap_or_default() < DATE_PRECISION);
    let modified = text(headers, &header::LAST_MODIFIED).filter(|_date| !changed_just_now);
    Version {
        tag: text(headers, &header::ETAG).filter(strong).map(str::to_owned),
        modified: modified.map(str::to_owned),
        coding: list(headers, &header::CONTENT_ENCODING).collect(),
    }
}

/// For `If-Range`; `None` when nothing names the version.
pub(super) fn condition(version: &Version) -> Option<HeaderValue> {
    let text = version.tag.as_ref().or(version.modified.as_ref())?;
    HeaderValue::from_str(text).ok()
}

/// Whether a server says that it gives parts.
pub(super) fn has_ranges(headers: &HeaderMap) -> bool {
    list(headers, &header::ACCEPT_RANGES).any(|unit| unit == "bytes")
}

/// Whether a partial answer is one part and no collection of parts.
pub(super) fn is_one_part(headers: &HeaderMap) -> bool {
    let kind = text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    !kind.to_ascii_lowercase().starts_with("multipart/")
}

/// What has to be undone before the bytes are those of the file at `urls` (asked for, and where it
/// was found). A server that labels a `.gz` file with the coding gzip sends the file as it is.
pub(super) fn coding(headers: &HeaderMap, urls: [&Url; 2]) -> Result<Coding, SourceError> {
    let codings: Vec<String> = list(headers, &header::CONTENT_ENCODING)
        .filter(|name| !NO_CODINGS.contains(&name.as_str()))
        .collect();
    let Some(name) = codings.first() else { return Ok(Coding::Identity) };
    let plain = name.strip_prefix("x-").unwrap_or(name);
    let is_own = |(coding, ends): &(&str, &[&str])| {
        let ended =
            |url: &Url| ends.iter().any(|end| url.path().to_ascii_lowercase().ends_with(end));
        *coding == plain && urls.into_iter().any(ended)
    };
    match plain {
        _ if codings.len() > 1 => Err(SourceError::Coding(codings.join(", "))),
        _ if OWN_CODINGS.iter().any(is_own) => Ok(Coding::Identity),
        "gzip" => Ok(Coding::Gzip),
        "deflate" => Ok(Coding::Deflate),
        _ => Err(SourceError::Coding(name.clone())),
    }
}

/// The pause that a server asks for, in seconds or until a date of its own clock.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let until = text(headers, &header::RETRY_AFTER)?;
    if let Some(seconds) = number(until) {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text| httpdate::parse_http_date(text).ok();
    date(until)?.duration_since(date(text(headers, &header::DATE)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn lengths_are_exact_or_none() {
        let check = |pairs: &[(&'static str, &str)],
                     expected: Option<(Option<u64>, Option<u64>)>| {
            let found = length(&headers(pairs), false).ok();
            assert_eq!(found.map(|length| (length.exact, length.hint)), expected, "{pairs:?}");
        };
        let judged = |pairs: &[(&'static str, &str)]| length(&headers(pairs), true).ok();
        let unknown = |hint| Some(Length { exact: None, hint });
        assert_eq!(judged(&[]), unknown(None));
        assert_eq!(judged(&[("x-file-size", "7")]), unknown(Some(7)));
        assert_eq!(judged(&[("content-length", "-5")]), None);
        let unsatisfied = |text| unsatisfied(&headers(&[("content-range", text)]));
        assert_eq!((unsatisfied("bytes */10"), unsatisfied("bytes 5-9/10")), (Some(10), None));
        check(&[("content-length", "5")], Some((Some(5), None)));
        check(&[("content-length", "5"), ("content-length", "5")], Some((Some(5), None)));
        check(&[("content-length", "5, 5")], Some((Some(5), None)));
        check(&[("content-length", "5, 6")], None);
        check(&[("content-length", "5"), ("content-length", "6")], None);
        check(&[("content-length", "+5")], None);
        check(&[("content-length", "-5")], None);
        check(&[("content-length", "99999999999999999999")], None);
        check(&[], None);
        check(&[("transfer-encoding", "chunked")], Some((None, None)));
        check(
            &[("transfer-encoding", "Chunked"), ("content-length", "12")],
            Some((None, Some(12))),
        );
        check(&[("transfer-encoding", "chunked"), ("x-file-size", "7")], Some((None, Some(7))));
        check(&[("transfer-encoding", "gzip, chunked")], None);
    }

    #[test]
    fn ranges_that_contradict_themselves_are_none() {
        let part = |text| Part::of(&headers(&[("content-range", text)]));
        let expected = |total| Some(Part { first: 5, last: 9, total });
        assert_eq!(part("bytes 5-9/10"), expected(Some(10)));
        assert_eq!(part("Bytes  5-9/*"), expected(None));
        assert_eq!(part("bytes=5-9/12"), expected(Some(12)));
        for bad in [
            "bytes */10",
            "5-9/10",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes +5-9/10",
            "items 5-9/10",
            "bytes 5-9",
            "bytes 5-9/x",
        ] {
            assert_eq!(part(bad), None, "{bad}");
        }
        assert!(part("bytes 0-9/10").unwrap().is_whole());
        assert!(!part("bytes 0-8/10").unwrap().is_whole());
    }

    #[test]
    fn versions_are_the_same_when_something_says_so_and_nothing_differs() {
        let version = |pairs: &[(&'static str, &str)]| version(&headers(pairs));
        let condition = |pairs: &[(&'static str, &str)]| condition(&version(pairs));
        let (a, b) = (("etag", "\"a\""), ("etag", "\"b\""));
        let weak = ("etag", "W/\"a\"");
        let (old, new) = (
            ("last-modified", "Fri, 27 Nov 2026 00:00:00 GMT"),
            ("last-modified", "Fri, 27 Nov 2026 00:00:01 GMT"),
        );
        let gzip = ("content-encoding", "gzip");
        for (first, second, expected) in [
            (vec![a], vec![a], true),
            (vec![a], vec![b], false),
            (vec![a], vec![], false),
            (vec![], vec![], false),
            (vec![weak], vec![weak], false),
            (vec![weak, old], vec![weak, old], true),
            (vec![a, old], vec![a, new], false),
            (vec![a, old], vec![old], true),
            (vec![a, old], vec![b, old], false),
            (vec![old], vec![new], false),
            (vec![a], vec![a, gzip], false),
        ] {
            let found = version(&first).is_surely(&version(&second));
            assert_eq!(found, expected, "{first:?} {second:?}");
        }
        assert_eq!(condition(&[a, old]).unwrap(), "\"a\"");
        assert_eq!(condition(&[weak, old]).unwrap(), old.1);
        assert_eq!(condition(&[weak]), None);
        let just_now = ("date", old.1);
        assert_eq!(condition(&[old, just_now]), None, "it may change in this second");
        let later = ("date", new.1);
        assert!(condition(&[old, later]).is_some());
        assert!(!version(&[a]).may_be(&version(&[b])) && version(&[a]).may_be(&version(&[])));
    }

    #[test]
    fn codings_are_undone_or_named() {
        let check = |value: &str, path: &str, expected: Result<Coding, &str>| {
            let url: Url = format!("http://h/{path}").parse().unwrap();
            let other: Url = "http://h/opaque".parse().unwrap();
            for urls in [[&url, &other], [&other, &url]] {
                let found = coding(&headers(&[("content-encoding", value)]), urls);
                let found = found.map_err(|error| error.to_string());
                match (&found, expected) {
                    (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{value} {path}"),
                    (Err(text), Err(name)) => assert!(text.contains(name), "{text}"),
                    _ => panic!("{value} {path}: {found:?}"),
                }
            }
        };
        for harmless in ["", "identity", "Identity, ", "UTF-8", "none", "aws-chunked", "binary"] {
            check(harmless, "a.raw", Ok(Coding::Identity));
        }
        check("gzip", "a.raw", Ok(Coding::Gzip));
        check("X-GZIP", "a.qcow2", Ok(Coding::Gzip));
        check("aws-chunked,gzip", "a.qcow2", Ok(Coding::Gzip));
        check("deflate", "a.raw", Ok(Coding::Deflate));
        for (value, path) in
            [("gzip", "a.raw.gz"), ("x-gzip", "A.TGZ"), ("x-bzip2", "a.bz2"), ("xz", "a.xz")]
        {
            check(value, path, Ok(Coding::Identity));
        }
        check("br", "a.raw", Err("\"br\""));
        check("zstd", "a.raw", Err("\"zstd\""));
        check("xz", "a.raw", Err("\"xz\""));
        check("deflate, gzip", "a.raw", Err("\"deflate, gzip\""));
        check("compress", "a.raw", Err("\"compress\""));
    }

    #[test]
    fn pauses_are_read_in_both_forms() {
        let now = ("date", "Fri, 27 Nov 2026 00:00:00 GMT");
        let after = |text| retry_after(&headers(&[("retry-after", text), now]));
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Fri, 27 Nov 2026 00:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("Thu, 26 Nov 2026 00:00:00 GMT"), None);
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }
}
