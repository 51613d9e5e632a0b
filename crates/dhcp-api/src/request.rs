//! Bodies of requests that are not a resource as it is kept.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::option::Options;
use crate::read::{Faults, Object, Place, Read, body, list};
use crate::record::{Record, RecordType, RecordValue};
use crate::resource::{
    Addresses, BOOKKEEPING, DefaultRoute, Labels, ReservationContent, Source, SubnetContent,
};
use crate::words::{HostName, LeaseTime, MacAddress, RecordName, ResourceId, invalid};

/// Most entries of a batch, upserts and deletions together.
pub const MOST_BATCHED: usize = 20_000;

body! {
    /// What is asked for a reservation; its subnet follows from the address unless it is named.
    pub struct ReservationBody {
        pub mac: MacAddress,
        pub ipv4: Ipv4Addr,
        pub subnet: Option<ResourceId>,
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
        #[serde(default)]
        pub labels: Labels,
    }
    ignores BOOKKEEPING
}

impl ReservationBody {
    /// The content of the reservation in `subnet`.
    pub fn within(self, subnet: ResourceId) -> ReservationContent {
        let Self {
            mac,
            ipv4,
            hostname,
            aliases,
            ipv6,
            secondary_ips,
            default_route,
            lease_time,
            options,
            labels,
            ..
        } = self;
        ReservationContent {
            mac,
            ipv4,
            subnet,
            hostname,
            aliases,
            ipv6,
            secondary_ips,
            default_route,
            lease_time,
            options,
            labels,
        }
    }
}

/// An upsert of a batch: a reservation with its id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BatchEntry {
    pub id: ResourceId,
    #[serde(flatten)]
    pub body: ReservationBody,
}

impl Read for BatchEntry {
    fn read(mut value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let given = value.as_object_mut().map(|members| members.shift_remove("id"));
        let id = match given {
            Some(Some(id)) => ResourceId::read(id, &place.member("id"), faults),
            Some(None) => {
                let missing = invalid("is missing", "give a value");
                faults.add(&place.member("id"), Value::Null, missing);
                None
            }
            None => None,
        };
        let body = ReservationBody::read(value, place, faults);
        Some(Self { id: id?, body: body? })
    }
}

/// Upserts and deletions of reservations: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BatchBody {
    #[serde(default)]
    pub upsert: Vec<BatchEntry>,
    /// Ids; one that does not exist is not an error.
    #[serde(default)]
    pub delete: Vec<ResourceId>,
    /// Only `true` is offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atomic: Option<bool>,
}

/// A list as long as a batch may be.
struct Long<T>(Vec<T>);

impl<T: Read> Read for Long<T> {
    fn absent() -> Option<Self> {
        Some(Self(Vec::new()))
    }

    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        list(value, MOST_BATCHED, place, faults).map(Self)
    }
}

impl Read for BatchBody {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let mut object = Object::open(value, place, faults)?;
        let (upsert, delete) = (object.member("upsert"), object.member("delete"));
        let atomic = object.member::<Option<bool>>("atomic");
        object.finish();
        let (Long(upsert), Long(delete), atomic) = (upsert?, delete?, atomic?);
        if atomic == Some(false) {
            let invalid = invalid("is not offered", "leave it out, or send single requests");
            faults.add(&place.member("atomic"), Value::from(false), invalid);
        }
        Some(Self { upsert, delete, atomic })
    }
}

/// A subnet with its id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubnetEntry {
    pub id: ResourceId,
    #[serde(flatten)]
    pub content: SubnetContent,
}

impl Read for SubnetEntry {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let id = value.get("id").cloned().unwrap_or_default();
        let id = ResourceId::read(id, &place.member("id"), faults);
        let content = SubnetContent::read(value, place, faults);
        Some(Self { id: id?, content: content? })
    }
}

/// A record with its name and type.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordEntry {
    pub name: RecordName,
    #[serde(rename = "type")]
    pub kind: RecordType,
    pub values: Vec<RecordValue>,
}

impl Read for RecordEntry {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let mut word = |name: &str| {
            let text = value.get(name).and_then(Value::as_str);
            if text.is_none() {
                let missing = invalid("is missing", "give a text");
                faults.add(&place.member(name), Value::Null, missing);
            }
            text.map(str::to_owned)
        };
        let (name, kind) = (word("name"), word("type"));
        let mut parsed = |field: &str, text: String, error| {
            faults.add(&place.member(field), text.into(), error);
        };
        let name: Option<RecordName> =
            name.and_then(|text| text.parse().map_err(|error| parsed("name", text, error)).ok());
        let kind: Option<RecordType> =
            kind.and_then(|text| text.parse().map_err(|error| parsed("type", text, error)).ok());
        let (Some(name), Some(kind)) = (name, kind) else {
            if value.get("values").is_none() {
                let missing = invalid("is missing", "give a value");
                faults.add(&place.member("values"), Value::Null, missing);
            }
            return None;
        };
        let values = Record::values(kind, value, place, faults)?;
        Some(Self { name, kind, values })
    }
}

/// Everything of one source in a zone: what is not listed goes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DesiredBody {
    /// Only `api` may be written.
    #[serde(default)]
    pub source: Option<Source>,
    #[serde(default)]
    pub subnets: Vec<SubnetEntry>,
    #[serde(default)]
    pub reservations: Vec<BatchEntry>,
    #[serde(default)]
    pub records: Vec<RecordEntry>,
}

impl Read for Source {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let read = serde_json::from_value(value.clone()).ok();
        if read.is_none() {
            faults.add(place, value, invalid("is not a source", "give \"api\""));
        }
        read
    }
}

impl Read for DesiredBody {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let mut object = Object::open(value, place, faults)?;
        object.ignore(&["revision"]);
        let source = object.member::<Option<Source>>("source");
        let (subnets, reservations) = (object.member("subnets"), object.member("reservations"));
        let records = object.member("records");
        object.finish();
        let (source, Long(subnets)) = (source?, subnets?);
        let (Long(reservations), Long(records)) = (reservations?, records?);
        if source == Some(Source::Cloudstack) {
            let remedy = "change it where it comes from, or give \"api\"";
            let invalid = invalid("is the management server's alone", remedy);
            faults.add(&place.member("source"), Value::from("cloudstack"), invalid);
        }
        Some(Self { source, subnets, reservations, records })
    }
}
