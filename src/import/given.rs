//! What an agent was told: its files and its command line, and which of them wins.
//!
//! The agent asks its command line first, then `agent.properties`; a system VM's boot arguments lie
//! in a file `cmdline` and are its command line. Files are searched in the directory and in `conf`
//! below it, as the agent does.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{AgentInput, Fate, Line};

/// An agent's files have a few kilobytes.
const LONGEST_FILE: u64 = 1 << 20;
/// In the order in which a later one gives way.
const PROPERTY_FILES: [&str; 3] =
    ["agent.properties", "consoleproxy.properties", "environment.properties"];
/// Boot arguments of a system VM, as the hypervisor handed them over.
const CMDLINE: &str = "cmdline";

/// Why nothing can be imported.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is larger than 1 MiB; it is not an agent's file", path.display())]
    TooLong { path: PathBuf },
    #[error(
        "{} holds none of agent.properties, consoleproxy.properties, environment.properties and \
         cmdline, and no boot argument is given; name the directory where the agent's files lie",
        path.display()
    )]
    Nothing { path: PathBuf },
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) value: String,
    pub(super) place: String,
}

/// Everything an agent was told.
#[derive(Debug, Default)]
pub(super) struct Values {
    map: BTreeMap<String, Given>,
    /// What was found on the way: values that others win over, odd lines.
    pub(super) lines: Vec<Line>,
    /// The files that were there.
    pub(super) files: Vec<&'static str>,
    /// Where they lie; certificates lie beside them.
    pub(super) directory: PathBuf,
}

impl Values {
    /// Takes a value out: each is used once, what is left has no place.
    pub(super) fn take(&mut self, key: &str) -> Option<Given> {
        self.map.remove(key)
    }

    pub(super) fn peek(&self, key: &str) -> Option<&str> {
        self.map.get(key).map(|given| given.value.as_str())
    }

    /// What nobody took.
    pub(super) fn rest(&mut self) -> BTreeMap<String, Given> {
        std::mem::take(&mut self.map)
    }

    /// Puts a value in unless there is one already, which then wins.
    fn put(&mut self, key: String, value: String, place: String) {
        let value = value.trim().to_owned();
        if value.is_empty() {
            self.note(place, key, Fate::Ignored { why: "empty: the default holds".to_owned() });
            return;
        }
        match self.map.get(&key) {
            None => {
                self.map.insert(key, Given { value, place });
            }
            Some(winner) => {
                let why = format!("{} wins", winner.place);
                self.note(place, key, Fate::Ignored { why });
            }
        }
    }

    fn note(&mut self, place: String, key: String, fate: Fate) {
        self.lines.push(Line { place, key, fate });
    }

    fn words<'w>(&mut self, words: impl Iterator<Item = &'w str>, place: &str) {
        let words: Vec<&str> = words.collect();
        // The last of two equal ones wins.
        for word in words.into_iter().rev() {
            match split_word(word) {
                Some((key, value)) => {
                    self.put(key.to_owned(), value.to_owned(), place.to_owned());
                }
                None => {
                    let key = word.split('=').next().unwrap_or_default().to_owned();
                    let why = "not of the form key=value: the agent skips it, too".to_owned();
                    self.note(place.to_owned(), key, Fate::Ignored { why });
                }
            }
        }
    }

    fn properties(&mut self, name: &str, bytes: &[u8]) {
        let is_utf8 = !bytes.is_ascii() && std::str::from_utf8(bytes).is_ok();
        let entries = java_properties::entries(bytes);
        for entry in entries.into_iter().rev() {
            let place = format!("{name}:{}", entry.line);
            if entry.malformed {
                let why = "holds \\u without four hexadecimal digits: Java refuses the whole file \
                           (write \\\\u for the two characters)";
                self.note(place.clone(), entry.key.clone(), Fate::Doubtful { why: why.to_owned() });
            }
            if is_utf8 && !(entry.key.is_ascii() && entry.value.is_ascii()) {
                let why = "is written in UTF-8, but property files are ISO-8859-1: it is taken as \
                           the agent reads it; write \\u00fc for ü, or correct the result";
                self.note(place.clone(), entry.key.clone(), Fate::Doubtful { why: why.to_owned() });
            }
            self.put(entry.key, entry.value, place);
        }
    }
}

/// The agent's rule: exactly two parts at `=`, where trailing ones do not count.
fn split_word(word: &str) -> Option<(&str, &str)> {
    let (key, value) = word.trim_end_matches('=').split_once('=')?;
    (!key.is_empty() && !value.is_empty() && !value.contains('=')).then_some((key, value))
}

/// Reads everything of one agent.
pub(super) fn read(input: &AgentInput) -> Result<Values, ReadError> {
    let directory = std::path::absolute(&input.directory)
        .map_err(|source| ReadError::File { path: input.directory.clone(), source })?;
    std::fs::read_dir(&directory)
        .map_err(|source| ReadError::File { path: directory.clone(), source })?;
    let mut values = Values { directory: directory.clone(), ..Values::default() };
    values.words(input.words.iter().map(String::as_str), "boot argument");
    if let Some((_, bytes)) = find(&directory, CMDLINE)? {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        values.words(text.split_whitespace(), CMDLINE);
        values.files.push(CMDLINE);
    }
    for name in PROPERTY_FILES {
        if let Some((at, bytes)) = find(&directory, name)? {
            values.properties(name, &bytes);
            values.files.push(name);
            values.directory = at;
        }
    }
    if values.files.is_empty() && input.words.is_empty() {
        return Err(ReadError::Nothing { path: directory });
    }
    Ok(values)
}

/// The file in the directory or in `conf` below it, with the directory it was found in.
fn find(directory: &Path, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>, ReadError> {
    for at in [directory.to_owned(), directory.join("conf")] {
        let path = at.join(name);
        // Looked at first: opening a pipe would wait for its writer.
        match std::fs::metadata(&path).and_then(|seen| {
            let odd = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a file");
            if seen.is_file() { std::fs::File::open(&path) } else { Err(odd()) }
        }) {
            Ok(file) => {
                let mut bytes = Vec::new();
                let read = file.take(LONGEST_FILE + 1).read_to_end(&mut bytes);
                read.map_err(|source| ReadError::File { path: path.clone(), source })?;
                if bytes.len() as u64 > LONGEST_FILE {
                    return Err(ReadError::TooLong { path });
                }
                return Ok(Some((at, bytes)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ReadError::File { path, source }),
        }
    }
    Ok(None)
}
