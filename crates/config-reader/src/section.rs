//! Reading one table of the configuration: typed, strict, and every violation at once.
//!
//! serde stops at the first fault; an operator wants the whole list. A [`Section`] takes keys out
//! of a `toml::Table` one by one, notes what is wrong with place, value and remedy, remembers the
//! effective value of each key for `quickcloud check`, and in [`Section::finish`] reports the keys
//! nobody asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Dotted key: `roles.dhcp.interface`.
    pub place: String,
    /// What is wrong, with the value: `"br 0" is not an interface name`.
    pub problem: String,
    /// What to do: `give the name that "ip link" shows`.
    pub remedy: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.remedy)
    }
}

/// All violations found so far, and the effective value of every key read.
#[derive(Debug, Default)]
pub struct Violations {
    list: Vec<Violation>,
    effective: BTreeMap<String, Effective>,
}

/// The value of a key after defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// `None` for a secret or an absent optional key.
    pub value: Option<toml::Value>,
    pub secret: bool,
    /// The file or `--set` gave it, as opposed to the default.
    pub given: bool,
}

impl Violations {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, unless the same is there (two roles read `[management]`).
    pub fn add(
        &mut self,
        place: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let violation =
            Violation { place: place.into(), problem: problem.into(), remedy: remedy.into() };
        if !self.list.contains(&violation) {
            self.list.push(violation);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn list(&self) -> &[Violation] {
        &self.list
    }

    /// Effective values by dotted key.
    pub const fn effective(&self) -> &BTreeMap<String, Effective> {
        &self.effective
    }
}

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

    fn note(&mut self, key: &str, value: Option<toml::Value>, secret: bool, given: bool) {
        let place = self.place(key);
        self.violations.effective.insert(place, Effective { value, secret, given });
    }

    /// The raw value, marking the key as known. For shapes the typed readers do not cover.
    pub fn raw(&mut self, key: &'static str) -> Option<&'a toml::Value> {
        self.known.push(key);
        let value = self.table.get(key);
        self.note(key, value.cloned(), false, value.is_some());
        value
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
        self.note(key, Some(toml::Value::String(default.to_string())), false, false);
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
        const REMEDY: &str = "give a number with a unit: \"500ms\", \"30s\", \"5m\", \"2h\"";
        let Some(value) = self.raw(key) else {
            let text = format_duration(default);
            self.note(key, Some(toml::Value::String(text)), false, false);
            return default;
        };
        match value.as_str().and_then(parse_duration) {
            Some(duration) => duration,
            None => {
                self.violation(key, format!("{value} is not a duration"), REMEDY);
                default
            }
        }
    }

    /// A size as `"8KiB"`, `"50GiB"`, `"1000"` (bytes).
    pub fn bytes(&mut self, key: &'static str, default: u64) -> u64 {
        let Some(value) = self.raw(key) else {
            self.note(key, Some(toml::Value::String(format_bytes(default))), false, false);
            return default;
        };
        match scalar(value).as_deref().and_then(parse_bytes) {
            Some(bytes) => bytes,
            None => {
                self.violation(
                    key,
                    format!("{value} is not a size"),
                    "give a number with a unit: \"64KiB\", \"20MiB\", \"50GiB\", \"2TiB\"",
                );
                default
            }
        }
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

    /// A list of tables: `stores = [{ url = "…" }]`. Each is read as a section of its own.
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

    /// A secret from a file named by this key. The file's content never shows up anywhere.
    pub fn secret_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.optional_path(key);
        let value = path.as_ref().map(|p| toml::Value::String(p.display().to_string()));
        let given = value.is_some();
        self.note(key, value, false, given);
        path
    }

    /// A secret written into the configuration itself; `check` and violations show `***`.
    pub fn secret(&mut self, key: &'static str) -> Option<bedrock::Secret<String>> {
        self.known.push(key);
        let value = self.table.get(key);
        self.note(key, None, true, value.is_some());
        let value = value?;
        let text = scalar(value);
        if text.is_none() {
            self.violation(key, "is not one value", "give a text");
        }
        text.map(bedrock::Secret::new)
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

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
            Some(value.to_string())
        }
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// Parses `"500ms"`, `"30s"`, `"5m"`, `"2h"`, `"1d"`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits)?;
    let number: u64 = digits.trim().parse().ok()?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => None,
    }
}

/// The inverse of [`parse_duration`], in the largest unit that loses nothing.
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

/// Parses `"8KiB"`, `"50GiB"`, `"1000"`, `"1000B"`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.trim().parse().ok()?;
    let shift = match text.strip_prefix(digits)? {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// The inverse of [`parse_bytes`], in the largest unit that loses nothing.
pub fn format_bytes(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
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
    fn durations_and_sizes_have_units() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(parse_duration("30"), None);
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(parse_bytes("50GiB"), Some(50 << 30));
        assert_eq!(parse_bytes("1.5GiB"), None);
        assert_eq!((format_bytes(50 << 30), format_bytes(1000)), ("50GiB".into(), "1000B".into()));
    }
}
