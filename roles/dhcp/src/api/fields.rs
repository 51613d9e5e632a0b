//! Reading a JSON object strictly: typed, with every fault at once.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::problem::{Fault, Problem, Slug};
use crate::value::Invalid;

/// Addresses come from the standard library, whose errors know no remedy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct V4(pub(crate) Ipv4Addr);

impl FromStr for V4 {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |_syntax| Invalid {
            reason: "is not an IPv4 address".to_owned(),
            remedy: "give four numbers without leading zeros: 10.1.1.50",
        };
        text.parse().map(Self).map_err(bad)
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct V6(pub(crate) Ipv6Addr);

impl FromStr for V6 {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |_syntax| Invalid {
            reason: "is not an IPv6 address".to_owned(),
            remedy: "give an address such as fd00::50",
        };
        text.parse().map(Self).map_err(bad)
    }
}

/// An object being read. Call [`Fields::finish`] last.
#[derive(Debug)]
pub(crate) struct Fields {
    prefix: String,
    map: Map<String, Value>,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl Fields {
    /// `prefix` leads every field's path: empty, or `upsert[3].`.
    pub(crate) fn new(value: Value, prefix: impl Into<String>) -> Result<Self, Problem> {
        let prefix = prefix.into();
        match value {
            Value::Object(map) => Ok(Self { prefix, map, known: Vec::new(), faults: Vec::new() }),
            other => Err(Problem::new(
                Slug::Malformed,
                format!("{prefix}{} is not an object", kind_of(&other)),
            )),
        }
    }

    pub(crate) fn fault(&mut self, field: &str, value: Value, invalid: &Invalid) {
        self.faults.push(Fault {
            field: format!("{}{field}", self.prefix),
            value,
            reason: invalid.reason.clone(),
            remedy: invalid.remedy.to_owned(),
        });
    }

    /// Takes a value out; null counts as absent.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// Fields of our answers, so that an answer can be changed and sent back.
    pub(crate) fn ignore(&mut self, keys: &[&'static str]) {
        for key in keys {
            self.known.push(key);
            self.map.remove(*key);
        }
    }

    pub(crate) fn optional<T: FromStr<Err = Invalid>>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        self.read(key, value)
    }

    pub(crate) fn required<T: FromStr<Err = Invalid>>(&mut self, key: &'static str) -> Option<T> {
        match self.take(key) {
            Some(value) => self.read(key, value),
            None => {
                let missing = Invalid { reason: "is missing".to_owned(), remedy: "give a value" };
                self.fault(key, Value::Null, &missing);
                None
            }
        }
    }

    fn read<T: FromStr<Err = Invalid>>(&mut self, field: &str, value: Value) -> Option<T> {
        let Some(text) = value.as_str() else {
            self.not_a("text", field, value);
            return None;
        };
        match text.parse() {
            Ok(read) => Some(read),
            Err(invalid) => {
                self.fault(field, value, &invalid);
                None
            }
        }
    }

    fn not_a(&mut self, what: &'static str, field: &str, value: Value) {
        let reason = format!("is {}, not a {what}", kind_of(&value));
        self.fault(
            field,
            value,
            &Invalid { reason, remedy: "give a value of the documented type" },
        );
    }

    /// A list of texts; `None` when absent.
    pub(crate) fn list<T: FromStr<Err = Invalid>>(&mut self, key: &'static str) -> Option<Vec<T>> {
        const LONGEST: usize = 64;
        let items = match self.take(key)? {
            Value::Array(items) => items,
            other => {
                self.not_a("list", key, other);
                return None;
            }
        };
        if items.len() > LONGEST {
            let reason = format!("has {} entries", items.len());
            let invalid = Invalid { reason, remedy: "give at most 64 entries" };
            self.fault(key, Value::Null, &invalid);
            return None;
        }
        let read = items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| self.read(&format!("{key}[{index}]"), item));
        Some(read.collect())
    }

    pub(crate) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Bool(flag)) => flag,
            Some(other) => {
                self.not_a("boolean", key, other);
                default
            }
        }
    }

    pub(crate) fn number(&mut self, key: &'static str, low: u64, high: u64) -> Option<u64> {
        let value = self.take(key)?;
        match value.as_u64() {
            Some(number) if (low..=high).contains(&number) => Some(number),
            _ => {
                let reason = format!("is not a number between {low} and {high}");
                let invalid = Invalid { reason, remedy: "give a number in that range" };
                self.fault(key, value, &invalid);
                None
            }
        }
    }

    /// Refuses what nobody asked for, then what was not valid.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        let unknown: Vec<Fault> = std::mem::take(&mut self.map)
            .into_iter()
            .map(|(key, value)| Fault {
                field: format!("{}{key}", self.prefix),
                value,
                reason: "is not a known field".to_owned(),
                remedy: format!("known fields: {}", self.known.join(", ")),
            })
            .collect();
        if !unknown.is_empty() {
            return Err(Problem::faults(Slug::UnknownField, &unknown));
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(Problem::faults(Slug::InvalidValue, &self.faults))
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
