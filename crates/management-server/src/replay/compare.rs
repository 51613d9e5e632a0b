//! Comparing what an agent said with what the original said: classes, keys, their order, values;
//! and remembering values of its own that take the place of recorded ones.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::conversation::simple;

/// A difference on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Path from the class without its package on, such as `DownloadAnswer.downloadPath`; `*`
    /// stands for any text. Of a list element `[n]`, of the order of keys `.<order>`.
    pub path: String,
    /// Why it is so.
    pub reason: String,
}

impl Difference {
    /// A difference at a path, with its reason.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }
}

/// One place where an agent differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// Path as in [`Difference`].
    pub path: String,
    /// What was recorded; `null` when it is not in the recording.
    pub recorded: Value,
    /// What came; `null` when it did not.
    pub got: Value,
}

/// Compares two bodies, envelope by envelope.
pub(super) fn bodies(recorded: &Value, got: &Value) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    let empty = Vec::new();
    let recorded_list = recorded.as_array().unwrap_or(&empty);
    let got_list = got.as_array().unwrap_or(&empty);
    if recorded_list.len() != got_list.len() {
        let count = |list: &[Value]| Value::from(list.len());
        mismatches.push(Mismatch {
            path: "<envelopes>".to_owned(),
            recorded: count(recorded_list),
            got: count(got_list),
        });
    }
    for (recorded, got) in recorded_list.iter().zip(got_list) {
        let (Some((class, recorded)), Some((got_class, got))) = (first(recorded), first(got))
        else {
            continue;
        };
        if class != got_class {
            mismatches.push(Mismatch {
                path: format!("{}.<class>", simple(class)),
                recorded: class.into(),
                got: got_class.into(),
            });
        }
        values(recorded, got, simple(class), &mut mismatches);
    }
    mismatches
}

fn first(envelope: &Value) -> Option<(&str, &Value)> {
    envelope.as_object()?.iter().next().map(|(class, body)| (class.as_str(), body))
}

fn values(recorded: &Value, got: &Value, path: &str, mismatches: &mut Vec<Mismatch>) {
    match (recorded, got) {
        (Value::Object(recorded), Value::Object(got)) => {
            objects(recorded, got, path, mismatches);
        }
        (Value::Array(recorded), Value::Array(got)) if recorded.len() == got.len() => {
            for (index, (recorded, got)) in recorded.iter().zip(got).enumerate() {
                values(recorded, got, &format!("{path}[{index}]"), mismatches);
            }
        }
        (recorded, got) if recorded == got => {}
        (recorded, got) => mismatches.push(Mismatch {
            path: path.to_owned(),
            recorded: recorded.clone(),
            got: got.clone(),
        }),
    }
}

fn objects(
    recorded: &Map<String, Value>,
    got: &Map<String, Value>,
    path: &str,
    mismatches: &mut Vec<Mismatch>,
) {
    for (key, value) in recorded {
        let path = format!("{path}.{key}");
        match got.get(key) {
            Some(got) => values(value, got, &path, mismatches),
            None => {
                mismatches.push(Mismatch { path, recorded: value.clone(), got: Value::Null });
            }
        }
    }
    for (key, value) in got.iter().filter(|(key, _)| !recorded.contains_key(*key)) {
        let path = format!("{path}.{key}");
        mismatches.push(Mismatch { path, recorded: Value::Null, got: value.clone() });
    }
    let common = |one: &Map<String, Value>, other: &Map<String, Value>| -> Vec<Value> {
        one.keys().filter(|key| other.contains_key(*key)).map(|key| key.as_str().into()).collect()
    };
    let (recorded, got) = (common(recorded, got), common(got, recorded));
    if recorded != got {
        let path = format!("{path}.<order>");
        mismatches.push(Mismatch { path, recorded: recorded.into(), got: got.into() });
    }
}

/// Texts that take the place of recorded ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Replacements {
    /// Replaced wherever they occur in a text.
    parts: Vec<(String, String)>,
    /// Replaced when they are a whole text.
    whole: HashMap<String, String>,
    /// Values of fields, by name.
    fields: HashMap<String, Value>,
}

impl Replacements {
    pub(super) fn new(parts: Vec<(String, String)>, fields: Vec<(String, Value)>) -> Self {
        Self { parts, whole: HashMap::new(), fields: fields.into_iter().collect() }
    }

    /// A recorded body with all replacements; a field replaced by null is left out.
    pub(super) fn apply(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(list) => list.iter().map(|value| self.apply(value)).collect(),
            Value::Object(object) => {
                let replaced = object.iter().filter_map(|(key, value)| {
                    let value = match self.fields.get(key) {
                        Some(Value::Null) => return None,
                        Some(other) => other.clone(),
                        None => self.apply(value),
                    };
                    Some((key.clone(), value))
                });
                Value::Object(replaced.collect())
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str) -> String {
        if let Some(own) = self.whole.get(text) {
            return own.clone();
        }
        let replace = |text: String, (old, new): &(String, String)| text.replace(old, new);
        self.parts.iter().fold(text.to_owned(), replace)
    }

    /// Learns the agent's own values of some fields; a value must have the shape of the recorded
    /// one, that is differ in nothing but UUIDs.
    pub(super) fn learn(&mut self, recorded: &Value, got: &Value, names: &[String]) {
        match (recorded, got) {
            (Value::Array(recorded), Value::Array(got)) => {
                for (recorded, got) in recorded.iter().zip(got) {
                    self.learn(recorded, got, names);
                }
            }
            (Value::Object(recorded), Value::Object(got)) => {
                for (key, value) in recorded {
                    let Some(got) = got.get(key) else { continue };
                    if let (Value::String(old), Value::String(new), true) =
                        (value, got, names.contains(key))
                    {
                        if old != new && shape(old) == shape(new) {
                            self.whole.insert(old.clone(), new.clone());
                        }
                    } else {
                        self.learn(value, got, names);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A text with its UUIDs blanked out.
fn shape(text: &str) -> String {
    const UUID: usize = 36;
    let is_uuid = |text: &str| {
        text.len() == UUID
            && text.char_indices().all(|(index, letter)| match index {
                8 | 13 | 18 | 23 => letter == '-',
                _ => letter.is_ascii_hexdigit(),
            })
    };
    let mut shape = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if let Some((start, after)) = rest.split_at_checked(UUID)
            && is_uuid(start)
        {
            shape.push_str("<uuid>");
            rest = after;
        } else {
            shape.push(letter);
            rest = rest.get(letter.len_utf8()..).unwrap_or_default();
        }
    }
    shape
}

/// Whether a pattern with `*` covers a text.
pub(super) fn covers(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = pattern.rsplit('*').next().filter(|_| pattern.contains('*')) else {
        return rest.is_empty();
    };
    let middle: Vec<&str> = parts.collect();
    for part in middle.iter().take(middle.len().saturating_sub(1)) {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_cover_paths() {
        for (pattern, text, expected) in [
            ("A.b", "A.b", true),
            ("A.b", "A.bc", false),
            ("*.b", "A.b", true),
            ("A.*", "A.b.c", true),
            ("*.store.*Url", "A.store.secUrl", true),
            ("*.store.*Url", "A.store.secUri", false),
            ("*a*b*", "xaxbx", true),
            ("*a*b*", "xbxax", false),
            ("*", "", true),
        ] {
            assert_eq!(covers(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn every_kind_of_difference_is_found_with_its_path() {
        let recorded = json!([{"x.A": {"same": 1, "value": 2, "gone": 3, "list": [1, {"k": 1}]}}]);
        let got = json!([{"x.B": {"value": 5, "same": 1, "list": [1, {"k": 2}], "new": true}}]);
        let mut paths: Vec<String> =
            bodies(&recorded, &got).into_iter().map(|mismatch| mismatch.path).collect();
        paths.sort();
        assert_eq!(paths, ["A.<class>", "A.<order>", "A.gone", "A.list[1].k", "A.new", "A.value"]);
        assert_eq!(bodies(&recorded, &recorded), []);
        assert_eq!(bodies(&recorded, &json!([])).len(), 1);
    }

    #[test]
    fn learned_values_and_given_texts_replace_recorded_ones() {
        let mut replacements = Replacements::new(
            vec![("http://old/".to_owned(), "http://new/".to_owned())],
            vec![("pingInterval".to_owned(), 1.into()), ("list".to_owned(), Value::Null)],
        );
        let (one, two) =
            ("377b431d-bea5-422d-92c4-4c773b674356", "7223e5b9-ec73-4552-954f-90a56f039e1d");
        let path = |uuid: &str| format!("template/tmpl/2/320/{uuid}.qcow2");
        let recorded = json!([{"A": {"jobId": path(one), "other": "o1", "path": "p/1"}}]);
        let got = json!([{"A": {"jobId": path(two), "other": "o9", "path": "p/2"}}]);
        replacements.learn(&recorded, &got, &["jobId".to_owned(), "path".to_owned()]);
        let line = json!({"jobId": path(one), "other": "o1", "path": "p/1",
            "url": "http://old/f", "pingInterval": 10, "list": ["x"]});
        assert_eq!(
            replacements.apply(&line),
            json!({"jobId": path(two), "other": "o1", "path": "p/1",
                "url": "http://new/f", "pingInterval": 1}),
            "a path of another shape is not learned"
        );
    }
}
