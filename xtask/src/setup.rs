//! Installs what demo and tests need and the machine lacks: Debian packages and npm modules.

use anyhow::{Result, bail};

use crate::run::{command, find, root, step};

/// Programs of which demo and tests make use, and the Debian package of each.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "build-essential"),
    ("ip", "iproute2"),
    ("dnsmasq", "dnsmasq-base"),
    ("udhcpc", "udhcpc"),
    ("dig", "bind9-dnsutils"),
    ("qemu-img", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("Xtigervnc", "tigervnc-standalone-server"),
    ("x11vnc", "x11vnc"),
    ("xev", "x11-utils"),
    ("chromium", "chromium"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("setpriv", "util-linux"),
    // With the back end for directories, which the server itself does not depend on.
    ("ganesha.nfsd", "nfs-ganesha-vfs"),
    ("rpcbind", "rpcbind"),
    ("javac", "default-jdk-headless"),
    ("pip3", "python3-pip"),
    ("mariadbd", "mariadb-server"),
    ("mariadb", "mariadb-client"),
];

/// A server of S3, from PyPI, that the tests of buckets use; boto3 comes with it.
const MOTO: &str = "moto[server,s3]==5.2.5";

/// Only for `bench`, as the peers to compare with.
pub(crate) const PEERS: &[(&str, &str)] = &[
    ("websockify", "websockify"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("curl", "curl"),
    ("ganesha.nfsd", "nfs-ganesha-vfs"),
    ("rpcbind", "rpcbind"),
];

/// Only for `bench move`.
pub(crate) const MOVE_PEERS: &[(&str, &str)] =
    &[("qemu-img", "qemu-utils"), ("pip3", "python3-pip")];

/// Only for `bench dhcp`: clients by the thousand.
pub(crate) const DHCP_PEERS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("dnsmasq", "dnsmasq-base"),
    ("perfdhcp", "kea-admin"),
    ("dnsperf", "dnsperf"),
];

pub(crate) fn run() -> Result<()> {
    packages(PROGRAMS)?;
    moto()?;
    npm("tests/browser")
}

/// Beside the build, so that nothing of the machine's own Python changes.
pub(crate) fn moto() -> Result<()> {
    let modules = root().join("target/moto");
    if modules.join("moto/server.py").exists() {
        return Ok(());
    }
    let modules = modules.display().to_string();
    step("pip3", &["install", "-q", "--target", &modules, MOTO])
}

/// Installs the packages of those programs that are missing.
pub(crate) fn packages(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() || find("apt-get").is_none() {
        bail!("missing: install these Debian packages (or the like): {}", missing.join(" "));
    }
    step("apt-get", &["update", "-q"])?;
    let mut arguments =
        vec!["-o", "DPkg::Lock::Timeout=300", "install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(missing);
    println!("==> apt-get {}", arguments.join(" "));
    let status = command("apt-get", &arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // No service is wanted, only programs.
        .env("RUNLEVEL", "1")
        .status()?;
    if !status.success() {
        bail!("apt-get install failed: {status}");
    }
    Ok(())
}

/// `npm ci` where the installed modules are older than the lock file.
pub(crate) fn npm(folder: &str) -> Result<()> {
    let folder = root().join(folder);
    let modified =
        |name: &str| std::fs::metadata(folder.join(name)).and_then(|m| m.modified()).ok();
    let lock = modified("package-lock.json");
    if lock.is_none() || modified("node_modules/.package-lock.json") >= lock {
        return Ok(());
    }
    if find("npm").is_none() {
        bail!("npm is missing: install Node.js 20 or later");
    }
    let folder = folder.display().to_string();
    step("npm", &["ci", "--prefix", &folder, "--no-audit", "--no-fund", "--ignore-scripts"])
}

pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
