//! What holds for a key after the file, `--set` and the defaults: for `quickcloud check`, and to
//! tell what a reload changes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

/// What holds for one key.
#[derive(Debug, Clone, PartialEq)]
pub enum Effective {
    /// The file or `--set` gave it.
    Given(toml::Value),
    /// The default, as text.
    Default(String),
    /// Not given; what holds instead depends on other things and is said in words.
    Derived(&'static str),
    /// Not given, and nothing holds instead.
    Absent,
    /// Given, and never shown.
    Secret(Fingerprint),
}

/// Tells two secrets apart without holding either. Good within one process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn of(secret: &toml::Value) -> Self {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        Self(KEY.get_or_init(RandomState::new).hash_one(secret.to_string()))
    }
}

/// The keys for which something else holds in `new` than in `old`. A list of tables such as
/// `stores` is one key, whatever changed inside.
pub fn changes(
    old: &BTreeMap<String, Effective>,
    new: &BTreeMap<String, Effective>,
) -> BTreeSet<String> {
    let differs = |key: &&String| old.get(*key) != new.get(*key);
    let whole = |key: &String| key.split('[').next().unwrap_or(key).to_owned();
    old.keys().chain(new.keys()).filter(differs).map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Section, Violations};

    fn read(text: &str) -> BTreeMap<String, Effective> {
        let table: toml::Table = text.parse().unwrap();
        let mut violations = Violations::new();
        let mut section = Section::new("r", &table, &mut violations);
        section.secret("password");
        section.or_default("port", 1_u16, "");
        section.tables("stores", "", |store| {
            store.secret("key");
            store.optional::<String>("url", "")
        });
        section.finish();
        violations.effective().clone()
    }

    fn check(old: &str, new: &str, expected: &[&str]) {
        let found = changes(&read(old), &read(new));
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{old} {new}");
    }

    #[test]
    fn changes_are_found_in_values_secrets_and_lists_of_tables() {
        check("password = 'a'", "password = 'a'", &[]);
        check("password = 'a'", "password = 'b'", &["r.password"]);
        check("", "password = 'b'", &["r.password"]);
        check("port = 2", "port = 3\npassword = 'x'", &["r.password", "r.port"]);
        let list = "stores = [{url = 'a', key = '1'}]";
        check(list, "stores = [{url = 'a', key = '2'}]", &["r.stores"]);
        check(list, "stores = [{url = 'a', key = '1'}, {url = 'b'}]", &["r.stores"]);
        check(list, list, &[]);
    }

    #[test]
    fn a_secret_shows_nowhere() {
        let effective = read("password = 'hunter2'\nstores = [{url = 'u', key = 'hunter2'}]");
        assert!(!format!("{effective:?}").contains("hunter2"));
    }
}
