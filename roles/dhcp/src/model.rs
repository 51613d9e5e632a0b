//! The resources of the role: zones, subnets, ranges, reservations and DNS records, as they are
//! kept and as they are shown.
//!
//! The same JSON is the file on disk and the body of an answer; bodies of requests are read by
//! `api/draft.rs`, which reports every fault at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::options::DhcpOption;
use crate::value::{
    Cidr, DomainName, HostName, Invalid, LeaseTime, MacAddress, RecordName, ResourceId, Stamp,
    Text, Upstream, invalid,
};

/// Who owns a resource. The management server's objects (a later writer) and those of the API
/// never overwrite each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Api,
    Cloudstack,
}

/// What every resource carries besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Generation of the last change; the resource's entity tag.
    pub revision: u64,
    pub source: Source,
    pub created_at: Stamp,
    pub updated_at: Stamp,
}

pub type Labels = BTreeMap<String, Text>;

/// What option 6 says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DnsServersText", into = "DnsServersText")]
pub enum DnsServers {
    /// Our own address on the client's network; `"self"` in JSON.
    Own,
    List(Vec<Ipv4Addr>),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum DnsServersText {
    Word(String),
    List(Vec<Ipv4Addr>),
}

impl From<DnsServers> for DnsServersText {
    fn from(servers: DnsServers) -> Self {
        match servers {
            DnsServers::Own => Self::Word("self".to_owned()),
            DnsServers::List(list) => Self::List(list),
        }
    }
}

impl TryFrom<DnsServersText> for DnsServers {
    type Error = Invalid;

    fn try_from(text: DnsServersText) -> Result<Self, Invalid> {
        match text {
            DnsServersText::Word(word) if word == "self" => Ok(Self::Own),
            DnsServersText::Word(_) => {
                Err(invalid("is neither", "give \"self\" or a list of addresses"))
            }
            DnsServersText::List(list) => Ok(Self::List(list)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    pub id: ResourceId,
    pub name: Option<Text>,
    pub cloudstack_zone_id: Option<Text>,
    pub network_id: Option<Text>,
    /// Names of the zone's hosts lie below it.
    pub domain: DomainName,
    pub dns_upstreams: Vec<Upstream>,
    pub dns_servers: DnsServers,
    pub search_domains: Vec<DomainName>,
    /// `None`: the role's default.
    pub lease_time: Option<LeaseTime>,
    pub labels: Labels,
    #[serde(flatten)]
    pub meta: Meta,
}

/// How clients of a subnet reach us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Attachment {
    /// On our link, and an address of ours lies in the subnet.
    Interface { name: Text },
    /// On our link, without an address of ours.
    Shared { name: Text },
    /// Behind a relay.
    Relay { relays: Vec<Ipv4Addr> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: ResourceId,
    pub cidr: Cidr,
    /// `None`: no router is sent.
    pub gateway: Option<Ipv4Addr>,
    pub attachment: Attachment,
    pub dns_servers: Option<DnsServers>,
    pub domain: Option<DomainName>,
    pub search_domains: Option<Vec<DomainName>>,
    pub ntp_servers: Vec<Ipv4Addr>,
    pub mtu: Option<u16>,
    pub lease_time: Option<LeaseTime>,
    pub options: Vec<DhcpOption>,
    pub pod_id: Option<Text>,
    /// A disabled subnet keeps its reservations and is not served.
    pub enabled: bool,
    pub labels: Labels,
    #[serde(flatten)]
    pub meta: Meta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Addresses the management server allocates from; reservations elsewhere are remarked on.
    Reserved,
    /// No reservation may lie here.
    Excluded,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub id: ResourceId,
    pub start: Ipv4Addr,
    pub end: Ipv4Addr,
    pub purpose: Purpose,
    #[serde(flatten)]
    pub meta: Meta,
}

impl Range {
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.start..=self.end).contains(&address)
    }
}

/// One NIC: this MAC gets this address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub id: ResourceId,
    pub mac: MacAddress,
    pub ipv4: Ipv4Addr,
    pub subnet: ResourceId,
    pub hostname: Option<HostName>,
    /// Further names of the same address.
    pub aliases: Vec<HostName>,
    /// For an AAAA record only; DHCPv6 is not served.
    pub ipv6: Option<Ipv6Addr>,
    /// `false` suppresses router, DNS servers and domain (a NIC that is not the default one).
    pub default_route: bool,
    pub lease_time: Option<LeaseTime>,
    pub options: Vec<DhcpOption>,
    pub labels: Labels,
    #[serde(flatten)]
    pub meta: Meta,
}

impl Reservation {
    /// Host name and aliases.
    pub fn names(&self) -> impl Iterator<Item = &HostName> {
        self.hostname.iter().chain(&self.aliases)
    }

    /// Whether dnsmasq needs a tag for it, which only its main file can give.
    pub fn is_tagged(&self) -> bool {
        !self.default_route || !self.options.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
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
                // Whatever dnsmasq's quoting could trip over is refused.
                let harmless = |b: u8| (0x20..0x7f).contains(&b) && !b",\"\\".contains(&b);
                if (1..=255).contains(&text.len()) && text.bytes().all(harmless) {
                    return Ok(Self::Text(text.to_owned()));
                }
                Err(invalid(
                    "is not a plain text",
                    "give 1 to 255 printable ASCII characters without comma, quote and backslash",
                ))
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RecordText")]
pub struct Record {
    pub name: RecordName,
    #[serde(rename = "type")]
    pub kind: RecordType,
    pub values: Vec<RecordValue>,
    #[serde(flatten)]
    pub meta: Meta,
}

#[derive(Deserialize)]
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

/// Content without bookkeeping, to tell a change from a repetition.
pub(crate) trait Resource: Clone + PartialEq {
    fn meta(&self) -> &Meta;
    fn meta_mut(&mut self) -> &mut Meta;

    fn same_content(&self, other: &Self) -> bool {
        let mut copy = other.clone();
        *copy.meta_mut() = self.meta().clone();
        *self == copy
    }
}

macro_rules! resource {
    ($($type:ty),+) => {$(
        impl Resource for $type {
            fn meta(&self) -> &Meta {
                &self.meta
            }
            fn meta_mut(&mut self) -> &mut Meta {
                &mut self.meta
            }
        }
    )+};
}
resource!(Zone, Subnet, Range, Reservation, Record);
