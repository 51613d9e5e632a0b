//! The resources of the API: zones, subnets, ranges and reservations, as they are kept and as they
//! are shown.
//!
//! A resource is what was asked for, its content, and bookkeeping. The same JSON is the file on
//! disk and the body of an answer.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::option::{MOST_ADDRESSES, Options};
use crate::read::{Faults, Place, Read, body, list, not_a};
use crate::words::{
    Cidr, DomainName, HostName, Invalid, LabelKey, LeaseTime, MacAddress, Mtu, ResourceId, Stamp,
    Text, Upstream, invalid,
};

/// Members of answers that a request may repeat.
pub const BOOKKEEPING: &[&str] =
    &["id", "revision", "source", "created_at", "updated_at", "status"];

/// Who owns a resource. The management server's objects (a later writer) and those of the API
/// never overwrite each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Source {
    Api,
    Cloudstack,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Api => "the API",
            Self::Cloudstack => "the management server",
        })
    }
}

/// What every resource carries besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Meta {
    /// Generation of the last change; the resource's entity tag.
    pub revision: u64,
    pub source: Source,
    pub created_at: Stamp,
    pub updated_at: Stamp,
}

impl Meta {
    /// Of something that has not been stored yet.
    pub fn new(source: Source) -> Self {
        let now = Stamp::from_unix_ms(0);
        Self { revision: 0, source, created_at: now, updated_at: now }
    }
}

/// A resource: what was asked for under an id, and bookkeeping. Copies share the content, so that
/// a state of thousands is copied for a change of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "{C}"))]
pub struct Resource<C> {
    pub id: ResourceId,
    #[serde(
        flatten,
        with = "shared",
        bound(serialize = "C: Serialize", deserialize = "C: Deserialize<'de>")
    )]
    #[cfg_attr(test, schemars(with = "C"))]
    pub content: Arc<C>,
    #[serde(flatten)]
    pub meta: Meta,
}

/// A shared content is written and read as if it were not shared.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<C: Serialize, S: Serializer>(
        content: &Arc<C>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        content.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, C: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<C>, D::Error> {
        C::deserialize(deserializer).map(Arc::new)
    }
}

impl<C> Resource<C> {
    /// A resource that has not been stored yet.
    pub fn new(id: ResourceId, content: C, source: Source) -> Self {
        Self::sharing(id, Arc::new(content), source)
    }

    /// As [`Self::new`], with a content that others have, too.
    pub fn sharing(id: ResourceId, content: Arc<C>, source: Source) -> Self {
        Self { id, content, meta: Meta::new(source) }
    }
}

impl<C> Deref for Resource<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.content
    }
}

impl<C: Clone> DerefMut for Resource<C> {
    fn deref_mut(&mut self) -> &mut C {
        Arc::make_mut(&mut self.content)
    }
}

pub type Zone = Resource<ZoneContent>;
pub type Subnet = Resource<SubnetContent>;
pub type Range = Resource<RangeContent>;
pub type OptionSet = Resource<OptionSetContent>;
pub type Reservation = Resource<ReservationContent>;

/// Notes of the caller; they mean nothing here.
pub type Labels = BTreeMap<LabelKey, Text>;

/// What option 6 says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DnsServersText", into = "DnsServersText")]
pub enum DnsServers {
    /// Our own address on the client's network; `"self"` in JSON.
    #[default]
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

impl Read for DnsServers {
    fn absent() -> Option<Self> {
        Some(Self::Own)
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        match value {
            Value::String(word) if word == "self" => Some(Self::Own),
            Value::Array(_) => {
                Addresses::read(value, place, faults).map(|Addresses(list)| Self::List(list))
            }
            other => {
                let reason = "is neither \"self\" nor a list of IPv4 addresses";
                faults.add(place, other, invalid(reason, "give \"self\" or [\"10.0.0.53\"]"));
                None
            }
        }
    }
}

/// Addresses that clients are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(transparent))]
pub struct Addresses(pub Vec<Ipv4Addr>);

impl Deref for Addresses {
    type Target = [Ipv4Addr];

    fn deref(&self) -> &[Ipv4Addr] {
        &self.0
    }
}

impl Read for Addresses {
    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let read: Vec<Ipv4Addr> = list(value, MOST_ADDRESSES, place, faults)?;
        for (index, address) in read.iter().enumerate() {
            if address.is_unspecified() {
                let reason = "stands for an address of dnsmasq's own";
                let invalid = invalid(reason, "give the address itself");
                faults.add(&place.entry(index), Value::from(address.to_string()), invalid);
            }
        }
        Some(Self(read))
    }
}

/// Option 119, at most 255 bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(transparent))]
pub struct SearchDomains(pub Vec<DomainName>);

impl Deref for SearchDomains {
    type Target = [DomainName];

    fn deref(&self) -> &[DomainName] {
        &self.0
    }
}

impl Read for SearchDomains {
    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let read: Vec<DomainName> = Vec::read(value, place, faults)?;
        if read.iter().map(|domain| domain.as_str().len() + 2).sum::<usize>() > 255 {
            let invalid = invalid("is longer than 255 bytes", "give fewer or shorter domains");
            faults.add(place, Value::Null, invalid);
        }
        Some(Self(read))
    }
}

body! {
    /// DHCP and DNS of one network.
    #[cfg_attr(test, schemars(rename = "Zone"))]
    pub struct ZoneContent {
        pub name: Option<Text>,
        pub cloudstack_zone_id: Option<Text>,
        pub network_id: Option<Text>,
        /// Names of the zone's hosts lie below it.
        pub domain: DomainName,
        /// Name servers for everything else.
        #[serde(default)]
        pub dns_upstreams: Vec<Upstream>,
        #[serde(default)]
        pub dns_servers: DnsServers,
        #[serde(default)]
        pub search_domains: SearchDomains,
        /// `null`: the default of the configuration.
        pub lease_time: Option<LeaseTime>,
        #[serde(default)]
        pub labels: Labels,
    }
    ignores BOOKKEEPING
}

/// How clients of a subnet reach us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Attachment {
    /// On our link, and an address of ours lies in the subnet.
    Interface { name: Text },
    /// On our link, without an address of ours.
    Shared { name: Text },
    /// Behind a relay.
    Relay { relays: Vec<Ipv4Addr> },
}

impl Read for Attachment {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        const REMEDY: &str = "give {\"kind\":\"interface\",\"name\":…}, \
            {\"kind\":\"shared\",\"name\":…} or {\"kind\":\"relay\",\"relays\":[…]}";
        match serde_json::from_value(value.clone()) {
            Ok(Self::Relay { relays }) if relays.len() > 64 => {
                faults.add(place, Value::Null, invalid("has more than 64 relays", "give fewer"));
                None
            }
            Ok(read) => Some(read),
            Err(error) => {
                let reason = format!("is not an attachment ({error})");
                faults.add(place, value, Invalid { reason, remedy: REMEDY });
                None
            }
        }
    }
}

/// Whether a subnet is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SubnetStatus {
    #[default]
    Active,
    /// It keeps its reservations and is not served.
    Disabled,
    /// Shown only: active, but the interface has no address in it.
    Unserved,
}

impl SubnetStatus {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "active" | "unserved" => Some(Self::Active),
            "disabled" => Some(Self::Disabled),
            _ => None,
        }
    }
}

impl Read for SubnetStatus {
    fn absent() -> Option<Self> {
        Some(Self::Active)
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let state = value.as_str().and_then(Self::parse);
        if state.is_none() {
            let remedy = "give \"active\" or \"disabled\"";
            faults.add(place, value, invalid("is not a state of a subnet", remedy));
        }
        state
    }
}

body! {
    /// One IPv4 network whose clients are served.
    #[cfg_attr(test, schemars(rename = "Subnet"))]
    pub struct SubnetContent {
        pub cidr: Cidr,
        /// `null`: no router is sent.
        pub gateway: Option<Ipv4Addr>,
        /// `null` in a request: the interface of the configuration.
        pub attachment: Option<Attachment>,
        /// The zone's when `null`.
        pub dns_servers: Option<DnsServers>,
        /// The zone's when `null`.
        pub domain: Option<DomainName>,
        /// The zone's when `null`.
        pub search_domains: Option<SearchDomains>,
        #[serde(default)]
        pub ntp_servers: Addresses,
        pub mtu: Option<Mtu>,
        /// The zone's when `null`.
        pub lease_time: Option<LeaseTime>,
        /// Sent to every host of the subnet.
        #[serde(default)]
        pub options: Options,
        /// Sets of the zone whose options are sent, too, where the subnet says nothing itself; the
        /// first one goes before the others.
        #[serde(default)]
        pub option_sets: Vec<ResourceId>,
        pub pod_id: Option<Text>,
        #[serde(default)]
        pub state: SubnetStatus,
        #[serde(default)]
        pub labels: Labels,
    }
    ignores BOOKKEEPING
}

impl SubnetContent {
    pub fn is_enabled(&self) -> bool {
        self.state != SubnetStatus::Disabled
    }
}

/// What a range is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Purpose {
    /// Addresses the management server allocates from; reservations elsewhere are remarked on.
    Reserved,
    /// No reservation may lie here.
    Excluded,
}

impl Read for Purpose {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        match value.as_str() {
            Some("reserved") => Some(Self::Reserved),
            Some("excluded") => Some(Self::Excluded),
            _ => {
                let remedy = "give \"reserved\" or \"excluded\"";
                faults.add(place, value, invalid("is not a purpose", remedy));
                None
            }
        }
    }
}

body! {
    /// Addresses of a subnet, first and last included.
    #[cfg_attr(test, schemars(rename = "Range"))]
    pub struct RangeContent {
        pub start: Ipv4Addr,
        pub end: Ipv4Addr,
        pub purpose: Purpose,
    }
    ignores BOOKKEEPING
}

impl RangeContent {
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.start..=self.end).contains(&address)
    }
}

body! {
    /// One NIC: this MAC gets this address.
    #[cfg_attr(test, schemars(rename = "Reservation"))]
    pub struct ReservationContent {
        pub mac: MacAddress,
        pub ipv4: Ipv4Addr,
        pub subnet: ResourceId,
        pub hostname: Option<HostName>,
        /// Further names of the same address.
        #[serde(default)]
        pub aliases: Vec<HostName>,
        /// For an AAAA record only; DHCPv6 is not served.
        pub ipv6: Option<Ipv6Addr>,
        /// Further addresses of the NIC, configured inside the guest: named in DNS as
        /// `hostname-10-1-1-51`, never given by DHCP.
        #[serde(default)]
        pub secondary_ips: Addresses,
        /// `false` suppresses router, DNS servers and domain (a NIC that is not the default one).
        #[serde(default)]
        pub default_route: DefaultRoute,
        pub lease_time: Option<LeaseTime>,
        #[serde(default)]
        pub options: Options,
        /// Sets of the zone whose options are sent, too, where the reservation says nothing itself;
        /// the first one goes before the others.
        #[serde(default)]
        pub option_sets: Vec<ResourceId>,
        #[serde(default)]
        pub labels: Labels,
    }
    ignores BOOKKEEPING
}

body! {
    /// Options under a name, for any number of subnets and reservations of a zone.
    #[cfg_attr(test, schemars(rename = "OptionSet"))]
    pub struct OptionSetContent {
        pub options: Given<Options>,
        /// Subnets whose hosts get them although they do not name the set: also those that the
        /// management server owns, and those that are not there yet.
        #[serde(default)]
        pub subnets: Vec<ResourceId>,
        #[serde(default)]
        pub labels: Labels,
    }
    ignores BOOKKEEPING
}

/// What has to be there, although elsewhere it need not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(transparent))]
pub struct Given<T>(pub T);

impl<T> Deref for Given<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Read> Read for Given<T> {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        T::read(value, place, faults).map(Self)
    }
}

/// Whether a client is told a router; it is, unless somebody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(transparent))]
pub struct DefaultRoute(pub bool);

impl Default for DefaultRoute {
    fn default() -> Self {
        Self(true)
    }
}

impl Read for DefaultRoute {
    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        match value {
            Value::Bool(flag) => Some(Self(flag)),
            other => {
                not_a("a boolean", other, place, faults);
                None
            }
        }
    }
}

impl ReservationContent {
    /// Host name and aliases.
    pub fn names(&self) -> impl Iterator<Item = &HostName> {
        self.hostname.iter().chain(&self.aliases)
    }

    /// Whether dnsmasq needs a tag for it, which only its main file can give.
    pub fn is_tagged(&self) -> bool {
        !self.default_route.0 || !self.options.is_empty() || !self.option_sets.is_empty()
    }
}
