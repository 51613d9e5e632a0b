//! The body of an HTML form (RFC 7578), piece by piece: bytes in, the file's bytes out.
//!
//! Bytes of a file are passed on as they came: what is held back between two pieces is the begin of a
//! delimiter, or the head of a part up to its bound. Browsers, curl and python-requests agree on the
//! form but not on its details: the boundary may be quoted, part heads come in any order and case,
//! lines may end in a bare line feed, something may stand before the first delimiter.

use bytes::Bytes;
use memchr::memmem::Finder;

/// Longest boundary (RFC 2046).
const MAX_BOUNDARY: usize = 70;
/// Longest head of a part.
const MAX_HEAD: usize = 16 * 1024;
/// Parts of one form; a UI sends one.
const MAX_PARTS: usize = 64;
/// Before the first delimiter.
const MAX_PREAMBLE: usize = 64 * 1024;

/// What is wrong with a form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("the content type names no usable boundary")]
    Boundary,
    #[error("the head of a part has more than {MAX_HEAD} bytes")]
    Head,
    #[error("the form has more than {MAX_PARTS} parts")]
    Parts,
    #[error("the form does not begin with its boundary")]
    Preamble,
    #[error("a boundary of the form is followed by something else")]
    Delimiter,
    #[error("the form ends in the middle")]
    Unfinished,
}

/// What the form has next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A part with a file begins; the name as the client gave it.
    File { name: String },
    /// Bytes of that file.
    Data(Bytes),
    /// The file is whole.
    FileEnd,
    /// The form is whole.
    End,
}

/// A form being read.
#[derive(Debug)]
pub struct Form {
    /// `\r\n--boundary`.
    delimiter: Finder<'static>,
    buffer: Bytes,
    state: State,
    parts: usize,
    seen: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Preamble,
    /// Right after a delimiter.
    Delimiter,
    Head,
    /// In a part; whether it is a file.
    Content {
        is_file: bool,
    },
    /// After the last delimiter.
    Over,
}

impl Form {
    /// From the value of `Content-Type`; `None` when it is no form.
    ///
    /// # Errors
    /// [`FormError::Boundary`].
    pub fn of_content_type(value: &str) -> Option<Result<Self, FormError>> {
        let (kind, parameters) = value.split_once(';').unwrap_or((value, ""));
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary").filter(|boundary| {
            (1..=MAX_BOUNDARY).contains(&boundary.len())
                && boundary.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        });
        Some(boundary.map(|boundary| Self::new(&boundary)).ok_or(FormError::Boundary))
    }

    fn new(boundary: &str) -> Self {
        let delimiter = Finder::new(&format!("\r\n--{boundary}")).into_owned();
        // The first delimiter has no line end before it: it gets one.
        let buffer = Bytes::from_static(b"\r\n");
        Self { delimiter, buffer, state: State::Preamble, parts: 0, seen: 0 }
    }

    /// Takes the next piece of the body.
    pub fn push(&mut self, piece: Bytes) {
        if self.state == State::Over {
            return;
        }
        // The usual piece stays as it is; one after the begin of a delimiter is put together with it.
        self.buffer = if self.buffer.is_empty() {
            piece
        } else {
            [&self.buffer[..], &piece[..]].concat().into()
        };
    }

    /// What can be said with the bytes so far; `None` when more are needed.
    ///
    /// # Errors
    /// [`FormError`]; the form is of no use then.
    pub fn next_event(&mut self) -> Result<Option<Event>, FormError> {
        loop {
            match self.state {
                State::Preamble => {
                    let found = self.delimiter.find(&self.buffer);
                    let passed = match found {
                        Some(at) => at + self.delimiter.needle().len(),
                        None => self.before_a_possible_delimiter(),
                    };
                    self.seen += passed;
                    if self.seen > MAX_PREAMBLE {
                        return Err(FormError::Preamble);
                    }
                    drop(self.buffer.split_to(passed));
                    if found.is_none() {
                        return Ok(None);
                    }
                    self.state = State::Delimiter;
                }
                State::Delimiter => match self.after_delimiter()? {
                    Some(state) => {
                        self.state = state;
                        if state == State::Over {
                            self.buffer.clear();
                            return Ok(Some(Event::End));
                        }
                    }
                    None => return Ok(None),
                },
                State::Head => match self.head()? {
                    Some(head) => {
                        let name = file_name(&head);
                        self.state = State::Content { is_file: name.is_some() };
                        if let Some(name) = name {
                            return Ok(Some(Event::File { name }));
                        }
                    }
                    None => return Ok(None),
                },
                State::Content { is_file } => match self.delimiter.find(&self.buffer) {
                    Some(0) => {
                        drop(self.buffer.split_to(self.delimiter.needle().len()));
                        self.state = State::Delimiter;
                        if is_file {
                            return Ok(Some(Event::FileEnd));
                        }
                    }
                    found => {
                        let length = found.unwrap_or_else(|| self.before_a_possible_delimiter());
                        if length == 0 {
                            return Ok(None);
                        }
                        let data = self.buffer.split_to(length);
                        if is_file {
                            return Ok(Some(Event::Data(data)));
                        }
                    }
                },
                State::Over => return Ok(None),
            }
        }
    }

    /// The body is over: whether the form is whole.
    ///
    /// # Errors
    /// [`FormError::Unfinished`], [`FormError::Preamble`] when there never was a part.
    pub fn finish(&self) -> Result<(), FormError> {
        match self.state {
            State::Over => Ok(()),
            State::Preamble => Err(FormError::Preamble),
            State::Delimiter | State::Head | State::Content { .. } => Err(FormError::Unfinished),
        }
    }

    /// How many bytes can be no part of a delimiter that begins in the buffer.
    fn before_a_possible_delimiter(&self) -> usize {
        let needle = self.delimiter.needle();
        let longest = needle.len().saturating_sub(1).min(self.buffer.len());
        let from = self.buffer.len() - longest;
        let tail = self.buffer.get(from..).unwrap_or_default();
        memchr::memchr_iter(b'\r', tail)
            .find(|at| tail.get(*at..).is_some_and(|end| needle.starts_with(end)))
            .map_or(self.buffer.len(), |at| from + at)
    }

    /// What follows a delimiter: blanks and a line end before a part, two dashes at the end.
    fn after_delimiter(&mut self) -> Result<Option<State>, FormError> {
        let blanks = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if blanks > MAX_BOUNDARY {
            return Err(FormError::Delimiter);
        }
        let rest = self.buffer.get(blanks..).unwrap_or_default();
        let (length, state) = match rest {
            [] | [b'-'] | [b'\r'] => return Ok(None),
            [b'-', b'-', ..] => (2, State::Over),
            // The line end stays: it begins the empty line of a head without fields.
            [b'\r', b'\n', ..] => (0, State::Head),
            [b'\n', ..] => (0, State::Head),
            _ => return Err(FormError::Delimiter),
        };
        if state == State::Head {
            self.parts += 1;
            if self.parts > MAX_PARTS {
                return Err(FormError::Parts);
            }
        }
        drop(self.buffer.split_to(blanks + length));
        Ok(Some(state))
    }

    /// The head of a part, once its empty line is there.
    fn head(&mut self) -> Result<Option<String>, FormError> {
        let ends = memchr::memchr_iter(b'\n', &self.buffer);
        let end = ends.map(|at| at + 1).find_map(|at| match self.buffer.get(at..) {
            Some([b'\r', b'\n', ..]) => Some(at + 2),
            Some([b'\n', ..]) => Some(at + 1),
            _ => None,
        });
        match end {
            Some(end) if end <= MAX_HEAD => {
                let head = self.buffer.split_to(end);
                Ok(Some(String::from_utf8_lossy(&head).into_owned()))
            }
            None if self.buffer.len() <= MAX_HEAD => Ok(None),
            Some(_) | None => Err(FormError::Head),
        }
    }
}

/// The name of the file that a part has; `None` for a plain field.
fn file_name(head: &str) -> Option<String> {
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (_, parameters) = disposition.split_once(';')?;
    parameter(parameters, "filename").or_else(|| {
        // A name outside ASCII, as RFC 5987 writes it: the character set, a language, the bytes.
        let value = parameter(parameters, "filename*")?;
        let encoded = value.splitn(3, '\'').nth(2)?;
        Some(percent_encoding::percent_decode_str(encoded).decode_utf8_lossy().into_owned())
    })
}

/// The value of a parameter, quoted or not. A backslash escapes only quotes and itself: old browsers
/// send paths with backslashes.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted),
            None => {
                let (value, next) = after.split_once(';').unwrap_or((after, ""));
                (value.trim_end().to_owned(), next)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = next;
    }
}

fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => match chars.clone().next() {
                Some((_, escaped @ ('"' | '\\'))) => {
                    value.push(escaped);
                    chars.next();
                }
                _ => value.push(c),
            },
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything the form says when it comes in pieces of `size` bytes; data joined.
    fn read(content_type: &str, body: &[u8], size: usize) -> Result<Vec<Event>, FormError> {
        let mut form = Form::of_content_type(content_type).unwrap()?;
        let mut events: Vec<Event> = Vec::new();
        for piece in body.chunks(size) {
            form.push(Bytes::copy_from_slice(piece));
            while let Some(event) = form.next_event()? {
                match (event, events.last_mut()) {
                    (Event::Data(more), Some(Event::Data(data))) => {
                        *data = [&data[..], &more[..]].concat().into();
                    }
                    (event, _) => events.push(event),
                }
            }
        }
        form.finish()?;
        Ok(events)
    }

    fn file(name: &str, data: &[u8]) -> Vec<Event> {
        let mut events = vec![Event::File { name: name.to_owned() }];
        if !data.is_empty() {
            events.push(Event::Data(Bytes::copy_from_slice(data)));
        }
        events.push(Event::FileEnd);
        events
    }

    fn check(content_type: &str, body: &[u8], expected: &[Event]) {
        for size in [1, 2, 3, 7, 64, body.len()] {
            let mut expected = expected.to_vec();
            expected.push(Event::End);
            assert_eq!(read(content_type, body, size), Ok(expected), "in pieces of {size}");
        }
    }

    const CHROME: &str = "multipart/form-data; boundary=----WebKitFormBoundaryQCtest123456";

    #[test]
    fn a_form_as_browsers_write_it() {
        let body = b"------WebKitFormBoundaryQCtest123456\r\nContent-Disposition: form-data; name=\"files[]\"; \
            filename=\"small.qcow2\"\r\nContent-Type: application/octet-stream\r\n\r\nQFI\xfb\r\n--\r\n----\r\n\
            ------WebKitFormBoundaryQCtest12345\r\n\r\n------WebKitFormBoundaryQCtest123456--\r\n";
        let data = b"QFI\xfb\r\n--\r\n----\r\n------WebKitFormBoundaryQCtest12345\r\n";
        check(CHROME, body, &file("small.qcow2", data));
    }

    #[test]
    fn a_form_as_curl_and_python_write_it() {
        let body = b"--------------------------d74496d66958873e\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\
            text\r\n--------------------------d74496d66958873e\r\ncontent-type: x/y\r\nCONTENT-DISPOSITION: form-data; \
            filename=a.raw; name=file\r\n\r\n\r\n--------------------------d74496d66958873e--\r\n";
        check(
            "Multipart/Form-Data; charset=utf-8; Boundary=\"------------------------d74496d66958873e\"",
            body,
            &file("a.raw", b""),
        );
        let body = b"--0b7e\r\nContent-Disposition: form-data; name=\"f\"; filename*=utf-8''caf%C3%A9.iso\r\n\r\nx\r\n--0b7e--";
        check("multipart/form-data; boundary=0b7e", body, &file("caf\u{e9}.iso", b"x"));
    }

    #[test]
    fn odd_but_usable_forms() {
        let body = b"something before\r\n--b \t\r\nContent-Disposition: form-data; filename=\"C:\\x\\a\\\"b\"\n\ndata\r\n--b--trailing";
        check("multipart/form-data; boundary=b", body, &file("C:\\x\\a\"b", b"data"));
        check("multipart/form-data; boundary=b", b"--b\r\n\r\nno head\r\n--b--", &[]);
        let two = b"--b\r\nContent-Disposition: form-data; filename=\"1\"\r\n\r\na\r\n--b\r\nContent-Disposition: form-data; filename=\"2\"\r\n\r\nb\r\n--b--";
        check("multipart/form-data; boundary=b", two, &[file("1", b"a"), file("2", b"b")].concat());
        check("multipart/form-data; boundary=b", b"--b--", &[]);
    }

    #[test]
    fn what_is_no_form_is_told() {
        assert!(Form::of_content_type("application/octet-stream").is_none());
        assert!(Form::of_content_type("").is_none());
        for bad in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"a\nb\"",
        ] {
            assert!(
                matches!(Form::of_content_type(bad), Some(Err(FormError::Boundary))),
                "{bad:?}"
            );
        }
        let bad = |body: &[u8]| read("multipart/form-data; boundary=b", body, 5).unwrap_err();
        assert_eq!(bad(b"QFI no form at all"), FormError::Preamble);
        assert_eq!(bad(b"--bx\r\n"), FormError::Delimiter);
        assert_eq!(bad(b"--b\r\nContent-Disposition: form-data"), FormError::Unfinished);
        assert_eq!(bad(b"--b\r\n\r\ndata\r\n--b"), FormError::Unfinished);
        assert_eq!(bad(&[b"--b\r\nX: ".to_vec(), vec![b'x'; MAX_HEAD]].concat()), FormError::Head);
        assert_eq!(bad(&b"--b\r\n\r\n\r\n".repeat(MAX_PARTS + 1)), FormError::Parts);
        assert_eq!(bad(&vec![b'x'; MAX_PREAMBLE + 100]), FormError::Preamble);
    }

    proptest::proptest! {
        #[test]
        fn any_file_survives_in_any_pieces(
            data in proptest::collection::vec(proptest::sample::select(&b"\r\n-ab\0"[..]), 0..200),
            size in 1_usize..50,
        ) {
            let delimiter = b"\r\n--ab-";
            proptest::prop_assume!(!data.windows(delimiter.len()).any(|part| part == delimiter));
            let body = [b"--ab-\r\nContent-Disposition: form-data; filename=f\r\n\r\n", &data[..], b"\r\n--ab---"].concat();
            let mut expected = file("f", &data);
            expected.push(Event::End);
            proptest::prop_assert_eq!(read("multipart/form-data; boundary=ab-", &body, size), Ok(expected));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let outcome = read("multipart/form-data; boundary=b", &body, 7);
            proptest::prop_assert!(outcome.is_err() || outcome.is_ok_and(|events| events.len() <= body.len() + 1));
        }
    }
}
