//! Text in place of an image: what a wrong link, a log-in page or an object store's error delivers.

/// Every kind of text by the name that [`name`] gives it.
pub(crate) const NAMES: [&str; 10] =
    [WIDE, WIDER, EBCDIC, HTTP, JSON, ASCII, UTF_8, OTHER, XML, HTML];
const WIDE: &str = "Unicode text, UTF-16";
const WIDER: &str = "Unicode text, UTF-32";
const EBCDIC: &str = "EBCDIC text";
const HTTP: &str = "HTTP message";
const JSON: &str = "JSON data";
const ASCII: &str = "ASCII text";
const UTF_8: &str = "UTF-8 Unicode text";
const OTHER: &str = "ISO-8859 text";
const XML: &str = "XML document";
const HTML: &str = "HTML document";

/// The name of a kind of text, when the sample (the first KiB of a file) is one.
pub(crate) fn name(sample: &[u8]) -> Option<&'static str> {
    let first = sample.first()?;
    if let Some(text) = wide(sample) {
        return Some(text);
    }
    if sample.starts_with(b"HTTP/1.") || is_multipart(sample) {
        return Some(HTTP);
    }
    if EBCDIC_STARTS.iter().any(|start| sample.starts_with(start)) {
        return Some(EBCDIC);
    }
    // A blank or patterned disk repeats one byte, which may be a letter.
    if sample.iter().any(|byte| is_control(*byte)) || sample.iter().all(|byte| byte == first) {
        return None;
    }
    let plain = sample.strip_prefix(b"\xef\xbb\xbf").unwrap_or(sample).trim_ascii_start();
    if let Some(markup) = markup(plain) {
        return Some(markup);
    }
    match std::str::from_utf8(sample) {
        _ if is_json(plain) => Some(JSON),
        Ok(text) if text.is_ascii() => Some(ASCII),
        Ok(_) => Some(UTF_8),
        // The sample may end within a character.
        Err(error) if error.error_len().is_none() => Some(UTF_8),
        Err(_) if is_mostly_letters(sample) || is_varied(sample) => Some(OTHER),
        Err(_) => None,
    }
}

/// Bytes that no text has, whatever its character set.
const fn is_control(byte: u8) -> bool {
    matches!(byte, 0..=6 | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f)
}

/// `<?xml`, `<html`, `<HTML`, `<!DOC` and `{"` as mainframes write them.
const EBCDIC_STARTS: [&[u8]; 5] = [
    b"\x4c\x6f\xa7\x94\x93",
    b"\x4c\x88\xa3\x94\x93",
    b"\x4c\xc8\xe3\xd4\xd3",
    b"\x4c\x5a\xc4\xd6\xc3",
    b"\xc0\x7f",
];

/// Cyrillic, Chinese or Japanese in a character set of its own: no byte of it is a control character.
/// Of random bytes, as an encrypted disk has, every ninth would be one; a pattern that a disk was
/// wiped with has few values.
fn is_varied(sample: &[u8]) -> bool {
    const LONG: usize = 256;
    const VALUES: usize = 9;
    let values: std::collections::BTreeSet<u8> = sample.iter().copied().collect();
    sample.len() >= LONG && values.len() >= VALUES
}

fn is_mostly_letters(sample: &[u8]) -> bool {
    let letters = sample.iter().filter(|byte| byte.is_ascii_alphabetic() || **byte == b' ').count();
    letters * 2 > sample.len()
}

fn is_json(plain: &[u8]) -> bool {
    let mut rest = plain.iter().filter(|byte| !byte.is_ascii_whitespace());
    matches!(
        (rest.next(), rest.next()),
        (Some(b'{'), Some(b'"' | b'}')) | (Some(b'['), Some(b'{' | b'"' | b']' | b'['))
    )
}

/// `<` and what may follow it in a page or a document.
fn markup(plain: &[u8]) -> Option<&'static str> {
    let start: Vec<u8> = plain.iter().take(64).map(u8::to_ascii_lowercase).collect();
    if start.starts_with(b"<?xml") {
        return Some(XML);
    }
    let tag = start.strip_prefix(b"<")?;
    let is_tag = tag.first().is_some_and(|byte| matches!(byte, b'!' | b'?' | b'a'..=b'z'));
    is_tag.then_some(HTML)
}

/// The body of a form or of several ranges, stored as it came.
fn is_multipart(sample: &[u8]) -> bool {
    let Some(line) = sample.iter().position(|byte| *byte == b'\n') else { return false };
    let (boundary, rest) = sample.split_at(line + 1);
    boundary.starts_with(b"--")
        && boundary.is_ascii()
        && rest.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"))
}

/// UTF-16 or UTF-32, with a byte order mark, or evidently text without one.
fn wide(sample: &[u8]) -> Option<&'static str> {
    let units = |little: bool| {
        let unit = move |pair: [u8; 2]| {
            if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
        };
        let (pairs, _odd) = sample.as_chunks::<2>();
        pairs.iter().map(move |pair| unit(*pair))
    };
    let is_text = |little| {
        units(little)
            .skip(1)
            .all(|unit| unit > 0xff || u8::try_from(unit).is_ok_and(|b| !is_control(b)))
    };
    let printable = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let ascii = |unit: u16| u8::try_from(unit).ok().filter(|byte| printable(*byte));
    let is_latin = |little| {
        let is_long = sample.len() >= 64;
        is_long && units(little).all(|unit| ascii(unit).is_some())
    };
    // A page in another script begins with a tag all the same.
    let is_page = |little| {
        let start: Vec<u8> = units(little).map_while(ascii).take(64).collect();
        let plain = start.trim_ascii_start();
        plain.len() > 4 && (markup(plain).is_some() || is_json(plain))
    };
    match sample {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            let zeros = sample.iter().filter(|byte| **byte == 0).count();
            (zeros * 2 >= sample.len() && zeros < sample.len() - 4).then_some(WIDER)
        }
        [0xff, 0xfe, ..] if is_text(true) => Some(WIDE),
        [0xfe, 0xff, ..] if is_text(false) => Some(WIDE),
        _ if is_latin(true) || is_latin(false) => Some(WIDE),
        _ if is_page(true) || is_page(false) => Some(WIDE),
        _ => wider(sample),
    }
}

/// UTF-32 without a mark: a tag or a brace, three zeros apart.
fn wider(sample: &[u8]) -> Option<&'static str> {
    let (units, _rest) = sample.as_chunks::<4>();
    let start = |number: fn([u8; 4]) -> u32| -> Vec<u8> {
        let ascii = |unit: &[u8; 4]| u8::try_from(number(*unit)).ok().filter(u8::is_ascii_graphic);
        units.iter().map_while(ascii).take(64).collect()
    };
    [start(u32::from_le_bytes), start(u32::from_be_bytes)]
        .iter()
        .any(|plain| plain.len() > 4 && (markup(plain).is_some() || is_json(plain)))
        .then_some(WIDER)
}
