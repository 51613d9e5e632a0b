//! DNS records besides those of reservations.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::read::{Faults, Object, Place};
use crate::resource::{BOOKKEEPING, Meta};
use crate::words::{DomainName, Invalid, RecordName, invalid};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum RecordType {
    A,
    Aaaa,
    Cname,
    Txt,
    Srv,
    Ptr,
}

impl RecordType {
    /// Whether a running dnsmasq takes the record from a file it watches.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::A | Self::Aaaa)
    }
}

impl FromStr for RecordType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.to_ascii_uppercase().as_str() {
            "A" => Ok(Self::A),
            "AAAA" => Ok(Self::Aaaa),
            "CNAME" => Ok(Self::Cname),
            "TXT" => Ok(Self::Txt),
            "SRV" => Ok(Self::Srv),
            "PTR" => Ok(Self::Ptr),
            _ => Err(invalid("is not a record type", "give A, AAAA, CNAME, TXT, SRV or PTR")),
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Txt => "TXT",
            Self::Srv => "SRV",
            Self::Ptr => "PTR",
        })
    }
}

/// One value of an RRset; its text form is that of a zone file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordValue {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Domain(DomainName),
    Text(String),
    /// `priority weight port target`.
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: DomainName,
    },
}

impl RecordValue {
    /// Reads a value of a record of type `kind`.
    pub fn parse(kind: RecordType, text: &str) -> Result<Self, Invalid> {
        let bad = |remedy| move |_syntax| invalid("does not fit the record type", remedy);
        match kind {
            RecordType::A => text.parse().map(Self::V4).map_err(bad("give an IPv4 address")),
            RecordType::Aaaa => text.parse().map(Self::V6).map_err(bad("give an IPv6 address")),
            RecordType::Cname | RecordType::Ptr => text.parse().map(Self::Domain),
            RecordType::Txt => {
                let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
                if (1..=255).contains(&text.len()) && printable {
                    return Ok(Self::Text(text.to_owned()));
                }
                let remedy = "give 1 to 255 printable ASCII characters";
                Err(invalid("is empty, too long or not printable", remedy))
            }
            RecordType::Srv => Self::srv(text).ok_or_else(|| {
                invalid("is not an SRV value", "give \"priority weight port target\"")
            }),
        }
    }

    fn srv(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let mut number = || parts.next()?.parse::<u16>().ok();
        let (priority, weight, port) = (number()?, number()?, number()?);
        let target = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self::Srv { priority, weight, port, target })
    }
}

impl fmt::Display for RecordValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::Domain(domain) => domain.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Srv { priority, weight, port, target } => {
                write!(f, "{priority} {weight} {port} {target}")
            }
        }
    }
}

impl Serialize for RecordValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An RRset: every value of a name and type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RecordText")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Record {
    pub name: RecordName,
    #[serde(rename = "type")]
    pub kind: RecordType,
    pub values: Vec<RecordValue>,
    #[serde(flatten)]
    pub meta: Meta,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RecordText {
    name: RecordName,
    #[serde(rename = "type")]
    kind: RecordType,
    values: Vec<String>,
    #[serde(flatten)]
    meta: Meta,
}

impl TryFrom<RecordText> for Record {
    type Error = Invalid;

    fn try_from(text: RecordText) -> Result<Self, Invalid> {
        let RecordText { name, kind, values, meta } = text;
        let values = values.iter().map(|value| RecordValue::parse(kind, value));
        Ok(Self { name, kind, values: values.collect::<Result<_, _>>()?, meta })
    }
}

/// Most values of one record.
const MOST_VALUES: usize = 64;

impl Record {
    /// Reads the body of a request for the record `name` of type `kind`.
    pub fn read(
        name: RecordName,
        kind: RecordType,
        body: Value,
        meta: Meta,
    ) -> Result<Self, Faults> {
        let (place, mut faults) = (Place::root(), Faults::default());
        let values = Self::values(kind, body, &place, &mut faults);
        match values {
            Some(values) if faults.is_empty() => Ok(Self { name, kind, values, meta }),
            _ => Err(faults),
        }
    }

    /// Reads the values of a record; what a record has besides is ignored.
    pub(crate) fn values(
        kind: RecordType,
        body: Value,
        place: &Place,
        faults: &mut Faults,
    ) -> Option<Vec<RecordValue>> {
        let mut object = Object::open(body, place, faults)?;
        object.ignore(BOOKKEEPING);
        object.ignore(&["name", "type", "applied_by"]);
        let texts = object.member::<Texts>("values");
        object.finish();
        let place = place.member("values");
        let Texts(texts) = texts?;
        let count = texts.len();
        let limit = if kind == RecordType::Cname { 1 } else { MOST_VALUES };
        if !(1..=limit).contains(&count) {
            let remedy = "give 1 to 64 values, for a CNAME its one target";
            faults.add(&place, Value::Null, invalid(format!("has {count} values"), remedy));
        }
        let values: Vec<RecordValue> = texts
            .into_iter()
            .enumerate()
            .filter_map(|(index, text)| {
                let read = RecordValue::parse(kind, &text);
                read.map_err(|invalid| faults.add(&place.entry(index), Value::from(text), invalid))
                    .ok()
            })
            .collect();
        Some(values)
    }
}

struct Texts(Vec<String>);

impl crate::read::Read for Texts {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        crate::read::list::<AnyText>(value, MOST_VALUES, place, faults)
            .map(|texts| Self(texts.into_iter().map(|AnyText(text)| text).collect()))
    }
}

struct AnyText(String);

impl crate::read::Read for AnyText {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self(text)),
            other => {
                crate::read::not_a("a text", other, place, faults);
                None
            }
        }
    }
}
