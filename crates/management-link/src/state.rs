//! What a link remembers between runs: who the server said we are, and its list of servers.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::files::{self, WriteError};

const FILE: &str = "identity.json";

/// The remembered facts. Reading is tolerant: nothing here is needed to register.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Identity {
    /// The guid the facts belong to; another one starts afresh.
    pub(crate) guid: String,
    pub(crate) host_id: Option<i64>,
    pub(crate) host_uuid: Option<String>,
    pub(crate) host_name: Option<String>,
    /// The configured servers when the list was learned; other ones start afresh.
    pub(crate) configured: String,
    /// `10.1.1.2,10.1.1.3@static`
    pub(crate) server_list: Option<String>,
}

impl Identity {
    /// Reads the file. A missing file, a damaged one and one of another guid all mean a first
    /// start; a damaged one is logged.
    pub(crate) fn load(directory: &Path, guid: &str, configured: &str) -> Self {
        let fresh =
            Self { guid: guid.to_owned(), configured: configured.to_owned(), ..Self::default() };
        let path = directory.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return fresh,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the identity");
                return fresh;
            }
        };
        let value: Value = match serde_json::from_slice(&bytes) {
            Ok(value) => value,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the identity is damaged, starting afresh");
                return fresh;
            }
        };
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        if text("guid").as_deref() != Some(guid) {
            return fresh;
        }
        let same_servers = text("configured").as_deref() == Some(configured);
        Self {
            host_id: value.get("host_id").and_then(Value::as_i64).filter(|id| *id > 0),
            host_uuid: text("host_uuid"),
            host_name: text("host_name"),
            server_list: if same_servers { text("server_list") } else { None },
            ..fresh
        }
    }

    /// Replaces the file.
    pub(crate) fn store(&self, directory: &Path) -> Result<(), WriteError> {
        // Strings and integers always serialise.
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        files::replace(&directory.join(FILE), &text, files::PRIVATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Identity {
        Identity {
            guid: "s-1-VM".to_owned(),
            host_id: Some(12),
            host_uuid: Some("u".to_owned()),
            host_name: Some("n".to_owned()),
            configured: "a".to_owned(),
            server_list: Some("a,b@static".to_owned()),
        }
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        known().store(directory.path()).unwrap();
        assert_eq!(Identity::load(directory.path(), "s-1-VM", "a"), known());
    }

    #[test]
    fn another_guid_starts_afresh_and_other_servers_forget_the_list() {
        let directory = tempfile::tempdir().unwrap();
        known().store(directory.path()).unwrap();
        let other = Identity::load(directory.path(), "s-2-VM", "a");
        assert_eq!((other.host_id, other.server_list), (None, None));
        let moved = Identity::load(directory.path(), "s-1-VM", "x");
        assert_eq!((moved.host_id, moved.server_list), (Some(12), None));
    }

    #[test]
    fn a_damaged_or_strange_file_is_a_first_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        for content in [
            "",
            "{",
            "[1]",
            "{\"guid\":\"g\",\"host_id\":\"x\",\"new\":1}",
            "{\"guid\":\"g\",\"host_id\":-1}",
        ] {
            std::fs::write(&path, content).unwrap();
            let identity = Identity::load(directory.path(), "g", "a");
            assert_eq!((identity.host_id, identity.guid.as_str()), (None, "g"), "{content}");
        }
        assert_eq!(Identity::load(Path::new("/does/not/exist"), "g", "a").host_id, None);
    }
}
