//! The package in a container with a systemd of its own: `packaging/check.sh` installs it, starts it
//! by its unit, looks at the process, upgrades and purges. Needs root, a minute the first time for the
//! container's files and some seconds then.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::debian;
use crate::run::{command, root, step};
use crate::setup;

/// Files of the container as Debian has them, kept for the next time.
const BASE: &str = "target/package/container-base";
const CONTAINER: &str = "target/package/container";
const PROGRAMS: &[(&str, &str)] = &[
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("dpkg-deb", "dpkg"),
    ("objdump", "binutils"),
];
const PACKAGES: &str =
    "systemd,systemd-sysv,ca-certificates,dnsmasq-base,curl,iproute2,procps,util-linux";
const UNIT: &str = "[Unit]\nDescription=check\nAfter=multi-user.target\n\n[Service]\nType=oneshot\n\
    TimeoutStartSec=3min\nExecStart=/check.sh /old.deb /new.deb /results\n\
    ExecStopPost=/usr/bin/systemctl --no-block poweroff\n\n[Install]\nWantedBy=basic.target\n";
const LIMIT: Duration = Duration::from_secs(240);

/// Everything, with a package that differs in its version alone as the one to upgrade to.
pub(super) fn run(deb: &Value, tree: &Path, package: &str, version: &str) -> Result<()> {
    if !setup::is_root() {
        bail!("--check needs root: it starts a container");
    }
    setup::packages(PROGRAMS)?;
    if !root().join(BASE).join("usr/lib/systemd/systemd").exists() {
        let suite = ["--variant=minbase", "--quiet", &format!("--include={PACKAGES}"), "bookworm"];
        step("mmdebstrap", &[&suite[..], &[BASE]].concat())?;
    }
    step("rm", &["-rf", CONTAINER])?;
    step("cp", &["-a", BASE, CONTAINER])?;
    let container = root().join(CONTAINER);
    std::fs::copy(root().join(package), container.join("old.deb"))?;
    let next = debian::build(deb, tree, &format!("{version}+1"), "none")?;
    std::fs::rename(root().join(&next), container.join("new.deb"))?;
    let script = container.join("check.sh");
    std::fs::copy(root().join("packaging/check.sh"), &script)?;
    std::fs::set_permissions(&script, Permissions::from_mode(0o755))?;
    let units = container.join("etc/systemd/system");
    std::fs::write(units.join("check.service"), UNIT)?;
    let wants = units.join("basic.target.wants");
    std::fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink("../check.service", wants.join("check.service"))?;
    boot()?;
    let results = container.join("results");
    let text = std::fs::read_to_string(&results).context("the check did not run")?;
    print!("{text}");
    if text.contains("FAILED") || !text.contains("the unit is gone") {
        bail!("see {}, .journal and .output beside it", results.display());
    }
    Ok(())
}

/// Until it powers itself off. No network but a loopback.
fn boot() -> Result<()> {
    let limit = format!("{}s", LIMIT.as_secs());
    let nspawn = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"];
    let options = ["--private-network", "--console=pipe", "--directory", CONTAINER];
    let log = std::fs::File::create(root().join("target/package/container.log"))?;
    println!("==> systemd-nspawn --boot --directory {CONTAINER}");
    let status = command("timeout", &[&[limit.as_str()][..], &nspawn, &options].concat())
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    if !status.success() {
        bail!("the container did not end well ({status}): target/package/container.log");
    }
    Ok(())
}
