//! PURE: host names. CloudStack allows what DNS does not, and compares names by case.
//!
//! A name is never a reason to lose a lease. It is lower-cased; whatever is no letter, digit or
//! hyphen becomes a hyphen; hyphens at the ends go; one that does not begin with a letter gets
//! `vm-` in front; one that dnsmasq reads as something else, or nothing is left of, is `vm-` and
//! the first eight digits of the NIC's id. It has 63 characters at most. Where two are the same in
//! one domain, the default NIC with the smaller id keeps it, the other gets the last two numbers
//! of its address behind it, and if that is taken, too, all four.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use dhcp_api::words::{DomainName, HostName};
use uuid::Uuid;

const LONGEST: usize = 63;

/// The label that stands for `name`, and whether more than its case was changed.
pub(super) fn host_name(name: &str, nic: Uuid) -> (HostName, bool) {
    let lower = name.to_ascii_lowercase();
    if let Ok(host) = lower.parse() {
        return (host, false);
    }
    let fit = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let mut text: String = lower.chars().map(fit).collect();
    text = text.trim_matches('-').to_owned();
    if !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        text.insert_str(0, "vm-");
    }
    (shortened(&text, LONGEST).parse().unwrap_or_else(|_invalid| by_id(nic)), true)
}

/// `vm-8f4c28c5`, which is a host name whatever the id.
fn by_id(nic: Uuid) -> HostName {
    let digits: String = nic.simple().to_string().chars().take(8).collect();
    match format!("vm-{digits}").parse() {
        Ok(name) => name,
        Err(_never) => unreachable!("letters, a hyphen and hexadecimal digits are a label"),
    }
}

fn shortened(text: &str, longest: usize) -> &str {
    // All of one byte by now.
    text.get(..longest.min(text.len())).unwrap_or_default().trim_end_matches('-')
}

/// `name` with the last `count` numbers of the address.
pub(crate) fn with_address(name: &HostName, address: Ipv4Addr, count: usize) -> Option<HostName> {
    let numbers = address.octets();
    let last: String =
        numbers.iter().skip(numbers.len().saturating_sub(count)).map(|n| format!("-{n}")).collect();
    format!("{}{last}", shortened(name.as_str(), LONGEST - last.len())).parse().ok()
}

/// Somebody who wants a name.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    pub(super) nic: Uuid,
    pub(super) name: &'a str,
    pub(super) domain: &'a DomainName,
    pub(super) address: Ipv4Addr,
    pub(super) is_default: bool,
}

/// Who gets which name; and what to say about it.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) given: BTreeMap<Uuid, HostName>,
    pub(super) changed: Vec<String>,
    pub(super) duplicates: Vec<String>,
}

/// Gives every claim a name that is its own within the domain.
pub(super) fn assign(mut claims: Vec<Claim<'_>>) -> Names {
    claims.sort_by_key(|claim| (!claim.is_default, claim.nic));
    let mut names = Names::default();
    let mut taken: HashMap<(&DomainName, HostName), Uuid> = HashMap::new();
    for claim in claims {
        let (wanted, is_changed) = host_name(claim.name, claim.nic);
        let candidates = std::iter::once(wanted.clone())
            .chain([2, 4].into_iter().filter_map(|n| with_address(&wanted, claim.address, n)))
            .chain(std::iter::once(by_id(claim.nic)));
        let free = |name: &HostName| !taken.contains_key(&(claim.domain, name.clone()));
        let Some(given) = candidates.into_iter().find(free) else { continue };
        if is_changed {
            names.changed.push(format!("{:?} is called {given}.{}", claim.name, claim.domain));
        }
        if given != wanted {
            let owner = taken.get(&(claim.domain, wanted.clone()));
            let owner = owner.map(|nic| format!(" of NIC {nic}")).unwrap_or_default();
            names.duplicates.push(format!(
                "{wanted}.{} is the name{owner}; NIC {} with {} is called {given}",
                claim.domain, claim.nic, claim.address
            ));
        }
        taken.insert((claim.domain, given.clone()), claim.nic);
        names.given.insert(claim.nic, given);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NIC: Uuid = Uuid::from_u128(0x8f4c_28c5_0971_43b8_bedb_3669_9469_cf6f);

    fn check(name: &str, expected: &str, changed: bool) {
        let (host, is_changed) = host_name(name, NIC);
        assert_eq!((host.as_str(), is_changed), (expected, changed), "{name:?}");
    }

    #[test]
    fn names_that_dns_does_not_allow_become_some_that_it_does() {
        check("web-1", "web-1", false);
        check("LifeA-Up", "lifea-up", false);
        check("my_vm", "my-vm", true);
        check("web.example", "web-example", true);
        check("-x-", "x", true);
        check("1st", "vm-1st", true);
        check("45m", "vm-45m", true);
        check("Ünïcode", "n-code", true);
        check("服务器", "vm-8f4c28c5", true);
        check("", "vm-8f4c28c5", true);
        check("localhost", "vm-8f4c28c5", true);
        check("ignore", "vm-8f4c28c5", true);
        check(&"a".repeat(70), &"a".repeat(63), true);
        check(&format!("{}-b", "a".repeat(62)), &"a".repeat(62), true);
        check("a\nb,c", "a-b-c", true);
    }

    #[test]
    fn duplicates_by_case_are_told_apart_by_address_and_the_smaller_id_wins() {
        let domain: DomainName = "cs.example".parse().unwrap();
        let claim = |nic: u128, name: &'static str, last: u8, is_default| Claim {
            nic: Uuid::from_u128(nic),
            name,
            domain: &domain,
            address: [10, 77, 9, last].into(),
            is_default,
        };
        let names = assign(vec![
            claim(3, "M1", 30, true),
            claim(1, "m1", 10, false),
            claim(2, "m1", 20, true),
            claim(4, "m1-9-30", 40, true),
        ]);
        let given = |nic: u128| names.given[&Uuid::from_u128(nic)].as_str();
        assert_eq!(given(2), "m1");
        assert_eq!(given(3), "m1-9-30");
        assert_eq!(given(1), "m1-9-10");
        assert_eq!(given(4), "m1-9-30-9-40");
        assert_eq!(names.duplicates.len(), 3, "{names:?}");
    }

    proptest! {
        #[test]
        fn every_name_becomes_a_label_and_none_is_given_twice(
            list in proptest::collection::vec("\\PC{0,80}", 1..20)
        ) {
            let domain: DomainName = "cs.example".parse().unwrap();
            let claims = list.iter().enumerate().map(|(index, name)| Claim {
                nic: Uuid::from_u128(u128::try_from(index).unwrap() << 96),
                name,
                domain: &domain,
                address: [10, 77, 0, u8::try_from(index).unwrap()].into(),
                is_default: true,
            });
            let names = assign(claims.collect());
            prop_assert_eq!(names.given.len(), list.len());
            let unique: std::collections::BTreeSet<_> = names.given.values().collect();
            prop_assert_eq!(unique.len(), list.len());
        }
    }
}
