//! A release in one archive: binary, unit file, example configuration, licence, checksum.

use anyhow::{Context, Result};

use crate::run::{output, root, step};

pub(crate) fn run() -> Result<()> {
    step("cargo", &["build", "--release", "--locked", "--bin", "quickcloud"])?;
    let root = root();
    let version = output("target/release/quickcloud", &["version"])?;
    let version = version.split_whitespace().nth(1).context("version line has no version")?;
    let name = format!("quickcloud-{version}-{}-linux", std::env::consts::ARCH);
    let stage = root.join("target/package").join(&name);
    if stage.exists() {
        std::fs::remove_dir_all(&stage)?;
    }
    std::fs::create_dir_all(&stage)?;
    for file in [
        "target/release/quickcloud",
        "config/quickcloud.toml",
        "packaging/systemd/quickcloud.service",
        "packaging/README.md",
        "README.md",
        "LICENSE",
    ] {
        let source = root.join(file);
        let target = stage.join(source.file_name().context("a file has a name")?);
        std::fs::copy(&source, &target).with_context(|| format!("cannot copy {file}"))?;
    }
    let archive = format!("target/package/{name}.tar.gz");
    step("tar", &["-C", "target/package", "--owner=0", "--group=0", "-czf", &archive, &name])?;
    let sum = output("sha256sum", &[&archive])?;
    std::fs::write(root.join(format!("{archive}.sha256")), &sum)?;
    print!("{sum}");
    Ok(())
}
