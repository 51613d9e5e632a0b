//! What is wrong with a configuration, all of it at once.

use std::collections::BTreeMap;
use std::fmt;

use crate::effective::Effective;

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Dotted key: `roles.dhcp.interface`.
    pub place: String,
    /// What is wrong, with the value: `"br 0" is not an interface name`.
    pub problem: String,
    /// What to do: `give the name that "ip link" shows`.
    pub remedy: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.remedy)
    }
}

/// All violations found so far, and the effective value of every key read.
#[derive(Debug, Default)]
pub struct Violations {
    list: Vec<Violation>,
    effective: BTreeMap<String, Effective>,
}

impl Violations {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, unless the same is there (two roles read `[management]`).
    pub fn add(
        &mut self,
        place: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let violation =
            Violation { place: place.into(), problem: problem.into(), remedy: remedy.into() };
        if !self.list.contains(&violation) {
            self.list.push(violation);
        }
    }

    /// Takes over what was found elsewhere.
    pub fn absorb(&mut self, other: Self) {
        for found in other.list {
            self.add(found.place, found.problem, found.remedy);
        }
        self.effective.extend(other.effective);
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn list(&self) -> &[Violation] {
        &self.list
    }

    /// Effective values by dotted key.
    pub const fn effective(&self) -> &BTreeMap<String, Effective> {
        &self.effective
    }

    pub(crate) fn note(&mut self, place: String, effective: Effective) {
        self.effective.insert(place, effective);
    }
}
