//! The words of the API as types: what holds one of these is safe to write into a dnsmasq file.
//!
//! dnsmasq recognises the fields of its lines by shape, so `10.77.0.300` becomes a host name and
//! `45m` a lease time. Nothing untyped ever reaches the renderer; every type here rejects rather
//! than repairs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::read::{Faults, Place, Read, from_text};

/// Why a text is not a value of some type, and what would be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {remedy}")]
pub struct Invalid {
    pub reason: String,
    pub remedy: &'static str,
}

/// Shorthand for a reason and its remedy.
pub fn invalid(reason: impl Into<String>, remedy: &'static str) -> Invalid {
    Invalid { reason: reason.into(), remedy }
}

macro_rules! text_serde {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
text_serde!(
    ResourceId, MacAddress, HostName, DomainName, RecordName, Cidr, LeaseTime, Text, Upstream,
    Stamp, LabelKey
);

macro_rules! read_text {
    ($($type:ty),+) => {$(
        impl Read for $type {
            fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
                from_text(value, place, faults)
            }
        }
    )+};
}
read_text!(ResourceId, MacAddress, HostName, DomainName, Cidr, Text, Upstream);

macro_rules! display_inner {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    )+};
}
display_inner!(ResourceId, HostName, DomainName, RecordName, Text, InterfaceName, LabelKey);

/// Stable key of a resource, `^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`. Never part of a file name or
/// a dnsmasq tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(String);

impl FromStr for ResourceId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if first && text.len() <= 128 && text.bytes().all(inner) {
            return Ok(Self(text.to_owned()));
        }
        Err(invalid(
            "is not an identifier",
            "give 1 to 128 letters, digits, '.', '_', ':' or '-', starting with a letter or digit",
        ))
    }
}

/// A unicast Ethernet address; text form lower case with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let remedy = "give six hexadecimal pairs: 1e:00:5a:00:01:2b";
        let bad = || invalid("is not a MAC address", remedy);
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0u8; 6];
        let mut pairs = text.split(separator);
        for octet in &mut octets {
            let pair = pairs.next().ok_or_else(bad)?;
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_not_hex| bad())?;
        }
        if pairs.next().is_some() {
            return Err(bad());
        }
        let [first, ..] = octets;
        if first & 1 == 1 {
            return Err(invalid("is a group address", "give the unicast address of one NIC"));
        }
        if octets == [0; 6] {
            return Err(invalid("is all zero", "give the address of a NIC"));
        }
        Ok(Self(octets))
    }
}

/// One DNS label that dnsmasq cannot mistake for anything else, lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl FromStr for HostName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let name = text.to_ascii_lowercase();
        let remedy =
            "give one label of letters, digits and '-', at most 63, starting with a letter";
        let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !starts || !is_label(&name) {
            return Err(invalid("is not a host name", remedy));
        }
        // Words that dnsmasq reads as something else, or that would shadow a name of ours.
        if ["ignore", "infinite", "localhost", "data-server"].contains(&name.as_str()) {
            return Err(invalid("is a reserved word", "choose another host name"));
        }
        Ok(Self(name))
    }
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A domain, lower case, without a final dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

impl FromStr for DomainName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let name = text.to_ascii_lowercase();
        if name.len() <= 190 && name.split('.').all(is_label) && name.parse::<IpAddr>().is_err() {
            return Ok(Self(name));
        }
        Err(invalid(
            "is not a domain",
            "give labels of letters, digits and '-' joined by dots, at most 190 characters",
        ))
    }
}

/// Name of a DNS record relative to its zone's domain; `@` is the domain itself. Labels may start
/// with `_`, as those of SRV records do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName(String);

impl RecordName {
    /// The full name below `domain`. Names of the reverse trees stand for themselves: no zone of
    /// ours lies above them.
    pub fn within(&self, domain: &DomainName) -> String {
        if self.0.ends_with(".in-addr.arpa") || self.0.ends_with(".ip6.arpa") {
            return self.0.clone();
        }
        if self.0 == "@" { domain.to_string() } else { format!("{}.{domain}", self.0) }
    }
}

impl FromStr for RecordName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let name = text.to_ascii_lowercase();
        let label = |label: &str| is_label(label.strip_prefix('_').unwrap_or(label));
        if name == "@" || (name.len() <= 120 && name.split('.').all(label)) {
            return Ok(Self(name));
        }
        Err(invalid("is not a record name", "give a name relative to the zone's domain, or \"@\""))
    }
}

/// An IPv4 network, prefix /8 to /30, host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

impl Cidr {
    const fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    pub const fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    pub const fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mask())
    }

    pub const fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | !self.mask())
    }

    /// The first address a host may have.
    pub const fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | 1)
    }

    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.network
    }

    /// Whether a host may have the address: inside, and neither network nor broadcast address.
    pub fn has_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.network() && address != self.broadcast()
    }

    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// A network of any prefix, for the routes of option 121.
    pub(crate) fn any_prefix(text: &str) -> Result<(Ipv4Addr, u8), Invalid> {
        let bad = || invalid("is not a network", "give address/prefix: 10.1.1.0/24");
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_syntax| bad())?;
        if prefix.len() > 2 || (prefix.len() == 2 && prefix.starts_with('0')) {
            return Err(bad());
        }
        let prefix: u8 = prefix.parse().map_err(|_syntax| bad())?;
        if prefix > 32 {
            return Err(bad());
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        if address.to_bits() & !mask != 0 {
            return Err(invalid("has host bits set", "give the network's own address"));
        }
        Ok((address, prefix))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (address, prefix) = Self::any_prefix(text)?;
        if !(8..=30).contains(&prefix) {
            return Err(invalid("is too large or too small", "give a prefix between /8 and /30"));
        }
        let [first, ..] = address.octets();
        if first == 0 || first == 127 || first >= 224 {
            return Err(invalid("is not a network of hosts", "give a unicast network"));
        }
        Ok(Self { network: address.to_bits(), prefix })
    }
}

/// `infinite` or seconds, at least 120 (dnsmasq's own minimum).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseTime {
    Infinite,
    Seconds(u32),
}

impl fmt::Display for LeaseTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Infinite => f.write_str("infinite"),
            Self::Seconds(seconds) => write!(f, "{seconds}"),
        }
    }
}

impl FromStr for LeaseTime {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "infinite" {
            return Ok(Self::Infinite);
        }
        match text.parse::<u32>() {
            Ok(seconds) if (120..=31_536_000).contains(&seconds) => Ok(Self::Seconds(seconds)),
            _ => {
                Err(invalid("is not a lease time", "give \"infinite\" or 120 to 31536000 seconds"))
            }
        }
    }
}

impl Read for LeaseTime {
    /// Seconds may be a number, too.
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        match value {
            Value::Number(number) => {
                let read = number.to_string().parse();
                read.map_err(|invalid| faults.add(place, Value::Number(number), invalid)).ok()
            }
            other => from_text(other, place, faults),
        }
    }
}

/// An interface MTU, 576 to 9216.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Mtu(u16);

impl TryFrom<u16> for Mtu {
    type Error = Invalid;

    fn try_from(mtu: u16) -> Result<Self, Invalid> {
        if (576..=9216).contains(&mtu) {
            return Ok(Self(mtu));
        }
        Err(invalid("is not a number between 576 and 9216", "give a number in that range"))
    }
}

impl From<Mtu> for u16 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Read for Mtu {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let number = value.as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or(0);
        Self::try_from(number).map_err(|invalid| faults.add(place, value, invalid)).ok()
    }
}

/// Key of a label: 1 to 63 letters, digits, `_`, `-`, `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey(String);

impl FromStr for LabelKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if (1..=63).contains(&text.len()) && text.bytes().all(inner) {
            return Ok(Self(text.to_owned()));
        }
        Err(invalid("is not the key of a label", "give 1 to 63 letters, digits, '_', '-' or '.'"))
    }
}

/// Text for people: at most 255 bytes, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(String);

impl FromStr for Text {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() > 255 || text.chars().any(char::is_control) {
            return Err(invalid(
                "is too long or has control characters",
                "give at most 255 bytes of printable text",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// An upstream name server: `10.0.0.53` or `10.0.0.53#5353`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upstream {
    pub address: IpAddr,
    pub port: Option<u16>,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}#{port}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

impl FromStr for Upstream {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || invalid("is not a name server", "give an address, or address#port");
        let (address, port) = match text.split_once('#') {
            Some((address, port)) => {
                let port: u16 = port.parse().map_err(|_syntax| bad())?;
                if port == 0 {
                    return Err(bad());
                }
                (address, Some(port))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_syntax| bad())?;
        let is_one_machine = match address {
            IpAddr::V4(v4) => !v4.is_broadcast() && !v4.is_multicast() && !v4.is_unspecified(),
            IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unspecified(),
        };
        if !is_one_machine {
            let remedy = "give the address of one server";
            return Err(invalid("is not the address of a name server", remedy));
        }
        Ok(Self { address, port })
    }
}

/// The one interface we serve; never the loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceName(String);

impl FromStr for InterfaceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.@:-".contains(&b);
        if text == "lo" {
            return Err(invalid("is the loopback", "give the bridge of the guest network"));
        }
        if (1..=15).contains(&text.len()) && text.bytes().all(inner) && text != "." && text != ".."
        {
            return Ok(Self(text.to_owned()));
        }
        Err(invalid("is not an interface name", "give a name as \"ip link\" shows it"))
    }
}

/// A moment in UTC, as RFC 3339 text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(jiff::Timestamp);

impl Stamp {
    /// Rounded to milliseconds; a clock before 1970 or after 9999 counts as 1970.
    pub fn from_unix_ms(ms: i64) -> Self {
        Self(jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Stamp {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parsed = text.parse().map_err(|_syntax| invalid("is not a time", "give RFC 3339"))?;
        Ok(Self(parsed))
    }
}

#[cfg(test)]
mod tests;
