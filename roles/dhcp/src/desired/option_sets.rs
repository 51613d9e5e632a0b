//! Option sets: options under a name, which subnets and reservations of a zone share.
//!
//! What a subnet or reservation says itself goes before its sets, and of those the first before the
//! others; a set that names a subnet comes last. So nothing is sent twice, and a set may be changed
//! without a look at who names it, but for the bounds that hold for everybody.

use std::collections::HashSet;

use dhcp_api::option::{DhcpOption, MOST_BYTES, MOST_OPTIONS, Options};
use dhcp_api::resource::{OptionSet, ReservationContent, Subnet};
use dhcp_api::words::ResourceId;

use super::step::Step;
use super::{ChangeError, DesiredState, MAX_OPTION_SETS, Outcome, ZoneState};

impl ZoneState {
    /// Options of a subnet, those of its sets included. What a field of its own says is not among
    /// them.
    pub(crate) fn options_of_subnet<'a>(&'a self, subnet: &'a Subnet) -> Vec<&'a DhcpOption> {
        let searches = subnet.search_domains.as_ref().unwrap_or(&self.zone.search_domains);
        let fields = [
            (26, subnet.mtu.is_some()),
            (42, !subnet.ntp_servers.is_empty()),
            (119, !searches.is_empty()),
        ];
        let naming = self.option_sets.values().filter(|set| set.subnets.contains(&subnet.id));
        let naming = naming.map(|set| &set.id).filter(|id| !subnet.option_sets.contains(id));
        let sets = subnet.option_sets.iter().chain(naming);
        let mut options = self.options_with(&subnet.options, sets);
        options.retain(|option| !fields.contains(&(option.code(), true)));
        options
    }

    /// Options of a reservation, those of its sets included.
    pub(crate) fn options_of<'a>(
        &'a self,
        reservation: &'a ReservationContent,
    ) -> Vec<&'a DhcpOption> {
        self.options_with(&reservation.options, reservation.option_sets.iter())
    }

    fn options_with<'a>(
        &'a self,
        own: &'a Options,
        sets: impl Iterator<Item = &'a ResourceId>,
    ) -> Vec<&'a DhcpOption> {
        let mut codes = HashSet::new();
        let sets = sets.filter_map(|id| self.option_sets.get(id));
        own.iter()
            .chain(sets.flat_map(|set| set.options.iter()))
            .filter(|option| codes.insert(option.code()))
            .collect()
    }

    fn check_named(&self, sets: &[ResourceId]) -> Result<(), ChangeError> {
        let missing = sets.iter().enumerate().find(|(_, id)| !self.option_sets.contains_key(id));
        missing.map_or(Ok(()), |(_, id)| {
            Err(ChangeError::Invalid {
                field: "option_sets",
                value: id.to_string(),
                reason: "is not an option set of the zone".to_owned(),
                remedy: "create the set first, or name another",
            })
        })
    }
}

fn check_bounds(options: &[&DhcpOption], of: &str) -> Result<(), ChangeError> {
    let bytes: usize = options.iter().map(|option| option.encoded_size()).sum();
    if options.len() <= MOST_OPTIONS && bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(ChangeError::Invalid {
        field: "options",
        value: format!("{} options, {bytes} bytes", options.len()),
        reason: format!("is more than {MOST_OPTIONS} options or {MOST_BYTES} bytes for {of}"),
        remedy: "give fewer or shorter options, or name fewer sets",
    })
}

impl DesiredState {
    pub(super) fn put_option_set(
        &mut self,
        zone: &ResourceId,
        set: OptionSet,
        step: &Step,
    ) -> Outcome {
        let existing = self.zone(zone)?.option_sets.get(&set.id);
        let id = set.id.clone();
        let (set, outcome) = step.replace("option set", &id, existing, set)?;
        if outcome.changed {
            self.admit_option_set(zone, set, step)?;
        }
        Ok(outcome)
    }

    /// Takes a set in, when everybody who names it still keeps the bounds.
    pub(super) fn admit_option_set(
        &mut self,
        zone: &ResourceId,
        set: OptionSet,
        step: &Step,
    ) -> Result<(), ChangeError> {
        let state = self.zone(zone)?;
        if let Some(known) = state.option_sets.get(&set.id) {
            step.check_owner("option set", &set.id, &known.meta)?;
        } else if state.option_sets.len() >= MAX_OPTION_SETS {
            let what = "option sets of a zone";
            return Err(ChangeError::Limit { what, limit: MAX_OPTION_SETS });
        }
        let id = set.id.clone();
        let before = self.zone_mut(zone)?.option_sets.insert(id.clone(), set);
        let outcome = self.check_users(zone, &id);
        if outcome.is_err() {
            let sets = &mut self.zone_mut(zone)?.option_sets;
            match before {
                Some(before) => drop(sets.insert(id, before)),
                None => drop(sets.remove(&id)),
            }
        }
        outcome
    }

    fn check_users(&self, zone: &ResourceId, id: &ResourceId) -> Result<(), ChangeError> {
        let state = self.zone(zone)?;
        for state_of in state.subnets.values() {
            let subnet = &state_of.subnet;
            check_bounds(&state.options_of_subnet(subnet), &format!("subnet {}", subnet.id))?;
        }
        for kept in state.reservations.values().filter(|kept| kept.option_sets.contains(id)) {
            check_bounds(&state.options_of(kept), &format!("reservation {}", kept.id))?;
        }
        Ok(())
    }

    /// Whether a reservation names sets that are there, and not too much comes of it.
    pub(super) fn check_sets(
        &self,
        zone: &ResourceId,
        content: &ReservationContent,
    ) -> Result<(), ChangeError> {
        if content.option_sets.is_empty() {
            return Ok(());
        }
        let state = self.zone(zone)?;
        state.check_named(&content.option_sets)?;
        check_bounds(&state.options_of(content), "the reservation")
    }

    /// As [`Self::check_sets`], for a subnet.
    pub(super) fn check_subnet_sets(
        &self,
        zone: &ResourceId,
        subnet: &Subnet,
    ) -> Result<(), ChangeError> {
        let state = self.zone(zone)?;
        state.check_named(&subnet.option_sets)?;
        check_bounds(&state.options_of_subnet(subnet), "the subnet")
    }

    pub(super) fn delete_option_set(
        &mut self,
        zone: &ResourceId,
        id: &ResourceId,
        step: &Step,
    ) -> Outcome {
        let state = self.zone_mut(zone)?;
        let subnets = state.subnets.values().filter(|kept| kept.subnet.option_sets.contains(id));
        let reservations = state.reservations.values().filter(|r| r.option_sets.contains(id));
        let counts = [(subnets.count(), "subnets"), (reservations.count(), "reservations")];
        let users: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        if !users.is_empty() {
            let (what, users) = ("option set", users.join(", "));
            return Err(ChangeError::InUse { what, id: id.to_string(), users });
        }
        step.remove("option set", &mut state.option_sets, id, id)
    }
}
