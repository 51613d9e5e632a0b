//! The only list of role crates. Adding a role is one crate, one line here, one table in the file.

/// Tokens for the API of role `dhcp`, which the command line makes.
pub(crate) use dhcp::access;
use role::{RoleDescriptor, RoleKind};

/// Every role this binary can run, in the order people see them.
pub const ROLES: &[RoleDescriptor] =
    &[secondary_storage::DESCRIPTOR, console_proxy::DESCRIPTOR, dhcp::DESCRIPTOR];

/// Reads a list such as `ss,cp,dhcp`. Duplicates collapse, the order is that of the registry.
///
/// Errors name the unknown role and the known ones.
pub fn parse_roles(text: &str, registry: &[RoleDescriptor]) -> Result<Vec<RoleDescriptor>, String> {
    select(text.split(',').map(str::trim), registry)
}

/// As [`parse_roles`], for names already apart.
pub fn select<'n>(
    names: impl IntoIterator<Item = &'n str>,
    registry: &[RoleDescriptor],
) -> Result<Vec<RoleDescriptor>, String> {
    let mut wanted: Vec<&str> = Vec::new();
    for name in names {
        if name.is_empty() {
            return Err(format!("a role's name is empty; known roles: {}", known(registry)));
        }
        if !registry.iter().any(|descriptor| answers_to(descriptor.kind, name)) {
            return Err(format!("there is no role {name:?}; known roles: {}", known(registry)));
        }
        wanted.push(name);
    }
    if wanted.is_empty() {
        return Err(format!("no role is named; known roles: {}", known(registry)));
    }
    let chosen =
        |descriptor: &&RoleDescriptor| wanted.iter().any(|name| answers_to(descriptor.kind, name));
    Ok(registry.iter().filter(chosen).copied().collect())
}

/// A role answers to its short name and to the name of its table.
fn answers_to(kind: RoleKind, name: &str) -> bool {
    kind.short == name || kind.section == name
}

/// "ss (secondary storage), cp (console proxy)".
pub fn known(registry: &[RoleDescriptor]) -> String {
    let names: Vec<String> = registry
        .iter()
        .map(|descriptor| format!("{} ({})", descriptor.kind.short, descriptor.kind.title))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn descriptor(short: &'static str, section: &'static str) -> RoleDescriptor {
        RoleDescriptor::new(RoleKind { short, title: section, section }, |_, _| None)
    }

    const REGISTRY: &[RoleDescriptor] = &[descriptor("a", "alpha"), descriptor("b", "beta")];

    fn check(text: &str, expected: Result<&[&str], &str>) {
        let found = parse_roles(text, REGISTRY)
            .map(|list| list.iter().map(|d| d.kind.short).collect::<Vec<_>>());
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text:?}");
    }

    #[test]
    fn a_list_of_roles_is_read_strictly() {
        check("a", Ok(&["a"]));
        check("b, a,b", Ok(&["a", "b"]));
        check("alpha", Ok(&["a"]));
        check("a,c", Err("there is no role \"c\"; known roles: a (alpha), b (beta)"));
        check("", Err("a role's name is empty; known roles: a (alpha), b (beta)"));
        check("a,,b", Err("a role's name is empty; known roles: a (alpha), b (beta)"));
    }

    #[test]
    fn short_names_and_tables_are_unique() {
        for (index, one) in ROLES.iter().enumerate() {
            for other in ROLES.iter().skip(index + 1) {
                assert_ne!(one.kind.short, other.kind.short);
                assert_ne!(one.kind.section, other.kind.section);
            }
        }
    }
}
