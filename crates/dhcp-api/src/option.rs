//! DHCP options that a subnet or a reservation may carry: typed by code, never free text.
//!
//! The types are those of RFC 2132 and its successors for the codes the management server
//! accepts. Codes that belong to the protocol itself, or that clients send, are refused, and so
//! are the ones the subnet's own fields set (router, DNS, host name, domain, lease time), and
//! values that dnsmasq would send as something else: what a client gets is what was asked for.

use std::net::Ipv4Addr;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::read::{Faults, Object, Place, Read, list};
use crate::words::{Cidr, DomainName, Invalid, invalid};

/// Options of one subnet or reservation, those of its sets included.
pub const MOST_OPTIONS: usize = 32;
/// Bytes of all of them.
pub const MOST_BYTES: usize = 1000;
/// dnsmasq reads lines of 1024 bytes; so many addresses fit into one.
pub(crate) const MOST_ADDRESSES: usize = 60;
const MOST_ROUTES: usize = 28;
/// Of NetBIOS (RFC 2132, 8.7): B, P, M, H.
pub(crate) const NODE_TYPES: [u8; 4] = [1, 2, 4, 8];

/// One option with a value of the type its code asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpOption {
    code: u8,
    value: OptionValue,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    Addresses(Vec<Ipv4Addr>),
    Number(i64, Width),
    Flag(bool),
    Text(String),
    Domains(Vec<DomainName>),
    /// Destination, prefix, router.
    Routes(Vec<(Ipv4Addr, u8, Ipv4Addr)>),
    Bytes(Vec<u8>),
}

/// How a number is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    U8,
    U16,
    U32,
    I32,
}

impl Width {
    const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 | Self::I32 => 4,
        }
    }
}

/// What values a code takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Address,
    Addresses,
    AddressPairs,
    Number(Width, i64, i64),
    NodeType,
    Flag,
    Text,
    Domains,
    SipServers,
    Routes,
    Bytes,
}

pub(crate) fn shape(code: u8) -> Result<Shape, Invalid> {
    use Width::{I32, U8, U16, U32};
    Ok(match code {
        1 | 16 | 28 | 32 | 255 => Shape::Address,
        4 | 7 | 9 | 41 | 42 | 44 | 45 | 48 | 49 | 65 | 68..=71 | 74 => Shape::Addresses,
        21 | 33 => Shape::AddressPairs,
        2 => Shape::Number(I32, i32::MIN.into(), i32::MAX.into()),
        13 | 22 => Shape::Number(U16, 0, u16::MAX.into()),
        26 => Shape::Number(U16, 68, u16::MAX.into()),
        23 | 37 => Shape::Number(U8, 1, u8::MAX.into()),
        46 => Shape::NodeType,
        35 | 38 => Shape::Number(U32, 0, u32::MAX.into()),
        19 | 20 | 27 | 31 | 34 | 36 => Shape::Flag,
        17 | 18 | 40 | 47 | 60 | 64 | 66 | 67 | 114 => Shape::Text,
        43 | 125 => Shape::Bytes,
        119 => Shape::Domains,
        120 => Shape::SipServers,
        121 => Shape::Routes,
        3 | 6 | 12 | 15 | 51 => {
            return Err(invalid(
                "is set by fields of its own",
                "use gateway, dns_servers, hostname, domain or lease_time",
            ));
        }
        50 | 52..=59 | 61 | 77 | 93 | 94 | 97 => {
            return Err(invalid("belongs to the protocol itself", "leave the option out"));
        }
        _ => {
            return Err(invalid(
                "is not a known option code",
                "give a code that the management server accepts",
            ));
        }
    })
}

impl DhcpOption {
    pub const fn code(&self) -> u8 {
        self.code
    }

    pub const fn value(&self) -> &OptionValue {
        &self.value
    }

    /// Types `value` after `code`: a list of addresses, a number, a boolean, a text, …
    pub fn new(code: u8, value: &Value) -> Result<Self, Invalid> {
        let value = match shape(code)? {
            Shape::Address | Shape::Addresses => OptionValue::Addresses(addresses(value, 1)?),
            Shape::AddressPairs => OptionValue::Addresses(addresses(value, 2)?),
            Shape::Number(width, low, high) => number(value, width, low, high)?,
            Shape::NodeType => match number(value, Width::U8, 1, 8) {
                Ok(known) if NODE_TYPES.iter().any(|kind| *value == *kind) => known,
                _ => return Err(invalid("is not a node type", "give 1, 2, 4 or 8")),
            },
            Shape::Flag => OptionValue::Flag(
                value.as_bool().ok_or_else(|| invalid("is not a boolean", "give true or false"))?,
            ),
            Shape::Text => OptionValue::Text(text(value)?),
            Shape::Domains => OptionValue::Domains(domains(value)?),
            Shape::SipServers => match addresses(value, 1) {
                Ok(addresses) => OptionValue::Addresses(addresses),
                Err(_not_addresses) => OptionValue::Domains(domains(value)?),
            },
            Shape::Routes => OptionValue::Routes(routes(value)?),
            Shape::Bytes => OptionValue::Bytes(bytes(value)?),
        };
        let single = matches!(shape(code)?, Shape::Address);
        if single && !matches!(&value, OptionValue::Addresses(list) if list.len() == 1) {
            return Err(invalid("is not one address", "give one IPv4 address"));
        }
        let option = Self { code, value };
        if option.encoded_size() > 255 {
            return Err(invalid("is longer than 255 bytes", "give a shorter value"));
        }
        Ok(option)
    }

    /// As [`Self::new`], from one line of text, as CloudStack keeps the options of a NIC: lists are
    /// joined by commas, a route is `10.0.0.0/8,10.1.1.1` or `10.0.0.0/8 10.1.1.1`.
    pub fn from_text(code: u8, text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let words = || text.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty());
        let value = match shape(code)? {
            Shape::Number(..) | Shape::NodeType => {
                text.parse::<i64>().map_or_else(|_| text.into(), Value::from)
            }
            Shape::Flag => match text {
                "true" | "1" => Value::Bool(true),
                "false" | "0" => Value::Bool(false),
                other => other.into(),
            },
            Shape::Text | Shape::Bytes => text.into(),
            Shape::Routes => {
                let words: Vec<&str> = words().collect();
                words.chunks(2).map(|route| Value::from(route.join(" "))).collect()
            }
            Shape::Address => text.into(),
            Shape::Addresses | Shape::AddressPairs | Shape::Domains | Shape::SipServers => {
                words().map(Value::from).collect()
            }
        };
        Self::new(code, &value)
    }

    /// Bytes of the value on the wire, at most.
    pub fn encoded_size(&self) -> usize {
        match &self.value {
            OptionValue::Addresses(list) => list.len() * 4,
            OptionValue::Number(_, width) => width.bytes(),
            OptionValue::Flag(_) => 1,
            OptionValue::Text(text) => text.len(),
            OptionValue::Domains(list) => list.iter().map(|d| d.as_str().len() + 2).sum(),
            OptionValue::Routes(list) => {
                list.iter().map(|(_, prefix, _)| 5 + usize::from(prefix.div_ceil(8))).sum()
            }
            OptionValue::Bytes(bytes) => bytes.len(),
        }
    }

    fn to_json(&self) -> Value {
        match &self.value {
            OptionValue::Addresses(list) => strings(list.iter()),
            OptionValue::Number(number, _) => Value::from(*number),
            OptionValue::Flag(flag) => Value::from(*flag),
            OptionValue::Text(text) => Value::from(text.as_str()),
            OptionValue::Domains(list) => strings(list.iter()),
            OptionValue::Routes(list) => {
                strings(list.iter().map(|(to, prefix, via)| format!("{to}/{prefix} {via}")))
            }
            OptionValue::Bytes(bytes) => Value::from(hex(bytes)),
        }
    }
}

fn strings<T: std::fmt::Display>(list: impl Iterator<Item = T>) -> Value {
    Value::Array(list.map(|item| Value::from(item.to_string())).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// A list of texts; one text counts as a list of one.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(list) if !list.is_empty() && list.len() <= 64 => {
            list.iter().map(Value::as_str).collect()
        }
        _ => None,
    }
}

fn addresses(value: &Value, multiple: usize) -> Result<Vec<Ipv4Addr>, Invalid> {
    let bad = || invalid("is not a list of IPv4 addresses", "give [\"10.1.1.9\"]");
    let list = texts(value).ok_or_else(bad)?;
    let list: Vec<Ipv4Addr> =
        list.into_iter().map(str::parse).collect::<Result<_, _>>().map_err(|_syntax| bad())?;
    if list.len() > MOST_ADDRESSES {
        return Err(invalid("has more than 60 addresses", "give fewer"));
    }
    if list.iter().any(Ipv4Addr::is_unspecified) {
        let reason = "has 0.0.0.0, for which dnsmasq sends an address of its own";
        return Err(invalid(reason, "give the address itself"));
    }
    if !list.len().is_multiple_of(multiple) {
        return Err(invalid("has an odd number of addresses", "give pairs of addresses"));
    }
    Ok(list)
}

fn number(value: &Value, width: Width, low: i64, high: i64) -> Result<OptionValue, Invalid> {
    match value.as_i64() {
        Some(number) if (low..=high).contains(&number) => Ok(OptionValue::Number(number, width)),
        _ => Err(invalid(
            format!("is not a number between {low} and {high}"),
            "give a number in that range",
        )),
    }
}

fn text(value: &Value) -> Result<String, Invalid> {
    let text = value.as_str().ok_or_else(|| invalid("is not a text", "give a text"))?;
    let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if !(1..=255).contains(&text.len()) || !printable {
        let remedy = "give 1 to 255 printable ASCII characters";
        return Err(invalid("is empty, too long or not printable", remedy));
    }
    // The last letter counts as the width of a number, even inside quotes.
    if let Some(rest) = text.strip_suffix(['s', 'i'])
        && rest.bytes().all(|b| b == b'-')
    {
        return Err(invalid(
            "is a text that dnsmasq sends without its last letter",
            "give another",
        ));
    }
    Ok(text.to_owned())
}

fn domains(value: &Value) -> Result<Vec<DomainName>, Invalid> {
    let list = texts(value).ok_or_else(|| invalid("is not a list of domains", "give [\"a.b\"]"))?;
    list.into_iter().map(str::parse).collect()
}

fn routes(value: &Value) -> Result<Vec<(Ipv4Addr, u8, Ipv4Addr)>, Invalid> {
    let bad = || invalid("is not a list of routes", "give [\"10.0.0.0/8 10.1.1.1\"]");
    let route = |text: &str| {
        let (to, via) = text.split_once(' ').ok_or_else(bad)?;
        let (to, prefix) = Cidr::any_prefix(to)?;
        Ok((to, prefix, via.parse().map_err(|_syntax| bad())?))
    };
    let list = texts(value).ok_or_else(bad)?;
    if list.len() > MOST_ROUTES {
        return Err(invalid("has more than 28 routes", "give fewer"));
    }
    list.into_iter().map(route).collect()
}

fn bytes(value: &Value) -> Result<Vec<u8>, Invalid> {
    let bad = || invalid("is not a list of bytes", "give pairs of hexadecimal digits: 01:a0:ff");
    let digits: String = value.as_str().ok_or_else(bad)?.chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 510 {
        return Err(bad());
    }
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        pair.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
        u8::from_str_radix(pair, 16).ok()
    };
    digits.as_bytes().chunks(2).map(byte).collect::<Option<_>>().ok_or_else(bad)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    code: u8,
    value: Value,
}

impl Serialize for DhcpOption {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Raw { code: self.code, value: self.to_json() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DhcpOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Raw::deserialize(deserializer)?;
        Self::new(raw.code, &raw.value).map_err(serde::de::Error::custom)
    }
}

/// A code as JSON has it.
struct Code(u8);

impl Read for Code {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let code = value.as_u64().and_then(|code| u8::try_from(code).ok());
        if code.is_none() {
            let invalid = invalid("is not an option code", "give a number between 1 and 255");
            faults.add(place, value, invalid);
        }
        code.map(Self)
    }
}

/// Any value; its code says whether it fits.
struct Any(Value);

impl Read for Any {
    fn read(value: Value, _: &Place, _: &mut Faults) -> Option<Self> {
        Some(Self(value))
    }
}

impl Read for DhcpOption {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let whole = value.clone();
        let mut object = Object::open(value, place, faults)?;
        let (code, value) = (object.member::<Code>("code"), object.member::<Any>("value"));
        object.finish();
        let (Code(code), Any(value)) = (code?, value?);
        Self::new(code, &value).map_err(|invalid| faults.add(place, whole, invalid)).ok()
    }
}

/// The options of one subnet or reservation: at most 32, each code once, 1000 bytes together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(transparent))]
pub struct Options(Vec<DhcpOption>);

impl Deref for Options {
    type Target = [DhcpOption];

    fn deref(&self) -> &[DhcpOption] {
        &self.0
    }
}

impl FromIterator<DhcpOption> for Options {
    fn from_iter<I: IntoIterator<Item = DhcpOption>>(options: I) -> Self {
        Self(options.into_iter().collect())
    }
}

impl Options {
    /// Whether a client gets option `code` from here.
    pub fn has(&self, code: u8) -> bool {
        self.0.iter().any(|option| option.code == code)
    }
}

impl Read for Options {
    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let read: Vec<DhcpOption> = list(value, MOST_OPTIONS, place, faults)?;
        for (index, option) in read.iter().enumerate() {
            if read.iter().take(index).any(|other| other.code == option.code) {
                let invalid = invalid("repeats a code", "give each code once");
                faults.add(&place.entry(index), Value::from(option.code), invalid);
            }
        }
        if read.iter().map(DhcpOption::encoded_size).sum::<usize>() > MOST_BYTES {
            let invalid = invalid("is longer than 1000 bytes", "give fewer or shorter options");
            faults.add(place, Value::Null, invalid);
        }
        Some(Self(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(code: u8, value: Value, accepted: bool) {
        let option = DhcpOption::new(code, &value);
        assert_eq!(option.is_ok(), accepted, "{code} {value}: {option:?}");
        if let Ok(option) = option {
            let back = DhcpOption::new(code, &option.to_json());
            assert_eq!(back, Ok(option), "{code} {value} must survive its own JSON");
        }
    }

    #[test]
    fn values_are_typed_by_code() {
        check(42, json!(["10.1.1.9", "10.1.1.10"]), true);
        check(26, json!(1450), true);
        check(26, json!(67), false);
        check(46, json!(8), true);
        check(46, json!(3), false);
        check(66, json!("10.1.1.9"), true);
        check(67, json!("a,b\"c\\d"), true);
        check(67, json!("a\nb"), false);
        check(67, json!(""), false);
        check(19, json!(true), true);
        check(43, json!("01:a0FF"), true);
        check(43, json!("01a"), false);
        check(119, json!(["cs.example", "b.example"]), true);
        check(121, json!(["10.0.0.0/8 10.1.1.1"]), true);
        check(121, json!(["10.0.0.1/8 10.1.1.1"]), false);
        check(255, json!("10.1.1.9"), true);
        check(33, json!(["10.1.1.9"]), false);
    }

    #[test]
    fn texts_of_cloudstack_are_typed_by_code() {
        let check = |code, text: &str, expected: Option<Value>| {
            let read = DhcpOption::from_text(code, text).ok();
            assert_eq!(read.map(|option| option.to_json()), expected, "{code} {text}");
        };
        check(42, "10.1.1.9, 10.1.1.10", Some(json!(["10.1.1.9", "10.1.1.10"])));
        check(26, "1400", Some(json!(1400)));
        check(26, "big", None);
        check(19, "1", Some(json!(true)));
        check(19, "yes", None);
        check(66, "10.1.1.9", Some(json!("10.1.1.9")));
        check(67, "a\nb", None);
        check(119, "a.example,b.example", Some(json!(["a.example", "b.example"])));
        check(121, "10.0.0.0/8,10.1.1.1", Some(json!(["10.0.0.0/8 10.1.1.1"])));
        check(121, "10.0.0.0/8", None);
        check(43, "01a0", Some(json!("01:a0")));
        check(3, "10.1.1.1", None);
        check(42, "", None);
    }

    /// Each of these reaches a client as something else, measured with dnsmasq 2.90.
    #[test]
    fn values_that_dnsmasq_sends_as_something_else_are_refused() {
        for text in ["s", "i", "-s", "--i"] {
            check(60, json!(text), false);
        }
        for text in ["b", "12s", "ss", "-", "s-"] {
            check(60, json!(text), true);
        }
        check(42, json!(["10.1.1.9", "0.0.0.0"]), false);
        // A route to everywhere and one without a router are what they say.
        check(121, json!(["0.0.0.0/0 10.1.1.1", "10.1.0.0/16 0.0.0.0"]), true);
        check(42, json!(vec!["100.100.100.100"; 60]), true);
        check(42, json!(vec!["100.100.100.100"; 61]), false);
    }

    #[test]
    fn protocol_options_and_own_fields_are_refused() {
        for code in [3, 6, 12, 15, 50, 51, 53, 54, 55, 58, 59, 61, 81, 82, 93, 0, 200] {
            check(code, json!(["10.1.1.9"]), false);
        }
    }
}
