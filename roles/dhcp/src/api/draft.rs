//! Bodies of requests → resources. Bookkeeping fields are filled in by the desired state.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Fields, V4, V6};
use super::problem::Problem;
use crate::model::{
    Attachment, DnsServers, Labels, Meta, Purpose, Range, Record, RecordType, RecordValue,
    Reservation, Source, Subnet, Zone,
};
use crate::options::DhcpOption;
use crate::value::{Invalid, LeaseTime, RecordName, ResourceId, Stamp, Text};

/// Fields of answers that a request may repeat; they change nothing.
const BOOKKEEPING: [&str; 5] = ["revision", "source", "created_at", "updated_at", "status"];

fn new_meta() -> Meta {
    let now = Stamp::from_unix_ms(0);
    Meta { revision: 0, source: Source::Api, created_at: now, updated_at: now }
}

fn open(value: Value) -> Result<Fields, Problem> {
    let mut fields = Fields::new(value, "")?;
    fields.ignore(&BOOKKEEPING);
    Ok(fields)
}

/// The id in the body, if any, must be the one in the path.
fn check_id(fields: &mut Fields, id: &ResourceId) {
    if let Some(given) = fields.optional::<ResourceId>("id")
        && given != *id
    {
        let remedy = "leave it out, or give the id of the path";
        let invalid = Invalid { reason: format!("is not {id}, the id of the path"), remedy };
        fields.fault("id", Value::from(given.as_str()), &invalid);
    }
}

pub(super) fn zone(id: ResourceId, body: Value) -> Result<Zone, Problem> {
    let mut fields = open(body)?;
    check_id(&mut fields, &id);
    let domain = fields.required("domain");
    let zone = (|| {
        Some(Zone {
            id,
            name: fields.optional("name"),
            cloudstack_zone_id: fields.optional("cloudstack_zone_id"),
            network_id: fields.optional("network_id"),
            dns_upstreams: fields.list("dns_upstreams").unwrap_or_default(),
            dns_servers: dns_servers(&mut fields).unwrap_or(DnsServers::Own),
            search_domains: fields.list("search_domains").unwrap_or_default(),
            lease_time: lease_time(&mut fields),
            labels: labels(&mut fields),
            meta: new_meta(),
            domain: domain?,
        })
    })();
    done(fields, zone)
}

pub(super) fn subnet(id: ResourceId, interface: &str, body: Value) -> Result<Subnet, Problem> {
    let mut fields = open(body)?;
    check_id(&mut fields, &id);
    let cidr = fields.required::<crate::value::Cidr>("cidr");
    let gateway = address(&mut fields, "gateway");
    if let (Some(cidr), Some(gateway)) = (cidr, gateway)
        && !cidr.has_host(gateway)
    {
        let remedy = "give a host address of the subnet, or null for no router";
        let invalid = Invalid { reason: format!("is not a host address of {cidr}"), remedy };
        fields.fault("gateway", Value::from(gateway.to_string()), &invalid);
    }
    let attachment = attachment(&mut fields, interface);
    let mtu = fields.number("mtu", 576, 9216).and_then(|mtu| u16::try_from(mtu).ok());
    let enabled = enabled(&mut fields);
    let subnet = (|| {
        Some(Subnet {
            id,
            gateway,
            dns_servers: dns_servers(&mut fields),
            domain: fields.optional("domain"),
            search_domains: fields.list("search_domains"),
            ntp_servers: addresses(&mut fields, "ntp_servers"),
            mtu,
            lease_time: lease_time(&mut fields),
            options: options(&mut fields),
            pod_id: fields.optional("pod_id"),
            enabled,
            labels: labels(&mut fields),
            meta: new_meta(),
            cidr: cidr?,
            attachment: attachment?,
        })
    })();
    done(fields, subnet)
}

/// `state`: `active`, `disabled`; the computed `unserved` counts as active.
fn enabled(fields: &mut Fields) -> bool {
    match fields.take("state") {
        None => true,
        Some(Value::String(state)) if state == "disabled" => false,
        Some(Value::String(state)) if state == "active" || state == "unserved" => true,
        Some(other) => {
            let reason = "is not a state of a subnet".to_owned();
            let remedy = "give \"active\" or \"disabled\"";
            fields.fault("state", other, &Invalid { reason, remedy });
            true
        }
    }
}

fn attachment(fields: &mut Fields, interface: &str) -> Option<Attachment> {
    let Some(value) = fields.take("attachment") else {
        return Some(Attachment::Interface { name: interface.parse().ok()? });
    };
    let read: Attachment = match serde_json::from_value(value.clone()) {
        Ok(read) => read,
        Err(error) => {
            let remedy = "give {\"kind\":\"interface\",\"name\":…}, {\"kind\":\"shared\",\"name\":…} \
                          or {\"kind\":\"relay\",\"relays\":[…]}";
            let reason = format!("is not an attachment ({error})");
            fields.fault("attachment", value, &Invalid { reason, remedy });
            return None;
        }
    };
    let other = match &read {
        Attachment::Interface { name } | Attachment::Shared { name } => name.as_str() != interface,
        Attachment::Relay { relays } => relays.len() > 64,
    };
    if other {
        let reason = format!("is not on {interface}, the interface that is served");
        let remedy = "give the interface set as roles.dhcp.interface";
        fields.fault("attachment.name", value, &Invalid { reason, remedy });
    }
    Some(read)
}

pub(super) fn range(id: ResourceId, body: Value) -> Result<Range, Problem> {
    let mut fields = open(body)?;
    check_id(&mut fields, &id);
    let (start, end) = (fields.required::<V4>("start"), fields.required::<V4>("end"));
    let purpose = match fields.take("purpose") {
        Some(Value::String(text)) if text == "reserved" => Some(Purpose::Reserved),
        Some(Value::String(text)) if text == "excluded" => Some(Purpose::Excluded),
        other => {
            let reason = "is not a purpose".to_owned();
            let invalid = Invalid { reason, remedy: "give \"reserved\" or \"excluded\"" };
            fields.fault("purpose", other.unwrap_or(Value::Null), &invalid);
            None
        }
    };
    let range =
        (|| Some(Range { id, start: start?.0, end: end?.0, purpose: purpose?, meta: new_meta() }))(
        );
    done(fields, range)
}

/// `subnet_of` finds the subnet of an address when the body names none.
pub(super) fn reservation(
    id: &ResourceId,
    body: Value,
    subnet_of: impl Fn(std::net::Ipv4Addr) -> Option<ResourceId>,
) -> Result<Reservation, Problem> {
    let fields = open(body)?;
    reservation_fields(Some(id), fields, subnet_of)
}

/// One entry of a batch; its id is in the entry.
pub(super) fn batch_entry(
    index: usize,
    body: Value,
    subnet_of: impl Fn(std::net::Ipv4Addr) -> Option<ResourceId>,
) -> Result<Reservation, Problem> {
    let mut fields = Fields::new(body, format!("upsert[{index}]."))?;
    fields.ignore(&BOOKKEEPING);
    reservation_fields(None, fields, subnet_of)
}

fn reservation_fields(
    id: Option<&ResourceId>,
    mut fields: Fields,
    subnet_of: impl Fn(std::net::Ipv4Addr) -> Option<ResourceId>,
) -> Result<Reservation, Problem> {
    let id = match id {
        Some(id) => {
            check_id(&mut fields, id);
            Some(id.clone())
        }
        None => fields.required("id"),
    };
    let mac = fields.required("mac");
    let ipv4 = fields.required::<V4>("ipv4").map(|address| address.0);
    let mut subnet = fields.optional::<ResourceId>("subnet");
    if let (None, Some(address)) = (&subnet, ipv4) {
        subnet = subnet_of(address);
        if subnet.is_none() {
            let reason = "is in no subnet of the zone".to_owned();
            let invalid = Invalid { reason, remedy: "create the subnet first" };
            fields.fault("ipv4", Value::from(address.to_string()), &invalid);
        }
    }
    let reservation = (|| {
        Some(Reservation {
            hostname: fields.optional("hostname"),
            aliases: fields.list("aliases").unwrap_or_default(),
            ipv6: fields.optional::<V6>("ipv6").map(|address| address.0),
            default_route: fields.boolean("default_route", true),
            lease_time: lease_time(&mut fields),
            options: options(&mut fields),
            labels: labels(&mut fields),
            meta: new_meta(),
            id: id?,
            mac: mac?,
            ipv4: ipv4?,
            subnet: subnet?,
        })
    })();
    done(fields, reservation)
}

pub(super) fn record(name: RecordName, kind: RecordType, body: Value) -> Result<Record, Problem> {
    let mut fields = open(body)?;
    fields.ignore(&["name", "type", "applied_by"]);
    let texts: Vec<AnyText> = fields.list("values").unwrap_or_default();
    if texts.is_empty() {
        let invalid = Invalid { reason: "is empty".to_owned(), remedy: "give at least one value" };
        fields.fault("values", Value::Null, &invalid);
    }
    let mut values = Vec::with_capacity(texts.len());
    for (index, AnyText(text)) in texts.into_iter().enumerate() {
        match RecordValue::parse(kind, &text) {
            Ok(value) => values.push(value),
            Err(invalid) => fields.fault(&format!("values[{index}]"), Value::from(text), &invalid),
        }
    }
    if kind == RecordType::Cname && values.len() > 1 {
        let reason = "has several values".to_owned();
        let invalid = Invalid { reason, remedy: "a CNAME has one target" };
        fields.fault("values", Value::Null, &invalid);
    }
    done(fields, Some(Record { name, kind, values, meta: new_meta() }))
}

struct AnyText(String);

impl std::str::FromStr for AnyText {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(Self(text.to_owned()))
    }
}

/// Every part that is `None` has left a fault behind.
fn done<T>(fields: Fields, value: Option<T>) -> Result<T, Problem> {
    fields.finish()?;
    value.ok_or_else(|| {
        Problem::new(super::Slug::InvalidValue, "a required field is missing or not valid")
    })
}

fn address(fields: &mut Fields, key: &'static str) -> Option<std::net::Ipv4Addr> {
    fields.optional::<V4>(key).map(|address| address.0)
}

fn addresses(fields: &mut Fields, key: &'static str) -> Vec<std::net::Ipv4Addr> {
    let list: Vec<V4> = fields.list(key).unwrap_or_default();
    list.into_iter().map(|address| address.0).collect()
}

/// `"self"` or a list of addresses.
fn dns_servers(fields: &mut Fields) -> Option<DnsServers> {
    let value = fields.take("dns_servers")?;
    match serde_json::from_value(value.clone()) {
        Ok(servers) => Some(servers),
        Err(_shape) => {
            let reason = "is neither \"self\" nor a list of IPv4 addresses".to_owned();
            let remedy = "give \"self\" or [\"10.0.0.53\"]";
            fields.fault("dns_servers", value, &Invalid { reason, remedy });
            None
        }
    }
}

/// `"infinite"`, or seconds as a number or text.
fn lease_time(fields: &mut Fields) -> Option<LeaseTime> {
    let value = fields.take("lease_time")?;
    let text = match &value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => String::new(),
    };
    match text.parse() {
        Ok(lease_time) => Some(lease_time),
        Err(invalid) => {
            fields.fault("lease_time", value, &invalid);
            None
        }
    }
}

fn options(fields: &mut Fields) -> Vec<DhcpOption> {
    let too_many = |reason: &str| Invalid {
        reason: reason.to_owned(),
        remedy: "give at most 32 options of at most 1000 bytes together, each code once",
    };
    let items = match fields.take("options") {
        None => return Vec::new(),
        Some(Value::Array(items)) if items.len() <= 32 => items,
        Some(_) => {
            fields.fault("options", Value::Null, &too_many("is not a list of at most 32"));
            return Vec::new();
        }
    };
    let mut read: Vec<DhcpOption> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let field = format!("options[{index}]");
        let code = item.get("code").and_then(Value::as_u64).and_then(|c| u8::try_from(c).ok());
        let value = item.get("value");
        let extra = item.as_object().is_none_or(|object| object.len() != 2);
        let (Some(code), Some(value), false) = (code, value, extra) else {
            let reason = "is not an option".to_owned();
            let remedy = "give {\"code\": 42, \"value\": [\"10.1.1.9\"]}";
            fields.fault(&field, item, &Invalid { reason, remedy });
            continue;
        };
        match DhcpOption::new(code, value) {
            Ok(option) if read.iter().any(|other| other.code() == option.code()) => {
                fields.fault(&field, item, &too_many("repeats a code"));
            }
            Ok(option) => read.push(option),
            Err(invalid) => fields.fault(&field, item, &invalid),
        }
    }
    if read.iter().map(DhcpOption::encoded_size).sum::<usize>() > 1000 {
        fields.fault("options", Value::Null, &too_many("are longer than 1000 bytes"));
    }
    read
}

fn labels(fields: &mut Fields) -> Labels {
    let remedy =
        "give an object of at most 32 texts, keys of at most 63 letters, digits, '_', '-', '.'";
    let mut labels = BTreeMap::new();
    let entries = match fields.take("labels") {
        None => return labels,
        Some(Value::Object(entries)) if entries.len() <= 32 => entries,
        Some(other) => {
            let reason = "are not labels".to_owned();
            fields.fault("labels", other, &Invalid { reason, remedy });
            return labels;
        }
    };
    for (key, value) in entries {
        let usable = (1..=63).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        match value.as_str().and_then(|text| text.parse::<Text>().ok()) {
            Some(text) if usable => {
                labels.insert(key, text);
            }
            _ => {
                let reason = "is not a label".to_owned();
                fields.fault(&format!("labels.{key}"), value, &Invalid { reason, remedy });
            }
        }
    }
    labels
}
