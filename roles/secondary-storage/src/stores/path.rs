//! Paths below a store's root, as they come from the wire.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A relative path below a store's root: no empty part, no `.` or `..`, nothing absolute.
///
/// The only way from a text of the management server to the file system is this type and the
/// walk of [`super::directory::Dir`], which follows no symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstallPath(Vec<FileName>);

/// One component of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

/// Why a text is not a path below a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("{0:?} is not a file name")]
    Name(String),
    #[error("{0:?} is not a path below a store")]
    Path(String),
}

const MAX_NAME: usize = 255;
const MAX_PARTS: usize = 32;

impl FileName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FileName {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c != '/' && !c.is_control();
        let valid = !text.is_empty()
            && text.len() <= MAX_NAME
            && text != "."
            && text != ".."
            && text.chars().all(allowed);
        if valid { Ok(Self(text.to_owned())) } else { Err(PathError::Name(text.to_owned())) }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl InstallPath {
    pub fn parts(&self) -> &[FileName] {
        &self.0
    }

    /// A path of names that this program knows.
    pub fn of(text: &str) -> Result<Self, std::io::Error> {
        text.parse().map_err(std::io::Error::other)
    }

    /// The path of `name` in this directory.
    #[must_use]
    pub fn join(&self, name: FileName) -> Self {
        let mut parts = self.0.clone();
        parts.push(name);
        Self(parts)
    }

    /// Directory and last part; `None` for a path of one part.
    pub fn split(&self) -> Option<(Self, &FileName)> {
        let (name, parent) = self.0.split_last()?;
        (!parent.is_empty()).then(|| (Self(parent.to_vec()), name))
    }

    /// The first `count` parts, if there are as many.
    pub fn prefix(&self, count: usize) -> Option<Self> {
        (count > 0).then_some(())?;
        self.0.get(..count).map(|parts| Self(parts.to_vec()))
    }
}

impl FromStr for InstallPath {
    type Err = PathError;

    /// One leading and one trailing slash are dropped, as the original does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |_error| PathError::Path(text.to_owned());
        let inner = text.strip_prefix('/').unwrap_or(text);
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let parts: Vec<FileName> =
            inner.split('/').map(FileName::from_str).collect::<Result<_, _>>().map_err(bad)?;
        if parts.len() > MAX_PARTS {
            return Err(PathError::Path(text.to_owned()));
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for InstallPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("/")?;
            }
            f.write_str(part.as_str())?;
        }
        Ok(())
    }
}

impl TryFrom<String> for FileName {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl TryFrom<String> for InstallPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<InstallPath> for String {
    fn from(path: InstallPath) -> Self {
        path.to_string()
    }
}

/// What a path names, by CloudStack's layout of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A template or an ISO.
    Template,
    Volume,
    /// Files of a volume's snapshots: several snapshots share a directory.
    Snapshot,
}

impl ObjectKind {
    /// Those that are listed, one object in each directory.
    pub const ALL: [Self; 2] = [Self::Template, Self::Volume];

    /// `template/tmpl` or `volumes`: the tree that a list command walks.
    pub fn tree(self) -> InstallPath {
        let parts: &[&str] = match self {
            Self::Template => &["template", "tmpl"],
            Self::Volume => &["volumes"],
            Self::Snapshot => &["snapshots"],
        };
        InstallPath(parts.iter().map(|part| FileName((*part).to_owned())).collect())
    }

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
        }
    }

    /// The file that makes a directory an object; of snapshots there is none.
    pub fn properties_file(self) -> FileName {
        let name = match self {
            Self::Template => "template.properties",
            Self::Volume => "volume.properties",
            Self::Snapshot => "snapshot.properties",
        };
        FileName(name.to_owned())
    }

    /// The object's own directory, `<tree>/<account>/<id>` (of a snapshot: its volume's), if `path` is it or lies in it.
    pub fn directory(self, path: &InstallPath) -> Option<InstallPath> {
        let tree = self.tree();
        let depth = tree.0.len();
        let numeric = |part: &FileName| part.0.bytes().all(|byte| byte.is_ascii_digit());
        let below = path.0.get(depth..depth + 2)?;
        (path.0.starts_with(&tree.0) && below.iter().all(numeric))
            .then(|| path.prefix(depth + 2))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<InstallPath>().ok().map(|path| path.to_string());
        assert_eq!(parsed.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn only_clean_relative_paths_are_accepted() {
        check("template/tmpl/2/204", Some("template/tmpl/2/204"));
        check("/template/tmpl/2/204/", Some("template/tmpl/2/204"));
        check("", None);
        check("/", None);
        check("//etc", None);
        check("a//b", None);
        check("a/../b", None);
        check("..", None);
        check("./a", None);
        check("a/b\0c", None);
        check(&"a/".repeat(40), None);
        check(&"x".repeat(256), None);
    }

    #[test]
    fn an_object_lives_in_account_and_id() {
        let directory = |kind: ObjectKind, text: &str| {
            kind.directory(&text.parse().unwrap()).map(|path| path.to_string())
        };
        let template = ObjectKind::Template;
        assert_eq!(
            directory(template, "template/tmpl/2/204").as_deref(),
            Some("template/tmpl/2/204")
        );
        assert_eq!(
            directory(template, "template/tmpl/2/204/a.iso").as_deref(),
            Some("template/tmpl/2/204")
        );
        assert_eq!(directory(template, "template/tmpl/2"), None);
        assert_eq!(directory(template, "template/tmpl/2/x"), None);
        assert_eq!(directory(template, "volumes/2/45"), None);
        assert_eq!(
            directory(ObjectKind::Volume, "volumes/2/45/v.qcow2").as_deref(),
            Some("volumes/2/45")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_leads_out_of_the_root(text in "[./a-z0-9]{0,20}|\\PC{0,20}") {
            if let Ok(path) = text.parse::<InstallPath>() {
                let printed = path.to_string();
                proptest::prop_assert!(!printed.starts_with('/'));
                proptest::prop_assert!(printed.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
            }
        }
    }
}
