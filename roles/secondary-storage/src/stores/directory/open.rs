//! From a store's URL to its directory: configured, mounted already, or mounted now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use role::{BoxFuture, Host, TaskScope};

use super::mount::{self, MountError, MountOptions};
use super::pool::Pool;
use super::{Directory, Modes, looks_like_store};
use crate::stores::engine::{Connected, Engines};
use crate::stores::{StoreError, StoreUrl};

/// What the configuration says about stores.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    pub mount_root: PathBuf,
    /// Directories that already are a store; nothing is mounted for these.
    pub configured: Vec<(StoreUrl, PathBuf)>,
    pub mount: MountOptions,
    /// How long a piece of quick work on a store may take.
    pub deadline: Duration,
    pub modes: Modes,
}

const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Engines for stores that are directories. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Directories {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: StoreSettings,
    host: Host,
    tasks: TaskScope,
    /// A store keeps its threads when it is opened again: those that hang on a dead server are not
    /// joined by more at each attempt.
    pools: Mutex<HashMap<String, Arc<Pool>>>,
}

impl Directories {
    pub fn new(settings: StoreSettings, host: Host, tasks: TaskScope) -> Self {
        let pools = Mutex::default();
        Self { shared: Arc::new(Shared { settings, host, tasks, pools }) }
    }
}

impl Engines for Directories {
    fn configured(&self) -> Vec<StoreUrl> {
        self.shared.settings.configured.iter().map(|(url, _)| url.clone()).collect()
    }

    fn connect(
        &self,
        url: StoreUrl,
        name: Option<String>,
        version: Option<String>,
    ) -> BoxFuture<'static, Result<Connected, StoreError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.connect(&url, name, version.as_deref()).await })
    }

    fn connect_limit(&self) -> Duration {
        self.shared.settings.mount.timeout + RESOLVE_TIMEOUT
    }

    fn retain(&self, in_use: &dyn Fn(&str) -> bool) {
        let mut pools = self.shared.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|key, _| in_use(key));
    }
}

impl Shared {
    async fn connect(
        &self,
        url: &StoreUrl,
        name: Option<String>,
        version: Option<&str>,
    ) -> Result<Connected, StoreError> {
        let settings = &self.settings;
        let (name, address) = match name {
            Some(name) => (name, None),
            None => {
                let address = resolve(url).await?;
                (url.directory_name(address), Some(address))
            }
        };
        let configured = settings.configured.iter().find(|(known, _)| known.key() == url.key());
        let root = match configured {
            Some((_, directory)) => directory.clone(),
            None => {
                let root = settings.mount_root.join(&name);
                self.ensure_mounted(url, &root, address, version).await?;
                root
            }
        };
        let engine = Directory::new(root, settings.modes, settings.deadline, self.pool(url)?);
        Ok(Connected { name, engine: Arc::new(engine) })
    }

    fn pool(&self, url: &StoreUrl) -> Result<Arc<Pool>, StoreError> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&url.key()) {
            return Ok(Arc::clone(pool));
        }
        let started = Pool::start().map_err(|source| StoreError::Threads(url.clone(), source))?;
        let pool = Arc::new(started);
        pools.insert(url.key(), Arc::clone(&pool));
        Ok(pool)
    }

    /// Mounted already, or visibly a store, or mounted now.
    async fn ensure_mounted(
        &self,
        url: &StoreUrl,
        root: &Path,
        address: Option<IpAddr>,
        version: Option<&str>,
    ) -> Result<(), StoreError> {
        let path = root.to_owned();
        if self.tasks.blocking("look at mounts", move || prepare(&path)).await?? {
            return Ok(());
        }
        let address = match address {
            Some(address) => address,
            None => resolve(url).await?,
        };
        let how = &self.settings.mount;
        tracing::info!(store = %url, path = %root.display(), "mounting store");
        let mounted = mount::mount_nfs(&self.host, url, address, root, version, how).await;
        if mounted.is_err() {
            let path = root.to_owned();
            let removed =
                self.tasks.blocking("remove mount point", move || std::fs::remove_dir(path)).await;
            if let Ok(Err(error)) = removed {
                tracing::debug!(path = %root.display(), %error, "mount point stays");
            }
        }
        Ok(mounted?)
    }
}

/// `true`: the directory can be used as it is. Otherwise it exists as an empty mount point.
fn prepare(root: &Path) -> Result<bool, MountError> {
    let mount_point = |source| MountError::MountPoint { path: root.to_owned(), source };
    if mount::is_mounted(root)? || looks_like_store(root).map_err(mount_point)? {
        return Ok(true);
    }
    std::fs::create_dir_all(root).map_err(mount_point)?;
    Ok(false)
}

async fn resolve(url: &StoreUrl) -> Result<IpAddr, StoreError> {
    if let Ok(address) = url.host().parse() {
        return Ok(address);
    }
    let error = |source| StoreError::Resolve { host: url.host().to_owned(), source };
    let lookup = tokio::net::lookup_host((url.host(), 0));
    let mut found = tokio::time::timeout(RESOLVE_TIMEOUT, lookup)
        .await
        .map_err(|_elapsed| error(std::io::Error::from(std::io::ErrorKind::TimedOut)))?
        .map_err(error)?;
    let first = found.next();
    first
        .map(|address| address.ip())
        .ok_or_else(|| error(std::io::Error::from(std::io::ErrorKind::NotFound)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_opened_again_and_again_keeps_its_threads() {
        let settings = StoreSettings {
            mount_root: PathBuf::from("/mnt"),
            configured: Vec::new(),
            mount: MountOptions { options: "soft".to_owned(), timeout: Duration::from_secs(1) },
            deadline: Duration::from_secs(1),
            modes: Modes { directory: 0o777, file: 0o666 },
        };
        let engines = Directories::new(settings, Host::system(), TaskScope::new());
        let url: StoreUrl = "nfs://h/p".parse().unwrap();
        let before = engines.shared.pool(&url).unwrap();
        engines.retain(&|key| key == "nfs://h/p");
        assert!(Arc::ptr_eq(&before, &engines.shared.pool(&url).unwrap()));
        engines.retain(&|_key| false);
        assert!(!Arc::ptr_eq(&before, &engines.shared.pool(&url).unwrap()));
    }
}
