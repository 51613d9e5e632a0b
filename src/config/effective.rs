//! What holds after file, `--set` and defaults, as TOML text: what `check` prints, secrets masked.
//!
//! The text parses back to the same configuration, but for the secrets. Keys for which no value
//! stands are comments, so that what is printed is true.

use std::collections::BTreeMap;

use config_reader::Effective;
use toml::{Table, Value};

const MASK: &str = "***";

/// Builds the tree of all keys with a value. A table list such as `stores` comes both whole and
/// item by item (`stores[0].url`); the items fill the whole, secrets masked.
pub fn tree(effective: &BTreeMap<String, Effective>) -> Table {
    let mut root = Value::Table(Table::default());
    // Sorted by length, a list comes before its items.
    let mut entries: Vec<_> = effective.iter().collect();
    entries.sort_by_key(|(place, _)| place.len());
    for (place, entry) in entries {
        let value = match entry {
            Effective::Given(value) => value.clone(),
            Effective::Default(text) => typed(text),
            Effective::Secret(_) => Value::String(MASK.to_owned()),
            Effective::Derived(_) | Effective::Absent => continue,
        };
        put(&mut root, &steps(place), value);
    }
    match root {
        Value::Table(table) => table,
        _never => Table::default(),
    }
}

/// What holds in place of keys that are not given, by dotted key.
pub fn derived(effective: &BTreeMap<String, Effective>) -> BTreeMap<&str, &'static str> {
    let words = |entry: &Effective| match entry {
        Effective::Derived(holds) => Some(*holds),
        Effective::Given(_) | Effective::Default(_) | Effective::Absent | Effective::Secret(_) => {
            None
        }
    };
    effective.iter().filter_map(|(key, entry)| Some((key.as_str(), words(entry)?))).collect()
}

/// The tree as TOML; behind it, as comments, the keys for which no value stands.
pub fn to_toml(effective: &BTreeMap<String, Effective>) -> String {
    let mut text = toml::to_string(&tree(effective)).unwrap_or_default();
    for (key, holds) in derived(effective) {
        text.push_str(&format!("# {key} is not given: {holds}\n"));
    }
    let absent: Vec<&str> = effective
        .iter()
        .filter(|(key, entry)| **entry == Effective::Absent && !key.contains('['))
        .map(|(key, _)| key.as_str())
        .collect();
    if !absent.is_empty() {
        text.push_str(&format!("# not set: {}\n", absent.join(", ")));
    }
    text
}

/// Defaults are noted as text; numbers and booleans read better as what they are.
fn typed(text: &str) -> Value {
    // "0660" is text that happens to have digits only.
    if let Some(number) = text.parse::<i64>().ok().filter(|number| number.to_string() == text) {
        return Value::Integer(number);
    }
    text.parse::<bool>().map_or_else(|_not_bool| Value::String(text.to_owned()), Value::Boolean)
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(place: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in place.split('.') {
        let (key, indices) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Key(key));
        let numbers = indices.split(['[', ']']).filter_map(|number| number.parse().ok());
        steps.extend(numbers.map(Step::Index));
    }
    steps
}

fn put(target: &mut Value, steps: &[Step<'_>], value: Value) {
    let Some((first, rest)) = steps.split_first() else {
        *target = value;
        return;
    };
    match (first, target) {
        (Step::Key(key), Value::Table(table)) => {
            let entry =
                table.entry((*key).to_owned()).or_insert_with(|| Value::Table(Table::default()));
            put(entry, rest, value);
        }
        (Step::Index(index), Value::Array(items)) => {
            if let Some(item) = items.get_mut(*index) {
                put(item, rest, value);
            }
        }
        // A single table stands for a list of one.
        (Step::Index(0), single @ Value::Table(_)) => put(single, rest, value),
        (Step::Key(_) | Step::Index(_), _other) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config_reader::{Section, Violations};

    #[test]
    fn secrets_are_masked_at_every_depth_and_the_rest_parses_back() {
        let text = "password = 'hunter2'\nname = 'n'\n[[stores]]\nurl = 'u'\nkey = 'hunter2'\n";
        let table: Table = text.parse().unwrap();
        let mut violations = Violations::new();
        let mut section = Section::new("roles.x", &table, &mut violations);
        section.secret("password");
        section.optional::<String>("name", "");
        section.optional::<String>("absent", "");
        section.or_default("port", 8250_u16, "");
        section.or_default("mode", "0660".to_owned(), "");
        section.or_default("on", true, "");
        section.secret("proxy");
        section.optional_bytes("limit", "four times the other");
        section.tables("stores", "", |store| {
            store.secret("key");
            store.optional::<String>("url", "")
        });
        section.finish();
        assert!(violations.is_empty(), "{:?}", violations.list());
        let printed = to_toml(violations.effective());
        assert!(!printed.contains("hunter2"), "{printed}");
        let expected = "[roles.x]\nname = 'n'\npassword = '***'\nport = 8250\non = true\n\
                        mode = '0660'\n\
                        [[roles.x.stores]]\nurl = 'u'\nkey = '***'\n";
        assert_eq!(printed.parse::<Table>().unwrap(), expected.parse::<Table>().unwrap());
        let comments: Vec<&str> = printed.lines().filter(|line| line.starts_with('#')).collect();
        let expected = [
            "# roles.x.limit is not given: four times the other",
            "# not set: roles.x.absent, roles.x.proxy",
        ];
        assert_eq!(comments, expected);
    }
}
