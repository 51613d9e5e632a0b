//! `POST /roles/ss/verify`: what a look at everything on a store found.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One store, looked at as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The store, without user, password and query.
    pub store: String,
    /// Templates, ISOs and volumes that are listed to the server.
    pub objects: u64,
    /// What they take.
    pub object_bytes: u64,
    /// Why the look ended early, or never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The first thousand.
    pub findings: Vec<Finding>,
    /// How many there are in all.
    pub found: u64,
    /// Bytes that nobody would miss, before a repair.
    pub reclaimable_bytes: u64,
    /// Findings that a repair put right.
    pub repaired: u64,
}

/// Something on a store that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// Below the store's root.
    pub path: String,
    pub bytes: u64,
    /// What it is, and what can be done about it.
    pub text: String,
    #[serde(default)]
    pub repaired: bool,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A listed object whose file is not there.
    Missing,
    /// A listed object whose file is shorter than its properties say.
    Short,
    /// Files that no properties list: the server does not know of them.
    Unlisted,
    /// What an unfinished download or upload left.
    Leftover,
    /// A word of a newer process.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Short => "short",
            Self::Unlisted => "unlisted",
            Self::Leftover => "leftover",
            Self::Unknown => "unknown",
        })
    }
}
