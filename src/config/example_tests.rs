//! The example file is complete: it documents exactly the keys that are read, with their defaults.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::*;
use crate::registry::ROLES;

const EXAMPLE: &str = include_str!("../../config/quickcloud.toml");
/// These exclude each other, so they cannot all be given at once.
const EXCLUSIVE: [&str; 4] = [
    "management.client_cert_file",
    "management.client_key_file",
    "management.client_keystore_file",
    "management.client_keystore_password_file",
];

/// Every `key = value` line by dotted key, commented out or not.
fn documented() -> BTreeMap<String, (Value, bool)> {
    let mut keys = BTreeMap::new();
    let mut table = String::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut table);
        }
        let (text, given) = match line.strip_prefix('#') {
            Some(text) => (text, false),
            None => (line, true),
        };
        let Some((key, _)) = text.split_once(" = ") else { continue };
        if key.contains(' ') || key.is_empty() {
            continue;
        }
        let value = text.parse::<Table>().expect(text).remove(key).unwrap();
        let twice = keys.insert(format!("{table}.{key}"), (value, given));
        assert!(twice.is_none(), "{table}.{key} is there twice");
    }
    keys
}

fn load_tables(text: &str) -> Loaded {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() }, ROLES).unwrap()
}

#[test]
fn the_example_is_valid_as_it_is_and_with_every_key_given() {
    let loaded = load_tables(EXAMPLE);
    assert_eq!(loaded.violations, []);
    assert_eq!(loaded.config.unwrap().roles.len(), ROLES.len());

    let mut all = Table::default();
    for (key, (value, _)) in documented() {
        if !EXCLUSIVE.contains(&key.as_str()) {
            overlay::apply(&mut all, &format!("{key}={value}")).unwrap();
        }
    }
    let loaded = load_tables(&all.to_string());
    assert_eq!(loaded.violations, []);
}

#[test]
fn the_example_documents_exactly_the_keys_that_are_read() {
    let effective = load_tables(EXAMPLE).effective;
    let read: Vec<&String> = effective.keys().filter(|key| !key.contains('[')).collect();
    let documented = documented();
    assert_eq!(documented.keys().collect::<Vec<_>>(), read);
}

#[test]
fn keys_commented_out_show_their_defaults() {
    let effective = load_tables(EXAMPLE).effective;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let same = |one: &str, other: &str| {
        let duration = |text: &str| config_reader::parse_duration(text);
        let bytes = |text: &str| config_reader::parse_bytes(text);
        one == other
            || duration(one).is_some_and(|value| duration(other) == Some(value))
            || bytes(one).is_some_and(|value| bytes(other) == Some(value))
    };
    let mut compared = 0;
    for (key, (value, given)) in documented() {
        let Some(Effective::Default(default)) = effective.get(&key) else { continue };
        assert!(!given, "{key} has its default and is not commented out");
        assert!(same(&text(&value), default), "{key}: {value}, the default is {default}");
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

#[test]
fn every_reloadable_key_is_one_that_is_read() {
    let loaded = load_tables(EXAMPLE);
    let roles = loaded.config.unwrap().roles;
    let own = crate::reload::RELOADABLE.iter();
    for key in own.chain(roles.iter().flat_map(|role| role.reloadable)) {
        assert!(loaded.effective.contains_key(*key), "{key} is not a key");
    }
}
