//! A recorded conversation, read from JSON lines.

use agent_protocol::frame::{Flags, FrameHeader};
use agent_protocol::{Envelope, Sequence, gson};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Why a recording cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// A line is not JSON or lacks a field.
    #[error("line {line} of the recording is not readable")]
    Line {
        /// Number of the line, counted from 1.
        line: usize,
        /// What the JSON reader says.
        #[source]
        source: serde_json::Error,
    },
    /// The recording does not begin with a start-up command.
    #[error("the recording holds no request of an agent")]
    NoAgent,
}

/// A message of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Number of its line, counted from 1.
    pub line: usize,
    /// Whether the server sent it.
    pub from_server: bool,
    /// Its header.
    pub header: FrameHeader,
    /// Its body: an array of one-key objects.
    pub json: Value,
    /// Line of the request that it answers.
    pub pair: Option<usize>,
}

impl Recorded {
    /// Class of the first envelope.
    pub fn class(&self) -> &str {
        class_of(&self.json)
    }

    /// Whether it is a request.
    pub fn is_request(&self) -> bool {
        self.header.flags.contains(Flags::REQUEST)
    }
}

/// Who ended the recorded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The server, without being asked.
    Server,
    /// The agent, or nobody.
    Agent,
}

/// One recorded connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    messages: Vec<Recorded>,
    ending: Ending,
}

#[derive(Deserialize)]
struct Line {
    dir: Option<String>,
    hdr: Option<Header>,
    #[serde(default)]
    json: Value,
    pair: Option<usize>,
    ev: Option<String>,
    side: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    flags: u16,
    seq: Number,
    size: u32,
    mgmt: Number,
    agent: Number,
    via: Number,
}

/// Numbers above 2^53 are recorded as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(i64),
    Text(String),
}

impl Number {
    fn value(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().unwrap_or(0),
        }
    }
}

impl Conversation {
    /// Reads a recording. Frames that were not messages are left out.
    ///
    /// # Errors
    /// [`ConversationError`] when a line is not readable or no agent speaks.
    pub fn parse(text: &str) -> Result<Self, ConversationError> {
        let mut messages: Vec<Recorded> = Vec::new();
        let mut ending = Ending::Agent;
        let mut ended = false;
        for (index, text) in text.lines().enumerate() {
            let number = index + 1;
            let line: Line = serde_json::from_str(text)
                .map_err(|source| ConversationError::Line { line: number, source })?;
            if line.ev.as_deref() == Some("eof") && !ended {
                ended = true;
                let goodbye = messages.last().is_some_and(|last| last.header.sequence.0 == -1);
                if line.side.as_deref() == Some("ms") && !goodbye {
                    ending = Ending::Server;
                }
            }
            let (Some(direction), Some(header)) = (line.dir, line.hdr) else { continue };
            if !line.json.is_array() {
                continue;
            }
            messages.push(Recorded {
                line: number,
                from_server: direction == "m2a",
                header: FrameHeader {
                    flags: Flags::from_bits(header.flags).without(Flags::COMPRESSED),
                    sequence: Sequence(header.seq.value()),
                    length: header.size,
                    management_id: header.mgmt.value(),
                    agent_id: header.agent.value(),
                    via: header.via.value(),
                },
                json: line.json,
                pair: line.pair,
            });
        }
        if !messages.iter().any(|message| !message.from_server && message.is_request()) {
            return Err(ConversationError::NoAgent);
        }
        Ok(Self { messages, ending })
    }

    /// All messages.
    pub fn messages(&self) -> &[Recorded] {
        &self.messages
    }

    /// Who ended the connection.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// The answer to a request.
    pub fn answer(&self, request: &Recorded) -> Option<&Recorded> {
        self.messages.iter().find(|message| message.pair == Some(request.line))
    }

    /// What the server sent without being asked, in order.
    pub fn commands(&self) -> impl Iterator<Item = &Recorded> {
        self.messages.iter().filter(|message| message.from_server && message.is_request())
    }

    /// What the agent asked, in order.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Recorded> {
        self.messages.iter().filter(|message| !message.from_server && message.is_request())
    }
}

/// Class of the first envelope of a body.
pub(super) fn class_of(json: &Value) -> &str {
    let first = json.get(0).and_then(Value::as_object);
    first.and_then(|object| object.keys().next()).map_or("", String::as_str)
}

/// A class without its package.
pub(super) fn simple(class: &str) -> &str {
    class.rsplit('.').next().unwrap_or(class)
}

/// Envelopes of a body, written as the original writes them.
pub(super) fn envelopes(json: &Value) -> Vec<Envelope> {
    let objects = json.as_array().into_iter().flatten().filter_map(Value::as_object);
    let pairs = objects.filter_map(|object| object.iter().next());
    pairs.filter_map(|(class, body)| envelope(class, body)).collect()
}

pub(super) fn envelope(class: &str, body: &Value) -> Option<Envelope> {
    let text = gson::to_json(body).ok()?;
    let body = RawValue::from_string(text).ok()?;
    Some(Envelope { class: class.to_owned(), body })
}

/// The body of envelopes as one JSON value.
pub(super) fn json(envelopes: &[Envelope]) -> Value {
    let objects = envelopes.iter().map(|envelope| {
        let body = serde_json::from_str(envelope.body.get()).unwrap_or(Value::Null);
        Value::Object(std::iter::once((envelope.class.clone(), body)).collect())
    });
    Value::Array(objects.collect())
}
