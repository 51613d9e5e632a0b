//! The peer's JSON dialect.
//!
//! Writing: no blanks, absent instead of null, `< > & = '` as `\u00xx`, and every non-ASCII
//! character as `\uXXXX`, because the peer converts bytes with whatever charset its process has.
//! Reading: what the peer's own library accepts in place of a number, a flag or a text is accepted
//! here too, a null never overwrites a number, the last of two equal keys wins.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};

pub use crate::members::{Dictionary, RawObject};

/// Writes JSON as the peer's library does; plugs into [`serde_json::Serializer`].
#[derive(Debug, Clone, Copy, Default)]
pub struct GsonFormatter;

impl Formatter for GsonFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        escape(writer, fragment, |c| !c.is_ascii() || matches!(c, '<' | '>' | '&' | '=' | '\''))
    }

    fn write_raw_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        // JSON already: a non-ASCII character can only stand inside a text, where an escape may.
        escape(writer, fragment, |c| !c.is_ascii())
    }

    fn write_char_escape<W>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        match escape {
            CharEscape::Solidus => writer.write_all(b"/"),
            CharEscape::AsciiControl(byte) => write!(writer, "\\u{byte:04x}"),
            CharEscape::Quote => writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => writer.write_all(b"\\\\"),
            CharEscape::Backspace => writer.write_all(b"\\b"),
            CharEscape::FormFeed => writer.write_all(b"\\f"),
            CharEscape::LineFeed => writer.write_all(b"\\n"),
            CharEscape::CarriageReturn => writer.write_all(b"\\r"),
            CharEscape::Tab => writer.write_all(b"\\t"),
        }
    }
}

/// Writes `text` with the characters for which `special` holds as UTF-16 escapes.
fn escape<W>(writer: &mut W, text: &str, special: impl Fn(char) -> bool) -> io::Result<()>
where
    W: ?Sized + io::Write,
{
    let mut rest = text;
    while let Some(at) = rest.find(&special) {
        let (plain, tail) = rest.split_at(at);
        writer.write_all(plain.as_bytes())?;
        let mut tail = tail.chars();
        if let Some(c) = tail.next() {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        rest = tail.as_str();
    }
    writer.write_all(rest.as_bytes())
}

/// Serialises `value` as pure ASCII in the peer's form.
///
/// # Errors
/// What `value`'s own `Serialize` reports; writing into memory does not fail.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut out = Vec::with_capacity(256);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, GsonFormatter))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// `json` with every non-ASCII character as an escape; any JSON text goes in.
pub fn to_ascii(json: &str) -> std::borrow::Cow<'_, str> {
    if json.is_ascii() {
        return std::borrow::Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len().saturating_mul(2));
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    std::borrow::Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_escaped_as_the_peer_does() {
        let text = "a<b>c&d=e'f\"g\\h/i\u{7f}\u{2028}\u{e4}\u{1f600}\n\r\t\u{8}\u{c}\u{1}";
        assert_eq!(
            to_json(text).unwrap(),
            concat!(
                r#""a\u003cb\u003ec\u0026d\u003de\u0027f\"g\\h/i"#,
                "\u{7f}",
                r#"\u2028\u00e4\ud83d\ude00\n\r\t\b\f\u0001""#
            )
        );
    }

    #[test]
    fn keys_are_escaped_like_values() {
        let map = std::collections::BTreeMap::from([("a=\u{e4}", 1)]);
        assert_eq!(to_json(&map).unwrap(), r#"{"a\u003d\u00e4":1}"#);
    }

    #[test]
    fn foreign_json_becomes_ascii_and_keeps_its_meaning() {
        let json = "{\"k\u{e4}\":\"\u{1f600}=\"}";
        assert_eq!(to_ascii(json), "{\"k\\u00e4\":\"\\ud83d\\ude00=\"}");
        let raw = serde_json::value::RawValue::from_string(json.to_owned()).unwrap();
        assert_eq!(to_json(&raw).unwrap(), to_ascii(json));
    }
}
