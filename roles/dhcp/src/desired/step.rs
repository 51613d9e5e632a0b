//! One step of the state: bookkeeping, ownership and preconditions of a change, and what must hold
//! for the addresses in it.

use std::collections::BTreeMap;

use dhcp_api::record::Record;
use dhcp_api::resource::{Meta, Purpose, Range, Reservation, Resource, Source, Subnet};
use dhcp_api::words::{ResourceId, Stamp};

use super::{Applied, ChangeError, Circumstances, Outcome, Precondition, SubnetState, absent};

/// What has content and bookkeeping.
pub(super) trait Kept: Clone {
    fn meta(&self) -> &Meta;
    fn meta_mut(&mut self) -> &mut Meta;
    /// Whether a change of `self` to `other` changes anything.
    fn same_content(&self, other: &Self) -> bool;
}

impl<C: Clone + PartialEq> Kept for Resource<C> {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }

    fn same_content(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Kept for Record {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }

    fn same_content(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

/// One application of one change: who wants it, the number and time it gets, and what the caller
/// expects.
pub(super) struct Step {
    pub(super) by: Source,
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

    /// Only who made a resource changes or removes it.
    pub(super) fn check_owner(
        &self,
        what: &'static str,
        id: &impl ToString,
        meta: &Meta,
    ) -> Result<(), ChangeError> {
        if meta.source == self.by {
            return Ok(());
        }
        Err(ChangeError::Owned { what, id: id.to_string(), owner: meta.source })
    }

    /// Merges the bookkeeping of `existing` into `new`. A repetition needs no precondition: it
    /// cannot lose anybody's change.
    pub(super) fn replace<R: Kept>(
        &self,
        what: &'static str,
        id: &impl ToString,
        existing: Option<&R>,
        mut new: R,
    ) -> Result<(R, Applied), ChangeError> {
        self.check(existing.map(Kept::meta))?;
        let applied = |created, changed| Applied { created, changed, ..Applied::default() };
        let Some(old) = existing else {
            *new.meta_mut() = Meta {
                revision: self.generation,
                source: self.by,
                created_at: self.now,
                updated_at: self.now,
            };
            return Ok((new, applied(true, true)));
        };
        if old.same_content(&new) {
            return Ok((old.clone(), applied(false, false)));
        }
        self.check_owner(what, id, old.meta())?;
        if self.precondition.required && self.precondition.revision.is_none() {
            return Err(ChangeError::PreconditionRequired { what, revision: old.meta().revision });
        }
        *new.meta_mut() = Meta {
            revision: self.generation,
            source: self.by,
            created_at: old.meta().created_at,
            updated_at: self.now,
        };
        Ok((new, applied(false, true)))
    }

    pub(super) fn remove<K: Ord, R: Kept>(
        &self,
        what: &'static str,
        map: &mut BTreeMap<K, R>,
        key: &K,
        id: &impl ToString,
    ) -> Outcome {
        let existing = map.get(key).ok_or_else(|| absent(what, id))?;
        self.check(Some(existing.meta()))?;
        self.check_owner(what, id, existing.meta())?;
        map.remove(key);
        Ok(Self::removed())
    }

    pub(super) fn removed() -> Applied {
        Applied { changed: true, ..Applied::default() }
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
