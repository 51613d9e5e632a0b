//! JSON → typed values, strictly: unknown members are refused, and every fault of a body is
//! reported at once, with its place, value and remedy.
//!
//! A derived `Deserialize` stops at the first fault, so bodies of requests are read by [`Read`].
//! [`body!`](crate::read::body) defines a struct and its reader together; what is required follows
//! from the types.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

use crate::problem::Fault;
use crate::words::{Invalid, LabelKey, ResourceId, Text};

/// Entries of a list, unless its type says otherwise.
const LONGEST_LIST: usize = 64;
const MOST_LABELS: usize = 32;
/// Entries of a list of everything there is.
pub(crate) const LONGEST: usize = 50_000;

/// Where in a body something stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    field: String,
    pointer: String,
}

impl Place {
    /// The body itself.
    pub fn root() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn member(&self, name: &str) -> Self {
        let dot = if self.field.is_empty() { "" } else { "." };
        Self {
            field: format!("{}{dot}{name}", self.field),
            pointer: format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1")),
        }
    }

    #[must_use]
    pub fn entry(&self, index: usize) -> Self {
        Self {
            field: format!("{}[{index}]", self.field),
            pointer: format!("{}/{index}", self.pointer),
        }
    }
}

impl Place {
    /// A field of what stands here, as in `values[0]` or `attachment.name`.
    #[must_use]
    pub fn within(&self, field: &str) -> Self {
        let part = |place: Self, part: &str| match part.strip_suffix(']') {
            Some(index) => index.parse().map_or(place.clone(), |index| place.entry(index)),
            None => place.member(part),
        };
        field.split(['.', '[']).filter(|part| !part.is_empty()).fold(self.clone(), part)
    }

    /// A fault of what stands here.
    pub fn fault(&self, value: Value, reason: String, remedy: String) -> Fault {
        fault(self, value, reason, remedy)
    }
}

/// What is wrong with a body, in the order it was found.
#[derive(Debug, Default)]
pub struct Faults {
    unknown: Vec<Fault>,
    others: Vec<Fault>,
}

impl Faults {
    pub fn add(&mut self, place: &Place, value: Value, invalid: Invalid) {
        self.others.push(fault(place, value, invalid.reason, invalid.remedy.to_owned()));
    }

    /// Whether anything was found.
    pub fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.others.is_empty()
    }

    /// Every fault, unknown members first; `true` when there are such.
    pub fn into_parts(self) -> (bool, Vec<Fault>) {
        let unknown = !self.unknown.is_empty();
        (unknown, self.unknown.into_iter().chain(self.others).collect())
    }
}

fn fault(place: &Place, value: Value, reason: String, remedy: String) -> Fault {
    Fault { field: place.field.clone(), pointer: place.pointer.clone(), value, reason, remedy }
}

/// What can be read from JSON.
pub trait Read: Sized {
    /// What an absent member stands for; `None` when it must not be absent.
    fn absent() -> Option<Self> {
        None
    }

    /// Reads `value`, or adds every fault of it and gives `None`.
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self>;
}

/// Reads a whole body.
pub fn whole<T: Read>(value: Value) -> Result<T, Faults> {
    let mut faults = Faults::default();
    match T::read(value, &Place::root(), &mut faults) {
        Some(read) if faults.is_empty() => Ok(read),
        _ => Err(faults),
    }
}

/// As [`whole`], for the resource `id`: the body may repeat it, and nothing else.
pub fn resource<T: Read>(id: &ResourceId, value: Value) -> Result<T, Faults> {
    let mut faults = Faults::default();
    if let Some(given) = value.get("id").filter(|given| given.as_str() != Some(id.as_str())) {
        let remedy = "leave it out, or give the id of the path";
        let invalid = Invalid { reason: format!("is not {id}, the id of the path"), remedy };
        faults.add(&Place::root().member("id"), given.clone(), invalid);
    }
    match T::read(value, &Place::root(), &mut faults) {
        Some(read) if faults.is_empty() => Ok(read),
        _ => Err(faults),
    }
}

/// An object being read. [`Object::finish`] comes last.
#[derive(Debug)]
pub struct Object<'a> {
    place: &'a Place,
    faults: &'a mut Faults,
    members: Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Object<'a> {
    /// `None`, and a fault, when `value` is something else.
    pub fn open(value: Value, place: &'a Place, faults: &'a mut Faults) -> Option<Self> {
        match value {
            Value::Object(members) => Some(Self { place, faults, members, known: Vec::new() }),
            other => {
                not_a("an object", other, place, faults);
                None
            }
        }
    }

    /// Members of answers that a request may repeat; they change nothing.
    pub fn ignore(&mut self, names: &[&'static str]) {
        for name in names {
            self.known.push(name);
            self.members.shift_remove(*name);
        }
    }

    /// Reads a member; `null` counts as absent.
    pub fn member<T: Read>(&mut self, name: &'static str) -> Option<T> {
        self.known.push(name);
        let place = self.place.member(name);
        match self.members.shift_remove(name).filter(|value| !value.is_null()) {
            Some(value) => T::read(value, &place, self.faults),
            None => T::absent().or_else(|| {
                let missing = Invalid { reason: "is missing".to_owned(), remedy: "give a value" };
                self.faults.add(&place, Value::Null, missing);
                None
            }),
        }
    }

    /// Refuses what nobody asked for.
    pub fn finish(self) {
        let known = self.known.join(", ");
        for (name, value) in self.members {
            let (reason, remedy) =
                ("is not a known field".to_owned(), format!("known fields: {known}"));
            self.faults.unknown.push(fault(&self.place.member(&name), value, reason, remedy));
        }
    }
}

/// A fault for a value of another type.
pub(crate) fn not_a(wanted: &str, value: Value, place: &Place, faults: &mut Faults) {
    let reason = format!("is {}, not {wanted}", kind_of(&value));
    faults.add(place, value, Invalid { reason, remedy: "give a value of the documented type" });
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

/// Reads a text that [`std::str::FromStr`] understands.
pub(crate) fn from_text<T: std::str::FromStr<Err = Invalid>>(
    value: Value,
    place: &Place,
    faults: &mut Faults,
) -> Option<T> {
    let Value::String(text) = value else {
        not_a("a text", value, place, faults);
        return None;
    };
    let read = text.parse();
    read.map_err(|invalid| faults.add(place, Value::String(text), invalid)).ok()
}

impl<T: Read> Read for Option<T> {
    fn absent() -> Option<Self> {
        Some(None)
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        T::read(value, place, faults).map(Some)
    }
}

impl<T: Read> Read for Vec<T> {
    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        list(value, LONGEST_LIST, place, faults)
    }
}

/// A list as long as a batch may be.
pub(crate) struct Long<T>(pub(crate) Vec<T>);

impl<T: Read> Read for Long<T> {
    fn absent() -> Option<Self> {
        Some(Self(Vec::new()))
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        list(value, LONGEST, place, faults).map(Self)
    }
}

/// Reads a list of at most `longest` entries.
pub fn list<T: Read>(
    value: Value,
    longest: usize,
    place: &Place,
    faults: &mut Faults,
) -> Option<Vec<T>> {
    let Value::Array(items) = value else {
        not_a("a list", value, place, faults);
        return None;
    };
    if items.len() > longest {
        let reason = format!("has {} entries, more than {longest}", items.len());
        faults.add(place, Value::Null, Invalid { reason, remedy: "give fewer entries" });
        return None;
    }
    let count = items.len();
    let read: Vec<T> = items
        .into_iter()
        .enumerate()
        .filter_map(|(index, item)| T::read(item, &place.entry(index), faults))
        .collect();
    (read.len() == count).then_some(read)
}

impl Read for bool {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let flag = value.as_bool();
        if flag.is_none() {
            not_a("a boolean", value, place, faults);
        }
        flag
    }
}

impl Read for Ipv4Addr {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let bad = |_syntax| Invalid {
            reason: "is not an IPv4 address".to_owned(),
            remedy: "give four numbers without leading zeros: 10.1.1.50",
        };
        address(value, place, faults, bad)
    }
}

impl Read for Ipv6Addr {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let bad = |_syntax| Invalid {
            reason: "is not an IPv6 address".to_owned(),
            remedy: "give an address such as fd00::50",
        };
        address(value, place, faults, bad)
    }
}

/// Addresses come from the standard library, whose errors know no remedy.
fn address<T: std::str::FromStr>(
    value: Value,
    place: &Place,
    faults: &mut Faults,
    bad: impl Fn(T::Err) -> Invalid,
) -> Option<T> {
    let Value::String(text) = value else {
        not_a("a text", value, place, faults);
        return None;
    };
    text.parse().map_err(|error| faults.add(place, Value::String(text), bad(error))).ok()
}

impl Read for BTreeMap<LabelKey, Text> {
    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let Value::Object(entries) = value else {
            not_a("an object", value, place, faults);
            return None;
        };
        if entries.len() > MOST_LABELS {
            let reason = format!("has {} labels, more than {MOST_LABELS}", entries.len());
            faults.add(place, Value::Null, Invalid { reason, remedy: "give fewer labels" });
            return None;
        }
        let count = entries.len();
        let mut labels = Self::new();
        for (key, value) in entries {
            let place = place.member(&key);
            let text = from_text(value.clone(), &place, faults);
            match key.parse() {
                Ok(key) => drop(text.map(|text| labels.insert(key, text))),
                Err(invalid) => faults.add(&place, value, invalid),
            }
        }
        (labels.len() == count).then_some(labels)
    }
}

/// Defines a struct that is read as an object: stored and answered as it is, read from requests
/// with every fault at once. `ignores` names members of answers that a request may repeat.
macro_rules! body {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
        ignores $ignored:expr
    ) => {
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $crate::read::Read for $name {
            fn read(
                value: serde_json::Value,
                place: &$crate::read::Place,
                faults: &mut $crate::read::Faults,
            ) -> Option<Self> {
                let mut object = $crate::read::Object::open(value, place, faults)?;
                object.ignore($ignored);
                $(let $field = object.member::<$type>(stringify!($field));)*
                object.finish();
                Some(Self { $($field: $field?,)* })
            }
        }
    };
}
pub(crate) use body;
