//! Envelopes: the JSON array of `{class: body}` objects, and what a typed body must be.
//!
//! A received body stays raw JSON until somebody who knows its class opens it, so a command of an
//! unknown class can still be answered, counted and logged.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::{AnswerBase, CommandBase};
use crate::gson;
use crate::members::{Key, LOCATION_MARK};

/// Most commands or answers accepted in one message; the peer sends one.
pub const MAX_ENVELOPES: usize = 1024;

/// A body with a class: any command or answer.
pub trait Body: Serialize + DeserializeOwned + fmt::Debug + Clone + Send + Sync + 'static {
    /// The full class name on the wire.
    const CLASS: &'static str;
}

/// A body that asks for an answer.
pub trait Command: Body {
    /// The class that the asking side casts the answer to.
    type Answer: Answer;
    /// Whether the sender marks it as in sequence.
    const IN_SEQUENCE: bool;

    /// The fields every command has.
    fn command_base(&self) -> &CommandBase;

    /// The answer that says no, in the shape in which the server takes it for a no.
    fn failed_answer(&self, details: &str) -> Envelope {
        Envelope::of(&Self::Answer::failed(details.to_owned()))
    }
}

/// A body that answers a command.
pub trait Answer: Body {
    /// An answer of this class that says no; `details` is shown to the operator of the server.
    fn failed(details: String) -> Self;

    /// Result and details.
    fn answer_base(&self) -> &AnswerBase;
}

/// Why bytes are not envelopes.
#[derive(Debug, thiserror::Error)]
#[error("message body is not an array of one-key objects")]
pub struct EnvelopeError(#[source] serde_json::Error);

impl EnvelopeError {
    /// Offset of the fault inside `body`, in bytes; the end of the body when it is cut. A few bytes
    /// off when the body is not UTF-8.
    pub fn offset(&self, body: &[u8]) -> usize {
        if self.0.is_eof() {
            return body.len();
        }
        let line = self.0.line().saturating_sub(1);
        let starts = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let start = match line.checked_sub(1) {
            None => 0,
            Some(nth) => starts.map(|(at, _)| at.saturating_add(1)).nth(nth).unwrap_or(0),
        };
        start.saturating_add(self.0.column().saturating_sub(1)).min(body.len())
    }
}

/// Why an envelope cannot be opened as a type.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The envelope holds another class.
    #[error("body is of class {found}, not {expected}")]
    Class {
        /// Class of the type asked for.
        expected: &'static str,
        /// Class of the envelope.
        found: String,
    },
    /// A field does not fit its type. Neither text nor path holds a value of the body.
    #[error("body of {class}: at {path}: {reason}")]
    Field {
        /// Class of the envelope.
        class: String,
        /// Keys from the body down to the field, joined by dots; `.` for the body itself.
        path: String,
        /// What was found and what was expected.
        reason: String,
    },
}

impl BodyError {
    fn field(class: &str, error: &serde_json::Error) -> BodyError {
        let text = error.to_string();
        let (path, reason) = match text.split_once(LOCATION_MARK) {
            Some((path, reason)) => (path.to_owned(), reason.to_owned()),
            None => (".".to_owned(), text),
        };
        BodyError::Field { class: class.to_owned(), path, reason }
    }
}

/// One command or answer, its body still raw.
#[derive(Clone)]
pub struct Envelope {
    /// Full class name.
    pub class: String,
    /// The body's JSON text.
    pub body: Box<RawValue>,
}

impl Envelope {
    /// Wraps a typed body.
    pub fn of<B: Body>(body: &B) -> Envelope {
        #[expect(
            clippy::expect_used,
            reason = "bodies are trees of texts, numbers and lists with text keys: serialising \
                      one into memory cannot fail, and what came out is JSON"
        )]
        let raw = gson::to_json(body).and_then(RawValue::from_string).expect("body to JSON");
        Envelope { class: B::CLASS.to_owned(), body: raw }
    }

    /// True when the body is of type `B`'s class.
    pub fn is<B: Body>(&self) -> bool {
        self.class == B::CLASS
    }

    /// Reads the body as `B`.
    ///
    /// # Errors
    /// [`BodyError::Class`] when the envelope holds another class, [`BodyError::Field`] when a
    /// field does not fit.
    pub fn open<B: Body>(&self) -> Result<B, BodyError> {
        if !self.is::<B>() {
            return Err(BodyError::Class { expected: B::CLASS, found: self.class.clone() });
        }
        self.read()
    }

    /// The fields every command has, whatever the class.
    ///
    /// # Errors
    /// [`BodyError::Field`] when one of them does not fit.
    pub fn command_base(&self) -> Result<CommandBase, BodyError> {
        self.read()
    }

    /// Result and details of an answer, whatever the class.
    ///
    /// # Errors
    /// [`BodyError::Field`] when one of them does not fit.
    pub fn answer_base(&self) -> Result<AnswerBase, BodyError> {
        self.read()
    }

    /// The class without its package, for logs and metrics.
    pub fn simple_name(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or(&self.class)
    }

    /// Reads what can be read of the body: a value that does not fit counts as absent, a body
    /// that is not an object as empty.
    pub(crate) fn open_readable<B: Body + Default>(&self) -> B {
        let mut text = self.body.get().to_owned();
        for _ in 0..MAX_FAULTS {
            match serde_json::from_str(&text).map_err(|error| BodyError::field(&self.class, &error))
            {
                Ok(body) => return body,
                Err(BodyError::Field { path, .. }) => match without(&text, &path) {
                    Some(rest) => text = rest,
                    None => break,
                },
                Err(BodyError::Class { .. }) => break,
            }
        }
        B::default()
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        serde_json::from_str(self.body.get()).map_err(|error| BodyError::field(&self.class, &error))
    }
}

/// Most values that are taken out of one body to read the rest.
const MAX_FAULTS: usize = 32;

/// `json` with null in place of the value at `path`, as [`BodyError::Field`] names it. Keys may hold
/// dots themselves, so the path is followed by prefix.
fn without(json: &str, path: &str) -> Option<String> {
    let below = |key: &str, rest: &str| match rest.strip_prefix(key)? {
        "" => Some(String::new()),
        rest => rest.strip_prefix('.').map(str::to_owned),
    };
    let mut root: serde_json::Value = serde_json::from_str(json).ok()?;
    let (mut at, mut rest) = (&mut root, path.to_owned());
    while !rest.is_empty() {
        (at, rest) = match at {
            serde_json::Value::Object(fields) => fields
                .iter_mut()
                .find_map(|(key, value)| below(key, &rest).map(|rest| (value, rest)))?,
            serde_json::Value::Array(list) => list
                .iter_mut()
                .enumerate()
                .find_map(|(at, value)| below(&at.to_string(), &rest).map(|rest| (value, rest)))?,
            _ => return None,
        };
    }
    *at = serde_json::Value::Null;
    Some(root.to_string())
}

/// Prints class and size: bodies carry passwords and keys.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("class", &self.class)
            .field("body_bytes", &self.body.get().len())
            .finish()
    }
}

impl PartialEq for Envelope {
    fn eq(&self, other: &Envelope) -> bool {
        self.class == other.class && self.body.get() == other.body.get()
    }
}

/// Only the first key of the object counts, as for the peer.
impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Envelope, D::Error> {
        deserializer.deserialize_any(OneKey)
    }
}

struct OneKey;

impl<'de> Visitor<'de> for OneKey {
    type Value = Envelope;

    refuse!("an object with the class as its one key": bool number text list);

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope, A::Error> {
        let Some(Key(class)) = map.next_key()? else {
            return Err(serde::de::Error::custom("an object without a key"));
        };
        let body = map.next_value()?;
        while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
        Ok(Envelope { class: class.into_owned(), body })
    }
}

struct Envelopes(Vec<Envelope>);

impl<'de> Deserialize<'de> for Envelopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Envelopes, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Envelopes;

            refuse!("an array of envelopes": bool number text object);

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Envelopes, A::Error> {
                let mut envelopes = Vec::new();
                while let Some(envelope) = seq.next_element()? {
                    if envelopes.len() == MAX_ENVELOPES {
                        let text = format!("more than {MAX_ENVELOPES} envelopes in one message");
                        return Err(serde::de::Error::custom(text));
                    }
                    envelopes.push(envelope);
                }
                Ok(Envelopes(envelopes))
            }
        }
        deserializer.deserialize_any(List)
    }
}

/// Reads a message body. Bytes that are not UTF-8 become replacement characters: the peer writes
/// with a charset of its own choice.
///
/// # Errors
/// [`EnvelopeError`] when it is not an array of one-key objects.
pub fn parse_envelopes(body: &[u8]) -> Result<Vec<Envelope>, EnvelopeError> {
    let text = String::from_utf8_lossy(body);
    let Envelopes(envelopes) = serde_json::from_str(&text).map_err(EnvelopeError)?;
    Ok(envelopes)
}

/// Writes a message body: pure ASCII, no blanks added.
pub fn encode_envelopes(envelopes: &[Envelope]) -> Vec<u8> {
    let size: usize = envelopes.iter().map(|e| e.class.len() + e.body.get().len() + 6).sum();
    let mut out = String::with_capacity(size + 2);
    out.push('[');
    for (index, envelope) in envelopes.iter().enumerate() {
        out.push_str(if index == 0 { "{" } else { ",{" });
        match gson::to_json(&envelope.class) {
            Ok(class) => out.push_str(&class),
            Err(_) => out.push_str("\"\""),
        }
        out.push(':');
        out.push_str(&gson::to_ascii(envelope.body.get()));
        out.push('}');
    }
    out.push(']');
    out.into_bytes()
}

#[cfg(test)]
mod tests;
