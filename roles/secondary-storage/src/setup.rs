//! What the management server told this host at set-up.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bedrock::net::Network;

use crate::state_file::{self, StateError};

/// More storage hosts than any installation has.
const MAX_PEERS: usize = 4_096;

/// Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Networks that downloads may reach although they are private. Sent at each connection.
    internal_sites: Vec<Network>,
    /// Other storage hosts, which may copy from here. The server sends them when *they* connect, so
    /// they survive a restart.
    peers: BTreeSet<IpAddr>,
}

/// The list of other storage hosts cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    #[error("more than {MAX_PEERS} other storage hosts were named")]
    TooMany,
    #[error("cannot remember the other storage hosts")]
    State(#[from] StateError),
}

impl ServerSettings {
    /// Reads `peers.json` of the role's state directory. Blocks.
    pub fn load(state_directory: &Path) -> Result<Self, StateError> {
        let path = state_directory.join("peers.json");
        let known = Known { peers: state_file::load(&path)?, ..Known::default() };
        Ok(Self { shared: Arc::new(Shared { path, known: Mutex::new(known) }) })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the internal sites.
    pub fn set_internal_sites(&self, sites: Vec<Network>) {
        self.known().internal_sites = sites;
    }

    pub fn internal_sites(&self) -> Vec<Network> {
        self.known().internal_sites.clone()
    }

    /// Adds other storage hosts, or replaces those known. Blocks.
    pub fn set_peers(&self, named: Vec<IpAddr>, add: bool) -> Result<(), PeersError> {
        // Held while saving, so that an older list never replaces a newer one.
        let mut known = self.known();
        let mut peers = if add { known.peers.clone() } else { BTreeSet::new() };
        peers.extend(named);
        if peers.len() > MAX_PEERS {
            return Err(PeersError::TooMany);
        }
        if peers != known.peers {
            state_file::save(&self.shared.path, &peers)?;
            known.peers = peers;
        }
        Ok(())
    }

    /// The other storage hosts, by address.
    pub fn peers(&self) -> BTreeSet<IpAddr> {
        self.known().peers.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_added_or_replaced_and_survive() {
        let temp = tempfile::tempdir().unwrap();
        let load = || ServerSettings::load(temp.path()).unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        load().set_peers(vec![address("10.0.0.1"), address("fd00::1")], false).unwrap();
        load().set_peers(vec![address("10.0.0.2")], true).unwrap();
        assert_eq!(load().peers().len(), 3);
        load().set_peers(vec![address("10.0.0.3")], false).unwrap();
        assert_eq!(load().peers(), [address("10.0.0.3")].into());
        let many = (0..=MAX_PEERS as u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        assert!(matches!(load().set_peers(many, false), Err(PeersError::TooMany)));
        assert_eq!(load().peers().len(), 1);
    }
}
