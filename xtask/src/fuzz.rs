//! Builds the fuzz targets, so that a change of a parser's interface is found where it is made.
//!
//! They are a workspace of their own, with a lock file of their own. It names the same versions as the
//! tree's, so that what the tests built is used again; `--update` makes it so.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use crate::run::{root, step};

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
    if arguments.iter().any(|argument| argument == "--update") {
        std::fs::copy(root().join("Cargo.lock"), root().join("fuzz/Cargo.lock"))?;
        return step("cargo", &["fetch", manifest[0], manifest[1]]);
    }
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_unset| "target".to_owned());
    step(
        "cargo",
        &["build", manifest[0], manifest[1], "--locked", "--quiet", "--target-dir", &target],
    )
}

/// What of the targets and of the lock file is not as it should be.
pub(crate) fn faults() -> Result<Vec<String>> {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).context(name.to_owned());
    let (manifest, tree, own) =
        (read("fuzz/Cargo.toml")?, read("Cargo.lock")?, read("fuzz/Cargo.lock")?);
    let mut faults = lock_faults(&tree, &own);
    for entry in std::fs::read_dir(root().join("fuzz/fuzz_targets"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !manifest.contains(&format!("path = \"fuzz_targets/{name}\"")) {
            faults.push(format!("fuzz/Cargo.toml: {name} is not a [[bin]]"));
        }
    }
    Ok(faults)
}

/// Crates whose versions differ. What only the targets need may be any version.
fn lock_faults(tree: &str, own: &str) -> Vec<String> {
    let (tree, own) = (packages(tree), packages(own));
    let names: BTreeSet<&str> = tree.iter().map(|(name, _)| *name).collect();
    let differing = own.difference(&tree).filter(|(name, _)| names.contains(name));
    differing
        .map(|(name, version)| {
            format!(
                "fuzz/Cargo.lock: {name} {version} is not the tree's: `cargo xtask fuzz --update`"
            )
        })
        .collect()
}

/// Names and versions.
fn packages(lock: &str) -> BTreeSet<(&str, &str)> {
    fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
        line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')
    }
    let lines: Vec<&str> = lock.lines().collect();
    let pairs = lines.windows(2).filter_map(|pair| match pair {
        [first, second] => Some((quoted(first, "name")?, quoted(second, "version")?)),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_the_tree_does_not_have_is_found() {
        let lock = |list: &[(&str, &str)]| -> String {
            let package = |(name, version): &(&str, &str)| {
                format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n")
            };
            list.iter().map(package).collect()
        };
        let tree = lock(&[("a", "1.0.0"), ("b", "1.0.0"), ("b", "2.0.0")]);
        let own = lock(&[("a", "1.0.1"), ("b", "2.0.0"), ("only", "3.0.0")]);
        let faults = lock_faults(&tree, &own);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("fuzz/Cargo.lock: a 1.0.1"), "{faults:?}");
    }
}
