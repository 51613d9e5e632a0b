//! Reads the vector files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// One recorded message.
pub(crate) struct Recorded {
    pub(crate) id: String,
    pub(crate) raw: Vec<u8>,
    pub(crate) line: Value,
}

pub(crate) const MESSAGES: &str = include_str!("../vectors/messages.jsonl");
pub(crate) const DERIVED: &str = include_str!("../vectors/derived.jsonl");

pub(crate) fn recorded() -> Vec<Recorded> {
    let messages: Vec<_> = MESSAGES
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let raw = STANDARD.decode(line["raw"].as_str().unwrap()).unwrap();
            Recorded { id: line["id"].as_str().unwrap().to_owned(), raw, line }
        })
        .collect();
    assert_eq!(messages.len(), 125);
    messages
}

/// One message worked out from the rules.
pub(crate) struct Derived {
    pub(crate) id: String,
    pub(crate) header: Vec<u8>,
    pub(crate) json: String,
    pub(crate) packet: Option<String>,
    pub(crate) gzip: Option<Vec<u8>>,
}

pub(crate) fn derived() -> Vec<Derived> {
    let vectors: Vec<_> = DERIVED
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let json = match line["json_x9000"].as_str() {
                Some(json) => json.replace('X', &"x".repeat(9000)),
                None => line["json"].as_str().unwrap().to_owned(),
            };
            Derived {
                id: line["id"].as_str().unwrap().to_owned(),
                header: unhex(line["header"].as_str().unwrap()),
                json,
                packet: line["packet"].as_str().map(str::to_owned),
                gzip: line["gzip"].as_str().map(unhex),
            }
        })
        .collect();
    assert_eq!(vectors.len(), 29);
    vectors
}

impl Derived {
    /// The whole message as on the wire.
    pub(crate) fn message(&self) -> Vec<u8> {
        let body = self.gzip.as_deref().unwrap_or(self.json.as_bytes());
        [self.header.as_slice(), body].concat()
    }
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
