//! What a metalink says, in either version.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use crate::ingest::digest::Algorithm;
use crate::sources::Hash;

const DEPTH: usize = 16;
const MAX_MIRRORS: usize = 100;
/// Longest text of an element that is kept.
const MAX_TEXT: usize = 8 * 1024;
/// Of a mirror without one: after all others.
const LAST: u32 = 1_000_000;
/// Version 3 counts the other way round.
const BEST_PREFERENCE: u32 = 100;

/// What a document says of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// As they stand there, the best first.
    pub mirrors: Vec<String>,
    pub length: Option<u64>,
    /// The strongest digest that is known here.
    pub hash: Option<Hash>,
}

/// Why a document describes no file.
#[derive(Debug, thiserror::Error)]
pub enum MetalinkError {
    #[error("it is not UTF-8")]
    Text,
    #[error("it is not XML: {0}")]
    Xml(#[from] quick_xml::Error),
    #[error("it is not XML: {0}")]
    Attribute(#[from] quick_xml::events::attributes::AttrError),
    #[error("it has a document type declaration")]
    DocType,
    #[error("its elements are nested more than {DEPTH} deep")]
    Depth,
    #[error("it ends in the middle")]
    Cut,
    #[error("its root element is {0:?}")]
    Root(String),
    #[error("it names no mirror")]
    Empty,
}

/// An element that is open.
struct Element {
    name: String,
    /// Of a `url`: lower is better.
    rank: u32,
    /// Of a `hash`.
    algorithm: Option<Algorithm>,
    text: String,
}

/// A `file` element being read.
#[derive(Default)]
struct File {
    mirrors: Vec<(u32, String)>,
    length: Option<u64>,
    hash: Option<Hash>,
}

/// Reads a document; of several files the first that has a mirror.
pub fn parse(bytes: &[u8]) -> Result<Described, MetalinkError> {
    let text = std::str::from_utf8(bytes).map_err(|_bad| MetalinkError::Text)?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut open: Vec<Element> = Vec::new();
    let mut file = File::default();
    loop {
        match reader.read_event()? {
            Event::Start(start) => {
                if open.len() >= DEPTH {
                    return Err(MetalinkError::Depth);
                }
                let element = Element::of(&start)?;
                if open.is_empty() && element.name != "metalink" {
                    return Err(MetalinkError::Root(element.name));
                }
                if element.name == "file" {
                    file = File::default();
                }
                open.push(element);
            }
            Event::End(_) => {
                let Some(element) = open.pop() else { continue };
                if element.name == "file" && !file.mirrors.is_empty() {
                    return Ok(file.described());
                }
                file.take(element, open.last().map(|parent| parent.name.as_str()));
            }
            Event::Text(text) => add(&mut open, &text.xml10_content()),
            Event::CData(text) => add(&mut open, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let mut buffer = [0; 4];
                let letter = reference.resolve_char_ref()?;
                let text = match &letter {
                    Some(letter) => letter.encode_utf8(&mut buffer),
                    None => resolve_predefined_entity(&reference).unwrap_or_default(),
                };
                add(&mut open, text);
            }
            Event::DocType(_) => return Err(MetalinkError::DocType),
            Event::Eof if open.is_empty() => return Err(MetalinkError::Empty),
            Event::Eof => return Err(MetalinkError::Cut),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

fn add(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut()
        && element.text.len() + text.len() <= MAX_TEXT
    {
        element.text.push_str(text);
    }
}

impl Element {
    /// By its name in any namespace: documents of either version are found with either.
    fn of(start: &BytesStart<'_>) -> Result<Self, MetalinkError> {
        let name: String = start.local_name().into_inner().chars().take(64).collect();
        let (mut priority, mut preference, mut algorithm) = (None, None, None);
        for attribute in start.attributes() {
            let attribute = attribute?;
            let value = attribute.value.trim();
            match attribute.key.local_name().into_inner() {
                "priority" => priority = value.parse().ok(),
                "preference" => preference = value.parse::<u32>().ok(),
                "type" => algorithm = Algorithm::by_name(value),
                _ => {}
            }
        }
        let preference = preference.map(|best| BEST_PREFERENCE.saturating_sub(best));
        let rank = priority.or(preference).unwrap_or(LAST);
        Ok(Self { name, rank, algorithm, text: String::new() })
    }
}

impl File {
    /// Takes an element that is complete.
    fn take(&mut self, element: Element, parent: Option<&str>) {
        let text = element.text.trim();
        match element.name.as_str() {
            "url" if !text.is_empty() && self.mirrors.len() < MAX_MIRRORS => {
                self.mirrors.push((element.rank, text.to_owned()));
            }
            "size" => self.length = text.parse().ok(),
            // Those of pieces are of parts.
            "hash" if parent != Some("pieces") => {
                let hex = text.to_ascii_lowercase();
                if let Some(algorithm) = element.algorithm
                    && hex.len() == algorithm.hex_len()
                    && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && self.hash.as_ref().is_none_or(|hash| hash.hex.len() < hex.len())
                {
                    self.hash = Some(Hash { algorithm, hex });
                }
            }
            _ => {}
        }
    }

    fn described(mut self) -> Described {
        self.mirrors.sort_by_key(|(rank, _)| *rank);
        let mirrors = self.mirrors.into_iter().map(|(_, url)| url).collect();
        Described { mirrors, length: self.length, hash: self.hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "4dff4ea340f0a823f15d3f4f01ab62eae0e5da579ccb851f8db9dfe84c58b2b3";

    #[test]
    fn both_versions_give_mirrors_length_and_the_strongest_digest() {
        let four = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>
             <metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">
              <file name=\"none\"/>
              <file name=\"a.qcow2\"><size>14471447</size>
               <hash type=\"md5\">80bc95fd391772fa61c91ed68567f098</hash>
               <hash type=\"sha-256\"> {SHA256} </hash>
               <hash type=\"sha-512\">tooshort</hash><hash type=\"whirlpool\">00</hash>
               <pieces length=\"262144\" type=\"sha-512\"><hash>00</hash></pieces>
               <metaurl mediatype=\"torrent\">http://h/t</metaurl>
               <url>http://last/a</url><url priority=\"2\" location=\"de\">http://second/a</url>
               <url priority=\"1\">
                 http://first/a?x=1&amp;y=2 </url><url priority=\"3\"/>
              </file><file name=\"b\"><url>http://other/b</url></file></metalink>"
        );
        let found = parse(four.as_bytes()).unwrap();
        assert_eq!(found.mirrors, ["http://first/a?x=1&y=2", "http://second/a", "http://last/a"]);
        assert_eq!(found.length, Some(14_471_447));
        let hash = found.hash.unwrap();
        assert_eq!((hash.algorithm, hash.hex.as_str()), (Algorithm::Sha256, SHA256));
        let three = "<metalink version=\"3.0\" xmlns=\"http://www.metalinker.org/\"><files>
              <file name=\"a\"><verification><hash type=\"sha1\">
                a9993e364706816aba3e25717850c26c9cd0d89d</hash></verification><resources>
              <url type=\"http\" preference=\"10\">http://b/a</url>
              <url type=\"http\" preference=\"90\">http://a/a</url></resources></file></files></metalink>";
        let found = parse(three.as_bytes()).unwrap();
        assert_eq!(found.mirrors, ["http://a/a", "http://b/a"]);
        assert_eq!(found.hash.unwrap().algorithm, Algorithm::Sha1);
    }

    #[test]
    fn what_is_no_metalink_says_so() {
        let check = |text: &[u8], expected: &str| {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"<html><body>404</body></html>", "root element is \"html\"");
        check(b"<metalink><file name=\"a\"/></metalink>", "no mirror");
        check(b"", "no mirror");
        check(b"\xff\xfe", "UTF-8");
        let bomb = "<!DOCTYPE m [<!ENTITY a \"aaaa\">]><metalink>&a;</metalink>";
        check(bomb.as_bytes(), "document type");
        let deep = format!("<metalink>{}", "<file>".repeat(30_000));
        check(deep.as_bytes(), "nested");
        check(b"<metalink><file></metalink>", "not XML");
        check(b"<metalink><file><url>http://h/a</url>", "ends in the middle");
        check(b"<metalink><file><url a=1>http://h/a</url></file></metalink>", "not XML");
    }
}
