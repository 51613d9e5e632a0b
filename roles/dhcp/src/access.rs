//! Who may do what. Over TCP: bearer tokens, of which only digests are kept, and names in
//! certificates of clients. On the Unix socket: accounts, by the kernel's word.
//!
//! The tokens' file has one token a line: `NAME ROLE DIGEST`, the SHA-256 of the token in
//! hexadecimal. Certificates and accounts are named in the configuration, `NAME ROLE` each. A socket
//! without such a list needs none: who may open it is what its mode and group say.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use nix::unistd::{Gid, Group, User};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Tokens of one file.
const MOST: usize = 256;

/// What somebody may do; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessRole {
    /// Look.
    Reader,
    /// Change reservations, records and leases.
    Writer,
    /// Everything.
    Admin,
}

impl FromStr for AccessRole {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "reader" => Ok(Self::Reader),
            "writer" => Ok(Self::Writer),
            "admin" => Ok(Self::Admin),
            _ => Err("is none of reader, writer and admin"),
        }
    }
}

impl fmt::Display for AccessRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        })
    }
}

#[derive(Clone)]
struct Known {
    name: String,
    role: AccessRole,
    digest: [u8; 32],
}

/// The tokens that are accepted. Cloneable.
#[derive(Clone, Default)]
pub struct Tokens(Arc<[Known]>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|known| &known.name)).finish()
    }
}

impl Tokens {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The number of the line and what is wrong with it; never its content.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut known: Vec<Known> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("line {number} {what}");
            let mut words = line.split_whitespace();
            let (Some(name), Some(role), Some(digest), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(wrong("is not a name, a role and a digest"));
            };
            let role = role.parse().map_err(|error| wrong(&format!("has a role that {error}")))?;
            let digest = unhex(digest)
                .ok_or_else(|| wrong("has no SHA-256 in 64 hexadecimal digits as its digest"))?;
            if known.iter().any(|other| other.name == name) {
                return Err(wrong("repeats a name"));
            }
            known.push(Known { name: name.to_owned(), role, digest });
            if known.len() > MOST {
                return Err(format!("there are more than {MOST} tokens"));
            }
        }
        if known.is_empty() {
            return Err("there is no token in it".to_owned());
        }
        Ok(Self(known.into()))
    }

    /// Whose token it is, and what it allows.
    pub fn check(&self, token: &str) -> Option<(&str, AccessRole)> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // All of them, whichever it is.
        self.0.iter().fold(None, |found, known| {
            let is_it: bool = known.digest.ct_eq(&digest).into();
            if is_it { Some((known.name.as_str(), known.role)) } else { found }
        })
    }
}

/// Somebody and what they may do, `NAME ROLE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub name: String,
    pub role: AccessRole,
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(name), Some(role), None) => {
                let role = role.parse().map_err(|error| format!("its role {role} {error}"))?;
                Ok(Self { name: name.to_owned(), role })
            }
            _ => Err("is not a name and a role".to_owned()),
        }
    }
}

/// What the names of a certificate allow, with the name that does; the most of them.
pub(crate) fn of_names<'n>(names: &'n [String], grants: &[Grant]) -> Option<(&'n str, AccessRole)> {
    let granted = names.iter().flat_map(|name| {
        let own = grants.iter().filter(|grant| grant.name.eq_ignore_ascii_case(name));
        own.map(|grant| (name.as_str(), grant.role))
    });
    granted.max_by_key(|(_, role)| *role)
}

/// Which account of this machine may do what on the Unix socket. Cloneable.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: Arc<[(u32, AccessRole)]>,
    groups: Arc<[(u32, AccessRole)]>,
}

impl Accounts {
    /// Looks names up: `web`, `1001`, `@operators`, `@1002`. Members of a group are those of this
    /// moment. root and the account that we run as may do everything. Blocks.
    ///
    /// # Errors
    /// The names that this machine does not know; the others count nevertheless.
    pub fn look_up(grants: &[Grant]) -> (Self, Vec<String>) {
        let own = [0, nix::unistd::geteuid().as_raw()];
        let mut users: Vec<_> = own.into_iter().map(|uid| (uid, AccessRole::Admin)).collect();
        let (mut groups, mut unknown) = (Vec::new(), Vec::new());
        for Grant { name, role } in grants {
            if let Some(group) = name.strip_prefix('@') {
                let number = group.parse::<u32>().ok();
                let found = match number {
                    Some(gid) => Group::from_gid(Gid::from_raw(gid)),
                    None => Group::from_name(group),
                };
                let found = found.ok().flatten();
                // A number needs no name.
                let gid = number.or_else(|| found.as_ref().map(|group| group.gid.as_raw()));
                let Some(gid) = gid else {
                    unknown.push(name.clone());
                    continue;
                };
                groups.push((gid, *role));
                users.extend(members_of(&found.map(|group| group.mem).unwrap_or_default(), *role));
                continue;
            }
            match (name.parse::<u32>(), User::from_name(name)) {
                (Ok(uid), _) => users.push((uid, *role)),
                (Err(_), Ok(Some(user))) => users.push((user.uid.as_raw(), *role)),
                _ => unknown.push(name.clone()),
            }
        }
        (Self { users: users.into(), groups: groups.into() }, unknown)
    }

    /// What a process of this user and group may do; the most that anything allows.
    pub fn role_of(&self, uid: u32, gid: u32) -> Option<AccessRole> {
        let users = self.users.iter().filter(|(id, _)| *id == uid);
        let groups = self.groups.iter().filter(|(id, _)| *id == gid);
        users.chain(groups).map(|(_, role)| *role).max()
    }
}

fn members_of(names: &[String], role: AccessRole) -> Vec<(u32, AccessRole)> {
    let users = names.iter().filter_map(|name| User::from_name(name).ok().flatten());
    users.map(|user| (user.uid.as_raw(), role)).collect()
}

/// A new token, and its line for the file.
pub fn mint(name: &str, role: AccessRole) -> (String, String) {
    let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    let token = format!("qcd_{}{}", random[0].simple(), random[1].simple());
    let digest = Sha256::digest(token.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!("{name} {role} {hex}");
    (token, line)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest_alone() {
        let (token, line) = mint("ci", AccessRole::Writer);
        assert!(!line.contains(&token));
        let (other, second) = mint("ops", AccessRole::Admin);
        let tokens = Tokens::parse(&format!("# comment\n\n{line}\n{second}\n")).unwrap();
        assert_eq!(tokens.check(&token), Some(("ci", AccessRole::Writer)));
        assert_eq!(tokens.check(&other), Some(("ops", AccessRole::Admin)));
        for wrong in ["", "qcd_", &token[1..], line.rsplit(' ').next().unwrap()] {
            assert_eq!(tokens.check(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{tokens:?}"), "[\"ci\", \"ops\"]");
    }

    #[test]
    fn accounts_are_known_by_user_and_group_and_the_most_counts() {
        let grants: Vec<Grant> =
            ["root reader", "4001 reader", "@4002 writer", "nobody-at-all admin"]
                .map(|text| text.parse::<Grant>().unwrap())
                .into();
        let (accounts, unknown) = Accounts::look_up(&grants);
        assert_eq!(unknown, ["nobody-at-all"]);
        assert_eq!(accounts.role_of(0, 0), Some(AccessRole::Admin));
        assert_eq!(accounts.role_of(4001, 1), Some(AccessRole::Reader));
        assert_eq!(accounts.role_of(4001, 4002), Some(AccessRole::Writer));
        assert_eq!(accounts.role_of(4003, 4003), None);
        let error = "web root".parse::<Grant>().unwrap_err();
        assert_eq!(error, "its role root is none of reader, writer and admin");
        assert_eq!("web".parse::<Grant>().unwrap_err(), "is not a name and a role");
    }

    #[test]
    fn names_of_a_certificate_are_compared_as_names() {
        let grants: Vec<Grant> = ["portal.example writer", "ops admin"]
            .map(|text| text.parse::<Grant>().unwrap())
            .into();
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            of_names(&names, &grants).map(|(_, role)| role)
        };
        assert_eq!(of(&["x.example", "Portal.Example"]), Some(AccessRole::Writer));
        assert_eq!(of(&["portal.example", "ops"]), Some(AccessRole::Admin));
        assert_eq!(of(&["portal.example.org", "portal"]), None);
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_by_line_and_never_quoted() {
        let digest = "ab".repeat(32);
        for (text, expected) in [
            (String::new(), "there is no token in it"),
            ("secret".to_owned(), "line 1 is not a name, a role and a digest"),
            (format!("a root {digest}"), "line 1 has a role that is none of"),
            ("a admin plaintext".to_owned(), "line 1 has no SHA-256"),
            (format!("a admin {digest}\na reader {digest}"), "line 2 repeats a name"),
        ] {
            let error = Tokens::parse(&text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains("plaintext") && !error.contains("secret"), "{error}");
        }
    }
}
