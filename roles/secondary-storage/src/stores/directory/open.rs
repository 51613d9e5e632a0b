//! From a store's URL to its directory: configured, mounted already, or mounted now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use role::{BoxFuture, Host};

use super::mount::{self, MountError, MountOptions};
use super::mountinfo::{Expected, mounted_at};
use super::pool::{Lane, Pool};
use super::{Directory, looks_like_store};
use crate::live::Live;
use crate::stores::config::{MountMode, StoreEntry, StoreSettings};
use crate::stores::engine::{Connected, EngineError, Engines};
use crate::stores::{StoreError, StoreUrl, Work};

pub(crate) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Engines for stores that are directories. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Directories {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Live<StoreSettings>,
    host: Host,
    /// A store keeps its threads when it is opened again: those that hang on a dead server are not
    /// joined by more at each attempt.
    pools: Mutex<HashMap<String, Arc<Pool>>>,
}

/// A directory that is to be a store.
#[derive(Debug, Clone)]
struct Place {
    root: PathBuf,
    mode: MountMode,
    /// What the operator says is mounted there.
    source: Option<String>,
    version: Option<String>,
    addresses: Vec<IpAddr>,
}

/// How a directory was found.
#[derive(Debug)]
enum Found {
    /// It can be used as it is; with what an operator should know about it.
    Usable(Vec<String>),
    /// It exists as an empty mount point.
    Empty,
}

impl Directories {
    pub fn new(settings: StoreSettings, host: Host) -> Self {
        let (settings, pools) = (Live::new(settings), Mutex::default());
        Self { shared: Arc::new(Shared { settings, host, pools }) }
    }
}

impl Engines for Directories {
    fn configured(&self) -> Vec<StoreUrl> {
        let settings = self.shared.settings.get();
        settings.configured.iter().map(|entry| entry.url.clone()).collect()
    }

    fn reconfigure(&self, settings: StoreSettings) -> Box<dyn Fn(&StoreUrl) -> bool + Send> {
        let before = self.shared.settings.get();
        self.shared.settings.replace(settings.clone());
        Box::new(move |url| !before.agrees(&settings, url))
    }

    fn connect(
        &self,
        url: StoreUrl,
        name: Option<String>,
        version: Option<String>,
    ) -> BoxFuture<'static, Result<Connected, StoreError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.connect(&url, name, version).await })
    }

    fn connect_limit(&self) -> Duration {
        let settings = self.shared.settings.get();
        // Looked at before and after mounting.
        settings.mount.timeout + 2 * settings.deadline + RESOLVE_TIMEOUT
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
        version: Option<String>,
    ) -> Result<Connected, StoreError> {
        let settings = self.settings.get();
        let entry = settings.entry(url);
        let (name, addresses) = match name {
            // The name is fixed once and for all; the addresses only tell mounts apart.
            Some(name) => (name, resolve(url).await.unwrap_or_default()),
            None => {
                let addresses = resolve(url).await?;
                let first = addresses.first().copied();
                (url.directory_name(first.unwrap_or(IpAddr::from([127, 0, 0, 1]))), addresses)
            }
        };
        let directory = entry.and_then(|entry| entry.directory.clone());
        let place = Place {
            root: directory.unwrap_or_else(|| settings.mount_root.join(&name)),
            mode: entry.map_or(MountMode::Yes, |entry| entry.mount),
            source: entry.and_then(|entry| entry.source.clone()),
            version: entry.and_then(|entry| entry.nfs_version.clone()).or(version),
            addresses,
        };
        let pool = self.pool(url)?;
        let notes = self.appear(url, entry, &settings, &place, &pool).await?;
        let engine = Directory::new(place.root, settings.modes, settings.deadline, pool);
        let engine = engine.keeping_free(settings.min_free);
        Ok(Connected { name, engine: Arc::new(engine), notes })
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
    async fn appear(
        &self,
        url: &StoreUrl,
        entry: Option<&StoreEntry>,
        settings: &StoreSettings,
        place: &Place,
        pool: &Pool,
    ) -> Result<Vec<String>, StoreError> {
        let deadline = settings.deadline;
        let looked = {
            let (place, url) = (place.clone(), url.clone());
            on_pool(pool, deadline, move || prepare(&url, &place)).await
        };
        let unusable = |source| StoreError::Place {
            url: url.clone(),
            place: place.root.display().to_string(),
            source,
        };
        match looked.map_err(unusable)?? {
            Found::Usable(notes) => return Ok(notes),
            Found::Empty => {}
        }
        let own = entry.and_then(|entry| entry.mount_options.clone());
        let how = MountOptions {
            options: own.unwrap_or_else(|| settings.mount.options.clone()),
            ..settings.mount.clone()
        };
        let addresses = match place.addresses.as_slice() {
            // It was not needed before, so nobody has heard yet that its name cannot be found.
            [] => resolve(url).await?,
            known => known.to_vec(),
        };
        tracing::info!(store = %url, path = %place.root.display(), "mounting store");
        match self.mount(url, place, addresses.first(), &how).await {
            Ok(()) => Ok(Vec::new()),
            Err(error) => {
                let root = place.root.clone();
                let removed = on_pool(pool, deadline, move || std::fs::remove_dir(root)).await;
                if let Ok(Err(error)) = removed {
                    tracing::debug!(path = %place.root.display(), %error, "mount point stays");
                }
                Err(match entry {
                    Some(_) => error.into(),
                    None => StoreError::Unmounted {
                        url: url.clone(),
                        root: place.root.clone(),
                        source: Box::new(error),
                    },
                })
            }
        }
    }

    async fn mount(
        &self,
        url: &StoreUrl,
        place: &Place,
        address: Option<&IpAddr>,
        how: &MountOptions,
    ) -> Result<(), MountError> {
        let address = *address.ok_or_else(|| MountError::Scheme(url.clone()))?;
        let version = place.version.as_deref();
        mount::mount_nfs(&self.host, url, address, &place.root, version, how).await
    }
}

/// Runs on the store's own threads: looking at a dead mount hangs.
async fn on_pool<T: Send + 'static>(
    pool: &Pool,
    deadline: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    let work = Work::new();
    pool.lane(Lane::Quick).run(work.owned(), deadline, look).await
}

/// Looks at a directory; makes the mount point if something is to be mounted. Blocks.
fn prepare(url: &StoreUrl, place: &Place) -> Result<Found, MountError> {
    let root = &place.root;
    let mount_point = |source| MountError::MountPoint { path: root.clone(), source };
    // The kernel names mounts by the path without links.
    let real = std::fs::canonicalize(root).unwrap_or_else(|_absent| root.clone());
    if let Some(mount) = mounted_at(&real)? {
        let expected = Expected {
            url,
            addresses: &place.addresses,
            source: place.source.as_deref(),
            version: place.version.as_deref(),
        };
        return mount.judge(expected).map(Found::Usable);
    }
    match place.mode {
        MountMode::No => Ok(Found::Usable(Vec::new())),
        MountMode::Required => Err(MountError::Missing { path: root.clone() }),
        MountMode::Yes if looks_like_store(root).map_err(mount_point)? => {
            Ok(Found::Usable(Vec::new()))
        }
        MountMode::Yes => {
            std::fs::create_dir_all(root).map_err(mount_point)?;
            Ok(Found::Empty)
        }
    }
}

/// Addresses of the store's host, in the resolver's order; none for a directory of this machine.
pub(crate) async fn resolve(url: &StoreUrl) -> Result<Vec<IpAddr>, StoreError> {
    if url.host().is_empty() {
        return Ok(Vec::new());
    }
    if let Ok(address) = url.host().parse() {
        return Ok(vec![address]);
    }
    let error = |source| StoreError::Resolve { host: url.host().to_owned(), source };
    let lookup = tokio::net::lookup_host((url.host(), 0));
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, lookup)
        .await
        .map_err(|_elapsed| error(std::io::Error::from(std::io::ErrorKind::TimedOut)))?
        .map_err(error)?;
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    if found.is_empty() {
        return Err(error(std::io::Error::from(std::io::ErrorKind::NotFound)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::Modes;

    fn settings(configured: Vec<StoreEntry>) -> StoreSettings {
        StoreSettings {
            mount_root: PathBuf::from("/mnt"),
            configured,
            mount: MountOptions { options: "soft".to_owned(), timeout: Duration::from_secs(1) },
            deadline: Duration::from_secs(1),
            modes: Modes { directory: 0o777, file: 0o666 },
            min_free: 0,
            nfs_others: false,
        }
    }

    #[test]
    fn a_store_that_is_opened_again_and_again_keeps_its_threads() {
        let engines = Directories::new(settings(Vec::new()), Host::system());
        let url: StoreUrl = "nfs://h/p".parse().unwrap();
        let before = engines.shared.pool(&url).unwrap();
        engines.retain(&|key| key == "nfs://h/p");
        assert!(Arc::ptr_eq(&before, &engines.shared.pool(&url).unwrap()));
        engines.retain(&|_key| false);
        assert!(!Arc::ptr_eq(&before, &engines.shared.pool(&url).unwrap()));
    }

    #[test]
    fn another_configuration_concerns_only_the_stores_it_changes() {
        let entry = |url: &str, directory: &str| StoreEntry {
            url: url.parse().unwrap(),
            directory: Some(PathBuf::from(directory)),
            mount: MountMode::No,
            mount_options: None,
            nfs_version: None,
            source: None,
            nfs: None,
        };
        let (a, b) = ("nfs://h/a", "nfs://h/b");
        let engines =
            Directories::new(settings(vec![entry(a, "/a"), entry(b, "/b")]), Host::system());
        let changed = engines.reconfigure(settings(vec![entry(a, "/a"), entry(b, "/c")]));
        assert!(!changed(&a.parse().unwrap()) && changed(&b.parse().unwrap()));
        let changed = engines.reconfigure(settings(vec![entry(a, "/a")]));
        assert!(!changed(&a.parse().unwrap()) && changed(&b.parse().unwrap()), "taken out");
        let mut other = settings(vec![entry(a, "/a")]);
        other.deadline = Duration::from_secs(2);
        assert!(engines.reconfigure(other)(&a.parse().unwrap()), "what all share");
        assert_eq!(engines.configured().len(), 1);
    }
}
