//! Finds resources that two roles claim, before anything is bound.

use std::fmt;
use std::sync::Arc;

use role::{Resource, RoleKind, RoleSpec};

/// Two claims that cannot both be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    pub first: (String, Resource),
    pub second: (String, Resource),
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((first, one), (second, other)) = (&self.first, &self.second);
        if one == other {
            write!(f, "{first} and {second} both need {one}")
        } else {
            write!(f, "{first} needs {one}, {second} needs {other}")
        }
    }
}

/// All conflicts among the roles and between them and the supervisor's own `claims`.
pub fn find(specs: &[Arc<dyn RoleSpec>], own: &[Resource]) -> Vec<Conflict> {
    let named = |kind: RoleKind| format!("role {} ({})", kind.short, kind.title);
    let mut claims: Vec<(String, Resource)> =
        own.iter().map(|resource| ("the supervisor".to_owned(), resource.clone())).collect();
    for spec in specs {
        let name = named(spec.kind());
        claims.extend(spec.resources().into_iter().map(|resource| (name.clone(), resource)));
    }
    let mut conflicts = Vec::new();
    for (index, first) in claims.iter().enumerate() {
        for second in claims.iter().skip(index + 1) {
            if first.0 != second.0 && first.1.conflicts(&second.1) {
                conflicts.push(Conflict { first: first.clone(), second: second.clone() });
            }
        }
    }
    conflicts
}
