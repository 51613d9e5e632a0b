//! The console page's script is one file, made of our modules and an unmodified copy of the locked
//! noVNC package; this proves or renews both.
//!
//! Copy and script are committed so that a plain `cargo build` needs neither npm nor a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::{root, step};
use crate::setup;

const WEB: &str = "roles/console-proxy/web";
/// Parts of the package that are bundled.
const PARTS: &[&str] = &["core", "vendor", "LICENSE.txt", "docs/LICENSE.MPL-2.0", "AUTHORS"];

/// The script as the bundler makes it.
const BUNDLE: &str = "bundle/console.js";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let update = arguments.iter().any(|argument| argument == "--update");
    setup::npm(WEB)?;
    core(update)?;
    bundle(update)
}

/// Makes the script anew and compares it with the kept one.
fn bundle(update: bool) -> Result<()> {
    let web = root().join(WEB);
    let kept = web.join(BUNDLE);
    let before = std::fs::read(&kept).unwrap_or_default();
    let folder = web.display().to_string();
    step("npm", &["run", "--silent", "--prefix", &folder, "bundle"])?;
    let now = std::fs::read(&kept).with_context(|| format!("{} was not made", kept.display()))?;
    if now != before && !update {
        std::fs::write(&kept, before)?;
        bail!("{BUNDLE} is not what the page's modules make; run cargo xtask page --update");
    }
    println!("console page: one script of {} bytes, as its modules make it", now.len());
    Ok(())
}

fn core(update: bool) -> Result<()> {
    let package = root().join(WEB).join("node_modules/@novnc/novnc");
    let bundled = root().join(WEB).join("novnc");
    let theirs = files(&package)?;
    if update {
        if bundled.exists() {
            std::fs::remove_dir_all(&bundled)?;
        }
        for (name, bytes) in &theirs {
            let target = bundled.join(name);
            std::fs::create_dir_all(target.parent().context("a bundled file has a folder")?)?;
            std::fs::write(target, bytes)?;
        }
    }
    let ours = files(&bundled)?;
    for (name, bytes) in &theirs {
        match ours.get(name) {
            None => bail!("{} is not bundled; run cargo xtask page --update", name.display()),
            Some(copy) if copy != bytes => {
                bail!("{} differs from the npm package", name.display());
            }
            Some(_) => {}
        }
    }
    if let Some(extra) = ours.keys().find(|name| !theirs.contains_key(*name)) {
        bail!("{} is bundled but not in the npm package", extra.display());
    }
    println!("noVNC: {} bundled files equal the locked npm package", ours.len());
    Ok(())
}

fn files(base: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for part in PARTS {
        let path = base.join(part);
        if path.exists() {
            collect(base, &path, &mut found)?;
        }
    }
    if found.is_empty() {
        bail!("nothing found below {}", base.display());
    }
    Ok(found)
}

fn collect(base: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            collect(base, &entry?.path(), found)?;
        }
    } else {
        found.insert(path.strip_prefix(base)?.to_path_buf(), std::fs::read(path)?);
    }
    Ok(())
}
