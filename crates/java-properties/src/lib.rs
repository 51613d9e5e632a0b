//! Java's `.properties` text: the inventory of a store is kept in it, and so is the configuration of
//! an original agent.
//!
//! Other parties (hypervisor hosts, the seeding script, the Java agent) read and write these
//! files, so both directions follow Java: escapes, line continuation, ISO-8859-1 with `\uXXXX`,
//! and the comment with the date that `Properties.store` puts on top. *Pure*.

use std::time::SystemTime;

/// Key and value pairs in file order. A later duplicate wins, as in Java.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    entries: Vec<(String, String)>,
}

impl Properties {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Replaces a value in place or appends the pair.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key, value)),
        }
    }

    /// Reads the text. Nothing is an error: whatever cannot be a pair ends up as a key without a
    /// value, exactly as Java reads it.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut properties = Self::new();
        for entry in entries(bytes) {
            properties.set(entry.key, entry.value);
        }
        properties
    }

    /// The file as `Properties.store` writes it at `now`, dates in UTC.
    pub fn to_bytes(&self, now: SystemTime) -> Vec<u8> {
        let mut out = format!("#\n#{}\n", java_date(now));
        for (key, value) in &self.entries {
            escape(key, true, &mut out);
            out.push('=');
            escape(value, false, &mut out);
            out.push('\n');
        }
        out.into_bytes()
    }
}

/// A pair as it stands in the file, duplicates included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it begins, from 1.
    pub line: usize,
    pub key: String,
    pub value: String,
    /// A `\u` without four hexadecimal digits: Java refuses the whole file.
    pub malformed: bool,
}

/// Every pair of the text, in its order.
pub fn entries(bytes: &[u8]) -> Vec<Entry> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let read = |(line, text): (usize, String)| {
        let (key, value) = split_pair(&text);
        let malformed = has_malformed_escape(key) || has_malformed_escape(value);
        Entry { line, key: unescape(key), value: unescape(value), malformed }
    };
    logical_lines(&text).into_iter().map(read).collect()
}

/// `Thu Oct 30 12:05:09 UTC 2025`.
fn java_date(now: SystemTime) -> String {
    jiff::Timestamp::try_from(now)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%a %b %d %H:%M:%S UTC %Y")
        .to_string()
}

/// Lines without comments and blanks, continuations joined, with the number of the first.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (number, natural) in natural_lines(text).enumerate() {
        let natural = natural.trim_start_matches([' ', '\t', '\x0c']);
        let continued = pending.is_some();
        if !continued && (natural.is_empty() || natural.starts_with(['#', '!'])) {
            continue;
        }
        let (first, mut line) = pending.take().unwrap_or_else(|| (number + 1, String::new()));
        let backslashes = natural.chars().rev().take_while(|c| *c == '\\').count();
        if backslashes % 2 == 1 {
            line.push_str(natural.strip_suffix('\\').unwrap_or(natural));
            pending = Some((first, line));
        } else {
            line.push_str(natural);
            lines.push((first, line));
        }
    }
    lines.extend(pending.filter(|(_, line)| !line.is_empty()));
    lines
}

/// Lines as they end: with `\n`, `\r`, or both as one.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let here = rest?;
        let Some((line, after)) = here.split_once(['\n', '\r']) else {
            rest = None;
            return Some(here);
        };
        let by_return = here.as_bytes().get(line.len()) == Some(&b'\r');
        rest = Some(if by_return { after.strip_prefix('\n').unwrap_or(after) } else { after });
        Some(line)
    })
}

/// Splits at the first unescaped `=`, `:` or white space; both halves still escaped.
fn split_pair(line: &str) -> (&str, &str) {
    const BLANKS: [char; 3] = [' ', '\t', '\x0c'];
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == '=' || c == ':' || BLANKS.contains(&c) {
            let (key, rest) = line.split_at(at);
            let rest = rest.trim_start_matches(BLANKS);
            let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
            return (key, rest.trim_start_matches(BLANKS));
        }
    }
    (line, "")
}

/// Whether a `\u` lacks its four digits.
fn has_malformed_escape(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next() == Some('u') {
            let digits = chars.by_ref().take(4).filter(char::is_ascii_hexdigit).count();
            if digits < 4 {
                return true;
            }
        }
    }
    false
}

fn unescape(text: &str) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut buffer = [0_u16; 2];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            units.extend_from_slice(c.encode_utf16(&mut buffer));
            continue;
        }
        let c = match chars.next() {
            None => break,
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('f') => '\x0c',
            Some('u') => {
                let hex: String = chars.by_ref().take(4).collect();
                units.push(u16::from_str_radix(&hex, 16).unwrap_or(0xFFFD));
                continue;
            }
            Some(other) => other,
        };
        units.extend_from_slice(c.encode_utf16(&mut buffer));
    }
    String::from_utf16_lossy(&units)
}

fn escape(text: &str, is_key: bool, out: &mut String) {
    for (at, c) in text.char_indices() {
        match c {
            ' ' if is_key || at == 0 => out.push_str("\\ "),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\x0c' => out.push_str("\\f"),
            '\\' | '=' | ':' | '#' | '!' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            other => {
                let mut buffer = [0_u16; 2];
                for unit in other.encode_utf16(&mut buffer) {
                    out.push_str(&format!("\\u{unit:04X}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let parsed = Properties::parse(text.as_bytes());
        let found: Vec<(&str, &str)> =
            parsed.entries.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn reads_what_java_reads() {
        check(
            "#\n#Thu Oct 30 12:05:09 UTC 2025\nid=204\nhvm=true\n",
            &[("id", "204"), ("hvm", "true")],
        );
        check("a : b\n! no\n  c   d e \r\nf", &[("a", "b"), ("c", "d e "), ("f", "")]);
        check("a=one\\\n   two\n", &[("a", "onetwo")]);
        check("a=x\\\\\nb=1", &[("a", "x\\"), ("b", "1")]);
        check("k\\=e\\:y=\\u00e9\\uD83D\\uDE00", &[("k=e:y", "é😀")]);
        check("a=1\na=2", &[("a", "2")]);
        check("description=\n", &[("description", "")]);
        check("a=\\u12\n=x", &[("a", "\u{12}"), ("", "x")]);
        check("a=one\\\r\n   two\r\nb=3\r\r\nc=4", &[("a", "onetwo"), ("b", "3"), ("c", "4")]);
        check("a=one\\\n# two\n# three", &[("a", "one# two")]);
        check("a=1\\", &[("a", "1")]);
    }

    #[test]
    fn entries_tell_their_lines_duplicates_and_what_java_would_refuse() {
        let found = entries(b"# top\na=1\\\r\n 2\r\n\na = \\u00zz\nb=\\\\u1");
        let expected = [(2, "a", "12", false), (5, "a", "\u{fffd}", true), (6, "b", "\\u1", false)];
        let found: Vec<_> =
            found.iter().map(|e| (e.line, e.key.as_str(), e.value.as_str(), e.malformed)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn writes_what_java_writes() {
        let mut properties = Properties::new();
        properties.set("uniquename", "204-2-3f");
        properties.set("description", " a=b: #1!\\ é\n");
        let at = UNIX_EPOCH + Duration::from_secs(1_761_825_909);
        let expected = "#\n#Thu Oct 30 12:05:09 UTC 2025\nuniquename=204-2-3f\n\
                        description=\\ a\\=b\\: \\#1\\!\\\\ \\u00E9\\n\n";
        let bytes = properties.to_bytes(at);
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), expected);
        assert_eq!(Properties::parse(&bytes), properties);
    }

    proptest::proptest! {
        #[test]
        fn any_pairs_survive_the_round_trip(
            pairs in proptest::collection::btree_map("\\PC{1,12}|[ -~]{1,9}", "(?s).{0,20}", 0..8)
        ) {
            let mut properties = Properties::new();
            for (key, value) in &pairs {
                properties.set(key, value);
            }
            let read = Properties::parse(&properties.to_bytes(UNIX_EPOCH));
            for (key, value) in &pairs {
                proptest::prop_assert_eq!(read.get(key), Some(value.as_str()));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let properties = Properties::parse(&bytes);
            proptest::prop_assert!(properties.entries.len() <= bytes.len());
        }
    }
}
