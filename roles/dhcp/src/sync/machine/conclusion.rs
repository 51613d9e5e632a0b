//! What the server's answers come to: what is known, what is to be stored, what goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use cloudstack_api::model::VirtualMachine;
use dhcp_api::resource::ReservationContent;
use dhcp_api::words::ResourceId;
use uuid::Uuid;

use super::{Machine, Outcome, machine_of};
use crate::desired::SyncChange;
use crate::sync::Notes;
use crate::sync::book::{Sighting, look};
use crate::sync::deletion::{Deletion, Verdict};
use crate::sync::full::Whole;
use crate::sync::wanted::{containers, nic_of, reservation_id, reservations};

impl Machine {
    /// What a whole listing means for what is stored.
    pub(super) fn conclude(&mut self, whole: Whole) {
        let Whole { catalog, seen, complete, notes } = whole;
        let is_dry = !self.served.is_empty() && self.served.iter().all(|(r, _)| r.dry_run);
        let forced = self.served.iter().any(|(request, _)| request.force && !request.dry_run);
        let ids: BTreeSet<ResourceId> =
            seen.keys().filter_map(|nic| reservation_id(*nic)).collect();
        let absent: BTreeSet<ResourceId> =
            self.stored.keys().filter(|id| !ids.contains(*id)).cloned().collect();
        let missing = absent.len();
        let sightings = self.joined(seen, &absent, complete);
        let mut naming = Notes::default();
        let domain = &self.settings.domain;
        let wanted = reservations(&catalog, domain, &sightings, &self.stored, &mut naming);
        let upsert: Vec<_> =
            wanted.into_iter().filter(|(id, new)| self.stored.get(id) != Some(new)).collect();
        let percent = self.settings.max_delete_percent;
        let stored = self.stored.len();
        // A rehearsal is no witness: it says what would go in the end, and leaves no trace.
        let mut rehearsal = Deletion::default();
        rehearsal.judge(stored, absent.clone(), percent, false);
        let held = if complete { rehearsal.held } else { 0 };
        let verdict = match (complete, is_dry) {
            (false, _) => Verdict::default(),
            (true, true) => Deletion::default().judge(stored, absent, percent, true),
            (true, false) => self.deletion.judge(stored, absent, percent, forced),
        };
        let outcome = Outcome {
            upsert: upsert.iter().map(|(id, _)| id.clone()).collect(),
            delete: verdict.delete.clone(),
            absent: missing - verdict.delete.len(),
            held: if forced { 0 } else { held },
            complete,
            notes: notes.0.iter().chain(&naming.0).cloned().collect(),
        };
        for (_, told) in &mut self.served {
            *told = outcome.clone();
        }
        if is_dry {
            return;
        }
        (self.notes, self.naming) = (notes, naming);
        self.sightings = sightings;
        self.forget(&verdict.delete);
        self.refused.clear();
        for id in &verdict.ask {
            if let Some(machine) = self.stored.get(id).and_then(|stored| machine_of(stored)) {
                self.look_at(machine, self.full_at);
            }
        }
        let zone = containers(&catalog, &self.settings.domain, &self.settings.interface);
        self.catalog = Some(catalog);
        self.pending = Some(Box::new(SyncChange {
            zone,
            is_whole: true,
            upsert,
            delete: verdict.delete,
            forced,
        }));
    }

    /// What is known after a listing: what it saw, and what it did not see and is not gone yet,
    /// unless somebody else has its address.
    fn joined(
        &self,
        seen: BTreeMap<Uuid, Option<Sighting>>,
        absent: &BTreeSet<ResourceId>,
        complete: bool,
    ) -> BTreeMap<Uuid, Sighting> {
        let mut sightings = BTreeMap::new();
        let mut silent = BTreeSet::new();
        for (nic, sighting) in seen {
            match sighting {
                Some(sighting) => drop(sightings.insert(nic, sighting)),
                None => drop(silent.insert(nic)),
            }
        }
        let taken: BTreeSet<_> = sightings.values().map(|s: &Sighting| s.ipv4).collect();
        let macs: BTreeSet<_> = sightings.values().map(|s: &Sighting| (s.cidr, s.mac)).collect();
        for (nic, known) in &self.sightings {
            let is_kept = silent.contains(nic)
                || !complete
                || reservation_id(*nic).is_some_and(|id| absent.contains(&id));
            let is_free = !taken.contains(&known.ipv4) && !macs.contains(&(known.cidr, known.mac));
            if is_kept && is_free && !sightings.contains_key(nic) {
                sightings.insert(*nic, known.clone());
            }
        }
        sightings
    }

    pub(super) fn forget(&mut self, deleted: &[ResourceId]) {
        for nic in deleted.iter().filter_map(nic_of) {
            self.sightings.remove(&nic);
        }
        self.dirty |= !deleted.is_empty();
    }

    /// Takes over what a machine says. An address or MAC that it has now is nobody else's.
    pub(super) fn meet(&mut self, machine: &VirtualMachine, now: Instant) {
        let Some(catalog) = &self.catalog else { return };
        let mut notes = Notes::default();
        for (nic, sighting) in look(machine, catalog, &mut notes) {
            let Some(new) = sighting else { continue };
            if self.sightings.get(&nic) == Some(&new) {
                continue;
            }
            self.sightings.retain(|other, known| {
                let is_taken =
                    known.ipv4 == new.ipv4 || (known.cidr, known.mac) == (new.cidr, new.mac);
                *other == nic || !is_taken
            });
            self.sightings.insert(nic, new);
            self.dirty = true;
        }
        // A range that is not known yet, or worse.
        if !notes.0.is_empty() {
            self.ask_for_full(now);
        }
    }

    pub(super) fn propose(&mut self) {
        self.propose_with(Vec::new());
    }

    /// One transaction for everything that differs.
    pub(super) fn propose_with(&mut self, delete: Vec<ResourceId>) {
        let Some(catalog) = self.catalog.as_ref().filter(|_| self.dirty || !delete.is_empty())
        else {
            return;
        };
        let mut naming = Notes::default();
        let domain = &self.settings.domain;
        let wanted = reservations(catalog, domain, &self.sightings, &self.stored, &mut naming);
        let differs = |id: &ResourceId, new: &Arc<ReservationContent>| {
            self.stored.get(id) != Some(new) && self.refused.get(id) != Some(new)
        };
        let upsert: Vec<_> = wanted.into_iter().filter(|(id, new)| differs(id, new)).collect();
        self.dirty = false;
        self.naming = naming;
        if upsert.is_empty() && delete.is_empty() {
            return;
        }
        let zone = containers(catalog, domain, &self.settings.interface);
        self.pending =
            Some(Box::new(SyncChange { zone, is_whole: false, upsert, delete, forced: false }));
    }
}
