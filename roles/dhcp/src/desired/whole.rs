//! Everything that the API wants in a zone, as one change: what is not listed goes, and nobody
//! else's is touched.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use dhcp_api::record::{Record, RecordType};
use dhcp_api::resource::{Reservation, Source, Subnet};
use dhcp_api::words::{RecordName, ResourceId};

use super::index::Index;
use super::step::Step;
use super::{Applied, ChangeError, Circumstances, DesiredState, Outcome, Precondition, ZoneState};

/// So many reservations may go without `force`; more only if they are few of all.
const FEW: usize = 10;
const PERCENT: usize = 20;

/// What the API wants in one zone.
#[derive(Debug, Clone)]
pub struct WholeChange {
    pub zone: ResourceId,
    pub subnets: Vec<Subnet>,
    pub reservations: Vec<Reservation>,
    pub records: Vec<Record>,
    /// Even if much goes.
    pub force: bool,
}

/// Ids that a change made, changed and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    pub created: Vec<String>,
    pub updated: Vec<String>,
    pub deleted: Vec<String>,
}

impl Difference {
    fn of<K: Ord>(
        before: &BTreeMap<K, u64>,
        after: &BTreeMap<K, u64>,
        text: impl Fn(&K) -> String,
    ) -> Self {
        let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
        let mut difference = Self::default();
        for key in keys {
            match (before.get(key), after.get(key)) {
                (None, Some(_)) => difference.created.push(text(key)),
                (Some(_), None) => difference.deleted.push(text(key)),
                (Some(old), Some(new)) if old != new => difference.updated.push(text(key)),
                _ => {}
            }
        }
        difference
    }

    /// Of a zone's subnets, reservations and records between two states.
    pub fn between(before: &DesiredState, after: &DesiredState, zone: &ResourceId) -> [Self; 3] {
        let subnets = |state: &ZoneState| -> BTreeMap<ResourceId, u64> {
            let all = state.subnets.iter();
            all.map(|(id, kept)| (id.clone(), kept.subnet.meta.revision)).collect()
        };
        let reservations = |state: &ZoneState| -> BTreeMap<ResourceId, u64> {
            let all = state.reservations.iter();
            all.map(|(id, kept)| (id.clone(), kept.meta.revision)).collect()
        };
        let records = |state: &ZoneState| -> BTreeMap<(RecordName, RecordType), u64> {
            let all = state.records.iter();
            all.map(|(key, kept)| (key.clone(), kept.meta.revision)).collect()
        };
        let (old, new) = (before.zones.get(zone), after.zones.get(zone));
        let id = |id: &ResourceId| id.to_string();
        let of = |read: &dyn Fn(&ZoneState) -> BTreeMap<ResourceId, u64>| {
            let (old, new) = (old.map(read), new.map(read));
            Self::of(&old.unwrap_or_default(), &new.unwrap_or_default(), id)
        };
        let (old, new) = (old.map(records), new.map(records));
        let record = |(name, kind): &(RecordName, RecordType)| format!("{name}/{kind}");
        let records = Self::of(&old.unwrap_or_default(), &new.unwrap_or_default(), record);
        [of(&subnets), of(&reservations), records]
    }
}

impl DesiredState {
    pub(super) fn whole(
        &mut self,
        change: WholeChange,
        step: &Step,
        facts: &Circumstances,
    ) -> Outcome {
        let mut next = self.clone();
        next.replace_all(change, step, facts)?;
        let changed = next != *self;
        *self = next;
        Ok(Applied { changed, ..Applied::default() })
    }

    fn replace_all(
        &mut self,
        change: WholeChange,
        step: &Step,
        facts: &Circumstances,
    ) -> Result<(), ChangeError> {
        let WholeChange { zone, subnets, reservations, records, force } = change;
        let is_ours = |source: Source| source == step.by;
        let state = self.zone_mut(&zone)?;
        let mut old = BTreeMap::new();
        state.reservations.retain(|id, kept| {
            let ours = is_ours(kept.meta.source);
            if ours {
                old.insert(id.clone(), kept.clone());
            }
            !ours
        });
        let listed: HashSet<&ResourceId> = reservations.iter().map(|kept| &kept.id).collect();
        let gone = old.keys().filter(|id| !listed.contains(id)).count();
        if gone > FEW.max(old.len() * PERCENT / 100) && !force {
            return Err(ChangeError::MassDelete { gone, of: old.len() });
        }
        let mut old_records = BTreeMap::new();
        state.records.retain(|key, kept| {
            let ours = is_ours(kept.meta.source);
            if ours {
                old_records.insert(key.clone(), kept.clone());
            }
            !ours
        });
        let wanted: HashSet<ResourceId> = subnets.iter().map(|subnet| subnet.id.clone()).collect();
        self.drop_unlisted(&zone, &wanted, step)?;
        for subnet in subnets {
            let known = self.zone(&zone)?.subnets.get(&subnet.id);
            let revision = known.map(|known| known.subnet.meta.revision);
            let mut step = step.knowing(revision);
            self.put_subnet(&zone, subnet, &mut step, facts)?;
        }
        let mut index = Index::of(self, |_, _| false, |_, _| false);
        for new in reservations {
            let id = new.id.clone();
            let known = self.zone(&zone)?.reservations.get(&id).or_else(|| old.get(&id));
            let (new, _) = step.knowing(None).replace("reservation", &id, known, new)?;
            self.admit(&zone, &new, &mut index, facts)?;
            self.zone_mut(&zone)?.reservations.insert(id, new);
        }
        for new in records {
            let key = (new.name.clone(), new.kind);
            let id = format!("{} {}", key.0, key.1);
            let known = self.zone(&zone)?.records.get(&key).or_else(|| old_records.get(&key));
            let (new, _) = step.knowing(None).replace("record", &id, known, new)?;
            index.claim_record(&self.zone(&zone)?.zone, &new)?;
            self.check_alias(&new)?;
            self.zone_mut(&zone)?.records.insert(key, new);
        }
        Ok(())
    }

    /// Removes subnets of the API that are not listed, when nobody else has something in them.
    fn drop_unlisted(
        &mut self,
        zone: &ResourceId,
        wanted: &HashSet<ResourceId>,
        step: &Step,
    ) -> Result<(), ChangeError> {
        let state = self.zone_mut(zone)?;
        let is_gone = |source: Source, id: &ResourceId| source == step.by && !wanted.contains(id);
        for (id, kept) in &state.subnets {
            let inside = state.reservations.values().find(|r| r.subnet == *id);
            if let (true, Some(inside)) = (is_gone(kept.subnet.meta.source, id), inside) {
                return Err(ChangeError::Owned {
                    what: "reservation",
                    id: inside.id.to_string(),
                    owner: inside.meta.source,
                });
            }
        }
        state.subnets.retain(|id, kept| !is_gone(kept.subnet.meta.source, id));
        Ok(())
    }
}

impl Step {
    /// As this step, for a resource of which the revision is known.
    pub(super) const fn knowing(&self, revision: Option<u64>) -> Self {
        Self {
            by: self.by,
            generation: self.generation,
            now: self.now,
            precondition: Precondition { revision, absent: false, required: false },
        }
    }
}
