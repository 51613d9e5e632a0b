//! Text in place of an image: what a wrong link, a log-in page or an object store's error delivers.

/// The name of a kind of text, when the sample (the first KiB of a file) is one.
pub(crate) fn name(sample: &[u8]) -> Option<&'static str> {
    let first = sample.first()?;
    if let Some(text) = wide(sample) {
        return Some(text);
    }
    if sample.starts_with(b"HTTP/1.") || is_multipart(sample) {
        return Some("HTTP message");
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
        _ if is_json(plain) => Some("JSON data"),
        Ok(text) if text.is_ascii() => Some("ASCII text"),
        Ok(_) => Some("UTF-8 Unicode text"),
        // The sample may end within a character.
        Err(error) if error.error_len().is_none() => Some("UTF-8 Unicode text"),
        Err(_) if is_mostly_letters(sample) => Some("ISO-8859 text"),
        Err(_) => None,
    }
}

/// Bytes that no text has, whatever its character set.
const fn is_control(byte: u8) -> bool {
    matches!(byte, 0..=6 | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f)
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
        return Some("XML document");
    }
    let tag = start.strip_prefix(b"<")?;
    let is_tag = tag.first().is_some_and(|byte| matches!(byte, b'!' | b'?' | b'a'..=b'z'));
    is_tag.then_some("HTML document")
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
    const NAME: &str = "Unicode text, UTF-16";
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
    let is_latin = |little| {
        let ascii = |unit: u16| {
            u8::try_from(unit).is_ok_and(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
        };
        sample.len() >= 64 && units(little).all(ascii)
    };
    match sample {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            let zeros = sample.iter().filter(|byte| **byte == 0).count();
            (zeros * 2 >= sample.len() && zeros < sample.len() - 4)
                .then_some("Unicode text, UTF-32")
        }
        [0xff, 0xfe, ..] if is_text(true) => Some(NAME),
        [0xfe, 0xff, ..] if is_text(false) => Some(NAME),
        _ if is_latin(true) || is_latin(false) => Some(NAME),
        _ => None,
    }
}
