//! What names one version of a content, to compare two looks at it.

use serde::{Deserialize, Serialize};

/// Validators of a content. Kept in the record of a download, so that it can go on after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// A strong entity tag: the same bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// When it was changed last, in the source's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// What the transfer puts around it: other codings are other bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coding: Vec<String>,
}

impl Version {
    /// Whether there is anything to tell versions apart by.
    pub const fn is_named(&self) -> bool {
        self.tag.is_some() || self.modified.is_some()
    }

    /// Whether another look was surely at this version: something names it, and nothing differs.
    pub fn is_surely(&self, other: &Self) -> bool {
        self.differs(other) == Some(false)
    }

    /// Whether another look may have been at this version: nothing differs.
    pub fn may_be(&self, other: &Self) -> bool {
        self.differs(other) != Some(true)
    }

    /// `None` when nothing tells.
    fn differs(&self, other: &Self) -> Option<bool> {
        let compare = |one: &Option<String>, other: &Option<String>| {
            one.as_ref().zip(other.as_ref()).map(|(one, other)| one != other)
        };
        let found = [compare(&self.tag, &other.tag), compare(&self.modified, &other.modified)];
        if self.coding != other.coding || found.contains(&Some(true)) {
            return Some(true);
        }
        found.contains(&Some(false)).then_some(false)
    }
}
