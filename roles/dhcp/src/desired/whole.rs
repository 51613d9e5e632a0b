//! Everything that the API wants, in one zone or in all of them, as one change: what is not listed
//! goes, and nobody else's is touched. Every fault of it is found, not only the first.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use dhcp_api::read::Place;
use dhcp_api::record::{Record, RecordType};
use dhcp_api::resource::{OptionSet, Range, Reservation, Source, Subnet, Zone, ZoneContent};
use dhcp_api::words::{RecordName, ResourceId};

use super::index::Index;
use super::step::Step;
use super::{
    Applied, ChangeError, Circumstances, DesiredState, MAX_RECORDS, Outcome, Precondition,
    SubnetState, absent,
};

/// So many reservations may go without `force`; more only if they are few of all.
const FEW: usize = 10;
const PERCENT: usize = 20;
/// Faults that are told of one change.
const MOST_FAULTS: usize = 1000;

/// What the API wants.
#[derive(Debug, Clone)]
pub struct WholeChange {
    pub zones: Vec<WholeZone>,
    /// Whether zones of the API that are not listed go.
    pub every_zone: bool,
    /// Even if much goes.
    pub force: bool,
}

/// What the API wants in one zone.
#[derive(Debug, Clone)]
pub struct WholeZone {
    pub id: ResourceId,
    /// Where it stands in the body.
    pub place: Place,
    /// The zone itself; `None` leaves it as it is.
    pub zone: Option<ZoneContent>,
    pub option_sets: Vec<OptionSet>,
    pub subnets: Vec<WholeSubnet>,
    pub reservations: Vec<Reservation>,
    pub records: Vec<Record>,
}

/// A subnet with its ranges; those stay as they are when there is no list.
#[derive(Debug, Clone)]
pub struct WholeSubnet {
    pub subnet: Subnet,
    /// Whether it is another's, and only the ranges are meant.
    pub is_foreign: bool,
    pub ranges: Option<Vec<Range>>,
}

/// Ids that a change made, changed and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    pub created: Vec<String>,
    pub updated: Vec<String>,
    pub deleted: Vec<String>,
}

impl Difference {
    fn of(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Self {
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let mut difference = Self::default();
        for key in keys {
            match (before.get(key), after.get(key)) {
                (None, Some(_)) => difference.created.push(key.clone()),
                (Some(_), None) => difference.deleted.push(key.clone()),
                (Some(old), Some(new)) if old != new => difference.updated.push(key.clone()),
                _ => {}
            }
        }
        difference
    }

    /// Of zones, option sets, subnets, ranges, reservations and records between two states; in one
    /// zone, or in all of them with the zone in front of every id.
    pub fn between(
        before: &DesiredState,
        after: &DesiredState,
        zone: Option<&ResourceId>,
    ) -> [Self; 6] {
        let (before, after) = (revisions(before, zone), revisions(after, zone));
        let mut pairs = before.iter().zip(&after).map(|(old, new)| Self::of(old, new));
        std::array::from_fn(|_| pairs.next().unwrap_or_default())
    }
}

/// Revisions by id, one map for each kind.
fn revisions(state: &DesiredState, only: Option<&ResourceId>) -> [BTreeMap<String, u64>; 6] {
    let mut all: [BTreeMap<String, u64>; 6] = Default::default();
    let [zones, sets, subnets, ranges, reservations, records] = &mut all;
    for (id, kept) in state.zones.iter().filter(|(id, _)| only.is_none_or(|only| *id == only)) {
        let named = |text: String| if only.is_some() { text } else { format!("{id}/{text}") };
        zones.insert(id.to_string(), kept.zone.meta.revision);
        for (id, set) in &kept.option_sets {
            sets.insert(named(id.to_string()), set.meta.revision);
        }
        for (id, state) in &kept.subnets {
            subnets.insert(named(id.to_string()), state.subnet.meta.revision);
            for (range, kept) in &state.ranges {
                ranges.insert(named(format!("{id}/{range}")), kept.meta.revision);
            }
        }
        for (id, reservation) in &kept.reservations {
            reservations.insert(named(id.to_string()), reservation.meta.revision);
        }
        for ((name, kind), record) in &kept.records {
            records.insert(named(format!("{name}/{kind}")), record.meta.revision);
        }
    }
    all
}

/// What somebody had in a zone before everything of it was replaced.
#[derive(Debug, Default)]
struct Before {
    option_sets: BTreeMap<ResourceId, OptionSet>,
    subnets: BTreeMap<ResourceId, SubnetState>,
    reservations: BTreeMap<ResourceId, Reservation>,
    records: BTreeMap<(RecordName, RecordType), Record>,
}

/// Takes the entries of `source` out of a map.
fn take_out<K: Ord + Clone, V: Clone>(
    map: &mut BTreeMap<K, V>,
    is_ours: impl Fn(&V) -> bool,
) -> BTreeMap<K, V> {
    let mut taken = BTreeMap::new();
    map.retain(|key, kept| {
        let ours = is_ours(kept);
        if ours {
            taken.insert(key.clone(), kept.clone());
        }
        !ours
    });
    taken
}

impl DesiredState {
    pub(super) fn whole(
        &mut self,
        change: WholeChange,
        step: &Step,
        facts: &Circumstances,
    ) -> Outcome {
        let mut work = Work { state: self.clone(), step, facts, faults: Vec::new() };
        work.replace_all(change)?;
        let Work { state, faults, .. } = work;
        if !faults.is_empty() {
            return Err(ChangeError::Several(faults));
        }
        let changed = state != *self;
        *self = state;
        Ok(Applied { changed, ..Applied::default() })
    }
}

struct Work<'a> {
    state: DesiredState,
    step: &'a Step,
    facts: &'a Circumstances,
    faults: Vec<(Place, ChangeError)>,
}

impl Work<'_> {
    /// Notes what is wrong, and goes on.
    fn try_one<T>(&mut self, place: Place, outcome: Result<T, ChangeError>) -> Option<T> {
        match outcome {
            Ok(done) => Some(done),
            Err(error) => {
                if self.faults.len() < MOST_FAULTS {
                    self.faults.push((place, error));
                }
                None
            }
        }
    }

    fn replace_all(&mut self, change: WholeChange) -> Result<(), ChangeError> {
        let WholeChange { zones, every_zone, force } = change;
        let missing = zones
            .iter()
            .find(|wanted| wanted.zone.is_none() && !self.state.zones.contains_key(&wanted.id));
        if let Some(wanted) = missing {
            return Err(absent("zone", &wanted.id));
        }
        let listed: HashSet<ResourceId> = zones.iter().map(|wanted| wanted.id.clone()).collect();
        let mut before = self.take_out_ours(&listed, every_zone);
        check_brake(&zones, &before, force)?;
        if every_zone {
            self.drop_zones(&listed, &before);
        }
        for wanted in &zones {
            self.put_zone(wanted);
        }
        for wanted in &zones {
            let old = before.entry(wanted.id.clone()).or_default();
            self.put_option_sets(wanted, old);
            self.drop_subnets(wanted, old);
        }
        for wanted in &zones {
            let old = before.entry(wanted.id.clone()).or_default();
            self.put_subnets(wanted, old);
        }
        let mut index = Index::of(&self.state, |_, _| false, |_, _| false);
        for wanted in &zones {
            let old = before.entry(wanted.id.clone()).or_default();
            self.put_reservations(wanted, old, &mut index);
        }
        for wanted in &zones {
            let old = before.entry(wanted.id.clone()).or_default();
            self.put_records(wanted, old, &mut index);
        }
        Ok(())
    }

    /// Takes out what is replaced, so that what comes may take its place; zones and subnets of
    /// others stay.
    fn take_out_ours(
        &mut self,
        listed: &HashSet<ResourceId>,
        every_zone: bool,
    ) -> BTreeMap<ResourceId, Before> {
        let by = self.step.by;
        let is_ours = |source: Source| source == by;
        let mut before = BTreeMap::new();
        for (id, state) in &mut self.state.zones {
            let is_replaced =
                listed.contains(id) || (every_zone && is_ours(state.zone.meta.source));
            if !is_replaced {
                continue;
            }
            let old = Before {
                option_sets: take_out(&mut state.option_sets, |kept| is_ours(kept.meta.source)),
                subnets: take_out(&mut state.subnets, |kept| is_ours(kept.subnet.meta.source)),
                reservations: take_out(&mut state.reservations, |kept| is_ours(kept.meta.source)),
                records: take_out(&mut state.records, |kept| is_ours(kept.meta.source)),
            };
            before.insert(id.clone(), old);
        }
        before
    }

    /// Zones of ours that are not listed go, unless something of another's is in them.
    fn drop_zones(&mut self, listed: &HashSet<ResourceId>, before: &BTreeMap<ResourceId, Before>) {
        let by = self.step.by;
        let mut kept_for_others = Vec::new();
        self.state.zones.retain(|id, state| {
            if listed.contains(id) || state.zone.meta.source != by {
                return true;
            }
            let inside = state.reservations.values().map(|kept| ("reservation", &kept.id));
            let inside = inside.chain(state.subnets.keys().map(|id| ("subnet", id)));
            let inside = inside.chain(state.option_sets.keys().map(|id| ("option set", id)));
            let gone = before.get(id).into_iter().flat_map(|old| old.subnets.values());
            let ranges = gone.filter_map(|state| foreign_range(state, by)).map(|id| ("range", id));
            let records =
                state.records.keys().map(|(name, kind)| ("record", format!("{name} {kind}")));
            let inside = inside.chain(ranges).map(|(what, id)| (what, id.to_string()));
            let left = inside.chain(records).next();
            let is_left = left.is_some();
            kept_for_others.extend(left);
            is_left
        });
        for (what, id) in kept_for_others {
            let owner = other(by);
            let error = ChangeError::Owned { what, id, owner };
            self.try_one(Place::root(), Err::<(), _>(error));
        }
    }

    fn put_zone(&mut self, wanted: &WholeZone) {
        let Some(content) = &wanted.zone else { return };
        let known = self.state.zones.get(&wanted.id).map(|kept| &kept.zone.meta);
        // Another's zone is listed for what we have in it.
        if known.is_some_and(|meta| meta.source != self.step.by) {
            return;
        }
        let mut step = self.step.knowing(known.map(|meta| meta.revision));
        let zone = Zone::new(wanted.id.clone(), content.clone(), step.by);
        let outcome = self.state.put_zone(zone, &mut step);
        self.try_one(wanted.place.clone(), outcome);
    }

    fn put_option_sets(&mut self, wanted: &WholeZone, old: &Before) {
        let place = wanted.place.member("option_sets");
        for (index, set) in wanted.option_sets.iter().enumerate() {
            let known = old.option_sets.get(&set.id);
            let outcome =
                self.step.knowing(None).replace("option set", &set.id, known, set.clone());
            let outcome = outcome
                .and_then(|(set, _)| self.state.admit_option_set(&wanted.id, set, self.step));
            self.try_one(place.entry(index), outcome);
        }
    }

    /// Subnets of ours that are not listed go, when nobody else has something in them.
    fn drop_subnets(&mut self, wanted: &WholeZone, old: &Before) {
        let listed: HashSet<&ResourceId> =
            wanted.subnets.iter().map(|wanted| &wanted.subnet.id).collect();
        let gone = old.subnets.iter().filter(|(id, _)| !listed.contains(id));
        for (id, state) in gone {
            if let Some(range) = foreign_range(state, self.step.by) {
                let (id, owner) = (range.to_string(), other(self.step.by));
                let error = ChangeError::Owned { what: "range", id, owner };
                self.try_one(wanted.place.member("subnets"), Err::<(), _>(error));
            }
            let Some(state) = self.state.zones.get(&wanted.id) else { return };
            let inside = state.reservations.values().find(|kept| kept.subnet == *id);
            if let Some(inside) = inside {
                let (id, owner) = (inside.id.to_string(), inside.meta.source);
                let error = ChangeError::Owned { what: "reservation", id, owner };
                self.try_one(wanted.place.member("subnets"), Err::<(), _>(error));
            }
        }
    }

    fn put_subnets(&mut self, wanted: &WholeZone, old: &mut Before) {
        let zone = &wanted.id;
        for (index, WholeSubnet { subnet, is_foreign, ranges }) in wanted.subnets.iter().enumerate()
        {
            let (id, place) = (&subnet.id, wanted.place.member("subnets").entry(index));
            let known = old.subnets.remove(id);
            let revision = known.as_ref().map(|known| known.subnet.meta.revision);
            if let (Some(known), Ok(state)) = (known, self.state.zone_mut(zone)) {
                state.subnets.insert(id.clone(), known);
            }
            // Taken out first: those of a larger subnet might lie outside the new one.
            let by = self.step.by;
            let old_ranges = match (ranges, self.state.subnet_mut(zone, id)) {
                (Some(_), Ok(state)) => take_out(&mut state.ranges, |kept| kept.meta.source == by),
                _ => BTreeMap::new(),
            };
            let outcome = match is_foreign {
                true => self.state.subnet_mut(zone, id).map(drop),
                false => {
                    let mut step = self.step.knowing(revision);
                    let put = self.state.put_subnet(zone, subnet.clone(), &mut step, self.facts);
                    put.map(drop)
                }
            };
            self.try_one(place.clone(), outcome);
            // Also in one that is not as it should be, for the sake of its other faults.
            if self.state.subnet_mut(zone, id).is_ok() {
                self.put_ranges(
                    zone,
                    id,
                    ranges.as_deref().unwrap_or_default(),
                    old_ranges,
                    &place,
                );
            }
        }
    }

    fn put_ranges(
        &mut self,
        zone: &ResourceId,
        subnet: &ResourceId,
        ranges: &[Range],
        mut old: BTreeMap<ResourceId, Range>,
        place: &Place,
    ) {
        for (index, range) in ranges.iter().enumerate() {
            if let (Some(known), Ok(state)) =
                (old.remove(&range.id), self.state.subnet_mut(zone, subnet))
            {
                state.ranges.insert(range.id.clone(), known);
            }
            let step = self.step.knowing(None);
            let outcome = self.state.put_range(zone, subnet, range.clone(), &step);
            self.try_one(place.member("ranges").entry(index), outcome);
        }
    }

    fn put_reservations(&mut self, wanted: &WholeZone, old: &Before, index: &mut Index) {
        let (zone, place) = (&wanted.id, wanted.place.member("reservations"));
        for (at, new) in wanted.reservations.iter().enumerate() {
            let is_listed = || wanted.subnets.iter().any(|listed| listed.subnet.id == new.subnet);
            // The fault is the subnet's.
            if self.state.subnet_mut(zone, &new.subnet).is_err() && is_listed() {
                continue;
            }
            let known = self.state.zones.get(zone).and_then(|kept| kept.reservations.get(&new.id));
            let known = known.or_else(|| old.reservations.get(&new.id));
            let replaced =
                self.step.knowing(None).replace("reservation", &new.id, known, new.clone());
            let outcome = replaced.and_then(|(new, _)| {
                self.state.check_sets(zone, &new.content)?;
                self.state.admit(zone, &new, index, self.facts)?;
                self.state.zone_mut(zone)?.reservations.insert(new.id.clone(), new);
                Ok(())
            });
            self.try_one(place.entry(at), outcome);
        }
    }

    fn put_records(&mut self, wanted: &WholeZone, old: &Before, index: &mut Index) {
        let (zone, place) = (&wanted.id, wanted.place.member("records"));
        for (at, new) in wanted.records.iter().enumerate() {
            let key = (new.name.clone(), new.kind);
            let known = self.state.zones.get(zone).and_then(|kept| kept.records.get(&key));
            let known = known.or_else(|| old.records.get(&key));
            let id = format!("{} {}", key.0, key.1);
            let replaced = self.step.knowing(None).replace("record", &id, known, new.clone());
            let outcome = replaced.and_then(|(new, _)| {
                let state = self.state.zone(zone)?;
                if state.records.len() >= MAX_RECORDS {
                    let what = "records of a zone";
                    return Err(ChangeError::Limit { what, limit: MAX_RECORDS });
                }
                index.claim_record(&state.zone, &new)?;
                self.state.check_alias(&new)?;
                self.state.zone_mut(zone)?.records.insert(key, new);
                Ok(())
            });
            self.try_one(place.entry(at), outcome);
        }
    }
}

/// What may go without `force`.
fn check_brake(
    zones: &[WholeZone],
    before: &BTreeMap<ResourceId, Before>,
    force: bool,
) -> Result<(), ChangeError> {
    let listed: HashSet<(&ResourceId, &ResourceId)> = zones
        .iter()
        .flat_map(|wanted| wanted.reservations.iter().map(|kept| (&wanted.id, &kept.id)))
        .collect();
    let old = before.iter().flat_map(|(zone, old)| {
        old.reservations.keys().map(move |reservation| (zone, reservation))
    });
    let of = old.clone().count();
    let gone = old.filter(|key| !listed.contains(key)).count();
    if gone > FEW.max(of * PERCENT / 100) && !force {
        return Err(ChangeError::MassDelete { gone, of });
    }
    Ok(())
}

/// A range of another's in a subnet.
fn foreign_range(state: &SubnetState, by: Source) -> Option<&ResourceId> {
    state.ranges.values().find(|range| range.meta.source != by).map(|range| &range.id)
}

/// The one of the two owners that `by` is not.
const fn other(by: Source) -> Source {
    match by {
        Source::Api => Source::Cloudstack,
        Source::Cloudstack => Source::Api,
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
