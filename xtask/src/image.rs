//! A container image as an OCI archive, made without any container engine: one layer with the binary,
//! the libraries it is linked with and the certificates of the machine.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::run::{output, root, step};

const RELEASE: &str = "target/release/quickcloud";
const STAGE: &str = "target/package/image";
/// Trust for https sources; packages and base images have it at this place.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Directories that a volume may be mounted at.
const DIRECTORIES: [&str; 5] =
    ["etc/quickcloud", "var/lib/quickcloud", "run/quickcloud", "mnt/SecStorage", "tmp"];

/// `arguments` may name another binary than the release.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let binary = match arguments {
        [] => {
            step("cargo", &["build", "--release", "--locked", "--bin", "quickcloud"])?;
            RELEASE
        }
        [binary] => binary.as_str(),
        _ => bail!("give one binary, or none for a release build"),
    };
    let stage = root().join(STAGE);
    if stage.exists() {
        std::fs::remove_dir_all(&stage)?;
    }
    let tree = stage.join("rootfs");
    file_system(binary, &tree)?;
    let blobs = stage.join("oci/blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let layer = format!("{STAGE}/layer.tar");
    let tar = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"];
    step("tar", &[&tar[..], &[&layer, "-C", &tree.display().to_string(), "."]].concat())?;
    let unpacked = digest(&layer)?;
    step("gzip", &["-n", "-f", &layer])?;
    let layer = blob(&blobs, &format!("{layer}.gz"))?;
    let version = output(binary, &["version"])?;
    let version = version.split_whitespace().nth(1).context("version line has no version")?;
    let config = put(&blobs, &configuration(version, &unpacked))?;
    let manifest = put(
        &blobs,
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("application/vnd.oci.image.config.v1+json", &config),
            "layers": [described("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
        }),
    )?;
    let mut entry = described("application/vnd.oci.image.manifest.v1+json", &manifest);
    if let Some(members) = entry.as_object_mut() {
        let name = json!({"org.opencontainers.image.ref.name": version});
        members.insert("annotations".to_owned(), name);
    }
    let oci = stage.join("oci");
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(oci.join("index.json"), index.to_string())?;
    std::fs::write(oci.join("oci-layout"), "{\"imageLayoutVersion\": \"1.0.0\"}")?;
    let archive = format!("target/package/quickcloud-{version}-{}-oci.tar", std::env::consts::ARCH);
    let oci = oci.display().to_string();
    step("tar", &["--sort=name", "--owner=0", "--group=0", "-cf", &archive, "-C", &oci, "."])?;
    println!("{archive}: podman load -i, skopeo copy oci-archive:…");
    Ok(())
}

/// What the image has: the binary, its libraries at the places where its loader looks.
fn file_system(binary: &str, tree: &Path) -> Result<()> {
    let copy = |from: &Path, to: &str| -> Result<()> {
        let to = tree.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().context("a file has a directory")?)?;
        std::fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    };
    copy(&root().join(binary), "usr/bin/quickcloud")?;
    copy(Path::new(AUTHORITIES), AUTHORITIES)?;
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)"
    for line in output("ldd", &[binary])?.lines() {
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        if let Some(path) = path {
            let real = std::fs::canonicalize(path).with_context(|| format!("no {path}"))?;
            copy(&real, path)?;
        }
    }
    for directory in DIRECTORIES {
        std::fs::create_dir_all(tree.join(directory))?;
    }
    // Whoever the image runs as.
    std::fs::set_permissions(tree.join("tmp"), Permissions::from_mode(0o1777))?;
    let users = "root:x:0:0:root:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    std::fs::write(tree.join("etc/passwd"), users)?;
    std::fs::write(tree.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    Ok(())
}

fn configuration(version: &str, layer: &str) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/quickcloud"],
            "Cmd": ["run", "--config", "/etc/quickcloud/quickcloud.toml"],
            "Env": ["MALLOC_ARENA_MAX=2"],
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}, "8080/tcp": {}, "8443/tcp": {}},
            "Volumes": {"/var/lib/quickcloud": {}},
            "Labels": {
                "org.opencontainers.image.title": "QuickCloud",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    })
}

/// A blob's digest and size.
struct Blob {
    digest: String,
    size: u64,
}

fn described(kind: &str, blob: &Blob) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{}", blob.digest), "size": blob.size})
}

fn digest(file: &str) -> Result<String> {
    let sum = output("sha256sum", &[file])?;
    Ok(sum.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}

/// Moves a file among the blobs.
fn blob(blobs: &Path, file: &str) -> Result<Blob> {
    let digest = digest(file)?;
    let path: PathBuf = root().join(file);
    let size = std::fs::metadata(&path)?.len();
    std::fs::rename(&path, blobs.join(&digest))?;
    Ok(Blob { digest, size })
}

fn put(blobs: &Path, document: &Value) -> Result<Blob> {
    let file = format!("{STAGE}/document.json");
    std::fs::write(root().join(&file), document.to_string())?;
    blob(blobs, &file)
}
