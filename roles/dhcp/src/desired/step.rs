//! One step of the state: bookkeeping and preconditions of a change, and what must hold for the
//! addresses in it.

use std::collections::BTreeMap;

use super::{Applied, ChangeError, Circumstances, Outcome, Precondition, SubnetState, absent};
use crate::model::{Meta, Purpose, Range, Reservation, Resource, Source, Subnet};
use crate::value::{ResourceId, Stamp};

/// One application of one change: the number and time it gets, and what the caller expects.
pub(super) struct Step {
    pub(super) generation: u64,
    pub(super) now: Stamp,
    pub(super) precondition: Precondition,
}

impl Step {
    /// From here on a replacement needs `If-Match`.
    pub(super) const fn required(&mut self) {
        self.precondition.required = true;
    }

    fn check(&self, existing: Option<&Meta>) -> Result<(), ChangeError> {
        let failed = |state: String| Err(ChangeError::PreconditionFailed { state });
        match (existing, self.precondition.revision) {
            (Some(_), _) if self.precondition.absent => failed("it exists".to_owned()),
            (Some(meta), Some(revision)) if meta.revision != revision => {
                failed(format!("its revision is {}", meta.revision))
            }
            (None, Some(_)) => failed("it does not exist".to_owned()),
            _ => Ok(()),
        }
    }

    pub(super) fn check_required(
        &self,
        what: &'static str,
        meta: &Meta,
    ) -> Result<(), ChangeError> {
        if self.precondition.revision.is_none() {
            return Err(ChangeError::PreconditionRequired { what, revision: meta.revision });
        }
        self.check(Some(meta))
    }

    /// Merges the bookkeeping of `existing` into `new`. A repetition needs no precondition: it
    /// cannot lose anybody's change.
    pub(super) fn replace<R: Resource>(
        &self,
        what: &'static str,
        existing: Option<&R>,
        mut new: R,
    ) -> Result<(R, Applied), ChangeError> {
        self.check(existing.map(Resource::meta))?;
        let applied = |created, changed| Applied { generation: 0, created, changed };
        let Some(old) = existing else {
            let source = new.meta().source;
            *new.meta_mut() = Meta {
                revision: self.generation,
                source,
                created_at: self.now,
                updated_at: self.now,
            };
            return Ok((new, applied(true, true)));
        };
        if old.same_content(&new) {
            return Ok((old.clone(), applied(false, false)));
        }
        if old.meta().source == Source::Cloudstack && new.meta().source == Source::Api {
            return Err(ChangeError::Owned { what, id: "it".to_owned() });
        }
        if self.precondition.required && self.precondition.revision.is_none() {
            return Err(ChangeError::PreconditionRequired { what, revision: old.meta().revision });
        }
        *new.meta_mut() = Meta {
            revision: self.generation,
            source: new.meta().source,
            created_at: old.meta().created_at,
            updated_at: self.now,
        };
        Ok((new, applied(false, true)))
    }

    pub(super) fn remove<K: Ord, R: Resource>(
        &self,
        what: &'static str,
        map: &mut BTreeMap<K, R>,
        key: &K,
        id: &impl ToString,
    ) -> Outcome {
        let existing = map.get(key).ok_or_else(|| absent(what, id))?;
        self.check(Some(existing.meta()))?;
        map.remove(key);
        Ok(Self::removed())
    }

    pub(super) const fn removed() -> Applied {
        Applied { generation: 0, created: false, changed: true }
    }
}

pub(super) fn not_empty(
    what: &'static str,
    id: &ResourceId,
    contents: &[(usize, &str)],
    cascade: bool,
) -> Result<(), ChangeError> {
    let left: Vec<String> = contents
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if cascade || left.is_empty() {
        return Ok(());
    }
    Err(ChangeError::NotEmpty { what, id: id.to_string(), contents: left.join(", ") })
}

pub(super) fn check_range(subnet: &Subnet, range: &Range) -> Result<(), ChangeError> {
    let outside = [("start", range.start), ("end", range.end)]
        .into_iter()
        .find(|(_, address)| !subnet.cidr.has_host(*address));
    if let Some((field, address)) = outside {
        return Err(ChangeError::Invalid {
            field,
            value: address.to_string(),
            reason: format!("is not a host address of {}", subnet.cidr),
            remedy: "give an address inside the subnet",
        });
    }
    if range.start > range.end {
        return Err(ChangeError::Invalid {
            field: "end",
            value: range.end.to_string(),
            reason: format!("lies before {}", range.start),
            remedy: "give the last address of the range",
        });
    }
    Ok(())
}

/// Whether the reservation's address may be given to anybody.
pub(super) fn check_placement(
    subnet: &SubnetState,
    reservation: &Reservation,
    facts: &Circumstances,
) -> Result<(), ChangeError> {
    let address = reservation.ipv4;
    let SubnetState { subnet, ranges } = subnet;
    let excluded =
        ranges.values().find(|range| range.purpose == Purpose::Excluded && range.contains(address));
    let reason = if !subnet.cidr.contains(address) {
        format!("is outside {} of subnet {}", subnet.cidr, subnet.id)
    } else if !subnet.cidr.has_host(address) {
        format!("is the network or broadcast address of {}", subnet.cidr)
    } else if subnet.gateway == Some(address) {
        format!("is the gateway of subnet {}", subnet.id)
    } else if facts.local.contains(&address) {
        "is an address of this machine".to_owned()
    } else if let Some(range) = excluded {
        format!("lies in the excluded range {}", range.id)
    } else {
        return Ok(());
    };
    Err(ChangeError::Invalid {
        field: "ipv4",
        value: address.to_string(),
        reason,
        remedy: "choose a free host address of the subnet",
    })
}
