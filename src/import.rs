//! The configuration of an original agent as a configuration of ours: its property files and boot
//! arguments become TOML, with a line for every value that says what became of it.
//!
//! | module | what |
//! |---|---|
//! | [`given`] | what an agent was told, and which of two places wins |
//! | [`mapping`] | what it means here. *Pure* |
//! | [`machine`] | what the agent would have looked up on the machine |

mod given;
mod machine;
mod mapping;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use bedrock::Secret;
use toml::Table;

pub use given::ReadError;

/// What is imported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub agents: Vec<AgentInput>,
    /// URL of the store that lies at the agent's `mount.path`.
    pub store: Option<String>,
}

/// One agent: the directory with its files, and the boot arguments it was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentInput {
    pub directory: PathBuf,
    /// `key=value`, as on its command line.
    pub words: Vec<String>,
}

impl Request {
    /// Directories, each followed by boot arguments of its agent.
    ///
    /// # Errors
    /// A sentence, when a boot argument stands before any directory.
    pub fn parse(inputs: &[String], store: Option<String>) -> Result<Self, String> {
        let mut agents: Vec<AgentInput> = Vec::new();
        for input in inputs {
            if !input.contains('=') || Path::new(input).is_dir() {
                agents.push(AgentInput { directory: input.into(), words: Vec::new() });
            } else if let Some(agent) = agents.last_mut() {
                agent.words.push(input.clone());
            } else {
                return Err(format!("{input:?} stands before the directory of its agent"));
            }
        }
        Ok(Self { agents, store })
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Imported {
    /// The configuration, in the tables of ours.
    pub(crate) table: Table,
    pub(crate) lines: Vec<Line>,
    /// Password of the key store in `table`, for the file that `table` names beside it.
    pub(crate) password: Option<Secret<String>>,
}

/// What became of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// "agent.properties:12", "boot argument".
    pub place: String,
    pub key: String,
    pub fate: Fate,
}

/// The four ends of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Stands in the result as it was.
    Kept { to: String, value: String },
    /// Stands in the result in another form, for this reason.
    Mapped { to: String, value: String, why: String },
    /// Has no place here, for this reason. Its value is not repeated: it may be a secret.
    Ignored { why: String },
    /// Needs a look.
    Doubtful { why: String },
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, key, fate } = self;
        match fate {
            Fate::Kept { to, value } => write!(f, "{key} ({place}) is kept: {to} = {value}"),
            Fate::Mapped { to, value, why } => {
                write!(f, "{key} ({place}) becomes {to} = {value}: {why}")
            }
            Fate::Ignored { why } => write!(f, "{key} ({place}) is not used: {why}"),
            Fate::Doubtful { why } => write!(f, "{key} ({place}) needs a look: {why}"),
        }
    }
}

/// Reads everything and maps it. A key store's password is to be found in `password_file`.
pub(crate) fn import(request: &Request, password_file: &Path) -> Result<Imported, ReadError> {
    let agents = request.agents.iter().map(given::read).collect::<Result<Vec<_>, _>>()?;
    Ok(mapping::map(agents, request.store.as_deref(), password_file, &machine::System))
}
