//! Everything of one source, in a zone or in all of them: the body of `desired`, and the one file
//! that `quickcloud dhcp export` writes and `apply` takes.
//!
//! What is answered is taken again: bookkeeping is ignored, but for the owner of a zone or subnet.
//! One that the management server owns is listed for what the API has in it, and is not changed.

use serde_json::{Map, Value};

use crate::read::{Faults, Long, Object, Place, Read};
use crate::record::{Record, RecordType, RecordValue};
use crate::request::BatchEntry;
use crate::resource::{Given, OptionSetContent, RangeContent, Source, SubnetContent, ZoneContent};
use crate::words::{RecordName, ResourceId, invalid};

/// Content with its id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "{C}Entry"))]
pub struct Entry<C> {
    pub id: ResourceId,
    #[serde(flatten)]
    pub content: C,
}

impl<C: Read> Read for Entry<C> {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let id = value.get("id").cloned().unwrap_or_default();
        let id = ResourceId::read(id, &place.member("id"), faults);
        let content = C::read(value, place, faults);
        Some(Self { id: id?, content: content? })
    }
}

pub type RangeEntry = Entry<RangeContent>;
pub type OptionSetEntry = Entry<OptionSetContent>;

/// Takes members out of an object, so that the rest can be read as something else.
fn split(value: &mut Value, names: &[&str]) -> Map<String, Value> {
    let taken = |members: &mut Map<String, Value>| {
        let take = |name: &&str| Some(((*name).to_owned(), members.shift_remove(*name)?));
        names.iter().filter_map(take).collect()
    };
    value.as_object_mut().map(taken).unwrap_or_default()
}

/// Whose it is, if that is said.
fn owner(value: &Value, place: &Place, faults: &mut Faults) -> Option<Option<Source>> {
    match value.get("source").filter(|source| !source.is_null()) {
        None => Some(None),
        Some(source) => Source::read(source.clone(), &place.member("source"), faults).map(Some),
    }
}

/// A subnet with its id and ranges.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubnetEntry {
    pub id: ResourceId,
    /// `cloudstack`: only the ranges are meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    #[serde(flatten)]
    pub content: SubnetContent,
    /// Those of the API; they stay as they are when there is no such list.
    #[serde(default)]
    pub ranges: Option<Vec<RangeEntry>>,
}

impl Read for SubnetEntry {
    fn read(mut value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let source = owner(&value, place, faults);
        let ranges = split(&mut value, &["ranges"]).shift_remove("ranges");
        let ranges = match ranges.filter(|ranges| !ranges.is_null()) {
            None => Some(None),
            Some(ranges) => {
                Vec::<RangeEntry>::read(ranges, &place.member("ranges"), faults).map(Some)
            }
        };
        let entry = Entry::<SubnetContent>::read(value, place, faults);
        let Entry { id, content } = entry?;
        Some(Self { id, source: source?, content, ranges: ranges? })
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

impl Read for Source {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let read = serde_json::from_value(value.clone()).ok();
        if read.is_none() {
            faults.add(place, value, invalid("is not a source", "give \"api\" or \"cloudstack\""));
        }
        read
    }
}

/// What lies in a zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Contents {
    #[serde(default)]
    pub option_sets: Vec<OptionSetEntry>,
    #[serde(default)]
    pub subnets: Vec<SubnetEntry>,
    #[serde(default)]
    pub reservations: Vec<BatchEntry>,
    #[serde(default)]
    pub records: Vec<RecordEntry>,
}

const CONTENTS: &[&str] = &["option_sets", "subnets", "reservations", "records"];

impl Contents {
    fn members(object: &mut Object<'_>) -> Option<Self> {
        let (option_sets, subnets) = (object.member("option_sets"), object.member("subnets"));
        let (reservations, records) = (object.member("reservations"), object.member("records"));
        let (Long(option_sets), Long(subnets)) = (option_sets?, subnets?);
        let (Long(reservations), Long(records)) = (reservations?, records?);
        Some(Self { option_sets, subnets, reservations, records })
    }
}

/// Everything of one source in a zone: what is not listed goes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DesiredBody {
    /// Only `api` may be written.
    #[serde(default)]
    pub source: Option<Source>,
    #[serde(flatten)]
    pub contents: Contents,
}

impl Read for DesiredBody {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let mut object = Object::open(value, place, faults)?;
        object.ignore(&["revision"]);
        let source = object.member::<Option<Source>>("source");
        let contents = Contents::members(&mut object);
        object.finish();
        let (source, contents) = (source?, contents?);
        if source == Some(Source::Cloudstack) {
            let remedy = "change it where it comes from, or give \"api\"";
            let invalid = invalid("is the management server's alone", remedy);
            faults.add(&place.member("source"), Value::from("cloudstack"), invalid);
        }
        Some(Self { source, contents })
    }
}

/// A zone with everything in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ZoneEntry {
    pub id: ResourceId,
    /// `cloudstack`: only what the API has in it is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    #[serde(flatten)]
    pub zone: ZoneContent,
    #[serde(flatten)]
    pub contents: Contents,
}

impl Read for ZoneEntry {
    fn read(mut value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let source = owner(&value, place, faults);
        let contents = Value::Object(split(&mut value, CONTENTS));
        let contents = {
            let mut object = Object::open(contents, place, faults)?;
            let contents = Contents::members(&mut object);
            object.finish();
            contents
        };
        let Entry { id, content: zone } = Entry::read(value, place, faults)?;
        Some(Self { id, source: source?, zone, contents: contents? })
    }
}

/// Everything of the API: what is not listed goes, whole zones, too.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DocumentBody {
    pub zones: Vec<ZoneEntry>,
}

impl Read for DocumentBody {
    fn read(value: Value, place: &Place, faults: &mut Faults) -> Option<Self> {
        let mut object = Object::open(value, place, faults)?;
        object.ignore(&["revision"]);
        let zones = object.member::<Given<Vec<ZoneEntry>>>("zones");
        object.finish();
        zones.map(|Given(zones)| Self { zones })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::whole;
    use serde_json::json;

    fn document() -> Value {
        json!({"revision": 7, "zones": [{"id": "z1", "domain": "cs.example", "revision": 3,
            "option_sets": [{"id": "pxe", "options": [{"code": 66, "value": "10.77.0.9"}]}],
            "subnets": [{"id": "s1", "cidr": "10.77.0.0/24", "option_sets": ["pxe"],
                "ranges": [{"id": "r", "start": "10.77.0.5", "end": "10.77.0.9",
                    "purpose": "excluded"}]}],
            "reservations": [{"id": "web", "mac": "02:00:00:00:00:01", "ipv4": "10.77.0.50"}],
            "records": [{"name": "gate", "type": "A", "values": ["10.77.0.1"]}]}]})
    }

    #[test]
    fn a_document_is_read_whole() {
        let read: DocumentBody = whole(document()).unwrap();
        let zone = &read.zones[0];
        assert_eq!(zone.contents.subnets[0].ranges.as_ref().unwrap().len(), 1);
        assert_eq!(zone.contents.option_sets[0].content.options.len(), 1);
        assert_eq!((zone.contents.reservations.len(), zone.contents.records.len()), (1, 1));
        // What is written is read again.
        assert_eq!(whole::<DocumentBody>(serde_json::to_value(&read).unwrap()).unwrap(), read);
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let mut value = document();
        let zone = &mut value["zones"][0];
        zone["domain"] = json!("-");
        zone["nobody"] = json!(1);
        zone["subnets"][0]["ranges"][0]["purpose"] = json!("x");
        zone["subnets"][0]["source"] = json!("me");
        zone["reservations"][0]["mac"] = json!("x");
        zone["records"][0]["values"] = json!([]);
        let faults = whole::<DocumentBody>(value).unwrap_err().into_parts().1;
        let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        let expected = [
            "/zones/0/nobody",
            "/zones/0/subnets/0/source",
            "/zones/0/subnets/0/ranges/0/purpose",
            "/zones/0/reservations/0/mac",
            "/zones/0/records/0/values",
            "/zones/0/domain",
        ];
        assert_eq!(pointers, expected);
    }

    #[test]
    fn a_document_without_zones_is_no_document() {
        assert!(whole::<DocumentBody>(json!({})).is_err());
        assert!(whole::<DocumentBody>(json!({"zones": []})).is_ok());
        assert!(whole::<DesiredBody>(json!({"source": "cloudstack"})).is_err());
    }
}
