//! The recorded conversations, and the comparison of our messages with them.

use serde_json::{Map, Value};

use crate::agent::Received;

/// Fields whose values are this server's own: ids, keys, random texts.
const FREE: [&str; 12] = [
    "logid",
    "job",
    "hostId",
    "hostUuid",
    "postUploadKey",
    "copyPassword",
    "keystorePassword",
    "encryptorPassword",
    "id",
    "uuid",
    "name",
    "sessionUuid",
];

/// One message of a recording.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) from_server: bool,
    pub(crate) flags: u8,
    pub(crate) seq: i64,
    pub(crate) agent: i64,
    pub(crate) via: i64,
    pub(crate) pair: Option<usize>,
    pub(crate) json: Value,
}

impl Line {
    /// The JSON text of the body.
    pub(crate) fn text(&self) -> String {
        self.json.to_string()
    }

    /// Class of the first envelope without its package.
    pub(crate) fn class(&self) -> &str {
        let full = self.json[0].as_object().unwrap().keys().next().unwrap();
        full.rsplit('.').next().unwrap()
    }
}

/// The messages of a recording.
pub(crate) fn conversation(name: &str) -> Vec<Line> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/conversations");
    let text = std::fs::read_to_string(format!("{folder}/{name}.jsonl")).unwrap();
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let value: Value = serde_json::from_str(line).unwrap();
        value.get("dir")?;
        // A frame that is not a message has no body.
        value["json"].as_array()?;
        let header = &value["hdr"];
        Some(Line {
            number: index + 1,
            from_server: value["dir"] == "m2a",
            flags: u8::try_from(number(&header["flags"])).unwrap(),
            seq: number(&header["seq"]),
            agent: number(&header["agent"]),
            via: number(&header["via"]),
            pair: value["pair"].as_u64().map(|pair| usize::try_from(pair).unwrap()),
            json: value["json"].clone(),
        })
    });
    lines.collect()
}

/// The line with a number.
pub(crate) fn line(lines: &[Line], number: usize) -> &Line {
    lines.iter().find(|line| line.number == number).unwrap()
}

/// Numbers above 2^53 are recorded as texts.
fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap()
}

/// Asserts that a message of ours has the flags, ids, classes, keys in order and values of a
/// recorded one; values of fields that are free only have to be of the same kind.
pub(crate) fn assert_like(ours: &Received, recorded: &Line) {
    let place = format!("{} (line {})", recorded.class(), recorded.number);
    assert_eq!(ours.flags, recorded.flags, "flags of {place}");
    assert_eq!(ours.agent < 0, recorded.agent < 0, "agent id of {place}");
    assert_eq!(ours.via < 0, recorded.via < 0, "via of {place}");
    if recorded.pair.is_none() {
        assert_eq!(ours.seq < 0, recorded.seq < 0, "sequence of {place}");
    }
    same(&ours.json, &recorded.json, &place);
}

fn same(ours: &Value, recorded: &Value, path: &str) {
    match (ours, recorded) {
        (Value::Object(ours), Value::Object(recorded)) => {
            assert_eq!(keys(ours), keys(recorded), "keys of {path}");
            for (key, value) in recorded {
                let path = format!("{path}.{key}");
                if FREE.contains(&key.as_str()) {
                    assert_eq!(kind(&ours[key]), kind(value), "kind of {path}");
                } else {
                    same(&ours[key], value, &path);
                }
            }
        }
        (Value::Array(ours), Value::Array(recorded)) => {
            assert_eq!(ours.len(), recorded.len(), "length of {path}");
            for (index, (ours, recorded)) in ours.iter().zip(recorded).enumerate() {
                same(ours, recorded, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(ours, recorded, "value of {path}"),
    }
}

fn keys(object: &Map<String, Value>) -> Vec<&str> {
    object.keys().map(String::as_str).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "flag",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}
