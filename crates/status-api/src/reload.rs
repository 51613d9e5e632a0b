//! `POST /reload`: what came of reading the configuration again.

use serde::{Deserialize, Serialize};

/// Body of the answer to `POST /reload`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// The configuration is sound and in force as far as it can be without a restart. False: it is
    /// faulty and nothing changed, or something that was tried failed.
    pub ok: bool,
    /// Why nothing changed, when the file cannot be read at all or roles claim the same resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why nothing changed: everything wrong with the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    #[serde(default)]
    pub supervisor: ReloadReport,
    #[serde(default)]
    pub roles: Vec<RoleReload>,
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Dotted key.
    pub place: String,
    pub problem: String,
    pub remedy: String,
}

/// What a reload did to one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleReload {
    pub role: String,
    #[serde(flatten)]
    pub report: ReloadReport,
}

/// What a reload did: dotted keys, or in words what else was read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// In force now.
    #[serde(default)]
    pub applied: Vec<String>,
    /// Changed in the file, in force after a restart.
    #[serde(default)]
    pub needs_restart: Vec<String>,
    /// Could not be put in force; the old value holds.
    #[serde(default)]
    pub failed: Vec<ReloadFault>,
}

impl ReloadReport {
    /// Nothing to apply, nothing that waits, nothing that failed.
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.needs_restart.is_empty() && self.failed.is_empty()
    }

    /// Whether the report says anything about `key`.
    pub fn mentions(&self, key: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|listed| listed == key);
        listed(&self.applied)
            || listed(&self.needs_restart)
            || self.failed.iter().any(|fault| fault.what == key)
    }

    /// Adds something that is in force now.
    pub fn apply(&mut self, what: impl Into<String>) {
        self.applied.push(what.into());
    }

    /// Adds something that could not be put in force.
    pub fn fail(&mut self, what: impl Into<String>, problem: impl Into<String>) {
        self.failed.push(ReloadFault { what: what.into(), problem: problem.into() });
    }
}

/// Something that could not be put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadFault {
    /// Dotted key, or what it is in words.
    pub what: String,
    pub problem: String,
}
