//! The Debian package of a staged tree: control file, scripts, change log, copyright, as `cargo deb`
//! would make them, and without that.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{output, root, step};

/// Scripts of the package, where there are such files.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Builds it beside the tree, which gets the files that only Debian wants; its path from the root.
/// `packing` is a way of `dpkg-deb -Z`.
pub(super) fn build(deb: &Value, tree: &Path, version: &str, packing: &str) -> Result<String> {
    let text = |key: &str| deb.get(key).and_then(Value::as_str).unwrap_or_default();
    let arch = output("dpkg", &["--print-architecture"])?;
    let arch = arch.trim();
    papers(deb, tree, version)?;
    // The user and the group may write, and nobody else, whatever umask this was built with.
    let shown = tree.display().to_string();
    step("chmod", &["-R", "u+rwX,go+rX,go-w", &shown])?;
    let control = tree.join("DEBIAN");
    std::fs::create_dir_all(&control)?;
    let size = output("du", &["-k", "-s", "--apparent-size", "--exclude=DEBIAN", &shown])?;
    let size = size.split_whitespace().next().context("du says nothing")?;
    let fields = format!(
        "Package: quickcloud\nVersion: {version}\nArchitecture: {arch}\nMaintainer: {}\n\
         Installed-Size: {size}\nDepends: {}\nRecommends: {}\nSuggests: {}\nSection: {}\n\
         Priority: {}\nDescription: services of CloudStack's system VMs as roles of one process\n{}\n",
        text("maintainer"),
        depends(text("depends"))?,
        text("recommends"),
        text("suggests"),
        text("section"),
        text("priority"),
        folded(text("extended-description")),
    );
    std::fs::write(control.join("control"), fields)?;
    for script in SCRIPTS {
        let source = root().join(text("maintainer-scripts")).join(script);
        let target = control.join(script);
        std::fs::copy(&source, &target).with_context(|| format!("cannot copy {script}"))?;
        std::fs::set_permissions(&target, Permissions::from_mode(0o755))?;
    }
    sums(tree, &control)?;
    let file = format!("target/package/quickcloud_{version}_{arch}.deb");
    let packing = format!("-Z{packing}");
    step("dpkg-deb", &["--root-owner-group", &packing, "--build", &shown, &file])?;
    std::fs::remove_dir_all(&control)?;
    Ok(file)
}

/// Change log and copyright; manual pages and change log packed as Debian wants them.
fn papers(deb: &Value, tree: &Path, version: &str) -> Result<()> {
    let doc = tree.join("usr/share/doc/quickcloud");
    let license = doc.join("LICENSE");
    if license.exists() {
        std::fs::remove_file(&license)?;
    }
    let scripts = deb.get("maintainer-scripts").and_then(Value::as_str).unwrap_or_default();
    let scripts = root().join(scripts);
    std::fs::copy(scripts.join("copyright"), doc.join("copyright"))?;
    let maintainer = deb.get("maintainer").and_then(Value::as_str).unwrap_or_default();
    let date = output("git", &["log", "-1", "--format=%cD"])?;
    let log = doc.join("changelog");
    std::fs::write(
        &log,
        format!(
            "quickcloud ({version}) unstable; urgency=medium\n\n  * See the commits of the source.\n\n \
             -- {maintainer}  {}\n",
            date.trim()
        ),
    )?;
    let mut packed = vec![log];
    let pages = tree.join("usr/share/man/man1");
    for entry in std::fs::read_dir(&pages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "1") {
            packed.push(path);
        }
    }
    let packed: Vec<String> = packed.iter().map(|path| path.display().to_string()).collect();
    let options = ["-9", "-n", "-f"];
    let words: Vec<&str> = options.into_iter().chain(packed.iter().map(String::as_str)).collect();
    // Not shown: a page of names.
    output("gzip", &words).map(|_nothing| ())
}

/// With the least release of the C library that the binary asks for.
fn depends(list: &str) -> Result<String> {
    let symbols = output("objdump", &["-T", super::RELEASE])?;
    let versions = symbols.split("(GLIBC_").skip(1).filter_map(|rest| rest.split(')').next());
    let number =
        |text: &str| -> Vec<u32> { text.split('.').filter_map(|part| part.parse().ok()).collect() };
    let newest = versions.max_by_key(|version| number(version));
    let newest = newest.context("the binary asks for no C library")?;
    Ok(list.replacen("libc6", &format!("libc6 (>= {newest})"), 1))
}

/// A description as the control file has it: lines begin with a space.
fn folded(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 76 => line.push_str(&format!(" {word}")),
            _ => lines.push(format!(" {word}")),
        }
    }
    lines.join("\n")
}

/// What `debsums` compares.
fn sums(tree: &Path, control: &Path) -> Result<()> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut open = vec![tree.join("usr")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let prefix = format!("{}/", tree.display());
    let sums = output("md5sum", &words)?.replace(&prefix, "");
    std::fs::write(control.join("md5sums"), sums)?;
    Ok(())
}
