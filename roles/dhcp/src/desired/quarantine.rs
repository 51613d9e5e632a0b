//! What was stored and cannot be served: kept aside with its reason, so that everything else is
//! served and nothing is lost. Whoever puts or deletes the resource settles it.

use dhcp_api::words::ResourceId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Change, DesiredState};

/// Something kept aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Where it stood: `zones/z1/reservations/r1`; a field of it is `…/r1/fields/options/0`.
    pub place: String,
    pub reason: String,
    pub content: Value,
}

/// Places that a change settles.
#[derive(Debug)]
pub(super) struct Settled(Vec<Place>);

#[derive(Debug)]
enum Place {
    /// A resource and its own fields.
    One(String),
    /// A resource and whatever lies in it.
    Whole(String),
}

impl Settled {
    pub(super) fn by(change: &Change) -> Self {
        let reservation =
            |zone: &ResourceId, id: &ResourceId| format!("zones/{zone}/reservations/{id}");
        let option_set =
            |zone: &ResourceId, id: &ResourceId| format!("zones/{zone}/option-sets/{id}");
        Self(match change {
            Change::PutZone(zone) => vec![Place::One(format!("zones/{}", zone.id))],
            Change::DeleteZone { zone, .. } => vec![Place::Whole(format!("zones/{zone}"))],
            Change::PutSubnet { zone, subnet } => {
                vec![Place::One(format!("zones/{zone}/subnets/{}", subnet.id))]
            }
            Change::DeleteSubnet { zone, subnet, .. } => {
                vec![Place::Whole(format!("zones/{zone}/subnets/{subnet}"))]
            }
            Change::PutRange { zone, subnet, range } => {
                vec![Place::Whole(format!("zones/{zone}/subnets/{subnet}/ranges/{}", range.id))]
            }
            Change::DeleteRange { zone, subnet, range } => {
                vec![Place::Whole(format!("zones/{zone}/subnets/{subnet}/ranges/{range}"))]
            }
            Change::PutReservation { zone, reservation: kept } => {
                vec![Place::Whole(reservation(zone, &kept.id))]
            }
            Change::DeleteReservation { zone, reservation: id } => {
                vec![Place::Whole(reservation(zone, id))]
            }
            Change::Batch { zone, upsert, delete } => {
                let ids = upsert.iter().map(|kept| &kept.id).chain(delete);
                ids.map(|id| Place::Whole(reservation(zone, id))).collect()
            }
            Change::PutRecord { zone, record } => {
                let (name, kind) = (&record.name, record.kind);
                vec![Place::Whole(format!("zones/{zone}/records/{name} {kind}"))]
            }
            // What it sets aside and brings back is its own business.
            Change::Sync(_) => Vec::new(),
            Change::Whole(change) => {
                let places = change.zones.iter().flat_map(|zone| {
                    let all = zone.reservations.iter().map(|kept| reservation(&zone.id, &kept.id));
                    let sets = zone.option_sets.iter().map(|set| option_set(&zone.id, &set.id));
                    all.chain(sets).map(Place::Whole)
                });
                places.collect()
            }
            Change::PutOptionSet { zone, set } => vec![Place::Whole(option_set(zone, &set.id))],
            Change::DeleteOptionSet { zone, set } => vec![Place::Whole(option_set(zone, set))],
            Change::DeleteRecord { zone, name, kind } => {
                vec![Place::Whole(format!("zones/{zone}/records/{name} {kind}"))]
            }
        })
    }

    fn has(&self, place: &str) -> bool {
        self.0.iter().any(|settled| {
            let (start, below) = match settled {
                Place::One(start) => (start, "/fields/"),
                Place::Whole(start) => (start, "/"),
            };
            let rest = place.strip_prefix(start.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(below))
        })
    }
}

impl DesiredState {
    /// Whether something is kept aside at these places.
    pub(super) fn is_aside(&self, settled: &Settled) -> bool {
        self.quarantine.iter().any(|kept| settled.has(&kept.place))
    }

    /// Lets go of what is kept aside at these places.
    pub(super) fn settle(&mut self, settled: &Settled) {
        self.quarantine.retain(|kept| !settled.has(&kept.place));
    }
}
