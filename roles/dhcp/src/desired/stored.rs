//! The state as JSON, and reading it back resource by resource: what an older program wrote and
//! this one cannot serve is kept aside.
//!
//! Resources come in through the same checks as changes. A field that is not valid and may be
//! absent is kept aside alone; what was kept aside whole is tried again at every start.

use std::collections::BTreeMap;
use std::sync::Arc;

use dhcp_api::read::{Read, whole};
use dhcp_api::record::Record;
use dhcp_api::resource::{
    Meta, OptionSet, OptionSetContent, Range, RangeContent, Reservation, ReservationContent,
    Resource, Subnet, SubnetContent, Zone, ZoneContent,
};
use dhcp_api::words::ResourceId;
use serde::Deserialize;
use serde_json::Value;

use super::index::Index;
use super::quarantine::Quarantined;
use super::step::check_range;
use super::{Circumstances, DesiredState, SubnetState, ZoneState, absent};

/// The file, without a look at its resources.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    generation: u64,
    zones: BTreeMap<String, StoredZone>,
    #[serde(default)]
    quarantine: Vec<Quarantined>,
}

#[derive(Debug, Deserialize)]
struct StoredZone {
    zone: Value,
    #[serde(default)]
    option_sets: BTreeMap<String, Value>,
    #[serde(default)]
    subnets: BTreeMap<String, StoredSubnet>,
    #[serde(default)]
    reservations: BTreeMap<String, Value>,
    #[serde(default)]
    records: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct StoredSubnet {
    subnet: Value,
    #[serde(default)]
    ranges: BTreeMap<String, Value>,
}

/// Resources by the path of their place, in the order in which they depend on each other.
#[derive(Debug, Default)]
struct Resources {
    zones: Vec<([String; 1], Value)>,
    option_sets: Vec<([String; 2], Value)>,
    subnets: Vec<([String; 2], Value)>,
    ranges: Vec<([String; 3], Value)>,
    reservations: Vec<([String; 2], Value)>,
    records: Vec<([String; 2], Value)>,
}

impl Resources {
    fn of(stored: BTreeMap<String, StoredZone>) -> Self {
        let mut all = Self::default();
        for (zone, stored) in stored {
            all.zones.push(([zone.clone()], stored.zone));
            for (id, content) in stored.option_sets {
                all.option_sets.push(([zone.clone(), id], content));
            }
            for (subnet, stored) in stored.subnets {
                all.subnets.push(([zone.clone(), subnet.clone()], stored.subnet));
                for (range, content) in stored.ranges {
                    all.ranges.push(([zone.clone(), subnet.clone(), range], content));
                }
            }
            for (id, content) in stored.reservations {
                all.reservations.push(([zone.clone(), id], content));
            }
            for content in stored.records {
                let part = |name| content.get(name).and_then(Value::as_str).unwrap_or_default();
                let id = format!("{} {}", part("name"), part("type"));
                all.records.push(([zone.clone(), id], content));
            }
        }
        all
    }

    /// Tries again what was kept aside whole; gives back the rest.
    fn again(&mut self, kept: Quarantined) -> Option<Quarantined> {
        let path = kept.place.clone();
        let path: Vec<String> = path.split('/').map(str::to_owned).collect();
        let text = |index: usize| path.get(index).cloned().unwrap_or_default();
        let kinds: Vec<&str> = path.iter().step_by(2).map(String::as_str).collect();
        let at = || [text(1), text(3)];
        match kinds.as_slice() {
            ["zones"] => self.zones.push(([text(1)], kept.content)),
            ["zones", "option-sets"] => self.option_sets.push((at(), kept.content)),
            ["zones", "subnets"] => self.subnets.push((at(), kept.content)),
            ["zones", "reservations"] => self.reservations.push((at(), kept.content)),
            ["zones", "records"] => self.records.push((at(), kept.content)),
            ["zones", "subnets", "ranges"] => {
                self.ranges.push(([text(1), text(3), text(5)], kept.content));
            }
            _ => return Some(kept),
        }
        None
    }
}

impl Stored {
    /// The state of everything that can be served, and the rest aside.
    pub(crate) fn admit(self) -> DesiredState {
        let Self { generation, zones, quarantine } = self;
        let mut resources = Resources::of(zones);
        let fields: Vec<_> = quarantine.into_iter().filter_map(|k| resources.again(k)).collect();
        let state = DesiredState { generation, quarantine: fields, ..DesiredState::default() };
        let mut admission = Admission { state, index: Index::default() };
        for ([zone], value) in resources.zones {
            let place = format!("zones/{zone}");
            admission.try_one(place, value, |this, value, place| this.zone(value, place));
        }
        for ([zone, id], value) in resources.option_sets {
            let place = format!("zones/{zone}/option-sets/{id}");
            let set =
                |this: &mut Admission, value, place: &str| this.option_set(&zone, value, place);
            admission.try_one(place, value, set);
        }
        for ([zone, id], value) in resources.subnets {
            let place = format!("zones/{zone}/subnets/{id}");
            admission.try_one(place, value, |this, value, place| this.subnet(&zone, value, place));
        }
        for ([zone, subnet, id], value) in resources.ranges {
            let place = format!("zones/{zone}/subnets/{subnet}/ranges/{id}");
            let range =
                |this: &mut Admission, value, place: &str| this.range(&zone, &subnet, value, place);
            admission.try_one(place, value, range);
        }
        for ([zone, id], value) in resources.reservations {
            let place = format!("zones/{zone}/reservations/{id}");
            let reservation =
                |this: &mut Admission, value, place: &str| this.reservation(&zone, value, place);
            admission.try_one(place, value, reservation);
        }
        for ([zone, id], value) in resources.records {
            let place = format!("zones/{zone}/records/{id}");
            admission.try_one(place, value, |this, value, _| this.record(&zone, value));
        }
        let mut state = admission.state;
        // The same file comes to the same state, however often it is read.
        state.quarantine.sort_by(|a, b| a.place.cmp(&b.place));
        state
    }
}

struct Admission {
    state: DesiredState,
    index: Index,
}

type Admitted = Result<(), String>;

impl Admission {
    /// Takes a resource in, or keeps it aside with the reason.
    fn try_one(
        &mut self,
        place: String,
        value: Value,
        take: impl FnOnce(&mut Self, Value, &str) -> Admitted,
    ) {
        let aside = self.state.quarantine.len();
        if let Err(reason) = take(self, value.clone(), &place) {
            // Its fields are in it.
            self.state.quarantine.truncate(aside);
            self.state.quarantine.push(Quarantined { place, reason, content: value });
        }
    }

    /// Reads a resource; what need not be there and is not valid is kept aside alone.
    fn read<C: Read>(&mut self, value: Value, place: &str) -> Result<Resource<C>, String> {
        #[derive(Deserialize)]
        struct Bookkeeping {
            id: ResourceId,
            #[serde(flatten)]
            meta: Meta,
        }
        let Bookkeeping { id, meta } =
            serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
        let faults = match whole::<C>(value.clone()) {
            Ok(content) => return Ok(Resource { id, content: Arc::new(content), meta }),
            Err(faults) => faults.into_parts().1,
        };
        let reason = faults.first().map(|fault| format!("{} {}", fault.field, fault.reason));
        let mut rest = value;
        // From the end, so that the places of list entries stay what they are.
        for fault in faults.into_iter().rev() {
            if let Some(content) = take_out(&mut rest, &fault.pointer) {
                let place = format!("{place}/fields{}", fault.pointer);
                let reason = format!("{} {}", fault.field, fault.reason);
                self.state.quarantine.push(Quarantined { place, reason, content });
            }
        }
        match whole::<C>(rest) {
            Ok(content) => Ok(Resource { id, content: Arc::new(content), meta }),
            Err(_) => Err(reason.unwrap_or_default()),
        }
    }

    fn zone(&mut self, value: Value, place: &str) -> Admitted {
        let zone: Zone = self.read::<ZoneContent>(value, place)?;
        self.state.zones.insert(zone.id.clone(), ZoneState::new(zone));
        Ok(())
    }

    fn option_set(&mut self, zone: &str, value: Value, place: &str) -> Admitted {
        let set: OptionSet = self.read::<OptionSetContent>(value, place)?;
        let state = self.state.zone_mut(&id(zone)?).map_err(|error| error.to_string())?;
        state.option_sets.insert(set.id.clone(), set);
        Ok(())
    }

    fn subnet(&mut self, zone: &str, mut value: Value, place: &str) -> Admitted {
        // The first files said whether it is served with a boolean.
        if let Some(members) = value.as_object_mut()
            && let Some(enabled) = members.shift_remove("enabled")
        {
            let state = if enabled == Value::Bool(false) { "disabled" } else { "active" };
            members.insert("state".to_owned(), Value::from(state));
        }
        let subnet: Subnet = self.read::<SubnetContent>(value, place)?;
        let zone = id(zone)?;
        self.state.check_overlap(&zone, &subnet).map_err(|error| error.to_string())?;
        let state = self.state.zone_mut(&zone).map_err(|error| error.to_string())?;
        let kept = SubnetState { subnet, ranges: BTreeMap::new() };
        state.subnets.insert(kept.subnet.id.clone(), kept);
        Ok(())
    }

    fn range(&mut self, zone: &str, subnet: &str, value: Value, place: &str) -> Admitted {
        let range: Range = self.read::<RangeContent>(value, place)?;
        let state = self.state.subnet_mut(&id(zone)?, &id(subnet)?);
        let state = state.map_err(|error| error.to_string())?;
        check_range(&state.subnet, &range).map_err(|error| error.to_string())?;
        state.ranges.insert(range.id.clone(), range);
        Ok(())
    }

    fn reservation(&mut self, zone: &str, value: Value, place: &str) -> Admitted {
        let kept: Reservation = self.read::<ReservationContent>(value, place)?;
        let zone = id(zone)?;
        // The machine may have got an address meanwhile; that is for the next change to say.
        let facts = Circumstances::default();
        let admitted = self.state.admit(&zone, &kept, &mut self.index, &facts);
        admitted.map_err(|error| error.to_string())?;
        let state = self.state.zone_mut(&zone).map_err(|error| error.to_string())?;
        state.reservations.insert(kept.id.clone(), kept);
        Ok(())
    }

    /// How it stands beside others is judged later: dnsmasq takes most contradictions.
    fn record(&mut self, zone: &str, value: Value) -> Admitted {
        let record: Record = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let zone = id(zone)?;
        let state = self.state.zones.get_mut(&zone);
        let state = state.ok_or_else(|| absent("zone", &zone).to_string())?;
        state.records.insert((record.name.clone(), record.kind), record);
        Ok(())
    }
}

fn id(text: &str) -> Result<ResourceId, String> {
    text.parse().map_err(|error| format!("{text} {error}"))
}

/// Takes the value at a JSON pointer out; `None` when there is none.
fn take_out(value: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, name) = pointer.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent)? {
        Value::Object(members) => members.shift_remove(&name),
        Value::Array(items) => {
            let index: usize = name.parse().ok()?;
            (index < items.len()).then(|| items.remove(index))
        }
        _ => None,
    }
}
