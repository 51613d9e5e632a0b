//! Where the files of one dnsmasq lie.

use std::path::{Path, PathBuf};

/// Where the files of one dnsmasq lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn main(&self) -> PathBuf {
        self.directory.join("main.conf")
    }

    /// All reservations as of the last reload; not watched.
    pub fn base_hosts(&self) -> PathBuf {
        self.directory.join("base.hosts")
    }

    pub fn options(&self) -> PathBuf {
        self.directory.join("base.opts")
    }

    /// Watched: reservations added since the last reload.
    pub fn hosts_directory(&self) -> PathBuf {
        self.directory.join("hosts.d")
    }

    /// Watched: names.
    pub fn names_directory(&self) -> PathBuf {
        self.directory.join("names.d")
    }

    pub fn names(&self) -> PathBuf {
        self.names_directory().join("base")
    }

    /// The only directory dnsmasq writes to.
    pub fn leases_directory(&self) -> PathBuf {
        self.directory.join("leases")
    }

    pub fn leases(&self) -> PathBuf {
        self.leases_directory().join("dnsmasq.leases")
    }

    /// The last generation that dnsmasq survived, for a start with one that it does not.
    pub fn proven(&self) -> PathBuf {
        self.directory.join("proven.json")
    }
}
