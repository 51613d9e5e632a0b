//! Making a store's directory show the store: use what is mounted, else mount it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use role::{CommandSpec, Host};

use crate::stores::config::is_version;
use crate::stores::url::StoreUrl;

/// Why a store could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(
        "{0} is of a kind that is not mounted here; mount it yourself and name its directory in roles.secondary_storage.stores"
    )]
    Scheme(StoreUrl),
    #[error("{0:?} is not an NFS version")]
    Version(String),
    #[error("cannot use the mount point {}", path.display())]
    MountPoint { path: PathBuf, source: std::io::Error },
    #[error("cannot read the list of mounts")]
    Mounts(#[source] std::io::Error),
    #[error("{} has {found} mounted, not {wanted}: unmount it, or give source = {found:?} in roles.secondary_storage.stores if it is the store", path.display())]
    Another { path: PathBuf, found: String, wanted: String },
    #[error("nothing is mounted at {}, and mount = \"required\" says that somebody does that", path.display())]
    Missing { path: PathBuf },
    #[error("cannot mount {device} at {}", path.display())]
    Run { device: String, path: PathBuf, source: role::host::CommandError },
    #[error("cannot mount {device} at {}: {message}", path.display())]
    Refused { device: String, path: PathBuf, message: String },
}

/// How NFS stores are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    pub options: String,
    pub timeout: Duration,
}

/// Runs the mount program. The caller has made sure that nothing is mounted there.
pub async fn mount_nfs(
    host: &Host,
    url: &StoreUrl,
    address: IpAddr,
    path: &Path,
    version: Option<&str>,
    how: &MountOptions,
) -> Result<(), MountError> {
    if url.scheme() != "nfs" {
        return Err(MountError::Scheme(url.clone()));
    }
    let mut options = how.options.clone();
    if let Some(version) = version {
        if !is_version(version) {
            return Err(MountError::Version(version.to_owned()));
        }
        options.push_str(",vers=");
        options.push_str(version);
    }
    let device = match address {
        IpAddr::V4(address) => format!("{address}:{}", url.path()),
        IpAddr::V6(address) => format!("[{address}]:{}", url.path()),
    };
    let spec = CommandSpec::new("mount", how.timeout)
        .arg("-t")
        .arg("nfs")
        .arg("-o")
        .arg(options)
        .arg(&device)
        .arg(path);
    let output = host.runner.run(spec).await.map_err(|source| MountError::Run {
        device: device.clone(),
        path: path.to_owned(),
        source,
    })?;
    if output.code == Some(0) {
        return Ok(());
    }
    let words: Vec<&str> = output.stderr.split_whitespace().collect();
    let message = words.join(" ");
    Err(MountError::Refused { device, path: path.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use role::host::{CommandError, CommandOutput, CommandRunner};

    use super::*;

    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<CommandSpec>>>, Option<i32>);

    impl CommandRunner for Recorder {
        fn run(
            &self,
            spec: CommandSpec,
        ) -> role::BoxFuture<'static, Result<CommandOutput, CommandError>> {
            self.0.lock().unwrap().push(spec);
            let stderr = "mount: unknown\n  filesystem type".to_owned();
            let output = CommandOutput { code: self.1, stdout: String::new(), stderr };
            Box::pin(async move { Ok(output) })
        }

        fn start(&self, spec: CommandSpec) -> Result<tokio::process::Child, CommandError> {
            Err(CommandError::Timeout { program: spec.program, timeout: spec.timeout })
        }
    }

    async fn mount(
        code: Option<i32>,
        url: &str,
        version: Option<&str>,
    ) -> (Vec<CommandSpec>, Result<(), String>) {
        let recorder = Recorder(Arc::default(), code);
        let host = Host { runner: Arc::new(recorder.clone()), ..Host::system() };
        let how = MountOptions { options: "soft,tcp".to_owned(), timeout: Duration::from_secs(9) };
        let address = "10.0.0.9".parse().unwrap();
        let outcome =
            mount_nfs(&host, &url.parse().unwrap(), address, Path::new("/mnt/x"), version, &how)
                .await;
        let specs = recorder.0.lock().unwrap().clone();
        (specs, outcome.map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn nfs_is_mounted_with_typed_arguments() {
        let (specs, outcome) = mount(Some(0), "nfs://10.0.0.9/export/sec", Some("4.1")).await;
        assert_eq!(outcome, Ok(()));
        let arguments = ["-t", "nfs", "-o", "soft,tcp,vers=4.1", "10.0.0.9:/export/sec", "/mnt/x"];
        assert_eq!(specs[0].arguments, arguments);
        assert_eq!(specs[0].timeout, Duration::from_secs(9));
    }

    #[tokio::test]
    async fn refusals_say_why() {
        let (_, outcome) = mount(Some(32), "nfs://10.0.0.9/e", None).await;
        let text = "cannot mount 10.0.0.9:/e at /mnt/x: mount: unknown filesystem type";
        assert_eq!(outcome, Err(text.to_owned()));
        let (specs, outcome) = mount(Some(0), "nfs://10.0.0.9/e", Some("4,exec")).await;
        assert!(specs.is_empty() && outcome.is_err());
        let (specs, outcome) = mount(Some(0), "cifs://10.0.0.9/e", None).await;
        assert!(specs.is_empty() && outcome.is_err());
    }
}
