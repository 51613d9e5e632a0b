//! `--set dotted.key=VALUE`: one value put over the file.
//!
//! The key is a dotted TOML key. The value is TOML when it reads as TOML (`"text"`, `8250`,
//! `["a", "b"]`, `{ url = "…" }`), else a plain string, so `management.zone=z1` needs no quotes.
//! Numbers and dates stay text unless their text form is exactly what was written: a zone named
//! `1e5` or `007` keeps its name.

use toml::{Table, Value};

/// Why a `--set` cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    #[error("--set {0:?} has no \"=\"; write dotted.key=VALUE")]
    NoValue(String),
    #[error("--set {0:?}: the part before \"=\" is not a dotted key")]
    Key(String),
    #[error("--set {key}: {parent} is not a table")]
    NotATable { key: String, parent: String },
}

/// Puts one `dotted.key=VALUE` over `table`; returns the dotted key.
pub fn apply(table: &mut Table, text: &str) -> Result<String, OverlayError> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| OverlayError::NoValue(text.to_owned()))?;
    let path = parse_key(key).ok_or_else(|| OverlayError::Key(text.to_owned()))?;
    put(table, &path, parse_value(value.trim()))?;
    Ok(path.join("."))
}

fn parse_key(key: &str) -> Option<Vec<String>> {
    if key.contains(['\n', '\r', '#', '=', '[']) {
        return None;
    }
    let mut table: Table = format!("{key} = 0").parse().ok()?;
    let mut path = Vec::new();
    loop {
        let (name, value) = std::mem::take(&mut table).into_iter().next()?;
        path.push(name);
        match value {
            Value::Table(inner) => table = inner,
            _leaf => return Some(path),
        }
    }
}

fn parse_value(text: &str) -> Value {
    let plain = || Value::String(text.to_owned());
    let Ok(table) = format!("x = {text}").parse::<Table>() else { return plain() };
    let mut values = table.into_iter();
    match (values.next(), values.next()) {
        (Some((_, value)), None) => match value {
            Value::Integer(_) | Value::Float(_) | Value::Datetime(_)
                if value.to_string() != text =>
            {
                plain()
            }
            Value::Datetime(_) => plain(),
            Value::Float(number) if !number.is_finite() => plain(),
            value => value,
        },
        _more_than_one => plain(),
    }
}

fn put(table: &mut Table, path: &[String], value: Value) -> Result<(), OverlayError> {
    let Some((last, parents)) = path.split_last() else { return Ok(()) };
    let mut current = table;
    for (depth, parent) in parents.iter().enumerate() {
        let entry = current.entry(parent.clone()).or_insert_with(|| Value::Table(Table::default()));
        let Value::Table(inner) = entry else {
            let parent = path.iter().take(depth + 1).cloned().collect::<Vec<_>>().join(".");
            return Err(OverlayError::NotATable { key: path.join("."), parent });
        };
        current = inner;
    }
    current.insert(last.clone(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, set: &str, expected: &str) {
        let mut table: Table = base.parse().unwrap();
        apply(&mut table, set).unwrap();
        let expected: Table = expected.parse().unwrap();
        assert_eq!(table, expected, "{set}");
    }

    #[test]
    fn values_are_toml_or_else_plain_text() {
        check("", "management.zone=z1", "management.zone = 'z1'");
        check("", "management.port=8250", "management.port = 8250");
        check("", "a=true", "a = true");
        check("", "a=\"8250\"", "a = '8250'");
        check("", "a=30s", "a = '30s'");
        check("", "a=x=y", "a = 'x=y'");
        check("", "a=", "a = ''");
        check("", "a = spaced out ", "a = 'spaced out'");
        check("", "s=[\"10.0.0.5\", \"10.0.0.6:8250\"]", "s = ['10.0.0.5', '10.0.0.6:8250']");
        check("", "s=[unquoted]", "s = '[unquoted]'");
        check("", "r.t={url = \"nfs://x/y\", n = [1]}", "r.t = {url = 'nfs://x/y', n = [1]}");
        check("", "a.\"b.c\".d=1", "a.\"b.c\".d = 1");
        check("", "a=1\nb=2", "a = \"1\\nb=2\"");
    }

    #[test]
    fn numbers_that_would_change_their_text_stay_text() {
        check("", "z=007", "z = '007'");
        check("", "z=1e5", "z = '1e5'");
        check("", "z=nan", "z = 'nan'");
        check("", "z=0x10", "z = '0x10'");
        check("", "z=2026-11-24", "z = '2026-11-24'");
        check("", "z=-3", "z = -3");
    }

    #[test]
    fn a_set_value_wins_over_the_file_and_leaves_the_rest() {
        check("[a]\nb = 1\nc = 2", "a.b=3", "[a]\nb = 3\nc = 2");
        check("[a]\nb = {x = 1}", "a.b={y = 2}", "[a]\nb = {y = 2}");
        check("[a.b]\nx = 1", "a.b.y=2", "[a.b]\nx = 1\ny = 2");
    }

    #[test]
    fn malformed_sets_are_refused_with_the_reason() {
        let refuse =
            |base: &str, set: &str| apply(&mut base.parse().unwrap(), set).unwrap_err().to_string();
        assert!(refuse("", "novalue").contains("has no \"=\""));
        assert!(refuse("", "=x").contains("not a dotted key"));
        assert!(refuse("", "a b=x").contains("not a dotted key"));
        assert!(refuse("", "[a]\nb=x").contains("not a dotted key"));
        assert_eq!(refuse("a = 1", "a.b.c=2"), "--set a.b.c: a is not a table");
    }
}
