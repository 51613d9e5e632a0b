//! Reservations, one by one and in batches.

use std::collections::HashSet;

use dhcp_api::resource::Reservation;
use dhcp_api::words::ResourceId;

use super::index::Index;
use super::step::{Step, check_placement};
use super::{Applied, ChangeError, Circumstances, DesiredState, MAX_RESERVATIONS, Outcome, absent};

impl DesiredState {
    pub(super) fn put_reservation(
        &mut self,
        zone: &ResourceId,
        reservation: Reservation,
        step: &Step,
        facts: &Circumstances,
    ) -> Outcome {
        let id = reservation.id.clone();
        let existing = self.zone(zone)?.reservations.get(&id);
        let (reservation, outcome) = step.replace("reservation", &id, existing, reservation)?;
        if !outcome.changed {
            return Ok(outcome);
        }
        self.check_sets(zone, &reservation.content)?;
        if outcome.created && self.reservations().count() >= MAX_RESERVATIONS {
            return Err(ChangeError::Limit { what: "reservations", limit: MAX_RESERVATIONS });
        }
        // One of thousands: whoever has nothing in common with it is in nobody's way.
        let is_apart = |owner: &ResourceId, other: &Reservation| {
            (owner == zone && other.id == id) || !has_in_common(&reservation, other)
        };
        let mut index = Index::of(self, is_apart, |_, _| false);
        self.admit(zone, &reservation, &mut index, facts)?;
        self.zone_mut(zone)?.reservations.insert(id, reservation);
        Ok(outcome)
    }

    /// Whether the reservation may be what it says, in a state that `index` knows.
    pub(super) fn admit(
        &self,
        zone: &ResourceId,
        reservation: &Reservation,
        index: &mut Index,
        facts: &Circumstances,
    ) -> Result<(), ChangeError> {
        let state = self.zone(zone)?;
        let subnet = state
            .subnets
            .get(&reservation.subnet)
            .ok_or_else(|| absent("subnet", &reservation.subnet))?;
        check_placement(subnet, reservation, facts)?;
        index.claim(&state.zone, &subnet.subnet, reservation)?;
        if index.reservations() > MAX_RESERVATIONS {
            return Err(ChangeError::Limit { what: "reservations", limit: MAX_RESERVATIONS });
        }
        Ok(())
    }

    pub(super) fn batch(
        &mut self,
        zone: &ResourceId,
        upsert: Vec<Reservation>,
        delete: &[ResourceId],
        step: &Step,
        facts: &Circumstances,
    ) -> Outcome {
        let state = self.zone(zone)?;
        let delete: HashSet<&ResourceId> = delete.iter().collect();
        let replaced: HashSet<&ResourceId> =
            upsert.iter().map(|r| &r.id).chain(delete.iter().copied()).collect();
        let is_replaced =
            |owner: &ResourceId, r: &Reservation| owner == zone && replaced.contains(&r.id);
        let mut index = Index::of(self, is_replaced, |_, _| false);
        let mut changed = false;
        for gone in delete.iter().filter_map(|id| state.reservations.get(*id)) {
            step.check_owner("reservation", &gone.id, &gone.meta)?;
            changed = true;
        }
        let mut created = false;
        let mut admitted = Vec::with_capacity(upsert.len());
        for reservation in upsert.iter().cloned() {
            let id = reservation.id.clone();
            let existing = state.reservations.get(&id).filter(|r| !delete.contains(&r.id));
            let (reservation, outcome) = step.replace("reservation", &id, existing, reservation)?;
            self.check_sets(zone, &reservation.content)?;
            self.admit(zone, &reservation, &mut index, facts)?;
            changed |= outcome.changed;
            created |= outcome.created;
            admitted.push(reservation);
        }
        let state = self.zone_mut(zone)?;
        state.reservations.retain(|id, _| !delete.contains(id));
        state.reservations.extend(admitted.into_iter().map(|r| (r.id.clone(), r)));
        Ok(Applied { created, changed, ..Applied::default() })
    }
}

/// Whether two reservations could be in each other's way.
fn has_in_common(one: &Reservation, other: &Reservation) -> bool {
    one.ipv4 == other.ipv4
        || one.mac == other.mac
        || one.names().any(|name| other.names().any(|known| known == name))
}
