//! A release: binary, unit, manual pages and completions as an archive, as a Debian package and, where
//! `cargo generate-rpm` is there, as an RPM.
//!
//! The list of files is that of `[package.metadata.deb]`, which `cargo deb` takes, too.

mod check;
mod debian;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{find, output, root, step};

const RELEASE: &str = "target/release/quickcloud";
const GENERATED: &str = "target/package/generated";

/// `--no-build` takes the binary that is there; `--check` installs the package in a container.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut build = true;
    let mut and_check = false;
    for argument in arguments {
        match argument.as_str() {
            "--no-build" => build = false,
            "--check" => and_check = true,
            other => bail!("unknown option {other}; there are --no-build and --check"),
        }
    }
    if build {
        step("cargo", &["build", "--release", "--locked", "--bin", "quickcloud"])?;
    }
    if find("promtool").is_some() {
        step("promtool", &["check", "rules", "packaging/monitoring/alerts.yml"])?;
    }
    let version = output(RELEASE, &["version"])?;
    let version = version.split_whitespace().nth(1).context("version line has no version")?;
    let deb = metadata()?;
    generate()?;
    let name = format!("quickcloud-{version}-{}-linux", std::env::consts::ARCH);
    let tree = root().join("target/package").join(&name);
    stage(&deb, &tree)?;
    let archive = format!("target/package/{name}.tar.gz");
    step("tar", &["-C", "target/package", "--owner=0", "--group=0", "-czf", &archive, &name])?;
    checksum(&archive)?;
    if find("dpkg-deb").is_some() {
        let package = debian::build(&deb, &tree, version, "xz")?;
        checksum(&package)?;
        if find("lintian").is_some() {
            // It goes into no archive of Debian's, and its makers have no mail host.
            let leave = "--suppress-tags=initial-upload-closes-no-bugs,bogus-mail-host,\
                         bogus-mail-host-in-debian-changelog";
            step("lintian", &["--fail-on=error", leave, &package])?;
        }
        if and_check {
            check::run(&deb, &tree, &package, version)?;
        }
    } else if and_check {
        bail!("dpkg-deb is missing: --check installs a Debian package");
    }
    if find("cargo-generate-rpm").is_some() {
        let rpm = format!("target/package/quickcloud-{version}.{}.rpm", std::env::consts::ARCH);
        step("cargo", &["generate-rpm", "--output", &rpm])?;
        checksum(&rpm)?;
    } else {
        println!("no RPM: cargo install cargo-generate-rpm");
    }
    Ok(())
}

/// `[package.metadata.deb]`.
fn metadata() -> Result<Value> {
    let metadata = output("cargo", &["metadata", "--format-version=1", "--no-deps", "--offline"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let packages = metadata.pointer("/packages").and_then(Value::as_array).into_iter().flatten();
    packages
        .filter(|package| package.get("name").and_then(Value::as_str) == Some("quickcloud"))
        .find_map(|package| package.pointer("/metadata/deb").cloned())
        .context("Cargo.toml has no [package.metadata.deb]")
}

fn checksum(file: &str) -> Result<()> {
    let sum = output("sha256sum", &[file])?;
    std::fs::write(root().join(format!("{file}.sha256")), &sum)?;
    print!("{sum}");
    Ok(())
}

/// What the command line tells about itself: manual pages, completions.
fn generate() -> Result<()> {
    let into = root().join(GENERATED);
    if into.exists() {
        std::fs::remove_dir_all(&into)?;
    }
    std::fs::create_dir_all(&into)?;
    // A debug build: the same command line, and minutes less than another optimised one.
    let example = ["run", "--quiet", "--locked", "--features", "man", "--example", "man", "--"];
    step("cargo", &[&example[..], &[&format!("{GENERATED}/man")]].concat())?;
    for (shell, file) in
        [("bash", "quickcloud.bash"), ("zsh", "_quickcloud"), ("fish", "quickcloud.fish")]
    {
        std::fs::write(into.join(file), output(RELEASE, &["completions", shell])?)?;
    }
    Ok(())
}

/// Copies every asset to its place below `tree`, which is made anew.
fn stage(deb: &Value, tree: &Path) -> Result<()> {
    if tree.exists() {
        std::fs::remove_dir_all(tree)?;
    }
    let assets = deb.get("assets").and_then(Value::as_array).context("no list of assets")?;
    for asset in assets {
        let part = |index: usize| asset.get(index).and_then(Value::as_str);
        let (Some(source), Some(target), Some(mode)) = (part(0), part(1), part(2)) else {
            bail!("{asset} is not source, target and mode");
        };
        for file in matching(source)? {
            let name = file.file_name().context("a file has a name")?;
            let target = match target.strip_suffix('/') {
                Some(directory) => tree.join(directory).join(name),
                None => tree.join(target),
            };
            std::fs::create_dir_all(target.parent().context("a target has a directory")?)?;
            std::fs::copy(&file, &target).with_context(|| format!("cannot copy {source}"))?;
            let mode = u32::from_str_radix(mode, 8).context("a mode is octal")?;
            std::fs::set_permissions(&target, Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// The files of a pattern whose last part may hold one `*`.
fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = root().join(pattern);
    let Some((before, after)) = pattern.rsplit('/').next().and_then(|name| name.split_once('*'))
    else {
        return Ok(vec![path]);
    };
    let directory = path.parent().context("a pattern has a directory")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("no {pattern}"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(before) && name.ends_with(after) {
            found.push(entry.path());
        }
    }
    found.sort();
    if found.is_empty() {
        bail!("nothing fits {pattern}");
    }
    Ok(found)
}
