//! Where the files of a snapshot lie, told by their URLs as the original does.
//!
//! | URLs, after `…/snapshots/2/` | files below the command's path |
//! |---|---|
//! | `8/8d4c.vhd` | `8d4c.vhd` |
//! | `28/ce0e/ce0e.vmdk` | `ce0e/ce0e.vmdk`: the source has a directory of that name |
//! | `28/ce0e/ce0e.ovf`, `28/ce0e/ce0e-disk0.vmdk` | both in `ce0e` |

use std::collections::HashSet;

use crate::redacted::RedactedUrl;
use crate::stores::{FileName, InstallPath};

/// More than the disks of a machine, their description and its manifest.
const MOST_FILES: usize = 256;
/// What a flattened snapshot has in its name until it is copied.
const TEMPORARY: &str = "_temp";

/// What is to be downloaded, and its names. Of anything but a snapshot the names are made elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SnapshotFiles {
    pub directory: InstallPath,
    pub urls: Vec<String>,
    pub names: Vec<FileName>,
}

impl SnapshotFiles {
    /// Of an object that is no snapshot.
    pub(super) fn none(url: &str, directory: InstallPath) -> Self {
        Self { directory, urls: vec![url.to_owned()], names: Vec::new() }
    }

    /// One URL in each line. `Err` is the text for the user.
    pub(super) fn of(urls: &str, directory: InstallPath) -> Result<Self, String> {
        let lines = urls.lines().map(str::trim).filter(|line| !line.is_empty());
        let urls: Vec<String> = lines.map(str::to_owned).collect();
        if urls.len() > MOST_FILES {
            let count = urls.len();
            return Err(format!(
                "a snapshot of {count} files is too many, {MOST_FILES} are the most"
            ));
        }
        let ends = urls.iter().map(|url| ends_of(url)).collect::<Result<Vec<_>, _>>()?;
        let Some((parent, first)) = ends.first() else {
            return Err("Download url is null".to_owned());
        };
        let is_number = parent.bytes().all(|byte| byte.is_ascii_digit());
        let is_nested = !is_number && first.starts_with(parent.as_str());
        let directory = if urls.len() > 1 || is_nested {
            directory.join(file_name(parent)?)
        } else {
            directory
        };
        let names = ends.iter().map(|(_, name)| file_name(name));
        let names = names.collect::<Result<Vec<FileName>, _>>()?;
        let mut seen = HashSet::new();
        match names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(twice) => Err(format!("two files of the snapshot are called {twice}")),
            None => Ok(Self { directory, urls, names }),
        }
    }
}

/// The last two parts of a URL's path.
fn ends_of(url: &str) -> Result<(String, String), String> {
    let parsed: reqwest::Url =
        url.parse().map_err(|_bad| format!("{} is not a URL", RedactedUrl::of(url)))?;
    let decode = |part: &str| {
        let decoded = percent_encoding::percent_decode_str(part).decode_utf8_lossy();
        decoded.replace(TEMPORARY, "")
    };
    let mut parts = parsed.path().rsplit('/').map(decode);
    let name = parts.next().unwrap_or_default();
    Ok((parts.next().unwrap_or_default(), name))
}

fn file_name(name: &str) -> Result<FileName, String> {
    name.parse().map_err(|_bad| format!("{name:?} cannot be the name of a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(urls: &[&str]) -> Result<(String, Vec<String>), String> {
        let base = "http://h/copy/SecStorage/x/snapshots/2/";
        let urls: Vec<String> = urls.iter().map(|url| format!("{base}{url}")).collect();
        let found = SnapshotFiles::of(&urls.join("\n"), "snapshots/2/31".parse().unwrap())?;
        assert_eq!(found.urls, urls);
        let names = found.names.iter().map(ToString::to_string).collect();
        Ok((found.directory.to_string(), names))
    }

    #[test]
    fn files_keep_their_names_and_several_have_a_directory() {
        let check = |urls: &[&str], directory: &str, names: &[&str]| {
            let expected = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(of(urls), Ok((directory.to_owned(), expected)), "{urls:?}");
        };
        let (own, nested) = ("snapshots/2/31", "snapshots/2/31/ce0e");
        check(&["8/8d4c.vhd"], own, &["8d4c.vhd"]);
        check(&["6/a84e_temp"], own, &["a84e"]);
        check(&["28/ce0e/ce0e.vmdk"], nested, &["ce0e.vmdk"]);
        check(&["28/ce0e/a.ovf", "28/ce0e/b%20c.vmdk"], nested, &["a.ovf", "b c.vmdk"]);
    }

    #[test]
    fn odd_names_and_two_of_one_name_are_refused() {
        for urls in [
            &["28/ce0e/a", "29/ce0e/a"][..],
            &["28/ce0e/", "28/ce0e/a"],
            &["28/ce0e/a%2fb"],
            &["28/a%2fx/a", "28/x/b"],
        ] {
            assert!(of(urls).is_err(), "{urls:?}");
        }
        let many: Vec<String> = (0..300).map(|n| format!("28/x/{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(of(&many).unwrap_err().contains("too many"));
    }
}
