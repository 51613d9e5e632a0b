//! A release: binary, unit, manual pages and completions as an archive and as a Debian package.
//!
//! The list of files is that of `[package.metadata.deb]`, which `cargo deb` takes, too.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{output, root, step};

const RELEASE: &str = "target/release/quickcloud";
const GENERATED: &str = "target/package/generated";

pub(crate) fn run() -> Result<()> {
    step("cargo", &["build", "--release", "--locked", "--bin", "quickcloud"])?;
    let version = output(RELEASE, &["version"])?;
    let version = version.split_whitespace().nth(1).context("version line has no version")?;
    let metadata = output("cargo", &["metadata", "--format-version=1", "--no-deps", "--offline"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    let deb = metadata
        .pointer("/packages")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|package| package.get("name").and_then(Value::as_str) == Some("quickcloud"))
        .and_then(|package| package.pointer("/metadata/deb"))
        .context("Cargo.toml has no [package.metadata.deb]")?;
    generate()?;
    let name = format!("quickcloud-{version}-{}-linux", std::env::consts::ARCH);
    let tree = root().join("target/package").join(&name);
    if tree.exists() {
        std::fs::remove_dir_all(&tree)?;
    }
    stage(deb, &tree)?;
    let archive = format!("target/package/{name}.tar.gz");
    step("tar", &["-C", "target/package", "--owner=0", "--group=0", "-czf", &archive, &name])?;
    checksum(&archive)?;
    if crate::run::find("dpkg-deb").is_some() {
        checksum(&debian(deb, &tree, version)?)?;
    }
    Ok(())
}

fn checksum(file: &str) -> Result<()> {
    let sum = output("sha256sum", &[file])?;
    std::fs::write(root().join(format!("{file}.sha256")), &sum)?;
    print!("{sum}");
    Ok(())
}

/// What the binary tells about itself: manual pages, completions.
fn generate() -> Result<()> {
    let into = root().join(GENERATED);
    if into.exists() {
        std::fs::remove_dir_all(&into)?;
    }
    std::fs::create_dir_all(&into)?;
    step(RELEASE, &["man", &format!("{GENERATED}/man")])?;
    for (shell, file) in
        [("bash", "quickcloud.bash"), ("zsh", "_quickcloud"), ("fish", "quickcloud.fish")]
    {
        std::fs::write(into.join(file), output(RELEASE, &["completions", shell])?)?;
    }
    Ok(())
}

/// Copies every asset to its place below `tree`.
fn stage(deb: &Value, tree: &Path) -> Result<()> {
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

/// The Debian package of a staged tree; its path.
fn debian(deb: &Value, tree: &Path, version: &str) -> Result<String> {
    let text = |key: &str| deb.get(key).and_then(Value::as_str).unwrap_or_default();
    let arch = output("dpkg", &["--print-architecture"])?;
    let arch = arch.trim();
    let control = tree.join("DEBIAN");
    std::fs::create_dir_all(&control)?;
    let fields = format!(
        "Package: quickcloud\nVersion: {version}\nArchitecture: {arch}\nMaintainer: {}\n\
         Depends: {}\nRecommends: {}\nSuggests: {}\nSection: {}\nPriority: {}\n\
         Description: CloudStack's system VM services as roles of one process\n {}\n",
        text("maintainer"),
        text("depends"),
        text("recommends"),
        text("suggests"),
        text("section"),
        text("priority"),
        text("extended-description"),
    );
    std::fs::write(control.join("control"), fields)?;
    for script in ["postinst", "prerm"] {
        let source = root().join(text("maintainer-scripts")).join(script);
        std::fs::copy(&source, control.join(script))
            .with_context(|| format!("cannot copy {script}"))?;
    }
    let file = format!("target/package/quickcloud_{version}_{arch}.deb");
    let shown = tree.display().to_string();
    step("dpkg-deb", &["--root-owner-group", "--build", &shown, &file])?;
    std::fs::remove_dir_all(&control)?;
    Ok(file)
}
