//! Bodies of requests that are not a resource as it is kept.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::option::Options;
use crate::read::{Faults, LONGEST, Long, Object, Place, Read, body};
use crate::resource::{Addresses, BOOKKEEPING, DefaultRoute, Labels, ReservationContent};
use crate::words::{HostName, LeaseTime, MacAddress, ResourceId, invalid};

/// Most entries of a batch, upserts and deletions together.
pub const MOST_BATCHED: usize = LONGEST;

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
        /// Sets of the zone whose options are sent, too, where the reservation says nothing itself;
        /// the first one goes before the others.
        #[serde(default)]
        pub option_sets: Vec<ResourceId>,
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
            option_sets,
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
            option_sets,
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
