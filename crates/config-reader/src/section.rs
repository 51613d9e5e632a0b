//! One table of the configuration, read key by key.
//!
//! serde stops at the first fault; an operator wants the whole list. A [`Section`] takes keys out
//! of a `toml::Table` one by one, notes what is wrong with place, value and remedy, remembers what
//! holds for each key, and in [`Section::finish`] reports the keys nobody asked for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bedrock::Secret;

use crate::effective::{Effective, Fingerprint};
use crate::values::{format_bytes, format_duration, parse_bytes, parse_duration, scalar};
use crate::violation::Violations;

/// A table being read. Call [`Section::finish`] last.
#[derive(Debug)]
pub struct Section<'a> {
    path: String,
    table: &'a toml::Table,
    known: Vec<&'static str>,
    violations: &'a mut Violations,
}

impl<'a> Section<'a> {
    /// `path` is the dotted place of the table, "roles.dhcp".
    pub fn new(
        path: impl Into<String>,
        table: &'a toml::Table,
        violations: &'a mut Violations,
    ) -> Self {
        Self { path: path.into(), table, known: Vec::new(), violations }
    }

    fn place(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports a violation of this table's `key`.
    pub fn violation(&mut self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let place = self.place(key);
        self.violations.add(place, problem, remedy);
    }

    fn note(&mut self, key: &str, effective: Effective) {
        let place = self.place(key);
        self.violations.note(place, effective);
    }

    fn note_default(&mut self, key: &str, default: impl fmt::Display) {
        self.note(key, Effective::Default(default.to_string()));
    }

    /// The raw value, marking the key as known. For shapes the typed readers do not cover.
    pub fn raw(&mut self, key: &'static str) -> Option<&'a toml::Value> {
        self.known.push(key);
        let value = self.table.get(key);
        self.note(key, value.map_or(Effective::Absent, |value| Effective::Given(value.clone())));
        value
    }

    /// Says what holds while `key`, read before, is not given: `check` shows it in words.
    pub fn otherwise(&mut self, key: &str, holds: &'static str) {
        if !self.table.contains_key(key) {
            self.note(key, Effective::Derived(holds));
        }
    }

    /// An optional value of any type whose text form parses; integers and booleans in the file
    /// are read through their text, so `port = 8250` and `port = "8250"` mean the same.
    pub fn optional<T: FromStr>(&mut self, key: &'static str, remedy: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let value = self.raw(key)?;
        self.parse(key, value, remedy)
    }

    /// As [`Section::optional`], with a default that `check` shows.
    pub fn or_default<T: FromStr + fmt::Display>(
        &mut self,
        key: &'static str,
        default: T,
        remedy: &str,
    ) -> T
    where
        T::Err: fmt::Display,
    {
        if let Some(value) = self.raw(key) {
            return self.parse(key, value, remedy).unwrap_or(default);
        }
        self.note_default(key, &default);
        default
    }

    /// A value that must be there.
    pub fn required<T: FromStr>(&mut self, key: &'static str, remedy: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let Some(value) = self.raw(key) else {
            self.violation(key, "is missing", remedy);
            return None;
        };
        self.parse(key, value, remedy)
    }

    fn parse<T: FromStr>(&mut self, key: &str, value: &toml::Value, remedy: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        let Some(text) = scalar(value) else {
            self.violation(key, format!("{value} is not one value"), remedy);
            return None;
        };
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.violation(key, format!("{text:?} is not valid: {error}"), remedy);
                None
            }
        }
    }

    /// A path with a default.
    pub fn path(&mut self, key: &'static str, default: &str) -> PathBuf {
        self.or_default(key, default.to_owned(), "give a path").into()
    }

    /// An optional path.
    pub fn optional_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional::<String>(key, "give a path").map(PathBuf::from)
    }

    /// A duration as `"30s"`, `"500ms"`, `"5m"`, `"2h"`; a plain number is refused, since nobody
    /// can tell its unit.
    pub fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.note_default(key, format_duration(default));
            return default;
        }
        self.optional_duration(key, "").unwrap_or(default)
    }

    /// As [`Section::duration`], without a default; `otherwise` says what holds instead.
    pub fn optional_duration(
        &mut self,
        key: &'static str,
        otherwise: &'static str,
    ) -> Option<Duration> {
        const REMEDY: &str = "give a number with a unit: \"500ms\", \"30s\", \"5m\", \"2h\"";
        let Some(value) = self.raw(key) else {
            self.otherwise(key, otherwise);
            return None;
        };
        let duration = value.as_str().and_then(parse_duration);
        if duration.is_none() {
            self.violation(key, format!("{value} is not a duration"), REMEDY);
        }
        duration
    }

    /// A size as `"8KiB"`, `"50GiB"`, `"1000"` (bytes).
    pub fn bytes(&mut self, key: &'static str, default: u64) -> u64 {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.note_default(key, format_bytes(default));
            return default;
        }
        self.optional_bytes(key, "").unwrap_or(default)
    }

    /// As [`Section::bytes`], without a default; `otherwise` says what holds instead.
    pub fn optional_bytes(&mut self, key: &'static str, otherwise: &'static str) -> Option<u64> {
        const REMEDY: &str = "give a number with a unit: \"64KiB\", \"20MiB\", \"50GiB\", \"2TiB\"";
        let Some(value) = self.raw(key) else {
            self.otherwise(key, otherwise);
            return None;
        };
        let bytes = scalar(value).as_deref().and_then(parse_bytes);
        if bytes.is_none() {
            self.violation(key, format!("{value} is not a size"), REMEDY);
        }
        bytes
    }

    /// A list of values; a single value counts as a list of one.
    pub fn list<T: FromStr>(&mut self, key: &'static str, remedy: &str) -> Vec<T>
    where
        T::Err: fmt::Display,
    {
        match self.raw(key) {
            None => Vec::new(),
            Some(toml::Value::Array(items)) => {
                items.iter().filter_map(|item| self.parse(key, item, remedy)).collect()
            }
            Some(single) => self.parse(key, single, remedy).into_iter().collect(),
        }
    }

    /// A list of tables: `stores = [{ url = "…" }]`. Each is read as a section of its own; one table
    /// counts as a list of one.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        remedy: &str,
        mut read: impl FnMut(&mut Section<'_>) -> Option<T>,
    ) -> Vec<T> {
        let items = match self.raw(key) {
            None => return Vec::new(),
            Some(toml::Value::Array(items)) => items.as_slice(),
            Some(other) => std::slice::from_ref(other),
        };
        // Only the sections of the items know which of their keys are secrets.
        let places = items.iter().map(|_| toml::Value::Table(toml::Table::default())).collect();
        self.note(key, Effective::Given(toml::Value::Array(places)));
        let mut out = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let place = self.place(&format!("{key}[{index}]"));
            let Some(table) = item.as_table() else {
                self.violations.add(place, format!("{item} is not a table"), remedy);
                continue;
            };
            let mut section = Section::new(place, table, self.violations);
            if let Some(value) = read(&mut section) {
                out.push(value);
            }
            section.finish();
        }
        out
    }

    /// A table within this one, to be read as a section of its own; its keys say what holds.
    pub fn table(&mut self, key: &'static str) -> Option<&'a toml::Table> {
        self.known.push(key);
        match self.table.get(key)? {
            toml::Value::Table(table) => Some(table),
            other => {
                let remedy = format!("write [{}]", self.place(key));
                self.violation(key, format!("{other} is not a table"), remedy);
                None
            }
        }
    }

    /// A secret from a file named by this key. The file's content never shows up anywhere.
    pub fn secret_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.optional_path(key)
    }

    /// A secret written into the configuration itself; `check` and violations show `***`.
    pub fn secret(&mut self, key: &'static str) -> Option<Secret<String>> {
        self.known.push(key);
        let value = self.table.get(key);
        let shown =
            value.map_or(Effective::Absent, |value| Effective::Secret(Fingerprint::of(value)));
        self.note(key, shown);
        let text = scalar(value?);
        if text.is_none() {
            self.violation(key, "is not one value", "give a text");
        }
        text.map(Secret::new)
    }

    /// Reports unknown keys, with the nearest known one.
    pub fn finish(self) {
        for key in self.table.keys() {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let remedy = match nearest(key, &self.known) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("known keys: {}", self.known.join(", ")),
            };
            let place =
                if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            self.violations.add(place, "is not a known key", remedy);
        }
    }
}

fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (strsim::levenshtein(key, candidate), *candidate))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn read(text: &str, read: impl FnOnce(&mut Section<'_>)) -> Vec<String> {
        let table: toml::Table = text.parse().unwrap();
        let mut violations = Violations::new();
        let mut section = Section::new("roles.x", &table, &mut violations);
        read(&mut section);
        section.finish();
        violations.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_violation_is_reported_with_place_and_remedy() {
        let found = read("prot = 1\nwait = 30\nlisten = [\"a\", \"127.0.0.1:80\"]", |s| {
            assert_eq!(s.or_default("port", 8250_u16, "give a port"), 8250);
            assert_eq!(s.duration("wait", Duration::from_secs(9)), Duration::from_secs(9));
            assert_eq!(s.list::<SocketAddr>("listen", "give address:port").len(), 1);
            assert_eq!(s.required::<String>("name", "give the VM's name"), None);
        });
        assert_eq!(
            found,
            [
                "roles.x.wait: 30 is not a duration; give a number with a unit: \"500ms\", \"30s\", \"5m\", \"2h\"",
                "roles.x.listen: \"a\" is not valid: invalid socket address syntax; give address:port",
                "roles.x.name: is missing; give the VM's name",
                "roles.x.prot: is not a known key; did you mean \"port\"?",
            ]
        );
    }

    #[test]
    fn what_holds_is_noted_for_every_kind_of_key() {
        let table: toml::Table = "a = 1\nkey = 'hunter2'\nsize = '1KiB'".parse().unwrap();
        let mut violations = Violations::new();
        let mut section = Section::new("x", &table, &mut violations);
        section.optional::<u16>("a", "");
        section.optional::<u16>("b", "");
        section.or_default("c", 3_u16, "");
        section.secret("key");
        section.secret("other");
        assert_eq!(section.optional_bytes("size", "four times the limit"), Some(1024));
        assert_eq!(section.optional_bytes("inside", "four times the limit"), None);
        assert_eq!(section.optional_duration("end", "never"), None);
        section.duration("wait", Duration::from_secs(90));
        section.finish();
        let shown = |key: &str| violations.effective()[&format!("x.{key}")].clone();
        assert_eq!(shown("a"), Effective::Given(1.into()));
        assert_eq!(shown("b"), Effective::Absent);
        assert_eq!(shown("c"), Effective::Default("3".into()));
        assert!(matches!(shown("key"), Effective::Secret(_)));
        assert_eq!(shown("other"), Effective::Absent);
        assert_eq!(shown("size"), Effective::Given("1KiB".into()));
        assert_eq!(shown("inside"), Effective::Derived("four times the limit"));
        assert_eq!(shown("end"), Effective::Derived("never"));
        assert_eq!(shown("wait"), Effective::Default("90s".into()));
        assert!(violations.is_empty(), "{:?}", violations.list());
    }
}
