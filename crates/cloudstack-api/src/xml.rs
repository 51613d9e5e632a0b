//! An answer's XML document, read strictly.
//!
//! No document type, hence no entities of its own; nothing but the one root; a value that stands
//! once in an object must stand there once. Elements nobody asked for are a newer server's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use roxmltree::{Document, Node, ParsingOptions};
use uuid::Uuid;

/// Elements and texts of one document; a page of 500 machines has about 40,000.
const NODES: u32 = 2_000_000;
/// Elements inside each other; the server's go to six.
const DEPTH: usize = 64;

/// Why a document is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the answer is not UTF-8")]
    NotText(#[source] std::str::Utf8Error),
    #[error("the answer is not an XML document")]
    NotXml(#[source] roxmltree::Error),
    #[error("the answer's elements are nested more than {DEPTH} deep")]
    TooDeep,
    #[error("the answer is a {found:?}, not a {expected:?}")]
    WrongRoot { expected: String, found: String },
    #[error("{path} is missing")]
    Missing { path: String },
    #[error("{path} stands there {times} times")]
    Repeated { path: String, times: usize },
    #[error("{path} holds {value:?}, which is not {what}")]
    Malformed { path: String, value: String, what: &'static str },
}

/// Parses a document and hands its root to `read`.
pub fn with_root<T>(
    bytes: &[u8],
    read: impl FnOnce(Element<'_, '_>) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    let text = std::str::from_utf8(bytes).map_err(ReadError::NotText)?;
    if depth(text) > DEPTH {
        return Err(ReadError::TooDeep);
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: NODES, ..Default::default() };
    let document = Document::parse_with_options(text, options).map_err(ReadError::NotXml)?;
    read(Element(document.root_element()))
}

/// How deep tags go, at most. Counts every `<x` as an opening: what looks like a tag inside a
/// comment or a character section makes it larger, never smaller. Guards the parser's recursion.
fn depth(text: &str) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for (at, _) in text.match_indices('<') {
        let rest = text.as_bytes().get(at + 1..).unwrap_or_default();
        match rest.first() {
            Some(b'/') => now = now.saturating_sub(1),
            Some(b'?' | b'!') | None => {}
            Some(_) => {
                let end = rest.iter().position(|byte| *byte == b'>').unwrap_or(0);
                let closed = end > 0 && rest.get(end - 1) == Some(&b'/');
                if !closed {
                    now += 1;
                    most = most.max(now);
                }
            }
        }
    }
    most
}

/// An element of a document.
#[derive(Clone, Copy)]
pub struct Element<'a, 'input>(Node<'a, 'input>);

impl fmt::Debug for Element<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.name())
    }
}

impl<'a, 'input> Element<'a, 'input> {
    /// The element's name, in lower case in every answer of the server.
    pub fn name(&self) -> &'a str {
        self.0.tag_name().name()
    }

    /// Its children of that name.
    pub fn all(self, name: &str) -> impl Iterator<Item = Element<'a, 'input>> {
        self.0.children().filter(move |node| node.has_tag_name(name)).map(Element)
    }

    /// Its child of that name; several are an error.
    pub fn one(self, name: &str) -> Result<Option<Element<'a, 'input>>, ReadError> {
        let mut found = self.all(name);
        let first = found.next();
        match found.count() {
            0 => Ok(first),
            more => Err(ReadError::Repeated { path: self.path(name), times: more + 1 }),
        }
    }

    /// Its children, whatever their names.
    pub fn children(self) -> impl Iterator<Item = Element<'a, 'input>> {
        self.0.children().filter(Node::is_element).map(Element)
    }

    /// Its own text; an element with children has none.
    pub fn text(self) -> Option<&'a str> {
        let has_children = self.0.children().any(|node| node.is_element());
        if has_children { None } else { Some(self.0.text().unwrap_or_default()) }
    }

    /// The element as it stands in the document.
    pub fn source(self) -> String {
        let text = self.0.document().input_text();
        text.get(self.0.range()).unwrap_or_default().to_owned()
    }

    /// Reads the child `name` as whatever `T` is.
    pub fn field<T: Field>(self, name: &str) -> Result<T, ReadError> {
        T::read(self, name)
    }

    /// Where a child stands, for people: `virtualmachine/nic/macaddress`.
    pub fn path(self, child: &str) -> String {
        let mut names: Vec<&str> = self
            .0
            .ancestors()
            .filter(Node::is_element)
            .map(|node| node.tag_name().name())
            .collect();
        names.reverse();
        names.push(child);
        names.join("/")
    }
}

/// What a child of an element can be read as: a text, an object, an optional one, a list.
pub trait Field: Sized {
    /// Reads the child `name` of `parent`.
    fn read(parent: Element<'_, '_>, name: &str) -> Result<Self, ReadError>;
}

/// An object, read from its element.
pub trait Object: Sized {
    /// Reads it.
    fn read(element: Element<'_, '_>) -> Result<Self, ReadError>;
}

/// A value, read from the text of its element.
pub trait Value: Sized {
    /// For messages: "a UUID".
    const WHAT: &'static str;

    /// Reads it.
    fn parse(text: &str) -> Option<Self>;
}

macro_rules! values {
    ($($kind:ty: $what:literal),* $(,)?) => {
        $(impl Value for $kind {
            const WHAT: &'static str = $what;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })*
    };
}

values! {
    String: "a text",
    bool: "true or false",
    u16: "a number up to 65535",
    u32: "a number",
    u64: "a number",
    i64: "a number",
    Uuid: "a UUID",
    IpAddr: "an address",
    Ipv4Addr: "an IPv4 address",
    Ipv6Addr: "an IPv6 address",
}

/// Cuts a value for a message.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

impl<T: Value> Field for T {
    fn read(parent: Element<'_, '_>, name: &str) -> Result<Self, ReadError> {
        <Option<T> as Field>::read(parent, name)?
            .ok_or_else(|| ReadError::Missing { path: parent.path(name) })
    }
}

/// Absent, or empty where the value cannot be: the server writes `<asnrange/>` for null.
impl<T: Value> Field for Option<T> {
    fn read(parent: Element<'_, '_>, name: &str) -> Result<Self, ReadError> {
        let Some(element) = parent.one(name)? else { return Ok(None) };
        let malformed = |value: &str| ReadError::Malformed {
            path: parent.path(name),
            value: shortened(value),
            what: T::WHAT,
        };
        let text = element.text().ok_or_else(|| malformed("<…>"))?;
        match T::parse(text) {
            Some(value) => Ok(Some(value)),
            None if text.is_empty() => Ok(None),
            None => Err(malformed(text)),
        }
    }
}

/// A list of objects: repeated elements, none when it is empty.
impl<T: Object> Field for Vec<T> {
    fn read(parent: Element<'_, '_>, name: &str) -> Result<Self, ReadError> {
        parent.all(name).map(T::read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> String {
        match with_root(text.as_bytes(), |root| root.field::<Option<u16>>("n")) {
            Ok(value) => format!("{value:?}"),
            Err(error) => bedrock::chain(&error),
        }
    }

    #[test]
    fn a_value_stands_once_or_not_at_all() {
        assert_eq!(number("<r><n>7</n></r>"), "Some(7)");
        assert_eq!(number("<r/>"), "None");
        assert_eq!(number("<r><n/></r>"), "None");
        assert_eq!(number("<r><n>7</n><m/><n>8</n></r>"), "r/n stands there 2 times");
        let expected = "r/n holds \"x\", which is not a number up to 65535";
        assert_eq!(number("<r><n>x</n></r>"), expected);
        assert!(number("<r><n><m/></n></r>").contains("r/n holds"));
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused() {
        for bad in [
            "",
            "x",
            "{\"r\":{}}",
            "<r>",
            "<r/><r/>",
            "<r/>x",
            "<r><n>7</r></n>",
            "<r>&eacute;</r>",
            "<!DOCTYPE r [<!ENTITY e \"7\">]><r><n>&e;</n></r>",
            "<!DOCTYPE r SYSTEM \"file:///etc/passwd\"><r/>",
            "<html><body>502 Bad Gateway<br></body></html>",
        ] {
            let outcome = with_root(bad.as_bytes(), |_root| Ok(()));
            assert!(matches!(outcome, Err(ReadError::NotXml(_))), "{bad}");
        }
        assert!(matches!(with_root(b"<r>\xff</r>", |_| Ok(())), Err(ReadError::NotText(_))));
    }

    #[test]
    fn deep_documents_do_not_overflow_the_stack() {
        let deep = "<a>".repeat(200_000) + &"</a>".repeat(200_000);
        assert!(matches!(with_root(deep.as_bytes(), |_| Ok(())), Err(ReadError::TooDeep)));
    }

    #[test]
    fn texts_are_taken_literally() {
        let text = "<r><n>&lt;nic&gt;&lt;id&gt; ]]&gt; &amp;quot; \\u003c</n></r>";
        let read = with_root(text.as_bytes(), |root| root.field::<String>("n")).unwrap();
        assert_eq!(read, "<nic><id> ]]> &quot; \\u003c");
    }
}
