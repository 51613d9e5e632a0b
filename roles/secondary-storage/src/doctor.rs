//! What an operator would look at when the role is not as it should be.

mod certificate;
mod probe;

use std::path::{Path, PathBuf};

use role::{DoctorCheck, DoctorFinding, TaskScope};

use crate::config::SecondaryStorageConfig;
use crate::sources::http::trust::Trust;
use crate::stores::config::{MountMode, StoreEntry};
use crate::stores::directory::looks_like_store;
use crate::stores::directory::mountinfo::mounted_at;
use crate::stores::nfs;

/// Where distributions put the helper that `mount -t nfs` calls.
const MOUNT_HELPERS: [&str; 2] = ["/sbin/mount.nfs", "/usr/sbin/mount.nfs"];

/// The checks for one configuration.
pub fn checks(config: &SecondaryStorageConfig) -> Vec<DoctorCheck> {
    let mut checks = management_link::doctor::checks(&config.link);
    for entry in &config.stores.configured {
        let Some(directory) = entry.directory.clone() else { continue };
        if entry.mount == MountMode::Yes {
            continue;
        }
        let (url, required) = (entry.url.to_string(), entry.mount == MountMode::Required);
        let (roomy, written) = (directory.clone(), directory.clone());
        let min_free = config.stores.min_free;
        checks.push(DoctorCheck::network("store.space", move |_cx| {
            let directory = roomy.clone();
            blocking(move || probe::space(&directory, min_free))
        }));
        // Not among the checks of a start: it writes.
        checks.push(DoctorCheck::network("store.write", move |cx| {
            let (directory, now) = (written.clone(), cx.host.clock.now());
            blocking(move || probe::write(&directory, now))
        }));
        checks.push(DoctorCheck::machine("store.directory", move |_cx| {
            blocking({
                let (url, directory) = (url.clone(), directory.clone());
                move || match required.then(|| unmounted(&url, &directory)).flatten() {
                    Some(fault) => fault,
                    None => store_directory(&url, &directory),
                }
            })
        }));
    }
    if let Some(files) = config.serving.live.tls_files.clone() {
        let public = config.public_address;
        checks.push(DoctorCheck::machine("storage.certificate", move |cx| {
            let (files, now) = (files.clone(), cx.host.clock.unix_ms() / 1000);
            blocking(move || certificate::look(&files, public, now))
        }));
    }
    let mounts = |entry: &StoreEntry| entry.mount == MountMode::Yes;
    checks.extend(nfs::checks(&config.stores));
    let mounts_others = config.stores.configured.is_empty() && !config.stores.nfs_others;
    if mounts_others || config.stores.configured.iter().any(mounts) {
        let root = config.stores.mount_root.clone();
        checks.push(DoctorCheck::machine("store.mount", move |_cx| {
            let root = root.clone();
            blocking(move || mounting(&root, &MOUNT_HELPERS.map(PathBuf::from)))
        }));
    }
    if let Some(file) = config.downloads.ca_file.clone() {
        checks.push(DoctorCheck::machine("download.ca_file", move |_cx| {
            let file = file.clone();
            blocking(move || ca_file(&file))
        }));
    }
    checks
}

async fn blocking(look: impl FnOnce() -> DoctorFinding + Send + 'static) -> DoctorFinding {
    let looked = TaskScope::new().blocking("look", look).await;
    looked.unwrap_or_else(|error| DoctorFinding::Skipped(bedrock::chain(&error)))
}

fn fault(problem: String, remedy: &str) -> DoctorFinding {
    DoctorFinding::Fault { problem, remedy: remedy.to_owned() }
}

/// A directory that somebody else should have mounted.
fn unmounted(url: &str, directory: &Path) -> Option<DoctorFinding> {
    let shown = directory.display();
    let real = std::fs::canonicalize(directory).unwrap_or_else(|_absent| directory.to_owned());
    match mounted_at(&real) {
        Ok(Some(_)) => None,
        Ok(None) => Some(fault(
            format!("nothing is mounted at {shown}, the directory of {url}"),
            "mount the store there (fstab), or set mount = \"no\" in roles.secondary_storage.stores",
        )),
        Err(error) => Some(DoctorFinding::Skipped(bedrock::chain(&error))),
    }
}

fn store_directory(url: &str, directory: &Path) -> DoctorFinding {
    let shown = directory.display();
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return fault(format!("{shown} is not a directory"), "name the store's directory"),
        Err(error) => {
            let problem = format!("cannot look at {shown}, the directory of {url}: {error}");
            return fault(
                problem,
                "mount the store there, or correct roles.secondary_storage.stores",
            );
        }
    }
    if let Err(error) = nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK) {
        let problem = format!("{shown} cannot be written: {error}");
        return fault(problem, "give the process's user the right to write there");
    }
    match looks_like_store(directory) {
        Ok(true) => DoctorFinding::Good(format!("{shown} holds store {url}")),
        Ok(false) => DoctorFinding::Warning {
            problem: format!("{shown} is empty, which the server takes for an empty store {url}"),
            remedy: "make sure that it is mounted, unless the store is new".to_owned(),
        },
        Err(error) => {
            fault(format!("cannot read {shown}: {error}"), "give the process's user the right to")
        }
    }
}

fn mounting(root: &Path, helpers: &[PathBuf]) -> DoctorFinding {
    let found = helpers.iter().find(|helper| helper.try_exists().is_ok_and(|there| there));
    match found {
        Some(helper) => DoctorFinding::Good(format!(
            "stores are mounted below {} by {}",
            root.display(),
            helper.display()
        )),
        None => DoctorFinding::Warning {
            problem: "NFS stores cannot be mounted: there is no mount.nfs".to_owned(),
            remedy: "install nfs-common (Debian) or nfs-utils, or name directories in \
                     roles.secondary_storage.stores"
                .to_owned(),
        },
    }
}

fn ca_file(file: &Path) -> DoctorFinding {
    match Trust::load(Some(file)) {
        Ok(_) => DoctorFinding::Good(format!("certificates are read from {}", file.display())),
        Err(error) => {
            fault(bedrock::chain(&error), "give a PEM file in roles.secondary_storage.ca_file")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_judged_by_what_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let look = |path: &str| store_directory("nfs://h/p", &temp.path().join(path));
        assert!(
            matches!(look("none"), DoctorFinding::Fault { problem, .. } if problem.contains("No such file"))
        );
        std::fs::write(temp.path().join("file"), "x").unwrap();
        assert!(matches!(look("file"), DoctorFinding::Fault { .. }));
        assert!(matches!(look(""), DoctorFinding::Warning { .. }), "empty");
        std::fs::create_dir(temp.path().join("template")).unwrap();
        assert!(matches!(look(""), DoctorFinding::Good(_)));
    }

    #[test]
    fn a_missing_mount_helper_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let helper = temp.path().join("mount.nfs");
        let look = || mounting(Path::new("/mnt"), std::slice::from_ref(&helper));
        assert!(matches!(look(), DoctorFinding::Warning { .. }));
        std::fs::write(&helper, "").unwrap();
        assert!(matches!(look(), DoctorFinding::Good(_)));
    }
}
